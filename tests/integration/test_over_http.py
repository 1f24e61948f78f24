"""Triton over HTTP: the same answers as over gRPC, the same behaviour of the backend."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from conftest import Database
from fake_http import FakeHttp, Script

pytestmark = pytest.mark.hosts("native", reason="it makes servers of its own; the engine behind both is the same")

Session = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def session(database: Database, connection: Session) -> Iterator[Session]:
    """A session with the server "triton_http" and its models in schema "mh"."""
    connection.execute("SET client_min_messages = warning")
    connection.execute("DROP SERVER IF EXISTS triton_http CASCADE")
    connection.execute(
        f"CREATE SERVER triton_http FOREIGN DATA WRAPPER model_fdw OPTIONS (url 'http://{database.triton.http}')"
    )
    connection.execute("DROP SCHEMA IF EXISTS mh CASCADE")
    connection.execute("CREATE SCHEMA mh")
    connection.execute("IMPORT FOREIGN SCHEMA models FROM SERVER triton_http INTO mh")
    yield connection
    connection.rollback()
    connection.execute("DROP SERVER triton_http CASCADE")
    connection.execute("DROP SCHEMA mh CASCADE")


def test_import_is_the_same(session: Session) -> None:
    def described(schema: str) -> list[Any]:
        return session.execute(
            """
            SELECT c.relname, t.ftoptions, a.attname, a.atttypid::regtype::text, a.attfdwoptions
            FROM pg_class c JOIN pg_foreign_table t ON t.ftrelid = c.oid JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE c.relnamespace = %s::regnamespace AND a.attnum > 0 ORDER BY c.relname, a.attnum
            """,
            [schema],
        ).fetchall()

    assert len(described("mh")) > 50
    assert described("mh") == described("ml")


@pytest.mark.parametrize("join", ["JOIN", "LEFT JOIN"])
def test_the_same_rows_get_the_same_answers(session: Session, join: str) -> None:
    session.execute(
        """
        CREATE TABLE sides AS
        SELECT i AS id, 3 + random() AS a, 3 + random() AS b, 1 + random() AS c FROM generate_series(1, 5000) i
        """
    )
    session.execute("UPDATE sides SET a = NULL WHERE id % 97 = 0")
    query = f"SELECT s.id, p.* FROM sides s {join} {{}}.triangle p USING (a, b, c) WHERE s.id <= {{}} ORDER BY s.id"
    for rows in (1, 500):
        by_grpc = session.execute(query.format("ml", rows)).fetchall()
        assert session.execute(query.format("mh", rows)).fetchall() == by_grpc
        assert by_grpc


@pytest.mark.parametrize("schema", ["ml", "mh"])
def test_triton_takes_parameters(session: Session, schema: str) -> None:
    session.execute("BEGIN")
    session.execute(
        f"""
        ALTER FOREIGN TABLE {schema}.triangle
        OPTIONS (ADD parameters '{{"priority": 1, "tenant": "ä", "debug": true, "threshold": 0.5}}')
        """.encode()
    )
    assert session.execute(f"SELECT area FROM {schema}.triangle WHERE (a, b, c) = (3, 4, 5)".encode()).fetchall() == [
        (6,)
    ]
    session.execute("ROLLBACK")


def test_a_batched_model_with_strings(session: Session) -> None:
    session.execute("CREATE TABLE texts AS SELECT i AS id, 'text ' || i AS text FROM generate_series(1, 3000) i")
    inputs = session.execute(
        """
        SELECT attname FROM pg_attribute WHERE attrelid = 'mh.sentiment'::regclass AND attnum > 0
        AND attfdwoptions::text LIKE '%input=%'
        """
    ).fetchall()
    ((name,),) = inputs
    query = f'SELECT s.id, p.* FROM texts s JOIN {{}}.sentiment p ON p."{name}" = s.text ORDER BY s.id'
    by_grpc = session.execute(query.format("ml")).fetchall()
    assert len(by_grpc) == 3000
    assert session.execute(query.format("mh")).fetchall() == by_grpc


def test_every_dtype_of_the_test_models(session: Session) -> None:
    """Each model with scalar inputs only answers one row of small numbers alike."""
    tables = session.execute(
        """
        SELECT c.relname,
               array_agg(quote_ident(a.attname) ORDER BY a.attnum)
                   FILTER (WHERE a.attfdwoptions::text LIKE '%input=%'),
               array_agg(a.atttypid::regtype::text ORDER BY a.attnum)
                   FILTER (WHERE a.attfdwoptions::text LIKE '%input=%')
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = 'mh'::regnamespace AND a.attnum > 0 GROUP BY c.relname ORDER BY 1
        """
    ).fetchall()
    compared = 0
    for table, columns, types in tables:
        if any(type_.endswith("[]") for type_ in types):
            continue
        literals = ["true" if type_ == "boolean" else "'1'" for type_ in types]
        condition = " AND ".join(f"{column} = {literal}" for column, literal in zip(columns, literals))
        answers = []
        for schema in ("ml", "mh"):
            try:
                rows = session.execute(f'SELECT * FROM {schema}."{table}" WHERE {condition}').fetchall()
                answers.append(str(rows))
            except psycopg.Error as error:
                answers.append(str(error.sqlstate))
        assert answers[0] == answers[1], table
        compared += 1
    assert compared > 5


def test_explain_shows_bytes_and_times(session: Session) -> None:
    session.execute("CREATE TABLE few AS SELECT 3.0::float8 a, 4.0::float8 b, 5.0::float8 c FROM generate_series(1, 9)")
    lines = session.execute(
        "EXPLAIN (ANALYZE, VERBOSE) SELECT p.* FROM few JOIN mh.triangle p USING (a, b, c)"
    ).fetchall()
    text = "\n".join(line for (line,) in lines)
    assert "Model Join" in text
    assert "Compute Time" in text


def test_unknown_models_and_versions(session: Session) -> None:
    session.execute(
        "CREATE FOREIGN TABLE nope (x float8 OPTIONS (input 'x'), y float8 OPTIONS (output 'y')) SERVER triton_http"
    )
    with pytest.raises(psycopg.Error) as caught:
        session.execute("SELECT y FROM nope WHERE x = 1")
    assert caught.value.sqlstate == "HV00R"


def fake_table(session: Session, server: FakeHttp, options: str = "") -> None:
    session.execute(f"CREATE SERVER faulty FOREIGN DATA WRAPPER model_fdw OPTIONS (url '{server.url}')")
    session.execute(
        "CREATE FOREIGN TABLE faults (x float8 OPTIONS (input 'x'), y float8 OPTIONS (output 'y')) "
        f"SERVER faulty OPTIONS (model 'fake' {options})"
    )


@pytest.fixture
def faulty(connection: Session) -> Iterator[Session]:
    yield connection
    connection.rollback()
    connection.execute("DROP SERVER IF EXISTS faulty CASCADE")


@pytest.mark.parametrize("join", [True, False], ids=["join", "scan"])
def test_statement_timeout_ends_the_wait(faulty: Session, join: bool) -> None:
    with FakeHttp(Script(hang=True)) as server:
        fake_table(faulty, server)
        faulty.execute("SET statement_timeout = 300")
        query = (
            "SELECT count(y) FROM generate_series(1, 9) i JOIN faults ON x = i"
            if join
            else ("SELECT y FROM faults WHERE x = 1")
        )
        began_s = time.monotonic()
        with pytest.raises(psycopg.errors.QueryCanceled):
            faulty.execute(query)
        assert time.monotonic() - began_s < 2
        faulty.execute("RESET statement_timeout")
        server.script = Script()
        server.released.set()
        assert faulty.execute("SELECT y FROM faults WHERE x = 1").fetchall() == [(2.0,)]


def test_answers_that_came_while_the_backend_was_busy_are_not_late(faulty: Session) -> None:
    """A cursor that is not read for longer than timeout_ms."""
    with FakeHttp() as server:
        fake_table(faulty, server, ", timeout_ms '300', batch_size '10'")
        with faulty.transaction():
            faulty.execute("DECLARE c CURSOR FOR SELECT x, y FROM generate_series(1, 1000) i JOIN faults ON x = i")
            rows = faulty.execute("FETCH 1 FROM c").fetchall()
            time.sleep(0.8)
            rows += faulty.execute("FETCH ALL FROM c").fetchall()
        assert sorted(rows) == [(float(i), 2.0 * i) for i in range(1, 1001)]


def test_errors_of_the_server(faulty: Session) -> None:
    with FakeHttp(Script(status=401, body=b'{"error": "token expired"}')) as server:
        fake_table(faulty, server)
        faulty.execute("CREATE USER MAPPING FOR CURRENT_USER SERVER faulty OPTIONS (token 's3cret')")
        with pytest.raises(psycopg.Error) as caught:
            faulty.execute("SELECT y FROM faults WHERE x = 1")
        assert caught.value.sqlstate == "28000"
        assert caught.value.diag.message_detail == "The server said: token expired"
        assert "s3cret" not in str(caught.value)
        assert server.headers["authorization"] == "Bearer s3cret"
