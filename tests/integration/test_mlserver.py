"""A real server of the Open Inference Protocol that is not Triton: MLServer, over gRPC and over HTTP.

It is half a gigabyte and therefore only tested where "make peers" has installed it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from peers import Peer, run_peer

from dev.servers import default_places

Session = psycopg.Connection[tuple[Any, ...]]

MODELS = Path(__file__).parents[1] / "mlserver"
VENV = default_places().mlserver_venv

pytestmark = pytest.mark.skipif(not (VENV / "installed").exists(), reason='MLServer is not installed: "make peers"')


@pytest.fixture(scope="module")
def mlserver() -> Iterator[Peer]:
    def command(files: Path, ports: list[int]) -> list[str | Path]:
        for model in ("plane", "digits"):
            subprocess.run([VENV / "bin" / "python", "train.py"], cwd=files / model, check=True)
        http_port, grpc_port, metrics_port = ports
        settings = {
            "parallel_workers": 0,
            "host": "127.0.0.1",
            "http_port": http_port,
            "grpc_port": grpc_port,
            "metrics_port": metrics_port,
        }
        (files / "settings.json").write_text(json.dumps(settings))
        return [VENV / "bin" / "mlserver", "start", "."]

    with run_peer("MLServer", MODELS, 3, command, PYTHONPATH="echo") as peer:
        yield peer


@pytest.fixture(params=["grpc", "http"])
def session(request: pytest.FixtureRequest, mlserver: Peer, connection: Session) -> Iterator[Session]:
    """A session with the models of MLServer, by one protocol, in schema "scratch"."""
    connection.execute("SET client_min_messages = warning")
    connection.execute("DROP SERVER IF EXISTS mlserver CASCADE")
    connection.execute(
        f"CREATE SERVER mlserver FOREIGN DATA WRAPPER model_fdw OPTIONS (url '{mlserver.url(request.param)}')".encode()
    )
    connection.execute("IMPORT FOREIGN SCHEMA models FROM SERVER mlserver INTO scratch")
    yield connection
    connection.rollback()
    connection.execute("SET client_min_messages = warning")
    connection.execute("DROP SERVER mlserver CASCADE")


def test_the_quickstart_which_declares_nothing(session: Session, mlserver: Peer) -> None:
    """IMPORT skips it with a notice; a table by hand works."""
    told: list[str | None] = []

    def note(notice: psycopg.errors.Diagnostic) -> None:
        told.append(notice.message_primary)

    session.add_notice_handler(note)
    session.execute("SET client_min_messages = notice")
    session.execute("IMPORT FOREIGN SCHEMA models FROM SERVER mlserver INTO scratch OPTIONS (prefix 'again_')")
    session.remove_notice_handler(note)
    assert told == ['skipped model "digits": model "digits" declares no tensors']
    session.execute(
        """
        CREATE FOREIGN TABLE digits (
            pixels real[] OPTIONS (input 'predict', dtype 'FP32', shape '[-1,64]'),
            digit  bigint OPTIONS (output 'predict', dtype 'INT64', shape '[-1,1]')
        ) SERVER mlserver
        """
    )
    pixels = np.random.default_rng(1).integers(0, 17, (10_000, 64)).astype("f4")
    session.execute("CREATE TEMP TABLE images (id int, pixels real[])")
    with session.cursor().copy("COPY images FROM STDIN") as copy:
        for number, row in enumerate(pixels.tolist()):
            copy.write_row((number, row))
    rows = session.execute("SELECT digit FROM images JOIN digits USING (pixels) ORDER BY id").fetchall()
    tensor = {"name": "predict", "datatype": "FP32", "shape": pixels.shape, "data": pixels.ravel().tolist()}
    assert [digit for (digit,) in rows] == mlserver.ask("digits", [tensor])["predict"]
    assert len({digit for (digit,) in rows}) > 1
    assert session.execute("SELECT * FROM model_fdw_check('digits')").fetchall() == []


def test_a_sklearn_model(session: Session) -> None:
    rows = session.execute(
        """
        SELECT i, p.predict FROM generate_series(1, 5000) i JOIN plane p ON p.x = ARRAY[i, 0.5 * i, -i]::float8[]
        ORDER BY i
        """
    ).fetchall()
    assert [(i, round(predicted, 6)) for i, predicted in rows] == [(i, 4.0 - i) for i in range(1, 5001)]


def test_batches_over_its_message_limit_of_4_mib(session: Session) -> None:
    session.execute("ALTER FOREIGN TABLE plane OPTIONS (ADD batch_size '400000')")
    rows = session.execute(
        """
        SELECT count(*), count(predict), round(sum(predict)::numeric, 3)
        FROM generate_series(1, 400000) i JOIN plane p ON p.x = ARRAY[i, 0, 0]::float8[]
        """
    ).fetchall()
    assert rows == [(400_000, 400_000, 400_000 * 400_001 // 2 + 4 * 400_000)]


def test_dtypes(session: Session) -> None:
    session.execute(
        """
        CREATE TABLE samples AS
        SELECT * FROM (
            VALUES (1, 9007199254740993, 'größe', 0.1::float8, true),
                   (2, -9223372036854775808, '', 1e38, false),
                   (3, 9223372036854775807, 'a"b\\c', -1.5, true)
        ) AS t (id, n, s, f, b)
        """
    )
    assert session.execute(
        """
        SELECT id, n_out = t.n, s_out, f_out, b_out FROM samples t JOIN echo e USING (n, s, f, b) ORDER BY id
        """
    ).fetchall() == [(1, True, "größe", 0.1, True), (2, True, "", 1e38, False), (3, True, 'a"b\\c', -1.5, True)]


def test_explain_analyze_without_statistics(session: Session) -> None:
    query = "SELECT predict FROM generate_series(1, 9) i JOIN plane ON x = ARRAY[i, i, i]::float8[]"
    lines = session.execute(f"EXPLAIN (ANALYZE, VERBOSE) {query}".encode()).fetchall()
    text = "\n".join(line for (line,) in lines)
    assert "Model Join" in text
    assert "Compute Time" not in text


def test_errors(session: Session) -> None:
    session.execute(
        """
        CREATE FOREIGN TABLE nope (x float8[] OPTIONS (input 'x'), y float8 OPTIONS (output 'predict')) SERVER mlserver
        """
    )
    with pytest.raises(psycopg.Error) as caught:
        session.execute("SELECT y FROM nope WHERE x = '{1,2,3}'")
    assert caught.value.sqlstate == "HV00R"
    with pytest.raises(psycopg.Error) as caught:
        session.execute("SELECT predict FROM plane WHERE x = '{NaN,2,3}'")
    assert caught.value.sqlstate in ("HV000", "22003")  # the model's error by gRPC; JSON has no NaN
    assert session.execute("SELECT round(predict) FROM plane WHERE x = '{1,2,3}'").fetchall() == [(18.0,)]
