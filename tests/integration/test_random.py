"""Random queries: the same rows with the Model Join, without it, and with a local table in the model's place.

The models compute exactly on the values used here, so no tolerance is needed. The local tables hold what the models
answer for every combination of inputs that a query can ask for: a query means the same on both, and a search path
decides which it reads.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Database, revive, set_table_options

from dev.servers import default_places

Connection = psycopg.Connection[Any]

QUERIES = 2000
SEED = 20261123
NODE = "Model Join"

SOURCES = Path(__file__).parents[2]
MODELS = ("ml.affine", "ml.chain")

# Batch sizes take turns over the parts of a run.
BATCH_SIZES = (1, 3, 4096)
PARTS = 12
# Planner settings that are turned off in turn; the empty one leaves all on.
SETTINGS = (
    "",
    "enable_hashjoin",
    "enable_mergejoin",
    "enable_nestloop",
    "enable_material",
    "enable_memoize",
    "enable_sort",
    "enable_seqscan",
    "enable_indexscan",
    "enable_bitmapscan",
    "enable_hashagg",
    "enable_incremental_sort",
)

SET_UP = """
CREATE SCHEMA reference;
CREATE SCHEMA local;
CREATE TABLE reference.affine AS
    SELECT a / 2.0::float8 AS a, b / 2.0::float8 AS b, a + 1.5::float8 * b AS s, (a - b) / 2.0::float8 AS d
    FROM generate_series(-40, 60) AS a, generate_series(-40, 60) AS b;
CREATE INDEX ON reference.affine (a, b);
CREATE TABLE reference.chain AS
    SELECT s / 4.0::float8 AS s, trunc(s / 4.0)::bigint AS t FROM generate_series(-1000, 1200) AS s;
CREATE INDEX ON reference.chain (s);
CREATE TABLE local.c AS
    SELECT i AS id, (i % 7)::float8 AS x, (i % 5 - 1)::float8 AS y, CASE WHEN i % 6 > 0 THEN i % 4 END AS k,
           CASE WHEN i % 5 > 0 THEN (i % 9) / 2.0 END AS n, CASE WHEN i % 8 > 0 THEN (i % 3)::float4 END AS f
    FROM generate_series(1, 24) AS i
    UNION ALL SELECT 25, 1, 1, 1, 1, 1 UNION ALL SELECT 25, 1, 1, 1, 1, 1;
CREATE INDEX ON local.c (id);
CREATE TABLE local.e AS
    SELECT i AS id, (i % 4)::bigint AS w, CASE WHEN i > 1 THEN (i * 1.5)::numeric END AS v
    FROM generate_series(1, 6) AS i;
