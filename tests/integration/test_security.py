"""Who may do what, what is on the wire, and that no secret is anywhere it can be read."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from certificates import Certificates, make_certificates, make_directory
from conftest import Database
from gateway import Gateway, nginx
from psycopg import errors

Connection = psycopg.Connection[Any]

pytestmark = pytest.mark.hosts("native", reason="options that name files are refused under Multicorn")

TOKEN = "sesame-0123456789"
STALE = "stale-0123456789"
SECRETS = (TOKEN, STALE, "hidden-header-value")


@pytest.fixture(scope="module")
def certificates() -> Iterator[Certificates]:
    """Files that the servers' own user can read."""
    with make_directory() as directory:
        yield make_certificates(directory)


@pytest.fixture(scope="module")
def gateway(database: Database, certificates: Certificates) -> Iterator[Gateway]:
    tokens = {TOKEN: time.time() + 3600, STALE: time.time() - 1}
    with Gateway(database.triton.grpc, certificates.server, certificates.authority, tokens) as gateway:
        yield gateway


@pytest.fixture
def session(connection: Connection) -> Iterator[Connection]:
    """A superuser's session with a role that owns nothing, "clerk"; both are as before at the end."""
    connection.execute("CREATE ROLE clerk")
    connection.execute("GRANT USAGE ON SCHEMA scratch TO clerk")
    try:
        yield connection
    finally:
        connection.execute("RESET ROLE")
        connection.execute("DROP SERVER IF EXISTS secure CASCADE")
        connection.execute("DROP OWNED BY clerk CASCADE; DROP ROLE clerk")


def add_server(session: Connection, url: str, root: Path, **more: str) -> None:
    options = ", ".join(f"{name} '{value}'" for name, value in {"url": url, "sslrootcert": root, **more}.items())
    session.execute(f"CREATE SERVER secure FOREIGN DATA WRAPPER model_fdw OPTIONS ({options})".encode())


def map_clerk(session: Connection, **options: object) -> None:
    """Give the clerk these credentials, and no others."""
    session.execute("DROP USER MAPPING IF EXISTS FOR clerk SERVER secure")
    text = ", ".join(f"{name} '{value}'" for name, value in options.items())
    session.execute(f"CREATE USER MAPPING FOR clerk SERVER secure OPTIONS ({text})".encode())


def add_tables(session: Connection) -> None:
    """Make the table of model sum10 as IMPORT would, and rows for it; the clerk may read both, and nothing else."""
    imported = session.execute(
        "SELECT string_agg(format('%I %s OPTIONS (%s)', attname, format_type(atttypid, atttypmod), ("
        "  SELECT string_agg(format('%I %L', option_name, option_value), ', ') FROM pg_options_to_table(attfdwoptions)"
        ")), ', ') FROM pg_attribute WHERE attrelid = 'ml.sum10'::regclass AND attnum > 0"
    ).fetchone()
    assert imported is not None
    session.execute(f"CREATE FOREIGN TABLE sum10 ({imported[0]}) SERVER secure OPTIONS (model 'sum10')".encode())
    columns = ", ".join(f"n * {number} AS f{number}" for number in range(1, 11))
    session.execute(f"CREATE TABLE rows AS SELECT {columns} FROM generate_series(1, 1000) n".encode())
    session.execute("GRANT USAGE ON FOREIGN SERVER secure TO clerk")
    session.execute("GRANT SELECT ON sum10, rows TO clerk")


JOIN = "SELECT count(*), sum(total::float8) FROM rows NATURAL JOIN sum10"
RIGHT = (1000, 55 * 1000 * 1001 / 2)


@contextlib.contextmanager
def as_clerk(session: Connection) -> Iterator[None]:
    session.execute("SET ROLE clerk")
    try:
        yield
    finally:
        session.execute("RESET ROLE")


def credentials(certificates: Certificates, client: str = "client", token: str | None = TOKEN) -> dict[str, object]:
    pair = getattr(certificates, client)
    return {"sslcert": pair.certificate, "sslkey": pair.key, **({"token": token} if token else {})}


