"""The peer that is a host of our own: Multicorn's tables. Runs where a PostgreSQL with Multicorn is found."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import psycopg

from bench.measure import Route
from bench.workbench import FEATURES, SESSION, Table, create_table, expect, joined, timed
from dev.multicorn import NOT_FOUND, create_server, find_multicorn, multicorn_postgres
from dev.screen import step
from dev.servers import default_places

ROWS_ONE_BY_ONE = 2_000
DATABASES = ("alone", "loaded")


@contextlib.contextmanager
def multicorn(one_by_one: str, loaded: str, address: str, rows: int) -> Iterator[list[Route] | str]:
    """Start the PostgreSQL that has Multicorn, and give both routes, or the reason why there are none."""
    places = find_multicorn(default_places())
    if places is None:
        yield f"not available: {NOT_FOUND}"
        return
    with contextlib.ExitStack() as started:
        with step("starting the PostgreSQL that has Multicorn"):
            postgres = started.enter_context(multicorn_postgres(places, name="bench-multicorn"))
        for database in DATABASES:
            postgres.psql("-c", f"CREATE DATABASE {database}")
        alone, with_library = (
            started.enter_context(psycopg.connect(postgres.conninfo(name), autocommit=True)) for name in DATABASES
        )
        alone.execute("SET jit = off")
        with_library.execute("LOAD 'model_fdw'")
        tables = prepare(alone, address, ROWS_ONE_BY_ONE), prepare(with_library, address, rows)
        yield [
            route(one_by_one, alone, tables[0], subqueries(tables[0])),
            route(loaded, with_library, tables[1], joined(tables[1], rows, "ml.sum10")),
        ]


def prepare(session: psycopg.Connection, address: str, rows: int) -> Table:
    """Make the rows and the model's table, and ask it once: imports and connection are not what is measured."""
    session.execute(SESSION)
    session.execute("CREATE EXTENSION multicorn")
    session.execute(create_server("triton", f"url 'grpc://{address}'").encode())
    session.execute("CREATE SCHEMA ml")
    session.execute("IMPORT FOREIGN SCHEMA models LIMIT TO (sum10) FROM SERVER triton INTO ml")
    table = create_table(session, "readings", FEATURES, rows)
    session.execute(f"SELECT total FROM ml.sum10 WHERE {' AND '.join(f'{column} = 1' for column in table.columns)}")
    return table


def subqueries(table: Table) -> str:
    """Write a query that asks per row, which every version of Multicorn and PostgreSQL does."""
    bound = " AND ".join(f"m.{column} = r.{column}" for column in table.columns)
    total = f"(SELECT total FROM ml.sum10 m WHERE {bound})"
    return f"SELECT count(total), sum(total::double precision) FROM (SELECT {total} AS total FROM {table.name} r) AS r"


def route(label: str, session: psycopg.Connection, table: Table, query: str) -> Route:
    """Time a query of a session."""
    return Route(label, functools.partial(timed, session, query), expect(session, table, table.rows))
