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
MODELS = ("ml.affine", "ml.chain", "ml.banded_low", "ml.banded_high")

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
CREATE TABLE reference.banded AS SELECT * FROM reference.affine WHERE a < 4;
CREATE INDEX ON reference.banded (a, b);
CREATE TABLE ml.banded (a float8, b float8, s float8, d float8) PARTITION BY RANGE (a);
CREATE FOREIGN TABLE ml.banded_low PARTITION OF ml.banded FOR VALUES FROM (MINVALUE) TO (1)
    SERVER {server} OPTIONS (model 'affine');
CREATE FOREIGN TABLE ml.banded_high PARTITION OF ml.banded FOR VALUES FROM (1) TO (4)
    SERVER {server} OPTIONS (model 'affine');
CREATE TABLE local.c AS
    SELECT i AS id, (i % 7)::float8 AS x, (i % 5 - 1)::float8 AS y, CASE WHEN i % 6 > 0 THEN i % 4 END AS k,
           CASE WHEN i % 5 > 0 THEN (i % 9) / 2.0 END AS n, CASE WHEN i % 8 > 0 THEN (i % 3)::float4 END AS f
    FROM generate_series(1, 24) AS i
    UNION ALL SELECT 25, 1, 1, 1, 1, 1 UNION ALL SELECT 25, 1, 1, 1, 1, 1;
CREATE INDEX ON local.c (id);
CREATE TABLE local.e AS
    SELECT i AS id, (i % 4)::bigint AS w, CASE WHEN i > 1 THEN (i * 1.5)::numeric END AS v
    FROM generate_series(1, 6) AS i;
CREATE TABLE local.divided (LIKE local.c) PARTITION BY LIST (k);
CREATE TABLE local.divided_1 PARTITION OF local.divided FOR VALUES IN (0, 1);
CREATE TABLE local.divided_2 PARTITION OF local.divided DEFAULT;
INSERT INTO local.divided SELECT * FROM local.c;
CREATE VIEW local.barrier WITH (security_barrier) AS SELECT * FROM local.c WHERE id > 2;
CREATE TABLE local.sink (id int, value text);
CREATE FUNCTION local.drift(float8) RETURNS float8 VOLATILE LANGUAGE plpgsql AS 'BEGIN RETURN $1 + 1; END';
ANALYZE reference.affine, reference.chain, reference.banded, local.c, local.e, local.divided;
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
    statement: str = ""

    def value(self) -> str:
        """An expression of the outer rows, for an input."""
        place = self.random.random()
        if place < 0.15:
            return self.random.choice(["1", "2.5", "-1", "0"])
        if place < 0.2:
            self.shapes.add("volatile")
            return "local.drift(c.x)"
        if "prepared" in self.shapes and place < 0.5:
            return "$1"
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
    if query.random.random() < 0.5:
        query.shapes.add("chained types")
        query.source += f" {kind} affine {alias}x ON {alias}x.a = {alias}c.t % 20 AND {alias}x.b = {query.value()}"
        query.select.append(f"{alias}x.d")


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


def group(query: Query, alias: str) -> tuple[str, list[str]]:
    """A join of two or three models, and its columns."""
    chained = query.random.choice([f"{alias}.s", f"{alias}.d", f"coalesce({alias}.s, 1)", f"{alias}.a", "2.5"])
    source = f"affine {alias} JOIN chain {alias}c ON {alias}c.s = {chained}"
    if query.random.random() < 0.3:
        source += f" AND {alias}c.t > {query.random.randint(-3, 6)}"
    columns = [f"{alias}.s", f"{alias}.d", f"{alias}.b", f"{alias}c.t", f"coalesce({alias}c.t, {alias}.d, -7)"]
    if query.random.random() < 0.3:
        query.shapes.add("nested three")
        source += f" JOIN affine {alias}x ON {alias}x.a = {alias}c.t % 20 AND {alias}x.b = {alias}.b"
        columns.append(f"{alias}x.s")
    return source, columns


def add_nested(query: Query, alias: str) -> None:
    source, columns = group(query, alias)
    bound = f"{query.bind(alias)}{query.conditions(alias)}"
    if query.random.random() < 0.3:
        bound += query.random.choice([f" AND {alias}c.t > {query.value()}", f" AND {alias}c.t <> {alias}.d"])
    place = query.random.random()
    if place < 0.15:
        query.shapes.add("nested semi")
        query.where.append(f"EXISTS (SELECT FROM {source} WHERE {bound})")
        return
    if place < 0.3:
        query.shapes.add("nested anti")
        query.where.append(f"NOT EXISTS (SELECT FROM {source} WHERE {bound})")
        return
    if place < 0.5:
        query.shapes.add("nested derived")
        query.source += (
            f" LEFT JOIN (SELECT {alias}.*, {alias}c.t, coalesce({alias}c.t, 0) + {alias}.d AS both, 'x' AS mark "
            f"FROM {source}) {alias} ON {bound.replace(f'{alias}c.t', f'{alias}.t')}"
        )
        query.select += [f"{alias}.both", f"{alias}.mark", f"{alias}.s"]
        return
    query.shapes.add("nested join")
    query.source += f" LEFT JOIN ({source}) ON {bound}"
    query.select += query.random.sample(columns, 2)
    if query.random.random() < 0.3:
        query.where.append(query.random.choice([query.condition(alias), f"{alias}c.t IS NULL", f"{alias}.d < 2"]))


