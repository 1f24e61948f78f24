"""A query over models gives the rows that it gives over local tables with the same contents, whatever the plan."""

from __future__ import annotations

import contextlib
import random
import re
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from conftest import Database, revive, set_locally
from psycopg import errors
from shapes import BATCH_SIZES, GROUPS, REFUSED, Shape, data, local_models, models

Connection = psycopg.Connection[Any]
Variants = dict[str, tuple[str, dict[str, str]]]

SCHEMAS = [f"model_{batch_size}" for batch_size in BATCH_SIZES]

PARALLEL = {
    "max_parallel_workers_per_gather": "2",
    "parallel_setup_cost": "0",
    "parallel_tuple_cost": "0",
    "min_parallel_table_scan_size": "0",
    "min_parallel_index_scan_size": "0",
}
# With these a Model Join is worth Python in the workers, if an aggregate above it leaves few rows to gather.
PARALLEL_NODE = {**PARALLEL, "parallel_tuple_cost": "300000", "cpu_tuple_cost": "100000"}
NODE_OFF = {"model_fdw.enable_model_join": "off"}
METHODS = (
    "hashjoin",
    "mergejoin",
    "nestloop",
    "memoize",
    "material",
    "sort",
    "indexscan",
    "seqscan",
    # the others are forbidden at random
    "incremental_sort",
    "indexonlyscan",
    "bitmapscan",
    "hashagg",
)

# Settings under which shapes are run, with the schema that they read: see variants_of().
VARIANTS: Variants = {
    "plain": ("model_4096", {}),
    "batch size 3": ("model_3", {}),
    "batch size 1": ("model_1", {}),
    "without node": ("model_4096", NODE_OFF),
    "generic plan": ("model_4096", {"plan_cache_mode": "force_generic_plan"}),
    "generic plan without node": ("model_3", {"plan_cache_mode": "force_generic_plan", **NODE_OFF}),
    **{f"without {method}": ("model_3", {f"enable_{method}": "off"}) for method in METHODS[:8]},
    "hash joins only": ("model_3", {"enable_nestloop": "off", "enable_mergejoin": "off"}),
    "merge joins only": ("model_3", {"enable_nestloop": "off", "enable_hashjoin": "off"}),
    "nested loops only": ("model_3", {"enable_hashjoin": "off", "enable_mergejoin": "off"}),
    "no joins at all": ("model_3", {f"enable_{name}": "off" for name in ("nestloop", "hashjoin", "mergejoin")}),
    "joins as written": ("model_3", {"join_collapse_limit": "1", "from_collapse_limit": "1"}),
    "genetic": ("model_3", {"geqo_threshold": "2", "geqo_seed": "0.4"}),
    "partitionwise": ("model_3", {"enable_partitionwise_join": "on", "enable_partitionwise_aggregate": "on"}),
    "little memory": ("model_4096", {"work_mem": "64kB"}),
    "jit": ("model_3", {"jit": "on", "jit_above_cost": "0", "jit_optimize_above_cost": "0"}),
}

# These pay for Python in each worker, so they are run for a part of the shapes.
PARALLEL_VARIANTS: Variants = {
    "parallel": ("model_3", PARALLEL),
    "parallel without node": ("model_3", {**PARALLEL, **NODE_OFF}),
    "parallel without leader": ("model_3", {**PARALLEL, "parallel_leader_participation": "off"}),
    "worker only": ("model_3", {"debug_parallel_query": "on"}),
}

# Each shape is run under these, and under one part in so many of the others; with --full under all.
ALWAYS = ("plain", "batch size 3", "without node")
PARTS = 5

# Characters of each part of a failed test's message.
MOST_TEXT = 2000

SHAPES = {f"{group}: {shape.name}": shape for group, make in GROUPS.items() for shape in make()}
assert len(SHAPES) == sum(len(make()) for make in GROUPS.values())


def variants_of(name: str, variants: Variants, parts: int, *, full: bool) -> Variants:
    """Choose a shape's settings: those of ALWAYS and a part of the others, the same in every run."""
    others = [variant for variant in variants if variant not in ALWAYS]
    mine = zlib.crc32(name.encode()) % parts
    left_out = set() if full else {other for number, other in enumerate(others) if number % parts != mine}
    return {variant: variants[variant] for variant in variants if variant not in left_out}


