"""gRPC services with protos of their own, used from SQL: the example in examples/fraud, and that of protos/."""

from __future__ import annotations

import contextlib
import random
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from example_server import ExampleServer, appraise

pytestmark = pytest.mark.hosts("native", reason="it makes servers of its own; the engine behind both is the same")

Session = psycopg.Connection[tuple[Any, ...]]

FRAUD = Path(__file__).parents[2] / "examples" / "fraud"


@contextlib.contextmanager
def run_fraud() -> Iterator[int]:
    """Run the fraud scoring service as a program of its own, as its team would; give its port."""
    process = subprocess.Popen([sys.executable, FRAUD / "server.py"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 60)[0], "the service does not start"
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture(scope="module")
def fraud_port() -> Iterator[int]:
    with run_fraud() as port:
        yield port


@pytest.fixture
def session(connection: Session) -> Iterator[Session]:
    connection.execute("SET client_min_messages = warning")
    connection.execute("DROP SERVER IF EXISTS service CASCADE")
    yield connection
    connection.rollback()
    connection.execute("RESET ROLE")
    connection.execute("SET client_min_messages = warning")
    connection.execute("DROP SERVER IF EXISTS service CASCADE")


def create_server(session: Session, port: int, options: str = "") -> None:
    session.execute(
        "CREATE SERVER service FOREIGN DATA WRAPPER model_fdw "
        f"OPTIONS (url 'grpc://127.0.0.1:{port}', protocol 'grpc' {options})"
    )


TRANSACTIONS = """
CREATE TABLE transactions AS
SELECT 't' || i AS id, (i * 37 % 2000)::numeric(10, 2) AS amount,
       timestamptz '2026-11-24 00:00+01' + i * interval '7 min' AS time,
       CASE i % 3 WHEN 0 THEN 'CHANNEL_ONLINE' ELSE 'CHANNEL_TERMINAL' END AS channel,
       CASE i % 5 WHEN 0 THEN 'gambling' ELSE 'food' END AS category, 'de' AS country,
       CASE i % 4 WHEN 0 THEN NULL WHEN 1 THEN 'fr' ELSE 'de' END AS card_country
FROM generate_series(1, 10000) i
"""

EXPECTED = """
SELECT id, 0.01::float8 + CASE WHEN amount > 1000 THEN 0.3 ELSE 0 END
       + CASE category WHEN 'gambling' THEN 0.25 ELSE 0 END
       + CASE channel WHEN 'CHANNEL_ONLINE' THEN 0.1 ELSE 0 END
       + CASE WHEN extract(hour FROM time AT TIME ZONE 'UTC') < 5 THEN 0.1 ELSE 0 END,
       array_remove(ARRAY[CASE WHEN amount > 1000 THEN 'large amount' END,
                          CASE category WHEN 'gambling' THEN 'risky category' END,
                          CASE channel WHEN 'CHANNEL_ONLINE' THEN 'not at a terminal' END,
                          CASE WHEN extract(hour FROM time AT TIME ZONE 'UTC') < 5 THEN 'at night' END], NULL)
FROM transactions ORDER BY id
"""

SCORES = """
SELECT t.id, s.probability, s.reasons FROM transactions t
JOIN "Score" s ON s.id = t.id AND s.amount = t.amount AND s.time = t.time AND s.channel = t.channel
    AND s.merchant_category = t.category AND s.merchant_country = t.country
ORDER BY t.id
"""


@pytest.mark.parametrize("by", ["reflection", "descriptor set"])
def test_an_existing_service(session: Session, fraud_port: int, by: str, tmp_path: Path) -> None:
    options = ""
    if by == "descriptor set":
        options = f", descriptor_set '{readable(FRAUD / 'fraud.binpb', tmp_path)}'"
    create_server(session, fraud_port, options)
    session.execute('IMPORT FOREIGN SCHEMA "acme.fraud.v1.FraudScoring" FROM SERVER service INTO scratch')
    session.execute(TRANSACTIONS)
    expected = session.execute(EXPECTED).fetchall()
    scored = session.execute(SCORES).fetchall()
    assert [(i, round(p, 9), r) for i, p, r in scored] == [(i, round(p, 9), r) for i, p, r in expected]
    (plan,) = session.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {SCORES}").fetchall()
    text = str(plan)
    assert "'Custom Plan Provider': 'Model Join'" in text
    assert "acme.fraud.v1.FraudScoring/Score" in text


def readable(path: Path, directory: Path) -> Path:
    """Copy a file to where the server's user finds it."""
    for parent in (directory, *directory.parents[:2]):
        parent.chmod(0o755)
    copy = directory / path.name
    copy.write_bytes(path.read_bytes())
    copy.chmod(0o644)
    return copy


def test_optional_fields_and_fields_beside_the_rows(session: Session, fraud_port: int) -> None:
    create_server(session, fraud_port)
    session.execute('IMPORT FOREIGN SCHEMA models LIMIT TO ("Score") FROM SERVER service INTO scratch')
    constants = """
        FROM "Score" WHERE id = 'x' AND amount = 5000 AND time = '2026-11-24 12:00+00' AND channel = 'CHANNEL_ONLINE'
        AND merchant_category = 'food' AND merchant_country = 'de'
    """
    unset = session.execute(f"SELECT reasons, model_version {constants}").fetchall()
    assert unset == [(["large amount", "not at a terminal"], "2026-11")]
    bound = session.execute(f"SELECT reasons, transaction_id {constants} AND card_country = 'fr'").fetchall()
    assert bound == [(["large amount", "not at a terminal", "card from another country"], "x")]
    assert session.execute(f"SELECT count(*) {constants}").fetchall() == [(1,)]


def test_errors(session: Session, fraud_port: int) -> None:
    create_server(session, fraud_port)
    session.execute("IMPORT FOREIGN SCHEMA models FROM SERVER service INTO scratch")
    query = """
        SELECT probability FROM "Score" WHERE id = 'x' AND amount = %s AND time = '2026-11-24 12:00+00'
        AND channel = %s AND merchant_category = 'food' AND merchant_country = 'de'
    """
    with pytest.raises(psycopg.Error) as caught:
        session.execute(query, [-5, "CHANNEL_ONLINE"])
    assert (caught.value.sqlstate, caught.value.diag.message_primary) == (
        "HV000",
        f'method "acme.fraud.v1.FraudScoring/Score" failed on model server "127.0.0.1:{fraud_port}": '
        "Exception calling application: amount is negative",
    )
    with pytest.raises(psycopg.Error) as caught:
        session.execute(query, [5, "BY PHONE"])
    assert (caught.value.sqlstate, caught.value.diag.message_detail) == (
        "22P02",
        "Its values are: CHANNEL_UNSPECIFIED, CHANNEL_TERMINAL, CHANNEL_ONLINE.",
    )
    with pytest.raises(psycopg.Error) as caught:
        session.execute("SELECT probability FROM \"Score\" WHERE id = 'x'")
    assert caught.value.sqlstate == "HV00L"
    with pytest.raises(psycopg.Error) as caught:
        session.execute("CREATE FOREIGN TABLE wrong (x float8) SERVER service; SELECT * FROM wrong")
    assert caught.value.sqlstate == "HV00J"


def test_only_readers_of_server_files_may_name_a_descriptor_set(session: Session, fraud_port: int) -> None:
    session.execute("DROP ROLE IF EXISTS some_role")
    session.execute("CREATE ROLE some_role")
    session.execute("GRANT USAGE ON FOREIGN DATA WRAPPER model_fdw TO some_role")
    session.execute("GRANT ALL ON SCHEMA scratch TO some_role")
    try:
        session.execute("SET ROLE some_role")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            create_server(session, fraud_port, ", descriptor_set '/etc/passwd'")
        session.execute("RESET ROLE")
        session.execute("GRANT pg_read_server_files TO some_role")
        session.execute("SET ROLE some_role")
        create_server(session, fraud_port, ", descriptor_set '/etc/passwd'")
        with pytest.raises(psycopg.Error) as caught:
            session.execute("IMPORT FOREIGN SCHEMA models FROM SERVER service INTO scratch")
        assert caught.value.sqlstate == "F0000"
        assert "root" not in str(caught.value)
    finally:
        session.execute("RESET ROLE")
        session.execute("DROP SERVER IF EXISTS service CASCADE")
        session.execute("DROP OWNED BY some_role")
        session.execute("DROP ROLE some_role")


def test_every_kind_of_field_from_sql(session: Session) -> None:
    with ExampleServer() as server:
        create_server(session, server.port)
        session.execute("IMPORT FOREIGN SCHEMA models FROM SERVER service INTO scratch")
        session.execute("SET timezone = 'Europe/Berlin'")
        session.execute(
            """
            CREATE TABLE things AS
            SELECT i AS id, 'thing ' || i AS name, CASE WHEN i % 3 = 0 THEN -1 ELSE i END AS weight,
                   array_fill(i::float8, ARRAY[i % 4]) AS sizes, 'CONDITION_USED' AS condition, 'Ulm' AS town,
                   timestamptz '2026-03-29 01:30+01' + i * interval '10 minutes 0.000001 s' AS made,
                   i::numeric * 10^15 AS edition, decode(lpad(to_hex(i), 8, '0'), 'hex') AS digest
            FROM generate_series(1, 500) i
            """
        )
        rows = session.execute(
            """
            SELECT t.id, v.price, v.offers = t.sizes, v.remarks, v.until = t.made, v.condition_output, v.market_town,
                   v.compared = t.edition, v.seal = decode(
                       substr(encode(t.digest, 'hex'), 7, 2) || substr(encode(t.digest, 'hex'), 5, 2)
                       || substr(encode(t.digest, 'hex'), 3, 2) || substr(encode(t.digest, 'hex'), 1, 2), 'hex'),
                   v.name_output = t.name
            FROM things t LEFT JOIN "Appraise" v ON v.name = t.name AND v.weight = t.weight AND v.sizes = t.sizes
                AND v.condition = t.condition AND v.place_town = t.town AND v.place_country = 'de' AND v.made = t.made
                AND v.edition = t.edition AND v.digest = t.digest AND v.whole = true AND v.library = 'x'
            ORDER BY t.id
            """
        ).fetchall()
        assert rows == [
            (
                i,
                None if i % 3 == 0 else 10.0 * i,
                True,
                [f"thing {i}", "library"][: i % 4],
                True,
                "CONDITION_USED",
                "Ulm",
                True,
                True,
                True,
            )
            for i in range(1, 501)
        ]
        assert session.execute(
            'SELECT "sorted", price FROM "AppraiseOne" WHERE weight = 1 AND sizes = \'{3,1,2}\''
        ).fetchall() == [([1.0, 2.0, 3.0], 10.0)]
        assert session.execute(
            """
            SELECT w, p.prices, p.classes FROM generate_series(1, 3) w
            JOIN "AppraiseColumns" p ON p.weights = w AND p.conditions = 'CONDITION_NEW' ORDER BY w
            """
        ).fetchall() == [(w, 10.0 * w, "class 1") for w in (1, 2, 3)]


def test_batched_and_not_gives_the_same(session: Session) -> None:
    with ExampleServer() as server:
        create_server(session, server.port)
        session.execute("IMPORT FOREIGN SCHEMA models FROM SERVER service INTO scratch")
        query = """
            SELECT i, v.name_output, v.price, v.price_list FROM generate_series(-3, 40) i
            LEFT JOIN "Appraise" v ON v.name = 'n' || i AND v.weight = i AND v.condition = 'CONDITION_NEW'
                AND v.place_town = '' AND v.place_country = '' AND v.sizes = '{}' AND v.digest = '' AND v.whole = false
            ORDER BY i
        """
        answers = []
        for setting, batch in (("on", 4096), ("on", 3), ("off", 4096)):
            session.execute(f"SET model_fdw.enable_model_join = {setting}")
            session.execute(f"ALTER FOREIGN TABLE \"Appraise\" OPTIONS (ADD batch_size '{batch}')".encode())
            answers.append(session.execute(query).fetchall())
            session.execute('ALTER FOREIGN TABLE "Appraise" OPTIONS (DROP batch_size)')
        session.execute("RESET model_fdw.enable_model_join")
        assert answers[0] == answers[1] == answers[2]
        assert [price for _, _, price, _ in answers[0]] == [None] * 3 + [10.0 * i for i in range(41)]


def test_a_wrong_number_of_answers(session: Session) -> None:
    def drop_one(request: Any, context: Any) -> Any:
        response = appraise(request)
        del response.values[random.randrange(len(response.values))]
        return response

    with ExampleServer(Appraise=drop_one) as server:
        create_server(session, server.port)
        session.execute(
            """
            CREATE FOREIGN TABLE item (name text OPTIONS (input 'name'), price float8 OPTIONS (output 'price'))
            SERVER service OPTIONS (method 'model_fdw.example.v1.Appraisal/Appraise')
            """
        )
        with pytest.raises(psycopg.Error) as caught:
            session.execute("SELECT price FROM generate_series(1, 9) i JOIN item ON name = 'n' || i")
        assert caught.value.sqlstate == "HV00M"
        assert caught.value.diag.message_detail is not None
        assert caught.value.diag.message_detail.startswith("The reply has ")


def test_check(session: Session, fraud_port: int) -> None:
    create_server(session, fraud_port)
    session.execute('IMPORT FOREIGN SCHEMA models LIMIT TO ("Score") FROM SERVER service INTO scratch')
    assert session.execute("SELECT * FROM model_fdw_check('\"Score\"')").fetchall() == []
    session.execute('ALTER FOREIGN TABLE "Score" DROP COLUMN merchant_country')
    assert session.execute("SELECT * FROM model_fdw_check('\"Score\"')").fetchall() == []
    session.execute("ALTER FOREIGN TABLE \"Score\" ALTER amount OPTIONS (SET input 'price')")
    problems = session.execute("SELECT problem FROM model_fdw_check('\"Score\"')").fetchall()
    assert problems == [('model "acme.fraud.v1.FraudScoring/Score" has no input tensor "price"',)]


def test_ddl_of_methods(session: Session) -> None:
    with ExampleServer("") as server:
        create_server(session, server.port)
        with pytest.raises(psycopg.Error) as caught:
            session.execute("IMPORT FOREIGN SCHEMA models FROM SERVER service INTO scratch")
        assert (caught.value.sqlstate, caught.value.diag.message_primary) == (
            "0A000",
            f'model server "127.0.0.1:{server.port}" does not offer reflection',
        )
        for options, sqlstate in (
            ("method 'no slash'", "22023"),
            ("method 'a.B/c', model 'm'", "22023"),
            ("rows ''", "22023"),
            ("idempotent 'maybe'", "22023"),
        ):
            with pytest.raises(psycopg.Error) as caught:
                session.execute(f"CREATE FOREIGN TABLE wrong (x float8) SERVER service OPTIONS ({options})")
            assert caught.value.sqlstate == sqlstate
        for options in ("url 'http://h', protocol 'grpc'", "url 'grpc://h', descriptor_set '/x'"):
            with pytest.raises(psycopg.Error) as caught:
                session.execute(f"CREATE SERVER wrong FOREIGN DATA WRAPPER model_fdw OPTIONS ({options})")
            assert caught.value.sqlstate == "22023"


def test_statement_timeout_ends_the_wait(session: Session) -> None:
    released = threading.Event()

    def hang(request: Any, context: Any) -> Any:
        released.wait(30)
        return appraise(request)

    with ExampleServer(Appraise=hang) as server:
        create_server(session, server.port)
        session.execute(
            """
            CREATE FOREIGN TABLE item (name text OPTIONS (input 'name'), price float8 OPTIONS (output 'price'))
            SERVER service OPTIONS (method 'model_fdw.example.v1.Appraisal/Appraise')
            """
        )
        session.execute("SET statement_timeout = 300")
        for query in (
            "SELECT price FROM generate_series(1, 9) i JOIN item ON name = 'n' || i",
            "SELECT * FROM item WHERE name = 'n'",
        ):
            began_s = time.monotonic()
            with pytest.raises(psycopg.errors.QueryCanceled):
                session.execute(query.encode())
            assert time.monotonic() - began_s < 2
        released.set()
        session.execute("RESET statement_timeout")
        assert session.execute("SELECT price FROM item WHERE name = 'n'").fetchall() == [(0.0,)]


def test_a_service_that_is_away(session: Session) -> None:
    with ExampleServer() as server:
        create_server(session, server.port, ", connect_timeout_ms '500'")
        session.execute("IMPORT FOREIGN SCHEMA models FROM SERVER service INTO scratch")
    with pytest.raises(psycopg.Error) as caught:
        session.execute("SELECT price FROM \"AppraiseOne\" WHERE weight = 1 AND sizes = '{1}'")
    assert caught.value.sqlstate in ("08001", "08006")
