"""What "make test-valgrind" relies on, and what it runs beside other tests.

Valgrind finds errors in the use of memory, and tells those of our library from others: that it finds none shows
something only if it could find one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import compile_library

from dev import valgrind
from dev.servers import Postgres, default_places

SOURCE = Path(__file__).parents[1] / "memcheck" / "defects.c"
DEFECTS = {"overflow", "use_after_free", "uninitialised"}


@pytest.fixture
def library() -> Iterator[Path]:
    """A library with defects, under our library's name."""
    pg_config = default_places().pg_config
    if problem := valgrind.missing(pg_config):
        pytest.skip(f"{problem}: make test-valgrind runs this, with a PostgreSQL that it builds")
    with tempfile.TemporaryDirectory(prefix="model_fdw-memcheck-") as directory:
        Path(directory).chmod(0o755)  # the server's user reads it
        built = Path(directory) / valgrind.LIBRARY
        compile_library(SOURCE, built)
        yield built


def test_each_defect_is_found(library: Path) -> None:
    reports = valgrind.new_reports(default_places(), "memcheck")
    with (
        Postgres(under=valgrind.command(reports), name="memcheck-postgres") as postgres,
        psycopg.connect(postgres.conninfo(), autocommit=True) as connection,
    ):
        for name in (*DEFECTS, "correct"):
            connection.execute(f"CREATE FUNCTION {name}() RETURNS bool LANGUAGE c AS '{library}'".encode())
            connection.execute(f"SELECT {name}()".encode())
    ours = [error for error in valgrind.read_errors(reports) if error.is_ours]
    assert {error.frames[0][1].partition(" ")[0] for error in ours} == DEFECTS


def test_early_ends(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    """Scans that end early, in each way: what they hold is freed once, and not used again."""
    join = "SELECT p.s FROM generate_series(1, 50) n JOIN ml.affine p ON p.a = n AND p.b = 1"
    failing = "SELECT p.y FROM generate_series(1, 50) n JOIN ml.broken p ON p.x = 25 - n"
    with connection.transaction():
        connection.execute(f"DECLARE c SCROLL CURSOR FOR {join}".encode())
        assert connection.execute("FETCH ABSOLUTE 20 FROM c").fetchone() == (43,)
        assert connection.execute("FETCH BACKWARD 3 FROM c").fetchall() == [(41,), (39,), (37,)]
        with pytest.raises(psycopg.Error, match="must not be negative"), connection.transaction():
            connection.execute(failing.encode()).fetchall()
        assert connection.execute("FETCH FIRST FROM c").fetchone() == (5,)
        connection.execute("CLOSE c")
    assert connection.execute(f"{join} LIMIT 1".encode()).fetchone() == (5,)
    connection.execute(
        "CREATE FOREIGN TABLE slow (x float8 OPTIONS (input 'x'), y float8 OPTIONS (output 'y')) SERVER triton"
        " OPTIONS (model 'slow', batch_size '1', max_in_flight '1')"
    )
    connection.execute("SET statement_timeout = '2s'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        connection.execute("SELECT p.y FROM generate_series(1, 50) n JOIN slow p ON p.x = n").fetchall()
    connection.execute("RESET statement_timeout")
    assert len(connection.execute(join.encode()).fetchall()) == 50