def test_mutual_tls_and_a_token_from_a_role_that_owns_nothing(
    session: Connection, gateway: Gateway, certificates: Certificates
) -> None:
    add_server(session, gateway.url, certificates.authority.certificate)
    add_tables(session)
    map_clerk(session, **credentials(certificates))
    with as_clerk(session):
        assert session.execute(JOIN).fetchone() == RIGHT


def test_the_same_through_nginx(session: Connection, database: Database, certificates: Certificates) -> None:
    with nginx(database.triton.grpc, certificates.server, certificates.authority, TOKEN) as url:
        add_server(session, url, certificates.authority.certificate)
        add_tables(session)
        map_clerk(session, **credentials(certificates))
        with as_clerk(session):
            assert session.execute(JOIN).fetchone() == RIGHT
        map_clerk(session, **credentials(certificates, token="wrong"))
        with as_clerk(session), pytest.raises(errors.InvalidAuthorizationSpecification) as caught:
            session.execute(JOIN)
        assert "401" in str(caught.value.diag.message_detail)
        for client in ("expired_client", "unknown_client"):
            map_clerk(session, **credentials(certificates, client))
            with as_clerk(session), pytest.raises(errors.InvalidAuthorizationSpecification) as caught:
                session.execute(JOIN)
            assert caught.value.diag.message_detail == (
                "The server said: HTTP status 400, as proxies answer to a client certificate that is missing, expired "
                "or not trusted"
            )


@pytest.mark.parametrize(
    ("client", "token", "said"),
    [
        ("client", "wrong", "The server said: the token is not known"),
        ("client", STALE, "The server said: the token has expired"),
        ("client", None, "The server said: a token is required"),
        ("expired_client", TOKEN, "The client certificate has expired."),
        ("unknown_client", TOKEN, "The server refuses the client certificate."),
    ],
)
def test_credentials_that_are_refused(
    session: Connection, gateway: Gateway, certificates: Certificates, client: str, token: str | None, said: str
) -> None:
    add_server(session, gateway.url, certificates.authority.certificate)
    add_tables(session)
    map_clerk(session, **credentials(certificates, client, token))
    with as_clerk(session), pytest.raises(psycopg.Error) as caught:
        session.execute(JOIN)
    diag = caught.value.diag
    assert diag.sqlstate == ("28000" if client == "client" else "08001")
    assert (diag.message_detail or "").startswith(said)


def test_credentials_take_effect_at_the_next_statement(
    session: Connection, gateway: Gateway, certificates: Certificates
) -> None:
    add_server(session, gateway.url, certificates.authority.certificate)
    add_tables(session)
    for _ in range(2):
        map_clerk(session, **credentials(certificates, token="wrong"))
        with as_clerk(session), pytest.raises(errors.InvalidAuthorizationSpecification):
            session.execute(JOIN)
        map_clerk(session, **credentials(certificates))
        with as_clerk(session):
            assert session.execute(JOIN).fetchone() == RIGHT


# ---- privileges ----


def denied(session: Connection, sql: str) -> psycopg.errors.Diagnostic:
    with pytest.raises(errors.InsufficientPrivilege) as caught:
        session.execute(sql.encode())
    return caught.value.diag


FILES = "sslcert '/nowhere/c', sslkey '/nowhere/k'"