@pytest.mark.parametrize(("variants", "parts"), [(VARIANTS, PARTS), (PARALLEL_VARIANTS, len(PARALLEL_VARIANTS))])
def test_every_setting_has_shapes_of_every_group(variants: Variants, parts: int) -> None:
    """What "make test" leaves to "make test-full" is the product of shapes and settings, none of either."""
    seen = {
        (name.partition(":")[0], variant)
        for name in SHAPES
        for variant in variants_of(name, variants, parts, full=False)
    }
    assert seen == {(group, variant) for group in GROUPS for variant in variants}
    assert all(variants_of(name, variants, parts, full=True) == variants for name in SHAPES)


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("full"))


@pytest.fixture(scope="module")
def tables(database: Database) -> Iterator[None]:
    with shape_tables(database):
        yield


@contextlib.contextmanager
def shape_tables(database: Database) -> Iterator[None]:
    """Make the shapes' schemas and tables, in a schema of their own."""
    schemas = ["differential", "local", *SCHEMAS]
    with database.connect(search_path="differential") as connection:
        connection.execute("CREATE SCHEMA differential")
        connection.execute(data().encode())
        connection.execute(local_models().encode())
        for batch_size in BATCH_SIZES:
            connection.execute(models(batch_size).encode())
        yield
        connection.execute("SET client_min_messages = warning")
        for schema in schemas:
            connection.execute(f"DROP SCHEMA {schema} CASCADE".encode())


# What is an error although a plan exists in principle; each must stay one until it works.
UNBOUND = {
    "several: union of models": "PostgreSQL passes no join condition to a member of UNION ALL with a WHERE of its own",
    "several: union of models, left": "the same below a left join",
}
UNBOUND_BEFORE_17 = {
    "semis: in, correlated": "PostgreSQL makes no join of a correlated IN, so that nothing binds the input it returns",
}


def known(name: str) -> Any:
    """Mark a shape that does not work."""
    marks = [pytest.mark.xfail(strict=True, reason=UNBOUND[name])] if name in UNBOUND else []
    return pytest.param(name, marks=marks)


def mark_known(request: pytest.FixtureRequest, connection: Connection, name: str) -> None:
    """Mark a shape that does not work on older versions of PostgreSQL; skip one that these cannot parse."""
    if name in UNBOUND_BEFORE_17 and connection.info.server_version < 170000:
        request.applymarker(pytest.mark.xfail(strict=True, reason=UNBOUND_BEFORE_17[name]))
    statements = (SHAPES[name].sql, *SHAPES[name].before) if name in SHAPES else ()
    if connection.info.server_version < 150000 and any(sql.startswith("MERGE") for sql in statements):
        pytest.skip("PostgreSQL 14 has no MERGE")


@pytest.fixture(autouse=True)
def known_of_version(request: pytest.FixtureRequest, connection: Connection) -> None:
    mark_known(request, connection, request.node.callspec.id if hasattr(request.node, "callspec") else "")


@pytest.fixture(params=[known(name) for name in SHAPES])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Result = tuple[str, list[tuple[Any, ...]]]


def run(connection: Connection, shape: Shape, schema: str, settings: dict[str, str]) -> Result:
    """Run a shape with a schema and settings, and undo what it did; give its SQLSTATE and rows."""
    result = run_once(connection, shape, schema, settings)
    if result[0].startswith("08") and revive():
        return run_once(connection, shape, schema, settings)
    return result


def run_once(connection: Connection, shape: Shape, schema: str, settings: dict[str, str]) -> Result:
    try:
        connection.execute("BEGIN")
        connection.execute(f"SET LOCAL search_path = differential, {schema}".encode())
        set_locally(connection, settings)
        for statement in shape.before:
            connection.execute(statement.encode())
        if not shape.parameters:
            return "", [normal(row) for row in connection.execute(shape.sql.encode()).fetchall()]
        types, values = (", ".join(part) for part in zip(*shape.parameters))
        connection.execute(f"PREPARE shape ({types}) AS {shape.sql}".encode())
        connection.execute(f"EXECUTE shape ({values})".encode())
        return "", [normal(row) for row in connection.execute(f"EXECUTE shape ({values})".encode()).fetchall()]
    except psycopg.Error as error:
        return f"{error.sqlstate}: {error.diag.message_primary}", []
    finally:
        connection.execute("ROLLBACK")
        connection.execute("DEALLOCATE ALL")


