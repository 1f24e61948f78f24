"""Rows that a model refuses, with a column for its message: the same under every plan and however they are sent."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from conftest import set_table_options
from fake_server import FAKE, Arrays, FakeModel, FakeServer

Connection = psycopg.Connection[Any]

pytestmark = pytest.mark.hosts("native", reason="the engine behind both is the same")

MESSAGE = "x must not be negative"
ROWS = 1000
QUERIES = {
    "join": "SELECT n.x, r.y, r.wrong FROM numbers n JOIN roots r ON r.x = n.x",
    "left join": "SELECT n.x, r.y, r.wrong FROM numbers n LEFT JOIN roots r ON r.x = n.x",
    "right join": "SELECT n.x, r.y, r.wrong FROM roots r RIGHT JOIN numbers n ON r.x = n.x",
    "filter on the message": "SELECT n.x, r.y, r.wrong FROM numbers n JOIN roots r USING (x) WHERE r.wrong IS NOT NULL",
    "filter on the answer": "SELECT n.x, r.y, r.wrong FROM numbers n JOIN roots r USING (x) WHERE r.y > 10",
    "message alone": "SELECT n.x, r.wrong FROM numbers n JOIN roots r USING (x)",
    "answer alone": "SELECT n.x, r.y FROM numbers n JOIN roots r USING (x)",
    "subquery": "SELECT n.x, (SELECT wrong FROM roots r WHERE r.x = n.x) FROM numbers n",
    "count": "SELECT count(*), count(wrong) FROM numbers n JOIN roots r USING (x)",
    "semi join": "SELECT x FROM numbers n WHERE EXISTS (SELECT FROM roots r WHERE r.x = n.x AND r.wrong IS NULL)",
    "list": "SELECT x, y, wrong FROM roots WHERE x IN (4, -1, 9, -2)",
    "constant": "SELECT x, y, wrong FROM roots WHERE x = -1",
}


def root(x: float | None) -> tuple[float | None, str | None]:
    if x is None:
        return None, None
    return (None, MESSAGE) if x < 0 else (math.sqrt(x), None)


def expected(query: str, xs: list[float | None]) -> list[tuple[Any, ...]]:
    """Work the answers of a query out without a model."""
    present = [x for x in xs if x is not None]
    rows = [(x, *root(x)) for x in (xs if query in ("left join", "right join") else present)]
    answers: dict[str, Any] = {
        "filter on the message": [row for row in rows if row[2]],
        "filter on the answer": [row for row in rows if row[1] is not None and row[1] > 10],
        "message alone": [(row[0], row[2]) for row in rows],
        "answer alone": [row[:2] for row in rows],
        "subquery": [(x, root(x)[1]) for x in xs],
        "count": [(len(rows), sum(1 for row in rows if row[2]))],
        "semi join": [row[:1] for row in rows if not row[2]],
        "list": [(x, *root(x)) for x in (4.0, -1.0, 9.0, -2.0)],
        "constant": [(-1.0, *root(-1.0))],
    }
    return list(answers.get(query, rows))


def in_order(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted(rows, key=lambda row: [(value is None, value if value is not None else 0) for value in row[:1]])


@pytest.fixture
def session(connection: Connection) -> Iterator[Connection]:
    connection.execute(
        "CREATE FOREIGN TABLE roots (x float8 OPTIONS (input 'x'), y float8 OPTIONS (output 'y'),"
        " wrong text OPTIONS (error 'true')) SERVER triton OPTIONS (model 'broken', retry_budget '100000')"
    )
    connection.execute(
        "CREATE TABLE numbers AS SELECT CASE WHEN n % 50 = 3 THEN NULL WHEN n % 97 = 5 THEN -n ELSE n END::float8 AS x"
        f" FROM generate_series(1, {ROWS}) n".encode()
    )
    connection.execute("ANALYZE numbers")
    yield connection
    connection.execute("RESET ALL")


@pytest.mark.parametrize(("node", "batch_size"), [("on", 1), ("on", 3), ("on", 4096), ("off", 4096)])
def test_bad_rows(session: Connection, node: str, batch_size: int) -> None:
    if batch_size == 1 or node == "off":
        session.execute("DELETE FROM numbers WHERE x IS NOT NULL AND abs(x) > 110")
    session.execute(f"SET model_fdw.enable_model_join = {node}".encode())
    set_table_options(session, "roots", batch_size=batch_size)
    xs = [row[0] for row in session.execute("SELECT x FROM numbers").fetchall()]
    for name, sql in QUERIES.items():
        found = session.execute(sql.encode()).fetchall()
        assert in_order(found) == in_order(expected(name, xs)), name


def test_parallel(session: Connection) -> None:
    session.execute("SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0")
    session.execute("SET min_parallel_table_scan_size = 0")
    xs = [row[0] for row in session.execute("SELECT x FROM numbers").fetchall()]
    found = session.execute(QUERIES["left join"].encode()).fetchall()
    assert in_order(found) == in_order(expected("left join", xs))


def test_a_chain_of_models(session: Connection) -> None:
    """A refused row's NULL output binds nothing in the next model."""
    sql = (
        "SELECT n.x, r.wrong, q.y FROM numbers n JOIN roots r ON r.x = n.x LEFT JOIN roots q ON q.x = r.y"
        " WHERE n.x BETWEEN -200 AND 16"
    )
    for x, wrong, y in session.execute(sql).fetchall():
        assert (wrong, y) == ((MESSAGE, None) if x < 0 else (None, pytest.approx(x**0.25)))


