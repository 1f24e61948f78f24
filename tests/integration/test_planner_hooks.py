"""Libraries that set planner hooks without calling those that were set before, as some do."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import NATIVE, Database, compile_library

from dev.servers import Postgres

pytestmark = pytest.mark.hosts(NATIVE, reason="Multicorn's tables are planned by the library only if it is loaded")

SOURCE = Path(__file__).parents[1] / "hooks" / "overwrite.c"
JOIN = "SELECT n, p.s FROM generate_series(1, 3) n LEFT JOIN ml.affine p ON p.a = n AND p.b = 1"
ROWS = [(1, 5.0), (2, 7.0), (3, 9.0)]


@pytest.fixture(scope="module")
def overwriting() -> Iterator[Path]:
    """A library that overwrites the hooks by which joins are planned."""
    with tempfile.TemporaryDirectory(prefix="model_fdw-hooks-") as directory:
        Path(directory).chmod(0o755)  # the server's user reads it
        built = Path(directory) / "overwrite.so"
        compile_library(SOURCE, built)
        yield built


def collect_notices(connection: psycopg.Connection[Any]) -> list[tuple[str | None, ...]]:
    """Return the list to which severity, message, detail and hint of each notice will be added."""
    notices: list[tuple[str | None, ...]] = []

    def collect(notice: psycopg.errors.Diagnostic) -> None:
        notices.append((notice.severity, notice.message_primary, notice.message_detail, notice.message_hint))

    connection.add_notice_handler(collect)
    return notices


def explain(connection: psycopg.Connection[Any], query: str) -> str:
    return "\n".join(row[0] for row in connection.execute(f"EXPLAIN (COSTS OFF) {query}".encode()).fetchall())


@pytest.mark.parametrize("order", ["model_fdw,{}", "{},model_fdw"])
def test_preloaded_in_any_order(database: Database, overwriting: Path, order: str) -> None:
    """Joins are batched, and nobody is warned; so they are after a crash, which starts shared memory anew."""
    libraries = order.format(overwriting)
    with Postgres(settings={"shared_preload_libraries": libraries}, name="hooks-postgres") as postgres:
        preloaded = Database(postgres, database.triton)
        preloaded.prepare()
        postgres.psql("-c", "CHECKPOINT")  # commits are not synchronous
        for _ in range(2):
            with preloaded.connect() as session:
                notices = collect_notices(session)
                assert "Custom Scan (Model Join)" in explain(session, JOIN)
                # Nobody reads the model's columns: removed, as its inputs are known to be unique.
                unread = explain(
                    session, "SELECT n FROM generate_series(1, 3) n LEFT JOIN ml.affine p ON p.a = n AND b = 1"
                )
                assert "affine" not in unread
                assert session.execute(JOIN.encode()).fetchall() == ROWS
                assert notices == []
                os.kill(session.info.backend_pid, signal.SIGKILL)
            _await_recovery(preloaded)


def _await_recovery(database: Database) -> None:
    """Return when a server accepts connections again."""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        with contextlib.suppress(psycopg.OperationalError), database.connect() as session:
            session.execute("SELECT 1")
            break
        time.sleep(0.1)


def test_overwritten_later(database: Database, overwriting: Path) -> None:
    """What is loaded after our library takes the hooks: the rows stay right, and one warning a session says why."""
    with database.connect() as session:
        session.execute("LOAD 'model_fdw'")
        notices = collect_notices(session)
        assert "Custom Scan (Model Join)" in explain(session, JOIN)
        assert notices == []
        session.execute(f"LOAD '{overwriting}'".encode())
        for _ in range(2):
            assert "Model Join" not in explain(session, JOIN)
            assert session.execute(JOIN.encode()).fetchall() == ROWS
        assert notices == [
            (
                "WARNING",
                "another library keeps model_fdw from planning joins",
                'It has set planner hook "set_join_pathlist_hook" and does not call the one that was set before.',
                'Add "model_fdw" to "shared_preload_libraries" and restart the server.',
            )
        ]