def normal(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Make values comparable: NaN is equal to itself, lists can be counted."""
    return tuple(
        "NaN" if value != value else tuple(value) if isinstance(value, list) else value  # noqa: PLR0124
        for value in row
    )


def explain(connection: Connection, shape: Shape, schema: str, settings: dict[str, str]) -> str:
    """Give the plan of a shape's last statement, or the error that planning ends in."""
    try:
        connection.execute("BEGIN")
        connection.execute(f"SET LOCAL search_path = differential, {schema}".encode())
        set_locally(connection, settings)
        for statement in shape.before:
            connection.execute(statement.encode())
        sql = shape.sql
        if shape.parameters:
            types, values = (", ".join(part) for part in zip(*shape.parameters))
            connection.execute(f"PREPARE shape ({types}) AS {shape.sql}".encode())
            sql = f"EXECUTE shape ({values})"
        return "\n".join(line for (line,) in connection.execute(f"EXPLAIN (COSTS OFF) {sql}".encode()).fetchall())
    except psycopg.Error as error:
        return str(error)
    finally:
        connection.execute("ROLLBACK")
        connection.execute("DEALLOCATE ALL")


def difference(shape: Shape, found: Result, expected: Result) -> str | None:
    """Describe how a result differs from the expected one."""
    if shape.error:
        return None if found[0].startswith(shape.error) else f"ended with {found}"
    if found[0]:
        return found[0]
    if shape.ordered and found[1] == expected[1]:
        return None
    more, fewer = Counter(found[1]) - Counter(expected[1]), Counter(expected[1]) - Counter(found[1])
    if not shape.ordered and not more and not fewer:
        return None
    return f"surplus {dict(more)}, missing {dict(fewer)}" if more or fewer else f"order {found[1]}"


def compare(connection: Connection, shape: Shape, variants: Variants) -> None:
    expected = run(connection, shape, "local", {})
    assert expected[0].startswith(shape.error), expected[0]
    assert bool(expected[0]) == bool(shape.error), expected[0]
    failures: dict[str, list[str]] = {}
    for name, (schema, settings) in variants.items():
        found = difference(shape, run(connection, shape, schema, settings), expected)
        if found:
            failures.setdefault(found[:MOST_TEXT], []).append(name)
    report = [shape.sql]
    for found, names in failures.items():
        plan = explain(connection, shape, *variants[names[0]])
        report += [f"--- under {', '.join(names)}:", found, f"plan under {names[0]}:", plan[:MOST_TEXT]]
    assert not failures, "\n".join(report)


@pytest.mark.usefixtures("tables")
def test_shape(connection: Connection, name: str, full: bool) -> None:
    # Besides the fixed variants random ones, the same in every run.
    shape = SHAPES[name]
    source = random.Random(zlib.crc32(shape.sql.encode()))
    variants = variants_of(name, VARIANTS, PARTS, full=full)
    for number in range(2 if full else 1):
        off = source.sample(METHODS, source.randint(2, 8))
        settings = {f"enable_{method}": "off" for method in off}
        variants[f"random {number}"] = (source.choice(SCHEMAS), settings)
    compare(connection, shape, variants)


@pytest.mark.usefixtures("tables")
def test_parallel_shape(connection: Connection, name: str, full: bool) -> None:
    compare(connection, SHAPES[name], variants_of(name, PARALLEL_VARIANTS, len(PARALLEL_VARIANTS), full=full))


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if shape.node])
def test_plan(connection: Connection, name: str) -> None:
    """The node is used where it is possible, with every method of joining forbidden in turn."""
    shape = SHAPES[name]
    for settings in ({}, *({f"enable_{method}": "off"} for method in METHODS)):
        # A custom plan may know from a parameter that there is nothing to join.
        generic = {**settings, "plan_cache_mode": "force_generic_plan"}
        plan = explain(connection, shape, "model_4096", generic)
        assert "Model Join" in plan, f"{settings}\n{plan}"


def digest(shape: Shape) -> Shape:
    """Make a shape that counts the rows of another one and adds up their hashes."""
    return Shape(shape.name, f"SELECT count(*), sum(hashtext(q::text)) FROM ({shape.sql}) q")