ANALYZE reference.affine, reference.chain, local.c, local.e;
"""


@dataclass
class Query:
    """A query that is being written."""

    random: random.Random
    shapes: set[str] = field(default_factory=set)
    select: list[str] = field(default_factory=list)
    source: str = "c"
    where: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)

    def value(self) -> str:
        """An expression of the outer rows, for an input."""
        if self.random.random() < 0.15:
            return self.random.choice(["1", "2.5", "-1", "0"])
        return self.random.choice(self.values)

    def bind(self, alias: str) -> str:
        """Conditions that bind the inputs of "affine"."""
        a, b = self.value(), self.value()
        equal = [f"{alias}.a = {a}", f"{b} = {alias}.b"]
        if self.random.random() < 0.1:
            equal[0] = f"{alias}.a IN ({self.random.randint(0, 3)}, {self.random.randint(0, 3)}, 1)"
            self.shapes.add("list")
        return " AND ".join(equal)

    def condition(self, alias: str) -> str:
        """A condition on inputs, outputs or both."""
        low = self.random.randint(-3, 12)
        return self.random.choice(
            [
                f"{alias}.s > {low}",
                f"{alias}.d <= {low}",
                f"{alias}.a < {low}",
                f"{alias}.s <> {alias}.d",
                f"{alias}.s > c.id",
                f"{alias}.a + c.x > {low}",
                f"{alias}.s IS NOT NULL",
                f"c.id > {low}",
            ]
        )

    def conditions(self, alias: str, likely: float = 0.4) -> str:
        return f" AND {self.condition(alias)}" if self.random.random() < likely else ""


def add_join(query: Query, alias: str) -> None:
    kind = query.random.choice(["JOIN", "LEFT JOIN"])
    query.shapes.add("inner" if kind == "JOIN" else "left")
    query.source += f" {kind} affine {alias} ON {query.bind(alias)}{query.conditions(alias)}"
    query.select += query.random.sample([f"{alias}.s", f"{alias}.d", f"{alias}.a", f"coalesce({alias}.s, -99)"], 2)
    if query.random.random() < 0.3:
        query.where.append(query.condition(alias))
    if query.random.random() < 0.3:
        add_chain(query, alias)


def add_chain(query: Query, alias: str) -> None:
    query.shapes.add("chained")
    kind = query.random.choice(["JOIN", "LEFT JOIN"])
    query.source += f" {kind} chain {alias}c ON {alias}c.s = {alias}.{query.random.choice(['s', 'd'])}"
    query.select.append(f"{alias}c.t")


def add_right(query: Query, alias: str) -> None:
    query.shapes.add("right")
    query.source = f"affine {alias} RIGHT JOIN c ON {query.bind(alias)}{query.conditions(alias)}"
    query.values = [value for value in query.values if not value.startswith("e.")]
    query.select += [f"{alias}.s", f"{alias}.b"]


def add_exists(query: Query, alias: str) -> None:
    negation = query.random.choice(["", "NOT "])
    query.shapes.add("anti" if negation else "semi")
    bound = query.bind(alias)
    query.where.append(f"{negation}EXISTS (SELECT 1 FROM affine {alias} WHERE {bound}{query.conditions(alias, 0.8)})")


def add_in(query: Query, alias: str) -> None:
    if query.random.random() < 0.5:
        query.shapes.add("in")
        # Uncorrelated: before version 17, PostgreSQL makes a join of such an IN only.
        inner = f"SELECT {alias}.a FROM affine {alias} WHERE {alias}.b = 1 AND {alias}.s > {query.random.randint(0, 9)}"
    else:
        query.shapes.add("correlated in")
        inner = f"SELECT {alias}.d FROM affine {alias} WHERE {query.bind(alias)}{query.conditions(alias, 0.2)}"
    # A constant: PostgreSQL makes no join of it, and nothing binds the input.
    query.where.append(f"{query.random.choice(query.values)} IN ({inner})")


def add_pairs(query: Query, alias: str) -> None:
    query.shapes.add("unique outer")
    query.source += f" CROSS JOIN affine {alias}"
    query.where.append(
        f"({alias}.a, {alias}.b) IN (SELECT q.x, q.y FROM c q WHERE q.id < {query.random.randint(1, 9)})"
    )
    query.where.append(f"c.id < {query.random.randint(2, 6)}")
    query.select.append(f"{alias}.s")


def add_scalar(query: Query, alias: str) -> None:
    query.shapes.add("scalar")
    answer = query.random.choice([f"{alias}.s", f"{alias}.s + c.id", f"{alias}.d"])
    subquery = f"(SELECT {answer} FROM affine {alias} WHERE {query.bind(alias)}{query.conditions(alias)})"
    if "list" in query.shapes:
        subquery = subquery.replace(f"SELECT {answer}", f"SELECT max({answer})")
    place = query.random.random()
    if place < 0.5:
        query.select.append(query.random.choice([subquery, f"{subquery} * 2"]))
    elif place < 0.7:
        query.shapes.add("conditional")
        query.select.append(f"CASE WHEN c.id % 2 = 0 THEN {subquery} END")
    else:
        query.where.append(f"{subquery} > {query.random.randint(-2, 10)}")


def add_lateral(query: Query, alias: str) -> None:
    query.shapes.add("lateral")
    offset = query.random.choice(["", " OFFSET 0"])
    query.source += (
        f" CROSS JOIN LATERAL (SELECT {alias}.s, {alias}.d + c.id AS d FROM affine {alias} "
        f"WHERE {query.bind(alias)}{query.conditions(alias)}{offset}) l{alias}"
    )
    query.select += [f"l{alias}.s", f"l{alias}.d"]


def add_nested(query: Query, alias: str) -> None:
    query.shapes.add("nested join")
    query.source += (
        f" LEFT JOIN (affine {alias} JOIN chain {alias}c ON {alias}c.s = {alias}.s) ON {query.bind(alias)}"
        f"{query.conditions(alias)}"
    )
    query.select += [f"{alias}.d", f"{alias}c.t"]


def add_view(query: Query, alias: str) -> None:
    query.shapes.add("derived")
    query.source += (
        f" LEFT JOIN (SELECT a, b, coalesce(s, 0) + 1 AS s, 'x' AS mark, d FROM affine) {alias} "
        f"ON {query.bind(alias)}{query.conditions(alias)}"
    )
    query.select += [f"{alias}.s", f"{alias}.mark"]


def add_union(query: Query, alias: str) -> None:
    query.shapes.add("union")
    query.source += (
        f" JOIN (SELECT a, b, s, d FROM affine UNION ALL SELECT s, s, s + 1, t::float8 FROM chain) {alias} "
        f"ON {alias}.a = {query.value()} AND {alias}.b = {query.value()}{query.conditions(alias)}"
    )
    query.select += [f"{alias}.s", f"{alias}.d"]


ADD: tuple[Callable[[Query, str], None], ...] = (
    add_join,
    add_join,
    add_join,
    add_exists,
    add_exists,
    add_in,
    add_pairs,
    add_scalar,
    add_scalar,
    add_lateral,
    add_nested,
    add_view,
    add_union,
)


def write_query(source: random.Random) -> Query:
    """Write one query; ``source`` decides everything."""
    query = Query(source)
    query.select = ["c.id"]
    query.values = ["c.x", "c.y", "c.k", "c.n", "c.f", "c.x + 1", "c.y * 2", "(c.x - c.y)", "abs(c.k)"]
    if source.random() < 0.1:
        add_right(query, "p")
    elif source.random() < 0.3:
        query.shapes.add("two tables")
        query.source = source.choice(["c JOIN e ON e.w = c.k", "c LEFT JOIN e ON e.id = c.id", "c CROSS JOIN e"])
        query.values += ["e.w", "e.v", "e.w + c.x"]
        query.select.append("e.id")
        query.where.append("c.id % 4 = 1")
    for alias in ("p", "q")[len(query.shapes & {"right"}) : source.choice([1, 1, 2])]:
        source.choice(ADD)(query, alias)
    if source.random() < 0.3:
        query.where.append(f"c.id {source.choice(['<', '>'])} {source.randint(1, 25)}")
    return query


def finish(query: Query) -> str:
    """Put the query together, perhaps grouped, limited or nested."""
    columns = ", ".join(f"{expression} AS o{n}" for n, expression in enumerate(query.select))
    where = f" WHERE {' AND '.join(query.where)}" if query.where else ""
    plain = f"SELECT {columns} FROM {query.source}{where}"
    every = ", ".join(f"o{n}" for n in range(len(query.select)))
    ending = query.random.random()
    if ending < 0.6:
        return plain
    if ending < 0.7:
        query.shapes.add("limit")
        return f"{plain} ORDER BY {every} LIMIT {query.random.randint(1, 20)}"
    if ending < 0.8:
        query.shapes.add("group")
        last = len(query.select) - 1
        return f"SELECT o0 % 3, count(*), count(o{last}), max(o{last}) FROM ({plain}) t GROUP BY o0 % 3"
    if ending < 0.9:
        query.shapes.add("cte")
        return f"WITH t AS {query.random.choice(['', 'MATERIALIZED '])}({plain}) SELECT * FROM t WHERE o0 > 3"
    query.shapes.add("distinct")
    return f"SELECT DISTINCT {every} FROM ({plain}) t"


@pytest.fixture
def session(database: Database) -> Iterator[Connection]:
    """A session that reads models or their local tables, as its search path says."""
    with database.connect() as connection:
        connection.execute("DROP SCHEMA IF EXISTS reference, local CASCADE")
        connection.execute(SET_UP)
        yield connection
        connection.execute("RESET ALL")
        connection.execute("DROP SCHEMA reference, local CASCADE")
        for table in MODELS:
            set_table_options(connection, table, batch_size=None)


@pytest.fixture
def broken_session(database: Database) -> Iterator[Connection]:
    """The same in a database whose library was built with a defect: it exchanges the answers of neighbours."""
    places = default_places()
    revive()
    with tempfile.TemporaryDirectory(prefix="model_fdw-broken-") as directory:
        Path(directory).chmod(0o755)  # the server's user reads it
        native = Path(directory) / "fdw" / "native"
        shutil.copytree(SOURCES / "fdw" / "native", native, ignore=shutil.ignore_patterns("*.o", "*.so"))
        shutil.copytree(SOURCES / "sql", Path(directory) / "sql")
        command = ["make", "-C", str(native), f"PG_CONFIG={places.pg_config}", f"PYTHON={places.venv_python}"]
        subprocess.run([*command, "COPT=-DMODEL_FDW_BREAK_MAPPING"], check=True, capture_output=True)
        with database.connect() as administrator:
            administrator.execute("DROP DATABASE IF EXISTS broken")
            administrator.execute("CREATE DATABASE broken")
        conninfo = database.postgres.conninfo("broken")
        with psycopg.connect(conninfo, autocommit=True, prepare_threshold=None) as connection:
            library = native / "model_fdw.so"
            connection.execute(
                f"CREATE FUNCTION handler() RETURNS fdw_handler LANGUAGE c AS '{library}', 'model_fdw_handler'".encode()
            )
            connection.execute("CREATE FOREIGN DATA WRAPPER broken HANDLER handler")
            connection.execute(
                f"CREATE SERVER broken FOREIGN DATA WRAPPER broken OPTIONS (url '{database.triton.url}')".encode()
            )
            connection.execute("CREATE SCHEMA ml")
            connection.execute("IMPORT FOREIGN SCHEMA models LIMIT TO (affine, chain) FROM SERVER broken INTO ml")
            connection.execute(SET_UP)
            yield connection
        with database.connect() as administrator:
            administrator.execute("DROP DATABASE broken")


def rows(session: Connection, schema: str, sql: str) -> Counter[tuple[Any, ...]] | str:
    """Run a query on the models or on their local tables; return its rows, or its SQLSTATE."""
    session.execute(f"SET search_path = {schema}, local".encode())
    try:
        return Counter(session.execute(sql.encode()).fetchall())
    except psycopg.Error as error:
        if str(error.sqlstate).startswith("08") and revive():
            return rows(session, schema, sql)
        return str(error.sqlstate)


@dataclass
class Run:
    """What a run of random queries found."""

    shapes: Counter[str] = field(default_factory=Counter)
    batched: Counter[str] = field(default_factory=Counter)
    difference: str = ""

    def query(self, session: Connection, query: Query, setting: str) -> bool:
        """Compare one query's rows; describe the first difference."""
        sql = finish(query)
        if setting:
            session.execute(f"SET {setting} = off".encode())
        expected = rows(session, "reference", sql)
        assert isinstance(expected, Counter), f"this is no query: {sql}"
        actual = rows(session, "ml", sql)
        plan = "\n".join(row[0] for row in session.execute(f"EXPLAIN {sql}".encode()))
        session.execute("SET model_fdw.enable_model_join = off")
        one_by_one = rows(session, "ml", sql)
        session.execute("RESET ALL")
        self.shapes.update(query.shapes)
        if NODE in plan:
            self.batched.update([*query.shapes, "all"])
        if actual != expected:
            self.difference = f"with {setting or 'nothing'} off: {sql}\n{plan}"
        elif one_by_one != expected:
            self.difference = f"with {setting or 'nothing'} and the Model Join off: {sql}"
        return not self.difference


