"""Who asks a model, and about which rows: views and functions of an owner, row-level security."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from certificates import Certificates, make_certificates, make_directory
from conftest import Database
from gateway import Gateway
from psycopg import errors
from test_plans import nodes

pytestmark = pytest.mark.hosts("native", reason="options that name files are refused under Multicorn")

Connection = psycopg.Connection[Any]

TOKEN = "sesame-0123456789"
SET_UP = """
CREATE TABLE c AS SELECT i AS id, (i % 7)::float8 AS x, (i % 5)::float8 AS y FROM generate_series(1, 60) AS i;
CREATE FOREIGN TABLE affine (a float8, b float8, s float8, d float8) SERVER secure OPTIONS (model 'affine');
CREATE FOREIGN TABLE chain (s float8, t bigint) SERVER secure OPTIONS (model 'chain');
CREATE TABLE parts (a float8, b float8, s float8, d float8) PARTITION BY RANGE (b);
CREATE FOREIGN TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (2) SERVER secure OPTIONS (model 'affine');
CREATE FOREIGN TABLE high PARTITION OF parts FOR VALUES FROM (2) TO (4) SERVER secure OPTIONS (model 'affine');
GRANT USAGE ON SCHEMA scratch TO keeper, clerk;
GRANT SELECT ON ALL TABLES IN SCHEMA scratch TO keeper, clerk;
"""

ON = "ON p.a = c.x AND p.b = c.y"
UNION = "SELECT a, b, s FROM affine UNION ALL SELECT a, b, d FROM affine"
QUERIES = {
    "scan": "SELECT a, s FROM affine WHERE a IN (1, 2) AND b = 1",
    "join": f"SELECT c.id, p.s FROM c LEFT JOIN affine p {ON}",
    "subquery": "SELECT c.id, (SELECT p.s FROM affine p WHERE p.a = c.x AND p.b = c.y) AS s FROM c",
    "join of models": f"SELECT c.id, p.s, q.t FROM c LEFT JOIN (affine p JOIN chain q ON q.s = p.s) {ON} AND q.t > 5",
    "union": f"SELECT c.id, p.s FROM c LEFT JOIN ({UNION}) p {ON}",
    "partitions": f"SELECT c.id, p.s FROM c LEFT JOIN parts p {ON}",
}


@pytest.fixture(scope="module")
def certificates() -> Iterator[Certificates]:
    with make_directory() as directory:
        yield make_certificates(directory)


@pytest.fixture(scope="module")
def gateway(database: Database, certificates: Certificates) -> Iterator[Gateway]:
    tokens = {TOKEN: time.time() + 3600}
    with Gateway(database.triton.grpc, certificates.server, certificates.authority, tokens) as gateway:
        yield gateway


@pytest.fixture
def session(connection: Connection, gateway: Gateway, certificates: Certificates) -> Iterator[Connection]:
    """A superuser's session; of the roles, the keeper's token is good and the clerk's is not."""
    connection.execute("CREATE ROLE keeper; CREATE ROLE clerk")
    try:
        root = certificates.authority.certificate
        connection.execute(
            "CREATE SERVER secure FOREIGN DATA WRAPPER model_fdw "
            f"OPTIONS (url '{gateway.url}', sslrootcert '{root}')".encode()
        )
        pair = certificates.client
        for role, token in {"keeper": TOKEN, "clerk": "wrong", "CURRENT_USER": TOKEN}.items():
            connection.execute(
                f"CREATE USER MAPPING FOR {role} SERVER secure "
                f"OPTIONS (sslcert '{pair.certificate}', sslkey '{pair.key}', token '{token}')".encode()
            )
        connection.execute(SET_UP)
        yield connection
    finally:
        connection.execute("RESET ROLE")
        connection.execute("DROP SERVER IF EXISTS secure CASCADE")
        connection.execute("DROP OWNED BY keeper, clerk CASCADE; DROP ROLE keeper, clerk")


def rows(session: Connection, sql: str) -> list[tuple[Any, ...]]:
    return sorted(session.execute(sql.encode()).fetchall(), key=repr)


def refused(session: Connection, sql: str) -> bool:
    with pytest.raises(errors.InvalidAuthorizationSpecification):
        session.execute(sql.encode())
    return True


@pytest.mark.parametrize("node", ["on", "off"])
@pytest.mark.parametrize("name", QUERIES)
def test_owner_of_a_view_asks(session: Connection, name: str, node: str) -> None:
    sql = QUERIES[name]
    expected = rows(session, sql)
    session.execute(f"SET model_fdw.enable_model_join = {node}".encode())
    views = {"owned": "", "invoked": "WITH (security_invoker)"}
    if session.info.server_version < 150000:
        del views["invoked"]  # PostgreSQL 14 has no such views
    for view, options in views.items():
        session.execute(f"CREATE VIEW {view} {options} AS {sql}".encode())
        session.execute(f"ALTER VIEW {view} OWNER TO keeper; GRANT SELECT ON {view} TO clerk".encode())
    session.execute("SET ROLE clerk")
    assert refused(session, sql)
    assert rows(session, "SELECT * FROM owned") == expected
    assert all(refused(session, f"SELECT * FROM {view}") for view in views if view != "owned")
    session.execute("SET ROLE keeper")
    assert rows(session, sql) == expected
    assert all(rows(session, f"SELECT * FROM {view}") == expected for view in views)


@pytest.mark.parametrize("name", QUERIES)
def test_owner_of_a_function_asks(session: Connection, name: str) -> None:
    expected = rows(session, f"SELECT count(*) FROM ({QUERIES[name]}) q")
    for function, security in {"owned": "DEFINER", "invoked": "INVOKER"}.items():
        session.execute(
            f"CREATE FUNCTION {function}() RETURNS bigint LANGUAGE sql SECURITY {security} "
            f"AS 'SELECT count(q) FROM ({QUERIES[name]}) q'".encode()
        )
        session.execute(f"ALTER FUNCTION {function}() OWNER TO keeper".encode())
    session.execute("SET ROLE clerk")
    assert rows(session, "SELECT owned()") == expected
    assert refused(session, "SELECT invoked()")


@pytest.mark.parametrize("node", ["on", "off"])
@pytest.mark.parametrize("name", [name for name in QUERIES if name != "scan"])
def test_row_level_security(session: Connection, name: str, node: str) -> None:
    """Rows that a policy hides are not sent, and no condition sees them, either."""
    sql = f"SELECT * FROM ({QUERIES[name]}) q"
    # one third of the ids is hidden, and would be a division by zero
    visible = rows(session, f"{sql} WHERE id % 3 <> 1")
    session.execute("ALTER TABLE c ENABLE ROW LEVEL SECURITY; CREATE POLICY hidden ON c USING (id % 3 <> 1)")
    session.execute(f"SET model_fdw.enable_model_join = {node}".encode())
    session.execute("SET ROLE keeper")
    assert rows(session, sql) == visible
    assert rows(session, f"{sql} WHERE coalesce(s, 0) > 1 / (id % 3 - 1) - 100") == visible
    row = session.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}".encode()).fetchone()
    assert row is not None
    asked = [found for found in nodes(row[0][0]["Plan"]) if "Model" in found]
    assert all(found["Rows Sent"] <= 40 for found in asked)
    assert sum(found["Rows Sent"] for found in asked) > 0