@contextlib.contextmanager
def fake(session: Connection, model: FakeModel) -> Iterator[FakeServer]:
    with FakeServer(models={"fake": model}) as server:
        session.execute(f"CREATE SERVER other FOREIGN DATA WRAPPER model_fdw OPTIONS (url '{server.url}')".encode())
        try:
            yield server
        finally:
            session.execute("DROP SERVER other CASCADE")


def test_a_model_without_batch_dimension(session: Connection) -> None:
    def compute(inputs: Arrays) -> Arrays:
        if inputs["x"][0] < 0:
            raise ValueError(MESSAGE)
        return {"y": inputs["x"] ** 0.5}

    with fake(session, FakeModel((("x", "FP64", (1,)),), (("y", "FP64", (1,)),), compute, 0)):
        session.execute("ALTER FOREIGN TABLE roots RENAME TO triton_roots")
        session.execute(
            "CREATE FOREIGN TABLE roots (x float8 OPTIONS (input 'x'), y float8 OPTIONS (output 'y'),"
            " wrong text OPTIONS (error 'true')) SERVER other OPTIONS (model 'fake')"
        )
        session.execute("DELETE FROM numbers WHERE abs(x) > 300")
        xs = [row[0] for row in session.execute("SELECT x FROM numbers").fetchall()]
        for name in ("join", "left join", "count"):
            assert in_order(session.execute(QUERIES[name].encode()).fetchall()) == in_order(expected(name, xs)), name


def test_the_budget_is_counted_on_the_server(session: Connection) -> None:
    def compute(inputs: Arrays) -> Arrays:
        raise ValueError("no row is good enough")

    with fake(session, FakeModel(FAKE.inputs, FAKE.outputs, compute)) as server:
        session.execute(
            "CREATE FOREIGN TABLE strict (x float8, y float8, wrong text OPTIONS (error 'true'))"
            " SERVER other OPTIONS (model 'fake', retry_budget '40')"
        )
        with pytest.raises(psycopg.Error) as caught:
            session.execute("SELECT * FROM numbers JOIN strict USING (x)")
        assert caught.value.diag.sqlstate == "HV000"
        assert caught.value.diag.message_detail == (
            "The scan has made 40 requests more than it has batches, and may make no more."
        )
        assert server.calls["ModelInfer"] <= 40 + 4


@pytest.mark.parametrize("type_", ["integer", "boolean"])
def test_the_column_takes_text(session: Connection, type_: str) -> None:
    sql = f"CREATE FOREIGN TABLE odd (x float8 OPTIONS (input 'x'), w {type_} OPTIONS (error 'true')) SERVER triton"
    with pytest.raises(psycopg.Error) as caught:
        session.execute(sql.encode())
        session.execute("SELECT w FROM odd WHERE x = 1")
    assert caught.value.diag.message_primary is not None