def add_view(query: Query, alias: str) -> None:
    query.shapes.add("derived")
    query.source += (
        f" LEFT JOIN (SELECT a, b, coalesce(s, 0) + 1 AS s, 'x' AS mark, d FROM affine) {alias} "
        f"ON {query.bind(alias)}{query.conditions(alias)}"
    )
    query.select += [f"{alias}.s", f"{alias}.mark"]


def add_union(query: Query, alias: str) -> None:
    source = "(SELECT a, b, s, d FROM affine UNION ALL SELECT s, s, s + 1, t::float8 FROM chain)"
    if query.random.random() < 0.4:
        source = "banded"
        query.shapes.add("partitions")
    else:
        query.shapes.add("union")
    value = query.value()
    other = value if source != "banded" and query.random.random() < 0.7 else query.value()
    bound = f"{alias}.a = {value} AND {alias}.b = {other}{query.conditions(alias)}"
    kind = query.random.choice(["JOIN", "LEFT JOIN", "EXISTS", "NOT EXISTS"])
    query.shapes.add(f"several {kind.lower()}")
    if "EXISTS" in kind:
        query.where.append(f"{kind} (SELECT FROM {source} {alias} WHERE {bound})")
        return
    query.source += f" {kind} {source} {alias} ON {bound}"
    query.select += query.random.sample([f"{alias}.s", f"{alias}.d", f"{alias}.a", f"coalesce({alias}.s, -99)"], 2)
    if query.random.random() < 0.3:
        query.where.append(query.condition(alias))


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
    add_nested,
    add_view,
    add_union,
    add_union,
)

# What the outer rows come from, and what else may be done with a query.
SOURCES_OF_C = {
    "partitioned": "divided c",
    "barrier": "barrier c",
    "subquery": "(SELECT * FROM c ORDER BY id LIMIT 20) c",
}


def write_query(source: random.Random) -> Query:
    """Write one query; ``source`` decides everything."""
    if source.random() < 0.08:
        return write_change(source)
    query = Query(source)
    query.select = ["c.id"]
    query.values = ["c.x", "c.y", "c.k", "c.n", "c.f", "c.x + 1", "c.y * 2", "(c.x - c.y)", "abs(c.k)"]
    if source.random() < 0.1:
        query.shapes.add("prepared")
    if source.random() < 0.1:
        add_right(query, "p")
    elif source.random() < 0.15:
        kind = source.choice(list(SOURCES_OF_C))
        query.shapes.add(kind)
        query.source = SOURCES_OF_C[kind]
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


# What is done with a query, how often in a hundred, and with which of its columns.
ENDINGS: dict[str, tuple[int, str]] = {
    "": (45, "{plain}"),
    "limit": (10, "{plain} ORDER BY {every} LIMIT {number}"),
    "group": (10, "SELECT o0 % 3, count(*), count(o{last}), max(o{last}) FROM ({plain}) t GROUP BY o0 % 3"),
    "cte": (5, "WITH t AS ({plain}) SELECT * FROM t WHERE o0 > 3"),
    "materialized": (5, "WITH t AS MATERIALIZED ({plain}) SELECT * FROM t WHERE o0 > 3"),
    "distinct": (5, "SELECT DISTINCT {every} FROM ({plain}) t"),
    "window": (5, "SELECT o0, count(*) OVER (PARTITION BY o0 % 5) FROM ({plain}) t"),
    "for update": (5, "{plain} FOR UPDATE OF c"),
    "insert": (5, "INSERT INTO sink SELECT o0, o{last}::text FROM ({plain}) t RETURNING *"),
    "cursor": (5, "DECLARE random CURSOR FOR {plain}"),
}
# Which endings PostgreSQL does not have for a query.
IMPOSSIBLE = {"prepared": {"cursor"}, "subquery": {"for update"}}


