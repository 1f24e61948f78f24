"""A real server of the Open Inference Protocol that says little: KServe, over gRPC and over HTTP.

It has no repository index and no model configuration, writes null for what it does not know, and its custom models
declare no tensors unless they are made to. It is half a gigabyte and therefore only tested where "make peers" has
installed it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from peers import Peer, run_peer

from dev.servers import default_places

Session = psycopg.Connection[tuple[Any, ...]]

FILES = Path(__file__).parents[1] / "kserve"
VENV = default_places().kserve_venv

pytestmark = pytest.mark.skipif(not (VENV / "installed").exists(), reason='KServe is not installed: "make peers"')

ROWS = 10_000
BY_HAND = """
    CREATE FOREIGN TABLE mute (
        tenure double precision OPTIONS (input 'tenure', dtype 'FP32', shape '[-1,1]'),
        spend  double precision OPTIONS (input 'spend', dtype 'FP32', shape '[-1,1]'),
        score  real             OPTIONS (output 'score', dtype 'FP32', shape '[-1,1]')
    ) SERVER kserve
"""


@pytest.fixture(scope="module")
def kserve() -> Iterator[Peer]:
    def command(_: Path, ports: list[int]) -> list[str | Path]:
        return [VENV / "bin" / "python", "serve.py", f"--http_port={ports[0]}", f"--grpc_port={ports[1]}"]

    with run_peer("KServe", FILES, 2, command) as peer:
        yield peer


@pytest.fixture(params=["grpc", "http"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def session(protocol: str, kserve: Peer, connection: Session) -> Iterator[Session]:
    """A session with a server for KServe, by one protocol, in schema "scratch"."""
    connection.execute("SET client_min_messages = warning")
    connection.execute("DROP SERVER IF EXISTS kserve CASCADE")
    connection.execute(
        f"CREATE SERVER kserve FOREIGN DATA WRAPPER model_fdw OPTIONS (url '{kserve.url(protocol)}')".encode()
    )
    yield connection
    connection.rollback()
    connection.execute("SET client_min_messages = warning")
    connection.execute("DROP SERVER kserve CASCADE")


def features() -> tuple[list[float], list[float]]:
    return [number / 8 for number in range(ROWS)], [number % 100 / 4 for number in range(ROWS)]


def assert_right(session: Session, kserve: Peer, model: str) -> None:
    """Score the rows, and compare with the server asked directly."""
    tenure, spend = features()
    rows = session.execute(
        f"""
        SELECT p.score FROM generate_series(0, {ROWS - 1}) i
        JOIN {model} p ON p.tenure = i / 8::float8 AND p.spend = i % 100 / 4::float8 ORDER BY i
        """.encode()
    ).fetchall()
    tensors = [
        {"name": name, "datatype": "FP32", "shape": [ROWS, 1], "data": data}
        for name, data in (("tenure", tenure), ("spend", spend))
    ]
    assert [score for (score,) in rows] == kserve.ask(model, tensors)["score"]
    assert session.execute(f"SELECT * FROM model_fdw_check('{model}')".encode()).fetchall() == []


def test_a_model_that_declares_its_tensors(session: Session, kserve: Peer) -> None:
    session.execute("IMPORT FOREIGN SCHEMA models LIMIT TO (telling) FROM SERVER kserve INTO scratch")
    assert_right(session, kserve, "telling")


def test_a_model_that_declares_nothing(session: Session, kserve: Peer) -> None:
    session.execute(BY_HAND.encode())
    assert_right(session, kserve, "mute")


def test_import_of_all(session: Session, protocol: str) -> None:
    told: list[str | None] = []
    session.add_notice_handler(lambda notice: told.append(notice.message_primary))
    session.execute("SET client_min_messages = notice")
    everything = "IMPORT FOREIGN SCHEMA models FROM SERVER kserve INTO scratch"
    if protocol == "http":
        session.execute(everything)
        assert told == ['skipped model "mute": model "mute" declares no tensors']
        assert session.execute("SELECT score FROM telling WHERE tenure = 4 AND spend = 1").fetchall() == [(1,)]
        return
    with pytest.raises(psycopg.Error) as caught:
        session.execute(everything)
    assert caught.value.sqlstate == "0A000"
    assert str(caught.value.diag.message_primary).endswith("has no repository index")
    assert caught.value.diag.message_hint == "Name the models with LIMIT TO."


def test_a_model_that_cannot_be_imported(session: Session) -> None:
    with pytest.raises(psycopg.Error) as caught:
        session.execute("IMPORT FOREIGN SCHEMA models LIMIT TO (mute) FROM SERVER kserve INTO scratch")
    assert caught.value.sqlstate == "0A000", caught.value
    assert caught.value.diag.message_primary == 'model "mute" declares no tensors'


def test_explain_analyze_without_statistics(session: Session) -> None:
    session.execute(BY_HAND.encode())
    query = "SELECT score FROM generate_series(1, 9) i JOIN mute ON tenure = i AND spend = i"
    text = "\n".join(line for (line,) in session.execute(f"EXPLAIN (ANALYZE, VERBOSE) {query}".encode()).fetchall())
    assert "Model Join" in text
    assert "Compute Time" not in text
