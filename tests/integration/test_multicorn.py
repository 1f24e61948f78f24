"""Multicorn's tables of our class: with the library loaded they are as our own, without it right or refused."""

from __future__ import annotations

import itertools
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from conftest import ALONE, Database, server_like_triton
from fake_server import FakeServer
from shapes import REFUSED, Shape
from test_differential import (
    PARALLEL_VARIANTS,
    SHAPES,
    VARIANTS,
    compare,
    difference,
    known,
    mark_known,
    run,
    shape_tables,
)

from dev.places import installed
from dev.servers import Postgres

Connection = psycopg.Connection[Any]


# ---- with the library ----

LOADED_VARIANTS = {
    name: {**VARIANTS, **PARALLEL_VARIANTS}[name] for name in ("plain", "without node", "no joins at all")
}


@pytest.fixture(scope="module")
def loaded_shapes(loaded: Database) -> Iterator[Connection]:
    with shape_tables(loaded), loaded.connect() as connection:
        yield connection


@pytest.fixture(scope="module")
def alone_shapes(alone: Database) -> Iterator[Connection]:
    # Multicorn makes its expressions anew for each outer row, and JIT would compile them each time.
    with shape_tables(alone), alone.connect(jit="off") as connection:
        yield connection


@pytest.mark.parametrize("name", [known(name) for name in SHAPES])
def test_shape(request: pytest.FixtureRequest, loaded_shapes: Connection, name: str) -> None:
    mark_known(request, loaded_shapes, name)
    compare(loaded_shapes, SHAPES[name], LOADED_VARIANTS)


def test_loading_in_a_session(alone: Database) -> None:
    """LOAD is enough; plans made before stay Multicorn's."""
    query = "SELECT n, p.s FROM generate_series(1, 3) n JOIN ml.affine p ON p.a = n AND p.b = 1 ORDER BY n"
    with alone.session() as connection:
        before = plan_of(connection, "SELECT s FROM ml.affine WHERE a = 1 AND b = 2")
        assert "Foreign Scan on affine" in before
        assert "Multicorn: Requests: one per outer row; for batches load library model_fdw" in before
        connection.execute("LOAD 'model_fdw'")
        assert "Custom Scan (Model Scan) on affine" in plan_of(
            connection, "SELECT s FROM ml.affine WHERE a = 1 AND b = 2"
        )
        assert "Custom Scan (Model Join)" in plan_of(connection, query)
        assert connection.execute(query).fetchall() == [(1, 5.0), (2, 7.0), (3, 9.0)]


def plan_of(connection: Connection, sql: str) -> str:
    return "\n".join(line for (line,) in connection.execute(f"EXPLAIN {sql}".encode()).fetchall())


OTHER_WRAPPER = """
CREATE SERVER others FOREIGN DATA WRAPPER multicorn OPTIONS (wrapper 'multicorn.testfdw.TestForeignDataWrapper');
CREATE FOREIGN TABLE other (test1 text, test2 text) SERVER others OPTIONS (option1 'x')
"""


def test_other_wrappers_are_left_alone(loaded: Database) -> None:
    with loaded.session(client_min_messages="warning") as connection:
        connection.execute(OTHER_WRAPPER)
        try:
            plan = plan_of(connection, "SELECT test1, t FROM other JOIN ml.chain p ON p.s = length(test1)")
            assert "Foreign Scan on other" in plan
            assert "Custom Scan (Model Join)" in plan
            rows = connection.execute("SELECT t, s FROM other JOIN ml.chain p ON p.s = length(test1)").fetchall()
            assert rows
            assert all(t == s for t, s in rows)
        finally:
            connection.execute("DROP SERVER others CASCADE")


# ---- without the library ----


# What Multicorn 3.2 by itself cannot do, by the error that tells; see docs/multicorn.md.
ALONE_ERRORS = {
    r"is not bound": "Multicorn's lookups do not bind this",
    r"unrecognized node type": "Multicorn fails on two outer join conditions (from PostgreSQL 16 on)",
    r"has wrong type": "Multicorn checks another table's condition on the model's row",
    r"variable not found in subplan": "Multicorn's scans do without what a lateral subquery reads",
    r"cannot read the list": "Multicorn takes a computed list for one value",
}