def test_files_are_named_by_those_who_may_read_the_servers_files(session: Connection) -> None:
    session.execute("CREATE SERVER secure FOREIGN DATA WRAPPER model_fdw OPTIONS (url 'grpcs://127.0.0.1:1')")
    session.execute("GRANT USAGE ON FOREIGN SERVER secure TO clerk")
    session.execute("GRANT USAGE ON FOREIGN DATA WRAPPER model_fdw TO clerk")
    mapping = f"CREATE USER MAPPING FOR clerk SERVER secure OPTIONS ({FILES})"
    server = "CREATE SERVER mine FOREIGN DATA WRAPPER model_fdw OPTIONS (url 'grpcs://h', sslrootcert '/nowhere/ca')"
    with as_clerk(session):
        for sql, option in ((mapping, "sslcert"), (server, "sslrootcert")):
            diag = denied(session, sql)
            assert diag.message_primary == f'permission denied to set option "{option}"'
            assert diag.message_detail == ('Only roles with privileges of the "pg_read_server_files" role may set it.')
        session.execute("CREATE USER MAPPING FOR clerk SERVER secure OPTIONS (token 'x')")
        denied(session, f"ALTER USER MAPPING FOR clerk SERVER secure OPTIONS (ADD {FILES.replace(', ', ', ADD ')})")
        session.execute("DROP USER MAPPING FOR clerk SERVER secure")
    session.execute("GRANT pg_read_server_files TO clerk")
    with as_clerk(session):
        session.execute(mapping.encode())
        session.execute(server.encode())
        session.execute("DROP SERVER mine")


def test_a_role_without_privileges_reads_nothing(
    session: Connection, gateway: Gateway, certificates: Certificates
) -> None:
    add_server(session, gateway.url, certificates.authority.certificate)
    add_tables(session)
    map_clerk(session, **credentials(certificates))
    session.execute("REVOKE SELECT ON sum10 FROM clerk")
    with as_clerk(session):
        denied(session, JOIN)
        denied(session, "SELECT option_name FROM pg_user_mapping m, pg_options_to_table(m.umoptions)")


def test_a_file_that_cannot_be_read_is_named_and_not_shown(session: Connection, certificates: Certificates) -> None:
    with make_directory() as directory:
        root = directory / "root.crt"
        root.write_text("hidden-contents")
        root.chmod(0o644)
        add_server(session, "grpcs://127.0.0.1:1", root)
        add_tables(session)
        map_clerk(session, **credentials(certificates))
        with as_clerk(session), pytest.raises(errors.ConfigFileError) as caught:
            session.execute(JOIN)
        assert str(root) in str(caught.value)
        assert "hidden-contents" not in str(caught.value)
        root.unlink()
        with as_clerk(session), pytest.raises(errors.ConfigFileError) as caught:
            session.execute(JOIN)
        expected = f'could not read file "{root}" of option "sslrootcert": No such file or directory'
        assert caught.value.diag.message_primary == expected


# ---- secrets ----


@pytest.mark.parametrize("log_statement", ["none", "all"])
def test_secrets_are_nowhere(
    session: Connection, database: Database, gateway: Gateway, certificates: Certificates, log_statement: str
) -> None:
    """Neither errors, plans, the activity view nor the log show a token, a header or a key, whatever goes wrong.

    The statement that sets an option is the user's own, and PostgreSQL logs it if it is told to; so it is not logged
    here.
    """
    add_server(session, gateway.url, certificates.authority.certificate)
    add_tables(session)
    key = certificates.client.key.read_text().splitlines()[1]
    seen: list[str] = []
    began = database.postgres.log.stat().st_size
    broken = [
        credentials(certificates),
        {**credentials(certificates, token=None), "headers": f"authorization: Bearer {SECRETS[2]}"},
        credentials(certificates, token=STALE),
        credentials(certificates, "expired_client"),
        {**credentials(certificates), "sslkey": certificates.server.key},
        {**credentials(certificates), "sslkey": "/nowhere"},
    ]
    session.execute("SET log_min_error_statement = panic")
    for options in broken:
        session.execute("SET log_statement = none")
        map_clerk(session, **options)
        session.execute(f"SET log_statement = '{log_statement}'".encode())
        with as_clerk(session):
            for sql in (JOIN, f"EXPLAIN (ANALYZE, VERBOSE, SETTINGS) {JOIN}", "SELECT * FROM sum10"):
                try:
                    seen += [str(row) for row in session.execute(sql.encode()).fetchall()]
                except psycopg.Error as error:
                    seen += [
                        str(vars(error)),
                        str(error),
                        *(str(getattr(error.diag, name)) for name in dir(error.diag)),
                    ]
        seen += [str(row) for row in session.execute("SELECT query, application_name FROM pg_stat_activity").fetchall()]
    session.execute("SET log_statement = none")
    with pytest.raises(errors.InvalidParameterValue) as caught:
        map_clerk(session, token=f"{TOKEN} with spaces")
    seen.append(str(caught.value))
    with database.postgres.log.open("rb") as log:
        log.seek(began)
        seen.append(log.read().decode(errors="replace"))
    for text in seen:
        for secret in (*SECRETS, key):
            assert secret not in text


