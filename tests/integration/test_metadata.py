"""When a model's metadata is asked for: once per backend, and anew where it may have changed.

An imported table is planned without it. What a changed model does is in test_changes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from conftest import Database
from fake_server import FAKE, FakeServer

pytestmark = pytest.mark.hosts("native", reason="it makes servers of its own; the engine behind both is the same")

Connection = psycopg.Connection[Any]

DESCRIBED = (
    "x float8 OPTIONS (input 'x', dtype 'FP64', shape '[-1,1]')",
    "y float8 OPTIONS (output 'y', dtype 'FP64', shape '[-1,1]')",
)
# As a model without a dimension for rows shows itself, arrays among it.
ROWS = (
    "x float8[] OPTIONS (input 'x', dtype 'FP64', shape '[-1]')",
    "y float8 OPTIONS (output 'y', dtype 'FP64', shape '[1]')",
)
QUERIES = {
    "scan": "SELECT y FROM t WHERE x = {}",
    "join": "SELECT y FROM (VALUES ({}), ({})) v (x) JOIN t USING (x)",
}
ASKED_ONCE = {"ModelMetadata": 1, "ModelConfig": 1}


@contextlib.contextmanager
def table(database: Database, server: FakeServer, *columns: str) -> Iterator[Connection]:
    """A backend of its own that has asked nothing yet, with foreign table "t"."""
    with database.session() as connection, connection.transaction(force_rollback=True):
        connection.execute(f"CREATE SERVER fake FOREIGN DATA WRAPPER model_fdw OPTIONS (url '{server.url}')".encode())
        definition = ", ".join(columns or ("x float8", "y float8"))
        connection.execute(f"CREATE FOREIGN TABLE t ({definition}) SERVER fake OPTIONS (model 'fake')".encode())
        yield connection


def rows(connection: Connection, sql: str) -> list[Any]:
    return connection.execute(sql.encode()).fetchall()


def asked(server: FakeServer) -> dict[str, int]:
    """Count the requests that are no inferences."""
    return {method: count for method, count in server.calls.items() if method != "ModelInfer"}


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize(
    ("columns", "value", "requests"), [(DESCRIBED, "1", ""), (ROWS, "'{1,2}'::float8[]", "no batch dimension")]
)
def test_planning_a_described_table_needs_no_server(
    database: Database, columns: tuple[str, ...], value: str, requests: str, query: str
) -> None:
    with FakeServer("refuses") as server, table(database, server, *columns) as connection:
        sql = QUERIES[query].format(value, value)
        plan = "\n".join(line for (line,) in rows(connection, f"EXPLAIN (VERBOSE) {sql}"))
        assert "Model: fake" in plan
        assert ("Requests: one per row (the model has no batch dimension)" in plan) == bool(requests)
        connection.execute(f"PREPARE p AS {sql}".encode())
        assert rows(connection, "EXPLAIN EXECUTE p")
        with pytest.raises(psycopg.errors.SqlclientUnableToEstablishSqlconnection):
            connection.execute(sql.encode())


def test_a_described_table_asks_when_it_is_first_executed(database: Database) -> None:
    with FakeServer() as server, table(database, server, *DESCRIBED) as connection:
        for query in QUERIES.values():
            rows(connection, f"EXPLAIN {query.format(1, 2)}")
        assert asked(server) == {}
        for _ in range(2):
            for query in QUERIES.values():
                assert rows(connection, query.format(1, 2))[0] == (2,)
                rows(connection, f"EXPLAIN {query.format(1, 2)}")
        assert asked(server) == ASKED_ONCE


def test_another_table_asks_when_it_is_first_planned(database: Database) -> None:
    with FakeServer() as server, table(database, server) as connection:
        rows(connection, f"EXPLAIN {QUERIES['scan'].format(1)}")
        assert asked(server) == ASKED_ONCE
        for _ in range(2):
            for query in QUERIES.values():
                assert rows(connection, query.format(1, 2))[0] == (2,)
        connection.execute("CREATE FOREIGN TABLE u (x float8, label text) SERVER fake OPTIONS (model 'fake')")
        assert rows(connection, "SELECT label FROM u WHERE x = 1") == [("x=1",)]
        assert asked(server) == ASKED_ONCE
        assert server.calls["ModelInfer"] == 5


def test_explain_works_after_the_server_has_gone(database: Database) -> None:
    with FakeServer() as server, table(database, server) as connection:
        assert rows(connection, "SELECT y FROM t WHERE x = 1") == [(2,)]
        server.stop()
        assert rows(connection, "EXPLAIN SELECT y FROM t WHERE x = 1")


@pytest.mark.parametrize("columns", [DESCRIBED, ()])
@pytest.mark.parametrize("query", QUERIES)
def test_ddl_that_follows_a_changed_model(database: Database, query: str, columns: tuple[str, ...]) -> None:
    """What the backend knows of the model fits the new table no more, so the model is asked for anew, at once."""
    with FakeServer() as server, table(database, server, *columns) as connection:
        assert rows(connection, QUERIES[query].format(1, 2))[0] == (2,)
        server.models["fake"] = replace(
            FAKE, inputs=(("z", "FP64", (-1, 1)),), compute=lambda inputs: FAKE.compute({"x": inputs["z"]})
        )
        action = "SET" if columns else "ADD"
        connection.execute(f"ALTER FOREIGN TABLE t ALTER COLUMN x OPTIONS ({action} input 'z')".encode())
        assert rows(connection, QUERIES[query].format(1, 2))[0] == (2,)
        assert asked(server) == {"ModelMetadata": 2, "ModelConfig": 2}


def test_a_changed_server_or_user_mapping_asks_anew(database: Database) -> None:
    with FakeServer() as server, table(database, server) as connection:
        scan = QUERIES["scan"].format(1)
        assert rows(connection, scan) == [(2,)]
        connection.execute("ALTER SERVER fake OPTIONS (ADD keepalive_ms '400000')")
        assert rows(connection, scan) == [(2,)]
        connection.execute("CREATE USER MAPPING FOR CURRENT_USER SERVER fake OPTIONS (token 'one')")
        assert rows(connection, scan) == [(2,)]
        connection.execute("ALTER FOREIGN TABLE t OPTIONS (ADD timeout_ms '1000')")
        assert rows(connection, scan) == [(2,)]
        assert asked(server) == {"ModelMetadata": 3, "ModelConfig": 3}
