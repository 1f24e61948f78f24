"""SQL gives the numbers that the model gives when it is run directly on the same rows, bit for bit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from conftest import Database, set_table_options
from direct import CASES, ECHO, EXACT, LARGEST, NUMPY, TEXTS, Case, Direct, Row, extremes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy import iinfo

Connection = psycopg.Connection[Any]

# Rows that are asked about one request each.
FEW = 12


class Table:
    """A case's rows in table "input", and the answer that each must get.

    Rows with one NULL follow the others; their answer is none.
    """

    def __init__(self, connection: Connection, case: Case, answers: list[Row]) -> None:
        self.connection, self.case = connection, case
        self.rows = case.rows()
        self.holes = [
            tuple(None if n == hole else value for n, value in enumerate(self.rows[0]))
            for hole in range(len(case.columns))
        ]
        self.answers = answers
        columns = ", ".join(f'"{name}" {type_}' for name, type_ in zip(case.columns, case.types))
        self.execute(f"CREATE TABLE input (id integer PRIMARY KEY, {columns})")
        with connection.cursor().copy("COPY input FROM STDIN") as copy:
            for number, row in enumerate([*self.rows, *self.holes]):
                copy.write_row((number, *row))
        self.execute("ANALYZE input")
        self.foreign_table = f"ml.{case.model or case.name}"
        if case.version:
            self.foreign_table = case.name
            self.execute(
                f"CREATE FOREIGN TABLE {case.name} (price double precision, discounted double precision) "
                f"SERVER triton OPTIONS (model '{case.model}', version '{case.version}')"
            )

    def expected(self, first: int = 0, last: int | None = None) -> Counter[Row]:
        """The rows of an inner join, number and answer, with numbers from first to last (exclusive)."""
        return Counter((n, *answer) for n, answer in list(enumerate(self.answers))[first:last])

    def execute(self, sql: str, *values: Any) -> psycopg.Cursor[Row]:
        return self.connection.execute(sql.encode(), values or None)

    def query(self, sql: str, *values: Any) -> Counter[Row]:
        return Counter(self.execute(sql, *values).fetchall())

    def scan(self, values: list[str]) -> str:
        return f"SELECT {self.case.shown} FROM {self.foreign_table} p WHERE {self.case.matches(values)}"

    def join(self, kind: str, where: str = "true") -> str:
        condition = self.case.matches([f'c."{column}"' for column in self.case.columns])
        return (
            f"SELECT c.id, {self.case.shown} FROM input c {kind} JOIN {self.foreign_table} p ON {condition} "
            f"WHERE {where}"
        )


@pytest.fixture(scope="module")
def client(database: Database) -> Iterator[Direct]:
    client = Direct(database.triton.grpc)
    yield client
    client.client.close()


@pytest.fixture(scope="module")
def answers(client: Direct) -> dict[str, list[Row]]:
    return {case.name: client.answers(case, case.rows()) for case in CASES}


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def table(request: pytest.FixtureRequest, connection: Connection, answers: dict[str, list[Row]]) -> Table:
    return Table(connection, request.param, answers[request.param.name])


def test_scan(table: Table) -> None:
    sql = table.scan([f"%s::{type_}" for type_ in table.case.types])
    for row, answer in list(zip(table.rows, table.answers))[:FEW]:
        assert table.execute(sql, *row).fetchall() == [answer]


def test_scan_by_null(table: Table) -> None:
    sql = table.scan([f"%s::{type_}" for type_ in table.case.types])
    for row in table.holes:
        assert table.execute(sql, *row).fetchall() == []


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_prepared_scan(table: Table, mode: str) -> None:
    case = table.case
    table.execute(f"SET plan_cache_mode = {mode}")
    sql = table.scan([f"${n}" for n in range(1, len(case.columns) + 1)])
    table.execute(f"PREPARE q ({', '.join(case.types)}) AS {sql}")
    execute = f"EXECUTE q ({', '.join(['%s'] * len(case.columns))})"
    client_side = psycopg.ClientCursor(table.connection)
    for row, answer in list(zip(table.rows, table.answers))[:FEW]:
        assert client_side.execute(execute.encode(), row).fetchall() == [answer]


def test_list(table: Table, client: Direct) -> None:
    """The first input takes each value of a list, which holds each of them twice; the others take one value."""
    case = table.case
    first, *others = table.rows[0]
    values = [row[0] for row in table.rows[:9]] + [first]
    types = case.types
    sql = table.scan([f"ANY (%s::{types[0]}[])", *(f"%s::{type_}" for type_ in types[1:])])
    expected = client.answers(case, [(value, *others) for value in dict.fromkeys(values)])
    assert table.query(sql, [*values, *reversed(values)], *others) == Counter(expected)


def test_inner_join(table: Table) -> None:
    assert table.query(table.join("INNER")) == table.expected()


def test_left_join(table: Table) -> None:
    nulls = [None] * len(table.case.outputs)
    unmatched = Counter((n, *nulls) for n in range(len(table.rows), len(table.rows) + len(table.holes)))
    assert table.query(table.join("LEFT")) == table.expected() + unmatched


@pytest.mark.parametrize("kind", ["INNER", "LEFT"])
def test_join_without_node(table: Table, kind: str) -> None:
    table.execute("SET model_fdw.enable_model_join = off")
    found = table.query(table.join(kind, f"c.id < {FEW} OR c.id >= {len(table.rows)}"))
    nulls = [None] * len(table.case.outputs)
    unmatched = Counter((n, *nulls) for n in range(len(table.rows), len(table.rows) + len(table.holes)))
    assert found == table.expected(0, FEW) + (unmatched if kind == "LEFT" else Counter())


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batch_size(table: Table, batch_size: int) -> None:
    with table.connection.transaction(force_rollback=True):
        set_table_options(table.connection, table.foreign_table, batch_size=batch_size)
        few = min(50, len(table.rows))
        assert table.query(table.join("LEFT", f"c.id < {few}")) == table.expected(0, few)


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_prepared_join(table: Table, mode: str) -> None:
    table.execute(f"SET plan_cache_mode = {mode}")
    table.execute(f"PREPARE q (integer, integer) AS {table.join('', 'c.id >= $1 AND c.id < $2')}")
    for first, last in [(0, 3), (2, 3), (5, 5), (0, len(table.rows))]:
        assert table.query(f"EXECUTE q ({first}, {last})") == table.expected(first, last)


@pytest.mark.parametrize("form", ["NATURAL", "USING"])
def test_join_by_name(table: Table, form: str) -> None:
    names = ", ".join(f'"{column}"' for column in table.case.columns)
    join = f"NATURAL JOIN {table.foreign_table} p"
    if form == "USING":
        join = f"JOIN {table.foreign_table} p USING ({names})"
    assert table.query(f"SELECT id, {table.case.shown} FROM input {join}") == table.expected()


# ---- every dtype there and back ----


def numbers(dtype: str) -> st.SearchStrategy[Any]:
    limits = iinfo(NUMPY[dtype])
    integers = st.integers(int(limits.min), int(limits.max))
    return integers.map(Decimal) if dtype == "UINT64" else integers


def floats(dtype: str) -> st.SearchStrategy[float]:
    # Any double that the dtype can hold, exactly or rounded.
    largest = LARGEST[dtype]
    return st.one_of(
        st.floats(-largest, largest), st.sampled_from([math.nan, math.inf, -math.inf, *extremes(dtype)[:5]])
    )


TEXT = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40), st.sampled_from(TEXTS[:7])
)

STRATEGIES = {
    name: st.booleans()
    if dtype == "BOOL"
    else TEXT
    if dtype == "BYTES"
    else floats(dtype)
    if dtype in LARGEST
    else numbers(dtype)
    for name, dtype in ECHO.items()
}

ECHO_CASE = next(case for case in CASES if case.name == "echo")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(*STRATEGIES.values()), min_size=1, max_size=20))
def test_any_value(connection: Connection, client: Direct, rows: list[Row]) -> None:
    case = ECHO_CASE
    lists = ", ".join(f"%s::{type_}[]" for type_ in case.types)
    names = ", ".join(case.columns)
    sql = (
        f"SELECT {case.shown} FROM unnest({lists}) WITH ORDINALITY c ({names}, n) "
        f"JOIN ml.echo p USING ({names}) ORDER BY n"
    )
    found = connection.execute(sql.encode(), [list(column) for column in zip(*rows)]).fetchall()
    assert found == client.answers(case, rows)


@pytest.mark.parametrize("dtype", EXACT)
def test_special_floats(connection: Connection, dtype: str) -> None:
    """NaN and infinities come back; -0.0, which SQL cannot tell from 0.0, is sent as 0.0; the row shows its own."""
    name = dtype.lower()
    zeros = {"BOOL": "(v > 9)", "BYTES": "''"}
    others = " AND ".join(f"p.in_{other} = {zeros.get(kind, '0')}" for other, kind in ECHO.items() if other != name)
    rows = connection.execute(
        f"SELECT v::text, p.in_{name}::text, p.out_{name}::text "
        "FROM unnest('{NaN,Infinity,-Infinity,-0,0,1.5}'::double precision[]) WITH ORDINALITY c (v, n) "
        f"JOIN ml.echo p ON p.in_{name} = v AND {others} ORDER BY n".encode()
    ).fetchall()
    assert rows == [
        ("NaN", "NaN", "NaN"),
        ("Infinity", "Infinity", "Infinity"),
        ("-Infinity", "-Infinity", "-Infinity"),
        ("-0", "-0", "0"),
        ("0", "0", "0"),
        ("1.5", "1.5", "1.5"),
    ]