# ---- row-level security: what a leaky function of a user sees ----

LEAK = """
    CREATE FUNCTION leak(value float8) RETURNS boolean LANGUAGE plpgsql IMMUTABLE
    AS 'BEGIN RAISE NOTICE ''leaked %'', value; RETURN true; END';
"""


def leaks(session: Connection, sql: str) -> set[str]:
    """Run a query as the clerk; return what it was told."""
    told: list[str] = []

    def listen(diag: psycopg.errors.Diagnostic) -> None:
        told.append(diag.message_primary or "")

    session.add_notice_handler(listen)
    try:
        with as_clerk(session):
            session.execute(sql.encode())
    finally:
        session.remove_notice_handler(listen)
    return set(told)


@pytest.mark.parametrize("condition", ["leak(p.s)", "leak(p.a)", "leak(p.s) AND leak(p.a)"])
@pytest.mark.parametrize("node", ["on", "off"])
def test_policies_come_before_conditions_of_users(session: Connection, condition: str, node: str) -> None:
    """A policy of a partitioned table whose partitions are models, as it is without the Model Join."""
    session.execute(
        LEAK.encode()
        + b"""
        CREATE TABLE parts (a float8, b float8, s float8, d float8) PARTITION BY RANGE (b);
        CREATE FOREIGN TABLE parts1 PARTITION OF parts FOR VALUES FROM (0) TO (9)
        SERVER triton OPTIONS (model 'affine');
        ALTER TABLE parts ENABLE ROW LEVEL SECURITY;
        CREATE POLICY p ON parts USING (s = 5);
        CREATE TABLE t AS SELECT i::float8 AS x, 1::float8 AS y FROM generate_series(1, 5) i;
        GRANT SELECT ON parts, t TO clerk;
    """
    )
    session.execute(f"SET model_fdw.enable_model_join = {node}".encode())
    told = leaks(session, f"SELECT count(*) FROM t JOIN parts p ON p.a = t.x AND p.b = t.y WHERE {condition}")
    assert told == {text for text, column in (("leaked 5", "p.s"), ("leaked 1", "p.a")) if column in condition}
    told = leaks(session, f"SELECT count(*) FROM parts p WHERE p.a IN (1, 2, 3) AND p.b = 1 AND {condition}")
    assert told == {text for text, column in (("leaked 5", "p.s"), ("leaked 1", "p.a")) if column in condition}


@pytest.mark.parametrize("node", ["on", "off"])
def test_policies_that_ask_a_model_come_before_join_conditions(session: Connection, node: str) -> None:
    session.execute(
        LEAK.encode()
        + b"""
        CREATE TABLE secret (id int PRIMARY KEY, word float8, x float8, y float8);
        INSERT INTO secret SELECT i, i, 0, 0 FROM generate_series(1, 2000) i;
        ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
        CREATE POLICY p ON secret USING ((SELECT p.s FROM ml.affine p WHERE p.a = x AND p.b = y) > 1000);
        CREATE TABLE d AS SELECT id FROM secret WHERE id < 4;
        ANALYZE secret, d;
        GRANT SELECT ON secret, d TO clerk;
        GRANT USAGE ON SCHEMA ml TO clerk;
        GRANT SELECT ON ml.affine TO clerk;
    """
    )
    session.execute(f"SET model_fdw.enable_model_join = {node}".encode())
    for method in ("hashjoin", "mergejoin", "material", "seqscan"):
        session.execute(f"SET enable_{method} = off".encode())
    sql = "SELECT count(*) FROM d JOIN secret c ON c.id = d.id AND leak(c.word + d.id)"
    assert leaks(session, sql) == set()