# Shapes whose rows are wrong without the library: a partition that is a model answers beyond its bounds, of which
# PostgreSQL tells neither Multicorn nor the wrapper.
BEYOND_BOUNDS = {
    "unions: listed, scan",
    "unions: ranged, scan",
    "unions: sorted, scan",
    "unions: sorted, scalar",
    "unions: a partition, scan",
}


def test_shapes_without_library(alone_shapes: Connection, capsys: pytest.CaptureFixture[str]) -> None:
    """Every shape gives the right rows, or an error that is Multicorn's; none but those gives wrong rows."""
    outcomes: Counter[str] = Counter()
    wrong = []
    for name, shape in SHAPES.items():
        expected = run(alone_shapes, shape, "local", {})
        found = run(alone_shapes, shape, "model_4096", {})
        failure = difference(shape, found, expected)
        known = [reason for pattern, reason in ALONE_ERRORS.items() if re.search(pattern, found[0])]
        known += ["answered beyond a partition's bounds"] if name in BEYOND_BOUNDS else []
        outcome = "equal" if failure is None else known[0] if known else "wrong"
        outcomes[outcome] += 1
        if outcome == "wrong":
            wrong.append(f"{name}: {shape.sql}\n{failure}")
    with capsys.disabled():
        print(f"\n{len(SHAPES)} shapes under Multicorn without the library, on {version_of(alone_shapes)}:")
        for outcome, count in outcomes.most_common():
            print(f"{count:5} {outcome}")
    assert not wrong, "\n".join(wrong)


def version_of(connection: Connection) -> str:
    [(version,)] = connection.execute("SELECT 'PostgreSQL ' || current_setting('server_version')").fetchall()
    return str(version)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_without_library(alone_shapes: Connection, name: str) -> None:
    """What binds no input is an error, and not chosen where another plan exists."""
    code, _ = run(alone_shapes, Shape(name, REFUSED[name]), "model_4096", {})
    assert re.search("|".join(ALONE_ERRORS), code), code


INTERRUPTED = {
    "scan": "SELECT y FROM {} WHERE x = 1",
    "correlated": "SELECT (SELECT y FROM {} p WHERE p.x = n) FROM generate_series(1, 3) n",
}


@pytest.mark.parametrize("sql", INTERRUPTED.values(), ids=INTERRUPTED)
@pytest.mark.parametrize("how", ["cancel", "timeout", "terminate"])
def test_interrupts_without_library(alone: Database, how: str, sql: str) -> None:
    """A wait for a server that never answers ends within a slice of 50 ms, and some more on a busy machine."""
    with FakeServer("never-answers") as server, alone.session() as connection:
        connection.execute(server_like_triton(connection, "fake", f"url '{server.url}'").encode())
        connection.execute(
            "CREATE FOREIGN TABLE fake (x float8 OPTIONS (input 'x', dtype 'FP64', shape '[-1,1]'), "
            "y float8 OPTIONS (output 'y', dtype 'FP64', shape '[-1,1]')) SERVER fake OPTIONS (model 'fake')"
        )
        try:
            if how == "timeout":
                connection.execute("SET statement_timeout = 500")
            error, seconds = interrupted(alone, connection, sql.format("scratch.fake"), how)
            assert seconds < 2
            if how == "terminate":
                assert "terminating connection due to administrator command" in str(error)
            else:
                # PostgreSQL may see it before Multicorn has reported ours.
                assert "canceling statement due to" in str(error)
                connection.execute("RESET statement_timeout")
                assert connection.execute("SELECT s FROM ml.affine WHERE a = 1 AND b = 2").fetchall() == [(8.0,)]
        finally:
            with alone.connect() as other:
                other.execute("DROP SERVER fake CASCADE")


