"""Three real Tritons behind one foreign server; one is killed and started again while rows are joined.

`make test ARGS="tests/integration/test_replicas.py --replica-rows 10000000"` joins ten million rows.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Database, make_scratch
from tritonclient.grpc import InferenceServerClient

from dev.servers import Triton, default_places

Connection = psycopg.Connection[Any]

pytestmark = pytest.mark.hosts("native", reason="the engine behind both is the same")

REPLICAS = 3


def start(stack: ExitStack, models: Path, number: int) -> Triton:
    return stack.enter_context(Triton([models], name=f"replica-{number}-triton"))


@pytest.fixture(scope="module")
def replicas() -> Iterator[list[Triton]]:
    """Tritons with model sum10 and nothing else."""
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="replicas-") as name:
        shutil.copytree(default_places().models / "sum10", Path(name) / "sum10")
        with ThreadPoolExecutor(REPLICAS) as pool:
            yield list(pool.map(lambda number: start(stack, Path(name), number), range(REPLICAS)))


@pytest.fixture
def session(database: Database, replicas: list[Triton]) -> Iterator[Connection]:
    with database.connect() as connection:
        make_scratch(connection)
        urls = ",".join(triton.url for triton in replicas)
        connection.execute(f"CREATE SERVER replicas FOREIGN DATA WRAPPER model_fdw OPTIONS (url '{urls}')".encode())
        connection.execute("IMPORT FOREIGN SCHEMA models FROM SERVER replicas INTO scratch")
        try:
            yield connection
        finally:
            connection.execute("DROP SERVER replicas CASCADE")


def executed(triton: Triton) -> int:
    """Count the requests that a Triton has computed since it started."""
    with InferenceServerClient(triton.grpc) as client:
        return int(client.get_inference_statistics("sum10").model_stats[0].execution_count)


def joined(rows: int) -> str:
    """Write a join that tells each wrong answer from a right one; small integers add up exactly."""
    columns = ", ".join(f"(n % {90 + number} + {number})::float8 AS f{number}" for number in range(1, 11))
    total = " + ".join(f"f{number}" for number in range(1, 11))
    return (
        f"SELECT count(*), count(total), count(*) FILTER (WHERE total <> {total}), count(DISTINCT n % 1000)"
        f" FROM (SELECT n, {columns} FROM generate_series(1, {rows}) n OFFSET 0) r NATURAL JOIN sum10"
    )


class Accident(threading.Thread):
    """Kills a Triton as soon as it has work, and starts it again."""

    def __init__(self, victim: Triton, before: int) -> None:
        super().__init__()
        self.victim, self.before = victim, before
        self.killed_s = self.back_s = 0.0

    def run(self) -> None:
        while executed(self.victim) < self.before + 5:
            time.sleep(0.01)
        self.victim.kill()
        self.killed_s = time.monotonic()
        self.victim.start()
        self.back_s = time.monotonic()


def test_one_is_killed_and_started_again(
    session: Connection, replicas: list[Triton], pytestconfig: pytest.Config
) -> None:
    """No row is lost or wrong, and the replica that comes back gets work again."""
    rows = pytestconfig.getoption("--replica-rows")
    session.execute(joined(10_000).encode())
    plan = [row[0].strip() for row in session.execute(f"EXPLAIN {joined(10)}".encode()).fetchall()]
    assert f"Endpoint: {', '.join(triton.grpc for triton in replicas)}" in plan
    accident = Accident(replicas[0], executed(replicas[0]))
    accident.start()
    began_s = time.monotonic()
    statements = 0
    while not accident.back_s or not executed(replicas[0]):
        assert time.monotonic() < began_s + 120
        assert session.execute(joined(rows).encode()).fetchall() == [(rows, rows, 0, 1000)]
        statements += 1
        if statements == 1:
            assert accident.killed_s, "the first statement was over before the accident"
    accident.join()
    requests = [executed(triton) for triton in replicas]
    print(
        f"\n{statements} joins of {rows:,} rows over {REPLICAS} replicas in {time.monotonic() - began_s:.1f} s; one "
        f"was killed after {accident.killed_s - began_s:.1f} s and back after {accident.back_s - began_s:.1f} s; "
        f"requests since each started: {requests}"
    )


def test_the_last_one_bears_all(session: Connection, replicas: list[Triton]) -> None:
    """All but one may die within one statement."""
    rows = 300_000
    accidents = [Accident(triton, executed(triton)) for triton in replicas[1:]]
    for accident in accidents:
        accident.start()
    assert session.execute(joined(rows).encode()).fetchall() == [(rows, rows, 0, 1000)]
    for accident in accidents:
        accident.join()
    assert all(accident.killed_s for accident in accidents)


def test_a_model_that_only_some_have(session: Connection, replicas: list[Triton]) -> None:
    """A replica without the model is left alone; the others answer."""
    replicas[1].unload("sum10")
    try:
        assert session.execute(joined(50_000).encode()).fetchall() == [(50_000, 50_000, 0, 1000)]
    finally:
        replicas[1].load("sum10")