# Not those that show a numeric input, whose text tells 0.5 from 0.50: the two are equal.
DIGESTED = [
    name
    for name, shape in SHAPES.items()
    if shape.sql.startswith("SELECT")
    and not name.startswith("numbers: numeric input")
    and not (shape.parameters or shape.before or shape.error or "FOR " in shape.sql)
]


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("name", [known(name) for name in DIGESTED])
def test_parallel_node(connection: Connection, name: str, full: bool) -> None:
    variants: Variants = {
        "parallel": ("model_3", PARALLEL_NODE),
        "parallel without leader": ("model_4096", {**PARALLEL_NODE, "parallel_leader_participation": "off"}),
    }
    compare(connection, digest(SHAPES[name]), variants_of(name, variants, len(variants), full=full))


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    "name",
    [
        "joins: inner",
        "joins: left",
        "joins: left, placeholders",
        "semis: exists",
        "semis: not exists",
        "several: chain",
    ],
)
def test_parallel_plan(connection: Connection, name: str) -> None:
    plan = explain(connection, digest(SHAPES[name]), "model_3", PARALLEL_NODE)
    assert "Parallel Custom Scan (Model Join)" in plan


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("name", REFUSED)
def test_refused(connection: Connection, name: str) -> None:
    """Where no condition gives an input its value the statement fails, and its plan says so before."""
    for variant, (schema, settings) in {**VARIANTS, **PARALLEL_VARIANTS}.items():
        shape = Shape(name, REFUSED[name])
        code, rows = run(connection, shape, schema, settings)
        assert code.startswith("HV00L: input column"), f"{variant}: {code} {rows}"
        assert re.search("(is|are) not bound", code)
        plan = explain(connection, shape, schema, settings)
        assert "Unbound Inputs: " in plan, f"{variant}: {plan}"


# ---- boolean inputs, whose equalities PostgreSQL writes in other ways ----

BOOLEANS = {
    "employed = true": [True],
    "employed = false": [False],
    "employed": [True],
    "NOT employed": [False],
    "employed IS TRUE": [True],
    "employed IS FALSE": [False],
    "employed = (1 > 0)": [True],
    "employed IN (true)": [True],
    "employed IN (true, false)": [False, True],
    "employed = ANY ('{t,f,t}')": [False, True],
}


@pytest.mark.parametrize("condition", BOOLEANS)
@pytest.mark.parametrize("form", ["scan", "join", "left join"])
def test_boolean_input(connection: Connection, condition: str, form: str) -> None:
    others = "income = 1000 AND age = 30 AND purpose = 'car' AND debts = {}"
    sources = {
        "scan": f"ml.loan WHERE {others.format(0)} AND {condition}",
        "join": f"(VALUES (0)) c (n) JOIN ml.loan ON {others.format('c.n')} AND {condition}",
        "left join": f"(VALUES (0)) c (n) LEFT JOIN ml.loan ON {others.format('c.n')} AND {condition}",
    }
    rows = connection.execute(f"SELECT employed, approved FROM {sources[form]} ORDER BY 1".encode()).fetchall()
    assert rows == [(value, value) for value in BOOLEANS[condition]]


# ---- a row that another transaction changed in the meantime ----


@pytest.mark.parametrize("node", ["on", "off"])
def test_concurrent_update(database: Database, connection: Connection, node: str) -> None:
    """What waited for a lock asks the model about the row's new version."""
    connection.execute("CREATE TABLE c (id int PRIMARY KEY, x float8, s float8)")
    connection.execute("INSERT INTO c SELECT n, n FROM generate_series(1, 20) n")
    source = "scratch.c {} ml.affine p ON p.a = c.x AND p.b = 1"
    update = "UPDATE scratch.c SET s = p.s FROM ml.affine p WHERE p.a = c.x AND p.b = 1"
    statements = [
        f"{update} RETURNING id, x, c.s",
        f"{update} AND p.s > 140 RETURNING id, x, c.s",
        f"SELECT id, x, p.s FROM {source.format('JOIN')} FOR UPDATE OF c",
        f"SELECT id, x, p.s FROM {source.format('LEFT JOIN')} FOR UPDATE OF c",
        "SELECT id, x, p.s FROM scratch.c LEFT JOIN (ml.affine p JOIN ml.chain q ON q.s = p.s) "
        "ON p.a = c.x AND p.b = 1 FOR UPDATE OF c",
        "UPDATE scratch.c SET s = p.s FROM ml.affine p JOIN ml.chain q ON q.s = p.s WHERE p.a = c.x AND p.b = 1 "
        "AND q.t > 4 RETURNING id, x, c.s",
        "SELECT id, x, p.s FROM scratch.c LEFT JOIN (SELECT a, b, s FROM ml.affine UNION ALL SELECT a, b, s "
        "FROM ml.affine) p ON p.a = c.x AND p.b = 1 FOR UPDATE OF c",
    ]
    for sql in statements:
        with database.connect(**{"model_fdw.enable_model_join": node}) as other:
            connection.execute("UPDATE c SET x = 700 WHERE id = 7")
            connection.execute("BEGIN")
            connection.execute("UPDATE c SET x = 70 WHERE id = 7")
            rows: list[Any] = []

            def wait(sql: str = sql, rows: list[Any] = rows, other: Connection = other) -> None:
                with other.transaction(force_rollback=True):
                    rows += other.execute(sql.encode()).fetchall()

            thread = threading.Thread(target=wait)
            thread.start()
            while not connection.execute(
                "SELECT FROM pg_locks WHERE NOT granted AND pid = %s", [other.info.backend_pid]
            ).fetchall():
                assert thread.is_alive(), sql
            connection.execute("COMMIT")
            thread.join()
            assert (7, 70.0, 143.0) in rows, sql
            assert all(row[2] == 2 * row[1] + 3 for row in rows), sql


