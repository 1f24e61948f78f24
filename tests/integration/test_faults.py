"""Whatever is wrong with a model server: an error that says so, in time, from a backend that lives on.

The report at the end lists each fault, from a scan and from a join: SQLSTATE, text, and the time until it came.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from conftest import Database
from fake_server import Behaviour, FakeServer

Connection = psycopg.Connection[Any]

pytestmark = pytest.mark.hosts("native", reason="Multicorn has one SQLSTATE; the engine behind both is the same")

TIMEOUT_MS = 400
CONNECT_TIMEOUT_MS = 300
# Deadlines, and what a machine with other work to do adds to them.
LIMIT_S = 3.0

QUERIES = {
    "scan": "SELECT x, y FROM {} WHERE x = ANY ('{{1,2,3,4,5,6,7,8,9}}')",
    "join": "SELECT t.x, t.y FROM generate_series(1, 9) n LEFT JOIN {} t ON t.x = n",
}
RIGHT = [(float(x), 2.0 * x) for x in range(1, 10)]


class Expected(NamedTuple):
    """The SQLSTATE, and a pattern of message and detail; '' for rows that are right."""

    sqlstate: str
    pattern: str


MALFORMED = 'model "fake" sent a malformed reply'
LATE = f"did not answer within {TIMEOUT_MS} ms"
LOST = "connection to model server .* was lost|could not reach model server"

FAULTS: dict[str, Expected] = {
    "never-answers": Expected("HV00M", LATE),
    "never-answers-metadata": Expected("HV00M", LATE),
    "late": Expected("HV00M", LATE),
    "drips": Expected("HV00M", LATE),
    "resets": Expected("08006", LOST),
    "resets-in-reply": Expected("08006", LOST),
    "accepts-and-hangs": Expected("08001", "did not answer in time"),
    "swallows": Expected("08001", "did not answer in time"),
    "refuses": Expected("08001", "The connection was refused"),
    "garbage": Expected("08001", LOST),
    "goaway": Expected("08006", LOST),
    "wrong-rows": Expected("HV00M", f"{MALFORMED}.*has shape"),
    "wrong-dtype": Expected("HV00M", f"{MALFORMED}.*has dtype INT64"),
    "wrong-shape": Expected("HV00M", f"{MALFORMED}.*has shape"),
    "truncated": Expected("HV00M", f"{MALFORMED}.*holds 21 bytes instead of 24"),
    "surplus": Expected("HV00M", f"{MALFORMED}.*holds 29 bytes instead of 24"),
    "missing-output": Expected("HV00M", f"{MALFORMED}.*is missing"),
    "gibberish": Expected("HV00M", f"{MALFORMED}.*not what the protocol says"),
    "huge": Expected("54000", "is too large"),
    "unloads": Expected("HV00R", 'model "fake" does not exist'),
    "status": Expected("HV000", "The server reports that it is unavailable"),
}


class Row(NamedTuple):
    """One line of the report."""

    fault: str
    query: str
    sqlstate: str
    seconds: float
    text: str


@pytest.fixture(scope="module")
def report(request: pytest.FixtureRequest) -> Iterator[list[Row]]:
    rows: list[Row] = []
    yield rows
    terminal = request.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is None:
        return
    terminal.ensure_newline()
    terminal.write_line(f"{'fault':24} {'query':6}{'state':7}{'after':>7}  text")
    for row in rows:
        terminal.write_line(f"{row.fault:24} {row.query:6}{row.sqlstate:7}{row.seconds:5.2f} s  {row.text}")


@pytest.fixture(scope="module")
def healthy() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture(scope="module")
def lasting(database: Database) -> Iterator[Connection]:
    """One session for all faults: what one leaves behind would be found by the next."""
    with database.connect(statement_timeout="10s") as connection:
        yield connection


@pytest.fixture
def session(lasting: Connection, healthy: FakeServer) -> Iterator[Connection]:
    add_table(lasting, "healthy", healthy.url)
    try:
        yield lasting
    finally:
        lasting.execute("DROP SERVER IF EXISTS healthy, faulty CASCADE")


def add_table(connection: Connection, name: str, url: str, timeout_ms: int = TIMEOUT_MS) -> None:
    """Make a server and a table of the same name; what is said of the columns leaves nothing to ask for planning."""
    server = f"url '{url}', connect_timeout_ms '{CONNECT_TIMEOUT_MS}', max_message_bytes '65536'"
    table = f"model 'fake', batch_size '3', timeout_ms '{timeout_ms}', max_attempts '2'"
    said = "dtype 'FP64', shape '[-1,1]'"
    for sql in (
        f"CREATE SERVER {name} FOREIGN DATA WRAPPER model_fdw OPTIONS ({server})",
        f"CREATE FOREIGN TABLE {name} (x float8 OPTIONS (input 'x', {said}), y float8 OPTIONS (output 'y', {said}))"
        f" SERVER {name} OPTIONS ({table})",
    ):
        connection.execute(sql.encode())


def run(connection: Connection, query: str, table: str) -> list[tuple[Any, ...]]:
    return sorted(connection.execute(QUERIES[query].format(table).encode()).fetchall())


def text_of(error: psycopg.Error) -> str:
    diag = error.diag
    text = f"{diag.message_primary}. {diag.message_detail or ''}".strip()
    return re.sub(r"127\.0\.0\.1:[0-9]+", "ENDPOINT", text)


def check(connection: Connection, report: list[Row], fault: str, query: str, expected: Expected) -> None:
    """Run a query on table "faulty": the error, its time, and that the same backend goes on to be right."""
    pid = connection.info.backend_pid
    began_s = time.monotonic()
    with pytest.raises(psycopg.Error) as caught:
        run(connection, query, "faulty")
    took_s = time.monotonic() - began_s
    report.append(Row(fault, query, caught.value.sqlstate or "", took_s, text_of(caught.value)))
    assert caught.value.sqlstate == expected.sqlstate, text_of(caught.value)
    assert re.search(expected.pattern, text_of(caught.value))
    assert took_s < LIMIT_S
    assert run(connection, query, "healthy") == RIGHT
    assert connection.execute("SELECT pg_backend_pid()").fetchone() == (pid,)


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("fault", FAULTS)
def test_fault(session: Connection, report: list[Row], fault: str, query: str) -> None:
    with FakeServer(fault) as server:
        add_table(session, "faulty", server.url)
        check(session, report, fault, query, FAULTS[fault])


@pytest.mark.parametrize("query", QUERIES)
def test_unknown_host(session: Connection, report: list[Row], query: str) -> None:
    add_table(session, "faulty", "grpc://no-such-host.invalid")
    check(session, report, "unknown host", query, Expected("08001", "host name could not be resolved"))


@pytest.mark.parametrize("query", QUERIES)
def test_not_a_number(session: Connection, report: list[Row], query: str) -> None:
    """NaN is an answer like any other."""
    with FakeServer("nan") as server:
        add_table(session, "faulty", server.url)
        began_s = time.monotonic()
        assert [str(y) for _, y in run(session, query, "faulty")] == ["nan"] * 9
        report.append(Row("nan", query, "00000", time.monotonic() - began_s, "9 rows, each NaN"))


@pytest.mark.parametrize("query", QUERIES)
def test_restart_in_the_middle(session: Connection, report: list[Row], query: str) -> None:
    """A server that is back before the attempts are used up costs no row."""
    first = FakeServer(Behaviour(delay_s=0.1))
    add_table(session, "faulty", first.url, timeout_ms=5000)
    session.execute("ALTER FOREIGN TABLE faulty OPTIONS (SET max_attempts '10', ADD max_in_flight '1')")
    second: list[FakeServer] = []

    def restart() -> None:
        while first.calls["ModelInfer"] < 2:
            time.sleep(0.01)
        first.stop()
        second.append(FakeServer(port=first.port))

    thread = threading.Thread(target=restart)
    thread.start()
    try:
        began_s = time.monotonic()
        assert run(session, query, "faulty") == RIGHT
        took_s = time.monotonic() - began_s
        thread.join()
        report.append(Row("restarted in the middle", query, "00000", took_s, "9 rows, all right"))
        assert second[0].calls["ModelInfer"] >= 1
    finally:
        thread.join()
        second[0].stop()


def sockets_of(pid: int) -> int:
    links = Path(f"/proc/{pid}/fd").iterdir()
    found = 0
    for link in links:
        with contextlib.suppress(OSError):
            found += str(link.readlink()).startswith("socket:")
    return found


def test_a_thousand_connections(session: Connection, report: list[Row], healthy: FakeServer) -> None:
    """Each change of credentials makes a new connection, and the old one goes."""
    pid = session.info.backend_pid
    run(session, "scan", "healthy")
    session.execute("CREATE USER MAPPING FOR CURRENT_USER SERVER healthy OPTIONS (token '0')")
    before = sockets_of(pid)
    session.execute("SET statement_timeout = 0")
    began_s = time.monotonic()
    for number in range(1, 1001):
        sql = f"ALTER USER MAPPING FOR CURRENT_USER SERVER healthy OPTIONS (SET token '{number}')"
        session.execute(f"{sql}; SELECT y FROM healthy WHERE x = 1".encode())
    took_s = time.monotonic() - began_s
    session.execute("SET statement_timeout = '10s'")
    assert healthy.headers["authorization"] == "Bearer 1000"
    after = sockets_of(pid)
    report.append(Row("1000 connections", "scan", "00000", took_s, f"{before} sockets before, {after} after"))
    assert after <= before + 16
    assert run(session, "join", "healthy") == RIGHT


def test_fifty_backends(database: Database, session: Connection, report: list[Row]) -> None:
    """Fifty sessions at once, with one of two endpoints that resets every connection: each gets all of its rows."""
    with FakeServer(Behaviour(delay_s=0.01)) as server, FakeServer("resets") as broken:
        add_table(session, "faulty", f"{broken.url},{server.url}", timeout_ms=60_000)
        problems: list[str] = []

        def work() -> None:
            try:
                with database.connect() as connection:
                    found = run(connection, "join", "faulty")
                if found != RIGHT:
                    problems.append(f"wrong rows: {found}")
            except psycopg.Error as error:
                problems.append(text_of(error))

        threads = [threading.Thread(target=work) for _ in range(50)]
        began_s = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took_s = time.monotonic() - began_s
        report.append(Row("50 backends at once", "join", "00000", took_s, "9 rows each, all right"))
        assert problems == []
        assert run(session, "join", "healthy") == RIGHT