def finish(query: Query) -> str:
    """Put the query together, perhaps grouped, limited or nested."""
    if query.statement:
        return query.statement
    columns = ", ".join(f"{expression} AS o{n}" for n, expression in enumerate(query.select))
    rescan = query.random.random() < 0.05
    where = " AND ".join([*query.where, *(["c.id % 4 = r.w"] if rescan else [])])
    plain = f"SELECT {columns} FROM {query.source}{f' WHERE {where}' if where else ''}"
    if rescan:
        query.shapes.add("rescan")
        return f"SELECT r.id, (SELECT count(*) FROM ({plain}) t) FROM e r"
    impossible = set().union(*(IMPOSSIBLE.get(shape, set()) for shape in query.shapes))
    endings = [ending for ending in ENDINGS if ending not in impossible]
    (ending,) = query.random.choices(endings, [ENDINGS[name][0] for name in endings])
    query.shapes |= {ending} - {""}
    every = ", ".join(f"o{n}" for n in range(len(query.select)))
    last = len(query.select) - 1
    return ENDINGS[ending][1].format(plain=plain, every=every, last=last, number=query.random.randint(1, 20))


def write_change(source: random.Random) -> Query:
    """Write a query that changes rows; it has only conditions, and one statement to put them into."""
    query = Query(source, values=["c.x", "c.y", "c.k", "c.n", "c.x + 1"])
    model = source.choice(["affine p", "affine p JOIN chain pc ON pc.s = p.d"])
    bound = f"p.a = {query.value()} AND p.b = {query.value()}{query.conditions('p')}"
    kind = source.choice(["update", "delete", "merge"])
    query.shapes.add(kind)
    query.statement = {
        "update": f"UPDATE c SET n = p.s FROM {model} WHERE {bound} RETURNING c.id, c.n, p.d",
        "delete": f"DELETE FROM c USING {model} WHERE {bound} RETURNING c.id, p.s",
        "merge": f"MERGE INTO c USING affine p ON {bound} WHEN MATCHED AND p.s > 5 THEN DELETE "
        "WHEN MATCHED THEN UPDATE SET n = p.s",
    }[kind]
    return query


@pytest.fixture
def session(database: Database) -> Iterator[Connection]:
    """A session that reads models or their local tables, as its search path says."""
    with database.connect() as connection:
        connection.execute("DROP SCHEMA IF EXISTS reference, local CASCADE")
        connection.execute(SET_UP.format(server="triton").encode())
        yield connection
        connection.execute("RESET ALL")
        for table in MODELS:
            set_table_options(connection, table, batch_size=None)
        connection.execute("DROP TABLE ml.banded")
        connection.execute("DROP SCHEMA reference, local CASCADE")


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
            connection.execute(SET_UP.format(server="broken").encode())
            yield connection
        with database.connect() as administrator:
            administrator.execute("DROP DATABASE broken")


def prepare(session: Connection, query: Query, sql: str) -> str:
    """Do what a query needs before it is run; return the statement to run."""
    session.execute("BEGIN")
    if "prepared" not in query.shapes:
        return sql
    session.execute("SET LOCAL plan_cache_mode = force_generic_plan")
    session.execute(f"PREPARE random (float8) AS {sql}".encode())
    return "EXECUTE random (2)"


def finish_up(session: Connection) -> None:
    """Undo what a query did."""
    session.execute("ROLLBACK")
    session.execute("DEALLOCATE ALL")


def rows(session: Connection, schema: str, query: Query, sql: str) -> Counter[tuple[Any, ...]] | str:
    """Run a query on the models or on their local tables; return its rows, or its SQLSTATE."""
    session.execute(f"SET search_path = {schema}, local".encode())
    try:
        result = session.execute(prepare(session, query, sql).encode())
        if query.shapes & {"cursor", "merge"}:
            after = "FETCH ALL FROM random" if "cursor" in query.shapes else "SELECT * FROM c"
            result = session.execute(after.encode())
        return Counter(result.fetchall())
    except psycopg.Error as error:
        code = str(error.sqlstate)
    finally:
        finish_up(session)
    return rows(session, schema, query, sql) if code.startswith("08") and revive() else code


def plan_of(session: Connection, query: Query, sql: str) -> str:
    """The plan of a query on the models."""
    try:
        statement = prepare(session, query, sql)
        return "\n".join(row[0] for row in session.execute(f"EXPLAIN {statement}".encode()))
    finally:
        finish_up(session)


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
        expected = rows(session, "reference", query, sql)
        assert isinstance(expected, Counter), f"this is no query: {expected} {sql}"
        actual = rows(session, "ml", query, sql)
        plan = plan_of(session, query, sql)
        session.execute("SET model_fdw.enable_model_join = off")
        one_by_one = rows(session, "ml", query, sql)
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
        query = write_query(source)
        if "merge" in query.shapes and session.info.server_version < 150000:
            continue  # PostgreSQL 14 has no MERGE
        if not run.query(session, query, SETTINGS[number % len(SETTINGS)]):
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