def test_concurrent_update_and_conditions_on_inputs(database: Database, connection: Connection) -> None:
    """Where a list gives an input, the conditions on inputs are checked for the row's new version."""
    connection.execute("CREATE TABLE c (id int PRIMARY KEY, x float8, y float8, s float8)")
    connection.execute("INSERT INTO c SELECT n, 9, 1 FROM generate_series(1, 3) n")
    with database.connect() as other:
        connection.execute("BEGIN")
        connection.execute("UPDATE c SET x = 0 WHERE id = 2")
        rows: list[Any] = []
        sql = (
            "UPDATE scratch.c SET s = p.s FROM ml.affine p WHERE p.a IN (1, 2) AND p.b = c.y AND p.a < c.x RETURNING id"
        )
        thread = threading.Thread(target=lambda: rows.extend(other.execute(sql.encode()).fetchall()))
        thread.start()
        while not connection.execute(
            "SELECT FROM pg_locks WHERE NOT granted AND pid = %s", [other.info.backend_pid]
        ).fetchall():
            assert thread.is_alive()
        connection.execute("COMMIT")
        thread.join()
    assert sorted(rows) == [(1,), (3,)]


@pytest.mark.parametrize("node", ["on", "off"])
@pytest.mark.parametrize("local", [True, False], ids=["mixed", "models"])
def test_partitionwise_join_with_models(connection: Connection, node: str, local: bool) -> None:
    """A partition that is a model takes its inputs from the partition that it is joined with."""
    connection.execute("CREATE TABLE t (a float8, y float8) PARTITION BY LIST (a)")
    connection.execute("CREATE TABLE p (a float8, b float8, s float8, d float8) PARTITION BY LIST (a)")
    for a in (1, 2):
        connection.execute(f"CREATE TABLE t{a} PARTITION OF t FOR VALUES IN ({a})".encode())
    connection.execute(
        "CREATE FOREIGN TABLE p1 PARTITION OF p FOR VALUES IN (1) SERVER triton OPTIONS (model 'affine')"
    )
    if local:
        connection.execute("CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2)")
        connection.execute("INSERT INTO p SELECT 2, n, 4 + 3 * n, 2 - n FROM generate_series(1, 9) n")
    else:
        connection.execute(
            "CREATE FOREIGN TABLE p2 PARTITION OF p FOR VALUES IN (2) SERVER triton OPTIONS (model 'affine')"
        )
    connection.execute("INSERT INTO t SELECT 1 + n % 2, n % 9 + 1 FROM generate_series(1, 18) n")
    connection.execute("ANALYZE t")
    connection.execute(f"SET model_fdw.enable_model_join = {node}".encode())
    for partitionwise in ("off", "on"):
        connection.execute(f"SET enable_partitionwise_join = {partitionwise}".encode())
        for kind in ("JOIN", "LEFT JOIN"):
            rows = connection.execute(
                f"SELECT t.a, t.y, p.s FROM t {kind} p ON p.a = t.a AND p.b = t.y AND p.d < 9 ORDER BY 1, 2".encode()
            ).fetchall()
            assert len(rows) == 18, (kind, partitionwise)
            assert all(s == 2 * a + 3 * y for a, y, s in rows), (kind, partitionwise)


def test_more_than_one_row_is_an_error(connection: Connection) -> None:
    with pytest.raises(errors.CardinalityViolation):
        connection.execute("SELECT (SELECT s FROM ml.affine WHERE a = n AND b IN (1, 2)) FROM generate_series(1, 3) n")