def run_queries(session: Connection, count: int) -> Run:
    """Run random queries, up to the first whose rows differ."""
    run = Run()
    source = random.Random(SEED)
    for number in range(count):
        part = number * PARTS // count
        if number == 0 or part != (number - 1) * PARTS // count:
            for table in MODELS:
                set_table_options(session, table, batch_size=BATCH_SIZES[part % len(BATCH_SIZES)])
        if not run.query(session, write_query(source), SETTINGS[number % len(SETTINGS)]):
            run.difference = f"query {number}, {run.difference}"
            break
    return run


def test_random_queries(session: Connection) -> None:
    began = time.monotonic()
    run = run_queries(session, QUERIES)
    print(f"\n{QUERIES} random queries in {time.monotonic() - began:.0f} s, seed {SEED}; with the Model Join:")
    for shape, count in sorted(run.shapes.items()):
        print(f"  {shape:<14} {run.batched[shape]:5} of {count}")
    print(f"  {'all':<14} {run.batched['all']:5} of {QUERIES}")
    assert not run.difference
    assert run.batched["all"] >= 0.6 * QUERIES
    rare = {shape: run.batched[shape] for shape in run.shapes if run.batched[shape] < 20}
    assert not rare, "too few plans with the node"


def test_a_broken_mapping_is_caught(broken_session: Connection) -> None:
    run = run_queries(broken_session, 100)
    print(f"\nthe defect was found: {run.difference.splitlines()[0] if run.difference else 'no'}")
    assert "Model Join" in run.difference