def interrupted(alone: Database, connection: Connection, sql: str, how: str) -> tuple[Exception, float]:
    """Run a statement that waits, end it after half a second; give its error, and how long it lasted after that."""
    ended: list[Any] = []

    def run_statement() -> None:
        try:
            connection.execute(sql.encode())
        except psycopg.Error as error:
            ended.extend((error, time.monotonic()))

    thread = threading.Thread(target=run_statement)
    thread.start()
    time.sleep(0.5)
    began_s = time.monotonic()
    with alone.connect() as other:
        if how == "cancel":
            other.execute("SELECT pg_cancel_backend(%s)", [connection.info.backend_pid])
        elif how == "terminate":
            other.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
    thread.join(10)
    assert not thread.is_alive(), "still waiting"
    error, ended_s = ended
    return error, ended_s - began_s


def test_errors_elsewhere_leave_nothing_in_flight(alone: Database) -> None:
    with FakeServer("slow") as server, alone.session() as connection:
        connection.execute(server_like_triton(connection, "fake", f"url '{server.url}'").encode())
        connection.execute(
            "CREATE FOREIGN TABLE fake (x float8, y float8) SERVER fake "
            "OPTIONS (model 'fake', batch_size '1', max_in_flight '8')"
        )
        try:
            connection.execute("BEGIN")
            connection.execute("SAVEPOINT s")
            with pytest.raises(psycopg.errors.DivisionByZero):
                connection.execute("SELECT 1 / (y - 2) FROM fake WHERE x = ANY ('{1,2,3,4,5,6,7,8,9}')")
            connection.execute("ROLLBACK TO s")
            time.sleep(0.5)
            assert server.running == 0
            assert connection.execute("SELECT y FROM fake WHERE x = 4").fetchall() == [(8.0,)]
            connection.execute("ROLLBACK")
        finally:
            connection.execute("ROLLBACK")
            connection.execute("DROP SERVER IF EXISTS fake CASCADE")


# ---- other languages and wrappers in the same process ----

FIRST_USES = {
    "ours": ("SELECT s FROM ours.affine WHERE a = 1 AND b = 2", 8.0),
    "model table": ("SELECT s FROM ml.affine WHERE a = 1 AND b = 2", 8.0),
    "other wrapper": ("SELECT count(*) > 0 FROM other", True),
    "plpython3u": ("SELECT answer()", 42),
}

NEIGHBOURS = """
SET client_min_messages = warning;
CREATE EXTENSION model_fdw;
CREATE SERVER ours FOREIGN DATA WRAPPER model_fdw OPTIONS (url '{url}');
CREATE SCHEMA ours;
IMPORT FOREIGN SCHEMA models LIMIT TO (affine) FROM SERVER ours INTO ours;
CREATE SERVER others FOREIGN DATA WRAPPER multicorn OPTIONS (wrapper 'multicorn.testfdw.TestForeignDataWrapper');
CREATE FOREIGN TABLE other (test1 text, test2 text) SERVER others OPTIONS (option1 'x');
CREATE EXTENSION plpython3u;
CREATE FUNCTION answer() RETURNS int LANGUAGE plpython3u AS
'import plpy; return plpy.execute("SELECT 42 AS a")[0]["a"]';
"""


@pytest.fixture(scope="module")
def neighbours(multicorn_postgres: Postgres, database: Database) -> Database:
    """A database in which everything that starts Python is installed."""
    sharedir = installed(multicorn_postgres.bindir / "pg_config", "sharedir")
    if not (sharedir / "extension" / "plpython3u.control").exists():
        pytest.skip(f"no plpython3u in the PostgreSQL of {multicorn_postgres.bindir}")
    made = Database(multicorn_postgres, database.triton, ALONE, "neighbours")
    made.prepare()
    with made.connect() as connection:
        connection.execute(NEIGHBOURS.format(url=made.triton.url).encode())
    return made


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="from Python 3.12 on Multicorn and plpython3 exclude each other"
)
@pytest.mark.parametrize("order", list(itertools.permutations(FIRST_USES)), ids=", ".join)
def test_first_uses_in_any_order(neighbours: Database, order: tuple[str, ...]) -> None:
    with neighbours.connect(client_min_messages="error") as connection:
        for name in (*order, *order):
            sql, expected = FIRST_USES[name]
            assert connection.execute(sql.encode()).fetchall() == [(expected,)], name
