"""A real server of the Open Inference Protocol that is not Triton: MLServer, over gRPC and over HTTP.

It is half a gigabyte and therefore only tested where "make peers" has installed it.
"""

from __future__ import annotations

import functools
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dev.processes import launch, private_directory, tie
from dev.servers import answers, await_ready, default_places, make_readable, server_environment, with_free_ports

Session = psycopg.Connection[tuple[Any, ...]]

MODELS = Path(__file__).parents[1] / "mlserver"
VENV = default_places().mlserver_venv
START_S = 120.0

pytestmark = pytest.mark.skipif(not (VENV / "installed").exists(), reason='MLServer is not installed: "make peers"')


@dataclass(frozen=True)
class MlServer:
    """Where the server listens."""

    http_port: int
    grpc_port: int


@pytest.fixture(scope="module")
def mlserver() -> Iterator[MlServer]:
    places = default_places()
    home = private_directory(places.account)
    models = home / "models"
    shutil.copytree(MODELS, models, ignore=shutil.ignore_patterns("__pycache__"))
    python = VENV / "bin" / "python"
    subprocess.run([python, "train.py"], cwd=models / "plane", check=True)
    log = places.log / "mlserver.log"
    started = []

    def start(ports: list[int]) -> None:
        http_port, grpc_port, metrics_port = ports
        settings = {
            "parallel_workers": 0,
            "host": "127.0.0.1",
            "http_port": http_port,
            "grpc_port": grpc_port,
            "metrics_port": metrics_port,
        }
        (models / "settings.json").write_text(json.dumps(settings))
        make_readable(models)
        running = launch(
            [VENV / "bin" / "mlserver", "start", "."],
            account=places.account,
            environment=server_environment(home, PYTHONPATH=str(models / "echo"), PYTHONDONTWRITEBYTECODE="1"),
            directory=models,
            log=log,
            stop_signal=signal.SIGTERM,
            leftovers=[str(home)],
        )
        leash = tie(running)
        started.append((running, leash, MlServer(http_port, grpc_port)))
        await_ready(running, functools.partial(answers, http_port), START_S, "MLServer", log)

    try:
        with_free_ports(3, log, start)
        yield started[-1][2]
    finally:
        for running, leash, _ in started:
            running.stop()
            leash.release()


@pytest.fixture(params=["grpc", "http"])
def session(request: pytest.FixtureRequest, mlserver: MlServer, connection: Session) -> Iterator[Session]:
    """A session with the models of MLServer, by one protocol, in schema "scratch"."""
    port = mlserver.grpc_port if request.param == "grpc" else mlserver.http_port
    connection.execute("SET client_min_messages = warning")
    connection.execute("DROP SERVER IF EXISTS mlserver CASCADE")
    connection.execute(
        f"CREATE SERVER mlserver FOREIGN DATA WRAPPER model_fdw OPTIONS (url '{request.param}://127.0.0.1:{port}')"
    )
    connection.execute("IMPORT FOREIGN SCHEMA models FROM SERVER mlserver INTO scratch")
    yield connection
    connection.rollback()
    connection.execute("SET client_min_messages = warning")
    connection.execute("DROP SERVER mlserver CASCADE")


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
