"""A session survives whatever its model server, its administrator or its own statements do to it."""

from __future__ import annotations

import contextlib
import json
import random
import re
import signal
import statistics
import struct
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import fake_server
import psycopg
import pytest
from conftest import NATIVE, Database, make_scratch, server_like_triton, set_table_options
from psycopg import errors
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

Connection = psycopg.Connection[Any]

MILLION = 1_000_000
JOIN = "SELECT sum(total::float8) FROM readings NATURAL JOIN ml.sum10"
# Ten times the rows: it outlasts the first use of Python in a fresh session.
LONG_JOIN = (
    "SELECT sum(total) FROM (SELECT r.* FROM readings r, generate_series(1, 10) OFFSET 0) r NATURAL JOIN ml.sum10"
)
SCORE = "SELECT s FROM ml.affine WHERE a = 1 AND b = 2"

# A server that refuses, dies or does not answer: what a statement may say about it.
LOST = (errors.ConnectionFailure, errors.SqlclientUnableToEstablishSqlconnection)


@pytest.fixture(scope="module")
def readings(victim_servers: Database) -> None:
    """A million rows for sum10, in schema public."""
    with victim_servers.connect() as connection:
        columns = ", ".join(f"n % {100 + f} + {f} AS f{f}" for f in range(1, 11))
        connection.execute(
            f"CREATE TABLE public.readings AS SELECT n AS id, {columns} FROM generate_series(1, {MILLION}) n".encode()
        )
        connection.execute("ALTER TABLE public.readings ADD PRIMARY KEY (id)")
        connection.execute("VACUUM ANALYZE public.readings")


@pytest.fixture
def session(victims: Database, readings: None) -> Iterator[Connection]:
    with victims.session() as connection:
        yield connection


def check(connection: Connection) -> None:
    assert connection.execute(SCORE).fetchall() == [(8.0,)]
    found = connection.execute(
        "SELECT count(*), sum(s) FROM generate_series(1, 5000) n JOIN ml.affine p ON p.a = n AND p.b = 1"
    ).fetchone()
    assert found == (5000, 2 * 5000 * 5001 // 2 + 3 * 5000)


def revived(victims: Database) -> bool:
    """Start Triton again if it is dead.

    This Triton may die of a request that is cancelled just when it ends, whoever cancels it
    (https://github.com/triton-inference-server/server/issues/7368): no test of ours can forbid that.
    """
    assert victims.triton.running is not None
    # Dying takes it a moment.
    if not victims.triton.running.wait(2):
        return False
    victims.triton.start()
    return True


def scores(connection: Connection, victims: Database) -> None:
    """See that a session gets right answers."""
    try:
        check(connection)
    except LOST:
        if not revived(victims):
            raise
        check(connection)


@contextlib.contextmanager
def paused(victims: Database) -> Iterator[None]:
    victims.triton.pause()
    try:
        yield
    finally:
        victims.triton.resume()


class Statement:
    """A statement that runs in a thread of its own; ``wait`` gives its error and when it came."""

    def __init__(self, connection: Connection, sql: str) -> None:
        self.error: Exception | None = None
        self.ended_s = 0.0
        self.began_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(connection, sql))
        self._thread.start()

    def _run(self, connection: Connection, sql: str) -> None:
        try:
            connection.execute(sql.encode())
        except psycopg.Error as error:
            self.error = error
        self.ended_s = time.monotonic()

    def running(self) -> bool:
        return self._thread.is_alive()

    def wait(self, timeout_s: float = 30) -> Exception | None:
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), f"still running after {time.monotonic() - self.began_s:.1f} s"
        return self.error


def wait_for_event(admin: Connection, pid: int, event: str = "Extension") -> None:
    """Wait until a backend waits for its model server."""
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        row = admin.execute("SELECT wait_event FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone()
        if row == (event,):
            return
        time.sleep(0.005)
    raise AssertionError(f"backend {pid} does not wait for {event}")


def seconds_until(condition: Callable[[], bool], timeout_s: float = 10) -> float:
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() < began_s + timeout_s
        time.sleep(0.001)
    return time.monotonic() - began_s


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


# ---- statement_timeout against a server that never answers ----

own_import = pytest.mark.hosts(NATIVE, reason="Multicorn reports every error of IMPORT as XX000")

UNDESCRIBED = "CREATE FOREIGN TABLE plain (a float8, b float8, s float8) SERVER triton OPTIONS (model 'affine')"

STUCK = {
    "scan": SCORE,
    "join": JOIN,
    "left join": "SELECT count(s) FROM generate_series(1, 10) n LEFT JOIN ml.affine p ON p.a = n AND p.b = n",
    "planning": "SELECT s FROM plain WHERE a = 1 AND b = 2",
    "planning a join": "SELECT s FROM generate_series(1, 10) n JOIN plain p ON p.a = n AND p.b = n",
    "explain": "EXPLAIN SELECT s FROM plain WHERE a = 1 AND b = 2",
    "import": "IMPORT FOREIGN SCHEMA models FROM SERVER triton INTO scratch",
    "in a function": "DO $$ BEGIN PERFORM s FROM ml.affine WHERE a = 1 AND b = 2; END $$",
}


# What a session knows of a model it does not ask again, so EXPLAIN alone waits for nothing in a used one.
@pytest.mark.parametrize(
    ("state", "what"),
    [
        pytest.param(state, what, marks=own_import if what == "import" else ())
        for state in ("fresh", "used")
        for what in STUCK
        if (state, what) != ("used", "explain")
    ],
)
def test_statement_timeout(victims: Database, session: Connection, state: str, what: str) -> None:
    session.execute(UNDESCRIBED)
    if state == "used":
        scores(session, victims)
    session.execute("SET statement_timeout = '500ms'")
    with paused(victims):
        began_s = time.monotonic()
        with pytest.raises(errors.QueryCanceled) as caught:
            session.execute(STUCK[what].encode())
        took_s = time.monotonic() - began_s
    assert caught.value.diag.sqlstate == "57014"
    assert caught.value.diag.message_primary == "canceling statement due to statement timeout"
    assert 0.4 < took_s < 0.7
    session.execute("RESET statement_timeout")
    scores(session, victims)


def test_pause_in_the_middle(victims: Database, session: Connection) -> None:
    """A server that stands still for a while costs time and nothing else."""
    expected = session.execute("SELECT sum(f1+f2+f3+f4+f5+f6+f7+f8+f9+f10) FROM readings").fetchone()
    cursor = session.cursor()
    statement = threading.Thread(target=cursor.execute, args=[JOIN])
    statement.start()
    for _ in range(3):
        time.sleep(0.2)
        with paused(victims):
            time.sleep(0.5)
    statement.join()
    assert cursor.fetchone() == expected


# ---- cancel and terminate ----


def cancel(admin: Connection, pid: int) -> None:
    assert admin.execute("SELECT pg_cancel_backend(%s)", [pid]).fetchone() == (True,)


def terminate(admin: Connection, pid: int) -> None:
    assert admin.execute("SELECT pg_terminate_backend(%s)", [pid]).fetchone() == (True,)


def test_cancel_of_a_running_join(victims: Database, session: Connection) -> None:
    scores(session, victims)
    took_s = []
    with victims.connect() as admin:
        for delay_s in (0.1, 0.2, 0.3):
            statement = Statement(session, JOIN)
            time.sleep(delay_s)
            assert statement.running()
            began_s = time.monotonic()
            cancel(admin, session.info.backend_pid)
            assert isinstance(statement.wait(), errors.QueryCanceled)
            took_s.append(statement.ended_s - began_s)
            scores(session, victims)
    assert statistics.median(took_s) < 0.1


@pytest.mark.parametrize("sql", [JOIN, SCORE, "SELECT s FROM plain WHERE a = 1 AND b = 2"])
def test_cancel_of_a_waiting_statement(victims: Database, session: Connection, sql: str) -> None:
    session.execute(UNDESCRIBED)
    scores(session, victims)
    took_s = []
    with victims.connect() as admin:
        for _ in range(3):
            with paused(victims):
                statement = Statement(session, sql)
                wait_for_event(admin, session.info.backend_pid)
                began_s = time.monotonic()
                cancel(admin, session.info.backend_pid)
                assert isinstance(statement.wait(), errors.QueryCanceled)
                took_s.append(statement.ended_s - began_s)
            scores(session, victims)
    assert statistics.median(took_s) < 0.1


@pytest.mark.parametrize("server", ["running", "paused"])
def test_terminate(victims: Database, readings: None, server: str) -> None:
    took_s = []
    with victims.connect() as admin:
        for _ in range(3):
            with victims.connect() as connection, paused(victims) if server == "paused" else contextlib.nullcontext():
                pid = connection.info.backend_pid
                statement = Statement(connection, LONG_JOIN)
                time.sleep(0.6)
                assert statement.running()
                terminate(admin, pid)
                took_s.append(seconds_until(lambda pid=pid: is_gone(pid)))
                assert isinstance(statement.wait(), (errors.AdminShutdown, psycopg.OperationalError))
    assert statistics.median(took_s) < 0.2


def test_end_of_the_postmaster(victims: Database, session: Connection) -> None:
    """A backend does not outlive PostgreSQL's main process, though its model server never answers."""
    pid = session.info.backend_pid
    scores(session, victims)
    with paused(victims):
        statement = Statement(session, JOIN)
        with victims.connect() as admin:
            wait_for_event(admin, pid)
        assert victims.postgres.running is not None
        victims.postgres.running.send(signal.SIGKILL)
        seconds_until(lambda: is_gone(pid), 2)
        assert isinstance(statement.wait(), psycopg.OperationalError)
    victims.postgres.kill()
    victims.postgres.start()
    with victims.connect() as connection:
        scores(connection, victims)


def restless(connection: Connection, host: str) -> list[str]:
    connection.execute("CREATE TABLE IF NOT EXISTS scratch.few AS SELECT n AS x FROM generate_series(1, 50) n")
    imports = ["IMPORT FOREIGN SCHEMA models FROM SERVER triton INTO scratch"]
    return [
        JOIN,
        "SELECT s FROM plain WHERE a = 1 AND b = 2",
        "SELECT count(y) FROM few JOIN ml.slow USING (x)",
        "SELECT count(*) FROM readings c, ml.affine p WHERE p.a = c.f1 AND p.b = c.f2",
        # Multicorn reports every error of its own as XX000
        *(imports if host == NATIVE else ()),
        "SELECT sum((SELECT s FROM ml.affine WHERE a = x AND b = x)) FROM few",
        "SELECT sum(total) OVER (ORDER BY id) FROM readings NATURAL JOIN ml.sum10 ORDER BY 1 DESC LIMIT 1",
    ]


PARALLEL = {
    "max_parallel_workers_per_gather": 2,
    "parallel_setup_cost": 0,
    "parallel_tuple_cost": 0,
    "min_parallel_table_scan_size": 0,
}


# PostgreSQL compiles a plan of many rows, where it has LLVM, for 100 ms and more without looking for interrupts.
UNCOMPILED = {"jit": "off"}


# The share of the times that must keep to LATE_S; one process in many may have to wait for a processor.
PUNCTUAL = 0.95
LATE_S = 0.1
# A session that is starting Python ends after the module that it imports.
STARTING_LATE_S = 0.2
HUNG_S = 1.0


class Watch:
    """How long processes take to end something, without the time in which they could run and had no processor.

    The kernel counts that time, so that a busy machine makes nobody late. It is the first process's and, because
    the first one waits for the others, that of the one among these that waited longest.
    """

    def __init__(self, pid: int, *others: int) -> None:
        self._pids = (pid, *others)
        self._queued_s = dict.fromkeys(self._pids, 0.0)
        self._began_s = time.monotonic()
        self._at_first = self._read()

    def _read(self) -> dict[int, float]:
        for pid in self._pids:
            with contextlib.suppress(OSError):
                self._queued_s[pid] = int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
        return dict(self._queued_s)

    def until(self, ended: Callable[[], bool], timeout_s: float = 20) -> float:
        """Wait for the end; return how long it took."""
        while not ended():
            self._read()
            assert time.monotonic() < self._began_s + timeout_s
            time.sleep(0.001)
        took_s = time.monotonic() - self._began_s
        now = self._read()
        queued_s = [now[pid] - self._at_first[pid] for pid in self._pids]
        return max(0.0, took_s - queued_s[0] - max(queued_s[1:], default=0))


@dataclass
class Delays:
    """How long joins went on after they were told to end."""

    what: str
    late_s: float
    took_s: list[float] = field(default_factory=list)

    def check(self) -> None:
        took_s = sorted(self.took_s)
        punctual_s, worst_s = took_s[int(len(took_s) * PUNCTUAL) - 1], took_s[-1]
        print(
            f"{len(took_s)} {self.what}: {statistics.median(took_s) * 1000:.1f} ms (median), "
            f"{punctual_s * 1000:.1f} ms ({PUNCTUAL:.0%}), {worst_s * 1000:.1f} ms (at most)"
        )
        assert punctual_s < self.late_s
        assert worst_s < HUNG_S


@pytest.fixture
def interruptions(request: pytest.FixtureRequest) -> int:
    """How many cancels, or terminations, a test at random counts; the seed is the same, so fewer are the first ones."""
    return 100 if request.config.getoption("full") else 50


def pending_requests(victims: Database) -> float:
    """Ask Triton's metrics how many requests it has not answered."""
    url = f"http://127.0.0.1:{victims.triton.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=5) as response:
        text = response.read().decode()
    counts = re.findall(r"^nv_inference_pending_request_count{.*} (\S+)$", text, re.MULTILINE)
    assert counts
    return sum(map(float, counts))


def requests_in_flight(victims: Database) -> float:
    """Count the requests that Triton has not answered; a model that waits for its turn counts, too."""
    before = executions(victims)
    time.sleep(0.3)
    return pending_requests(victims) + executions(victims) - before


def executions(victims: Database) -> int:
    client = InferenceServerClient(victims.triton.grpc)
    found = client.get_inference_statistics()
    client.close()
    return sum(model.execution_count for model in found.model_stats)


def no_requests_stay(victims: Database) -> None:
    """Wait until Triton has answered all; one that dies, see revived(), has nothing to answer any more."""
    assert victims.triton.running is not None
    try:
        if victims.triton.running.alive():
            seconds_until(lambda: requests_in_flight(victims) == 0)
    except (OSError, InferenceServerException):
        assert revived(victims)


def workers(admin: Connection, leader: int) -> list[int]:
    found = admin.execute("SELECT pid FROM pg_stat_activity WHERE leader_pid = %s AND pid <> leader_pid", [leader])
    return [pid for (pid,) in found.fetchall()]


def backends(admin: Connection) -> int:
    row = admin.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('client backend', 'parallel worker')"
    ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("plans", ["serial", "parallel"])
def test_cancels_at_random(victims: Database, session: Connection, plans: str, interruptions: int) -> None:
    """Joins end when they are cancelled, also the first one of a session, and leave nothing behind."""
    source = random.Random(30)
    settings = {**UNCOMPILED, **(PARALLEL if plans == "parallel" else {})}
    for name, value in settings.items():
        session.execute(f"SET {name} = {value}".encode())
    session.execute(UNDESCRIBED)
    statements = restless(session, victims.host)
    began = session.execute("SELECT pg_postmaster_start_time()").fetchone()
    delays = {
        False: Delays(f"cancels, {plans}, in a used session", LATE_S),
        True: Delays(f"cancels, {plans}, in a fresh session", STARTING_LATE_S),
    }
    revivals = tries = 0
    used: list[str] = []
    with victims.connect() as admin:
        while sum(len(found.took_s) for found in delays.values()) < interruptions:
            tries += 1
            assert tries < 4 * interruptions
            fresh = tries % 5 == 0
            joiner = victims.connect(search_path="scratch,public", **settings) if fresh else session
            sql = statements[tries % len(statements)]
            statement = Statement(joiner, sql)
            time.sleep(source.uniform(0, 0.3))
            watch = Watch(joiner.info.backend_pid, *workers(admin, joiner.info.backend_pid))
            cancel(admin, joiner.info.backend_pid)
            took_s = watch.until(lambda statement=statement: not statement.running())
            error = statement.wait()
            if isinstance(error, errors.QueryCanceled):
                delays[fresh].took_s.append(took_s)
            elif isinstance(error, LOST):
                assert revived(victims), error
                revivals += 1
            else:
                assert error is None, error
            if fresh:
                joiner.close()
            if sql.startswith("IMPORT") and error is None:
                admin.execute("DROP SCHEMA scratch CASCADE; CREATE SCHEMA scratch")
                session.execute(UNDESCRIBED)
                restless(session, victims.host)
            if tries == interruptions // 2:
                scores(session, victims)
                used = channels(session)
    no_requests_stay(victims)
    scores(session, victims)
    print(f"\n{tries} statements, seed 30; Triton was started again {revivals} times")
    for found in delays.values():
        found.check()
    print(f"the session has {dict(Counter(channels(session)))}, half-way it had {dict(Counter(used))}")
    # gRPC's pool makes a thread when all are busy, which they easily are on a busy machine.
    used += ["thread event_engine"] * 2

    def nothing_stays() -> bool:
        # A thread that had to wait for a processor ends with a later statement.
        scores(session, victims)
        return not Counter(channels(session)) - Counter(used)

    seconds_until(nothing_stays)
    assert session.execute("SELECT pg_postmaster_start_time()").fetchone() == began


@pytest.mark.parametrize("plans", ["serial", "parallel"])
def test_terminates_at_random(victims: Database, readings: None, plans: str, interruptions: int) -> None:
    """Backends go when they are terminated in a join, half of them in the first one, and leave nothing behind."""
    source = random.Random(31)
    settings = {**UNCOMPILED, **(PARALLEL if plans == "parallel" else {})}
    delays = {
        False: Delays(f"terminates, {plans}, of a used session", LATE_S),
        True: Delays(f"terminates, {plans}, of a fresh session", STARTING_LATE_S),
    }
    revivals = tries = 0
    with victims.session() as admin:
        began = admin.execute("SELECT pg_postmaster_start_time()").fetchone()
        admin.execute(UNDESCRIBED)
        statements = [sql.replace("INTO scratch", "INTO imported") for sql in restless(admin, victims.host)]
        before = backends(admin)
        while sum(len(found.took_s) for found in delays.values()) < interruptions:
            tries += 1
            assert tries < 4 * interruptions
            admin.execute("DROP SCHEMA IF EXISTS imported CASCADE; CREATE SCHEMA imported")
            joiner = victims.connect(search_path="scratch,public", **settings)
            fresh = tries % 2 == 0
            if not fresh:
                scores(joiner, victims)
            pid = joiner.info.backend_pid
            statement = Statement(joiner, statements[tries % len(statements)])
            time.sleep(source.uniform(0, 0.6 if fresh else 0.3))
            running = statement.running()
            watch = Watch(pid, *workers(admin, pid))
            terminate(admin, pid)
            took_s = watch.until(lambda pid=pid: is_gone(pid))
            if running:
                delays[fresh].took_s.append(took_s)
            error = statement.wait()
            assert error is None or isinstance(error, (psycopg.OperationalError, *LOST)), error
            joiner.close()
            revivals += isinstance(error, LOST) and revived(victims)
        no_requests_stay(victims)
        seconds_until(lambda: backends(admin) <= before)
        scores(admin, victims)
        print(f"\n{tries} statements, seed 31; Triton was started again {revivals} times")
        for found in delays.values():
            found.check()
        assert admin.execute("SELECT pg_postmaster_start_time()").fetchone() == began


# ---- servers that go away ----


@pytest.mark.parametrize("sql", [JOIN, "SELECT sum(y) FROM generate_series(1, 40) n JOIN ml.slow p ON p.x = n"])
def test_server_killed_in_the_middle(victims: Database, session: Connection, sql: str) -> None:
    with session.transaction(force_rollback=True):
        set_table_options(session, "ml.slow", batch_size=1)
        killer = threading.Timer(0.4, victims.triton.kill)
        killer.start()
        began_s = time.monotonic()
        with pytest.raises(LOST) as caught:
            session.execute(sql.encode())
        assert time.monotonic() - began_s < 10
        killer.join()
    diag = caught.value.diag
    address = re.escape(victims.triton.grpc)
    assert re.fullmatch(
        f'connection to model server "{address}" was lost|could not reach model server "{address}"',
        diag.message_primary or "",
    )
    assert re.fullmatch(
        r"The (server closed the connection|server reset the connection|connection was refused)\. Attempts: [1-3]\.",
        diag.message_detail or "",
    )
    with pytest.raises(LOST):
        session.execute(SCORE)
    victims.triton.start()
    scores(session, victims)


def test_server_restarted_between_statements(victims: Database, session: Connection) -> None:
    """A connection that broke while it was idle is made again; nobody notices."""
    for _ in range(2):
        scores(session, victims)
        victims.triton.kill()
        victims.triton.start()
    scores(session, victims)


def test_model_unloaded_and_loaded(victims: Database, session: Connection) -> None:
    scores(session, victims)
    victims.triton.unload("affine")
    try:
        with pytest.raises(errors.ObjectNotInPrerequisiteState):
            session.execute(SCORE)
    finally:
        victims.triton.load("affine")
    scores(session, victims)


def test_model_unloaded_in_the_middle(victims: Database, session: Connection) -> None:
    unloader = threading.Timer(0.5, victims.triton.unload, ["slow"])
    unloader.start()
    with session.transaction(force_rollback=True):
        set_table_options(session, "ml.slow", batch_size=1, max_in_flight=1)
        try:
            with pytest.raises(errors.ObjectNotInPrerequisiteState):
                session.execute("SELECT sum(y) FROM generate_series(1, 40) n JOIN ml.slow p ON p.x = n")
        finally:
            unloader.join()
            victims.triton.load("slow")
    assert session.execute("SELECT y FROM ml.slow WHERE x = 4").fetchall() == [(8.0,)]


def test_changed_server_option(victims: Database, session: Connection) -> None:
    """ALTER SERVER counts from the next statement on, in sessions that were connected as well."""
    scores(session, victims)
    with victims.connect() as other:
        other.execute("ALTER SERVER triton OPTIONS (SET url 'grpc://127.0.0.1:1')")
        try:
            with pytest.raises(errors.SqlclientUnableToEstablishSqlconnection):
                session.execute(SCORE)
        finally:
            other.execute(f"ALTER SERVER triton OPTIONS (SET url '{victims.triton.url}')".encode())
    scores(session, victims)


# ---- errors inside a transaction ----


AFTER_FAILURE = {
    "statement": ("{query}", "SELECT 1"),
    "savepoint": ("SAVEPOINT s", "{query}", "ROLLBACK TO s", "SELECT 1"),
    "transaction": ("{query}", "ROLLBACK"),
    "exception block": ("DO $$ BEGIN PERFORM ({query}); EXCEPTION WHEN division_by_zero THEN NULL; END $$",),
    "cursor": ("DECLARE c CURSOR FOR {query}", "FETCH ALL FROM c", "ROLLBACK"),
}


class Selective(fake_server._Servicer):
    """Answers single rows up to 6, and keeps requests for later ones until they are cancelled."""

    kept: ClassVar[set[float]] = set()
    cancelled: ClassVar[set[float]] = set()

    def ModelInfer(self, request: Any, context: Any) -> Any:
        (x,) = struct.unpack("<d", request.raw_input_contents[0])
        if x > 6:
            ended = threading.Event()
            self.kept.add(x)
            # False: it is cancelled already.
            if context.add_callback(ended.set):
                ended.wait()
            self.cancelled.add(x)
        return super().ModelInfer(request, context)


@pytest.mark.parametrize("how", AFTER_FAILURE)
def test_nothing_stays_in_flight(
    victims: Database, session: Connection, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an error, the requests that wait at the server are taken back."""
    monkeypatch.setattr(fake_server, "_Servicer", Selective)
    Selective.kept.clear()
    Selective.cancelled.clear()
    with fake_server.FakeServer() as server:
        session.execute(server_like_triton(session, "fake", f"url '{server.url}'").encode())
        session.execute(
            "CREATE FOREIGN TABLE fake (x float8, y float8) SERVER fake OPTIONS (batch_size '1', max_in_flight '8')"
        )
        try:
            query = "SELECT sum(1 / (p.y - 12)) FROM generate_series(1, 40) n JOIN fake p ON p.x = n"
            if how != "statement":
                session.execute("BEGIN")
            for statement in AFTER_FAILURE[how]:
                try:
                    session.execute(statement.format(query=query).encode())
                except errors.DivisionByZero:
                    assert "{query}" in statement or "FETCH" in statement
            time.sleep(0.3)
            assert Selective.kept
            seconds_until(lambda: Selective.cancelled == Selective.kept, 2)
            session.execute("COMMIT")
        finally:
            session.rollback()
            session.execute("DROP SERVER fake CASCADE")
    scores(session, victims)


def test_failing_batch_in_exception_block(session: Connection) -> None:
    """A batch that the model refuses is caught as any error; what it was joined with goes on."""
    session.execute(
        """
        CREATE FUNCTION root(x float8) RETURNS float8 LANGUAGE plpgsql AS $$
        BEGIN
            RETURN (SELECT y FROM ml.broken p WHERE p.x = root.x);
        EXCEPTION WHEN fdw_error THEN
            RETURN -1;
        END $$
        """
    )
    found = session.execute(
        "SELECT s, root(d) FROM generate_series(1, 300) n JOIN ml.affine p ON p.a = n AND p.b = 150 ORDER BY n"
    ).fetchall()
    assert found == [(2.0 * n + 450, (n - 150) ** 0.5 if n >= 150 else -1.0) for n in range(1, 301)]


def test_query_inside_a_query(session: Connection) -> None:
    """A function in the select list asks a model while batches of the join around it are in flight."""
    session.execute(
        "CREATE FUNCTION cut(s float8) RETURNS bigint LANGUAGE plpgsql AS "
        "$$ BEGIN RETURN (SELECT t FROM ml.chain p WHERE p.s = cut.s + 0.5); END $$"
    )
    with session.transaction(force_rollback=True):
        set_table_options(session, "ml.affine", batch_size=3)
        found = session.execute(
            "SELECT cut(s) FROM generate_series(1, 300) n JOIN ml.affine p ON p.a = n AND p.b = n ORDER BY n"
        ).fetchall()
    assert found == [(5 * n,) for n in range(1, 301)]


def test_procedure_that_commits(session: Connection) -> None:
    session.execute("CREATE TABLE results (s float8)")
    session.execute(
        """
        CREATE PROCEDURE keep() LANGUAGE plpgsql AS $$
        DECLARE r record;
        BEGIN
            FOR r IN SELECT s FROM generate_series(1, 500) n JOIN ml.affine p ON p.a = n AND p.b = 0 LOOP
                INSERT INTO results VALUES (r.s);
                IF r.s::integer % 100 = 0 THEN COMMIT; ELSIF r.s::integer % 50 = 0 THEN ROLLBACK; END IF;
            END LOOP;
        END $$
        """
    )
    session.execute("CALL keep()")
    lost = {n for n in range(2, 1001, 2) if 100 * ((n - 1) // 100) < n <= 100 * ((n - 1) // 100) + 50}
    expected = sorted(set(range(2, 1001, 2)) - lost)
    assert [s for (s,) in session.execute("SELECT s FROM results ORDER BY s").fetchall()] == expected


def test_two_portals_at_once(session: Connection) -> None:
    """Cursors that are read in turns do not take each other's events."""
    with session.transaction(force_rollback=True):
        set_table_options(session, "ml.affine", batch_size=3)
        set_table_options(session, "ml.chain", batch_size=5)
        session.execute(
            "DECLARE one CURSOR FOR SELECT s FROM generate_series(1, 200) n JOIN ml.affine p ON p.a = n AND p.b = n"
        )
        session.execute("DECLARE two CURSOR FOR SELECT t FROM generate_series(1, 200) n JOIN ml.chain p ON p.s = n")
        for n in range(1, 201):
            assert session.execute("FETCH one").fetchone() == (5.0 * n,)
            assert session.execute("FETCH two").fetchone() == (n,)
        assert session.execute("FETCH one").fetchone() is None


def test_failed_portal_beside_a_good_one(session: Connection) -> None:
    with session.transaction(force_rollback=True):
        set_table_options(session, "ml.affine", batch_size=3)
        session.execute(
            "DECLARE good CURSOR FOR SELECT s FROM generate_series(1, 100) n JOIN ml.affine p ON p.a = n AND p.b = n"
        )
        session.execute("FETCH 10 FROM good")
        with pytest.raises(errors.FdwError), session.transaction():
            session.execute(
                "DECLARE bad CURSOR FOR SELECT y FROM generate_series(1, -9, -1) n JOIN ml.broken p ON p.x = n"
            )
            session.execute("FETCH ALL FROM bad")
        rest = session.execute("FETCH ALL FROM good").fetchall()
    assert rest == [(5.0 * n,) for n in range(11, 101)]


# ---- garbage collection ----

# Looks at the signal mask whenever garbage is collected, which threshold 1 makes happen all the time.
PROBE = """
import gc, pathlib, signal, threading

report = pathlib.Path(__file__).with_name("report")
seen = set()

def look(phase, info):
    blocked = signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    main = threading.current_thread() is threading.main_thread()
    if phase == "start" and (blocked, main) not in seen:
        seen.add((blocked, main))
        with report.open("a") as file:
            file.write(f"{blocked} {main}\\n")

gc.callbacks.append(look)
gc.set_threshold(1, 1000, 1000)
"""


@pytest.fixture
def open_path() -> Iterator[Path]:
    """An empty directory in which everybody can write."""
    with tempfile.TemporaryDirectory(prefix="model_fdw-test-", dir="/tmp") as directory:
        path = Path(directory)
        path.chmod(0o777)
        yield path


def test_signals_are_blocked_while_garbage_is_collected(victims: Database, readings: None, open_path: Path) -> None:
    """Collected garbage may be a channel, and what closing it starts must inherit the blocked signals."""
    (open_path / "probe.py").write_text(PROBE)
    (open_path / "probe.pth").write_text("import probe\n")
    with victims.connect() as fresh:
        fresh.execute("LOAD 'model_fdw'")
        [(path,)] = fresh.execute("SHOW model_fdw.python_path").fetchall()
        make_scratch(fresh)
        fresh.execute(f"SET model_fdw.python_path = '{open_path}:{path}'")
        fresh.execute("IMPORT FOREIGN SCHEMA models LIMIT TO (affine, sum10) FROM SERVER triton INTO scratch")
        fresh.execute(UNDESCRIBED)
        scores(fresh, victims)
        fresh.execute("SELECT s FROM plain WHERE a = 1 AND b = 2")
        fresh.execute(f"EXPLAIN (ANALYZE) {JOIN} WHERE id < 50000".encode())
    reports = (open_path / "report").read_text().splitlines()
    assert "True True" in reports
    assert not [report for report in reports if report.startswith("False")]


# ---- no more than is needed ----


def explain(connection: Connection, sql: str) -> dict[str, Any]:
    row = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}".encode()).fetchone()
    assert row is not None
    plan: dict[str, Any] = row[0][0]["Plan"]
    return plan


def model_join(plan: dict[str, Any]) -> dict[str, Any]:
    """Find the Model Join in a plan."""
    nodes = [plan]
    for node in nodes:
        if node.get("Custom Plan Provider") == "Model Join":
            return node
        nodes += node.get("Plans", [])
    raise AssertionError(f"no Model Join in {json.dumps(plan, indent=1)}")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT total FROM readings NATURAL JOIN ml.sum10 LIMIT 10",
        "SELECT total FROM readings NATURAL JOIN ml.sum10 ORDER BY id LIMIT 10",
        "SELECT total FROM readings c NATURAL LEFT JOIN ml.sum10 LIMIT 10",
    ],
)
def test_limit(session: Connection, sql: str) -> None:
    node = model_join(explain(session, sql))
    assert 10 <= node["Rows Sent"] <= 128


def test_batches_grow(session: Connection) -> None:
    node = model_join(explain(session, JOIN))
    assert node["Rows Sent"] == MILLION
    assert node["Largest Batch"] == 4096
    assert node["Batches"] < MILLION / 4096 + 8


def test_small_work_mem(session: Connection) -> None:
    expected = session.execute("SELECT sum(f1+f2+f3+f4+f5+f6+f7+f8+f9+f10) FROM readings WHERE id <= 20000").fetchone()
    session.execute("SET work_mem = '64kB'")
    assert session.execute(f"{JOIN} WHERE id <= 20000".encode()).fetchone() == expected


@pytest.mark.parametrize(("work_mem", "largest"), [("1MB", 21), ("10MB", 210)])
def test_wide_rows_make_short_batches(session: Connection, work_mem: str, largest: int) -> None:
    """What all batches keep of their rows, 10 kB each, fits into work_mem: a fifth of it in each of five."""
    session.execute("CREATE TABLE wide AS SELECT n, repeat('x', 10000) AS text FROM generate_series(1, 2000) n")
    session.execute("ALTER TABLE wide ALTER text SET STORAGE EXTERNAL")
    session.execute("CREATE TABLE wider AS SELECT n, text || n AS text FROM wide")
    session.execute(f"SET work_mem = '{work_mem}'".encode())
    for sql in (
        "SELECT n, text || '' FROM (SELECT n, text || '' AS text FROM wider OFFSET 0) w "
        "JOIN ml.affine p ON p.a = n AND p.b = n",
        "SELECT n, label FROM (SELECT n, text || '' AS text FROM wider OFFSET 0) w NATURAL JOIN ml.sentiment",
    ):
        node = model_join(explain(session, sql))
        assert node["Rows Sent"] == 2000
        assert largest / 3 < node["Largest Batch"] <= largest


def test_many_rows_do_not_accumulate(session: Connection) -> None:
    session.execute(JOIN)
    before = memory_kb(session)
    session.execute(LONG_JOIN)
    assert memory_kb(session) < before + 64_000


def test_wide_rows(session: Connection) -> None:
    """Texts of a megabyte each do not pile up by the thousand."""
    session.execute("SET work_mem = '4MB'")
    session.execute("CREATE TABLE wide AS SELECT n, repeat('good ', 200000) AS text FROM generate_series(1, 60) n")
    before = memory_kb(session)
    found = session.execute("SELECT n, label, length(text) FROM wide NATURAL JOIN ml.sentiment ORDER BY n").fetchall()
    assert found == [(n, "positive", 1_000_000) for n in range(1, 61)]
    assert peak_memory_kb(session) - before < 100_000


# ---- cursors ----


@pytest.mark.parametrize("kind", ["NO SCROLL CURSOR", "SCROLL CURSOR", "CURSOR WITH HOLD", "SCROLL CURSOR WITH HOLD"])
def test_cursor(session: Connection, kind: str) -> None:
    count = 5003
    held = "HOLD" in kind
    with session.transaction():
        session.execute(
            f"DECLARE c {kind} FOR SELECT id, s FROM readings r JOIN ml.affine p ON p.a = r.id AND p.b = r.f1 "
            f"WHERE id <= {count} ORDER BY id".encode()
        )
        rows = []
        if not held:
            rows = fetch_tens(session)
            if kind.startswith("SCROLL"):
                assert session.execute("FETCH ABSOLUTE 17 FROM c").fetchone() == rows[16]
                assert session.execute("FETCH PRIOR FROM c").fetchone() == rows[15]
                assert session.execute("FETCH BACKWARD 5 FROM c").fetchall() == rows[10:15][::-1]
                assert session.execute("FETCH LAST FROM c").fetchone() == rows[-1]
                assert session.execute("FETCH FIRST FROM c").fetchone() == rows[0]
                assert fetch_tens(session) == rows[1:]
    if held:
        rows = fetch_tens(session)
    expected = session.execute(f"SELECT id, 2.0 * id + 3 * f1 FROM readings WHERE id <= {count} ORDER BY id".encode())
    assert rows == [(n, float(s)) for n, s in expected.fetchall()]


def fetch_tens(session: Connection) -> list[Any]:
    rows: list[Any] = []
    while some := session.execute("FETCH 10 FROM c").fetchall():
        rows += some
    return rows


# ---- nothing grows ----


def descriptors(connection: Connection) -> int:
    return len(list(Path(f"/proc/{connection.info.backend_pid}/fd").iterdir()))


def channels(connection: Connection) -> list[str]:
    """List sockets, pipes, events and threads: descriptors that are no files, which PostgreSQL keeps open by itself."""
    process = Path(f"/proc/{connection.info.backend_pid}")
    found = []
    for link in (process / "fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(link.readlink()).partition(":[")[0])
    for task in (process / "task").iterdir():
        with contextlib.suppress(OSError):
            found.append(f"thread {(task / 'comm').read_text().strip()}")
    return sorted(kind for kind in found if not kind.startswith("/"))


def threads(connection: Connection) -> int:
    return len(list(Path(f"/proc/{connection.info.backend_pid}/task").iterdir()))


def status_kb(connection: Connection, field: str) -> int:
    text = Path(f"/proc/{connection.info.backend_pid}/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    assert found
    return int(found[1])


def memory_kb(connection: Connection) -> int:
    return status_kb(connection, "RssAnon")


def peak_memory_kb(connection: Connection) -> int:
    return status_kb(connection, "VmHWM") - status_kb(connection, "RssFile") - status_kb(connection, "RssShmem")


def switches(connection: Connection) -> dict[str, int]:
    """Count how often each of Python's threads in the session has slept or been put aside."""
    pid = connection.info.backend_pid
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            # gRPC gives its own threads names.
            if task.name != str(pid) and (task / "comm").read_text().strip() == "postgres":
                numbers = re.findall(r"_ctxt_switches:\s+(\d+)", (task / "status").read_text())
                found[task.name] = sum(map(int, numbers))
    return found


def test_no_thread_of_an_idle_session_wants_to_run(victims: Database, session: Connection) -> None:
    """Python's threads end or sleep when the statement ends: later they would ask for the interpreter all the time."""
    session.execute(UNDESCRIBED)
    session.execute(server_like_triton(session, "over_http", f"url 'http://{victims.triton.http}'").encode())
    session.execute(UNDESCRIBED.replace("plain", "plain_http").replace("triton", "over_http").encode())
    statements = [
        SCORE,
        "SELECT s FROM plain WHERE a = 1 AND b = 2",
        "SELECT sum(total) FROM readings NATURAL JOIN ml.sum10 WHERE id < 5000",
        "SELECT total FROM readings NATURAL JOIN ml.sum10 LIMIT 1",
        "SELECT s FROM plain_http WHERE a = 1 AND b = 2",
    ]
    awake: Counter[str] = Counter()
    for number in range(80):
        sql = statements[number % len(statements)]
        session.execute(sql.encode())
        before = switches(session)
        time.sleep(0.1)
        # One that waits for the interpreter wakes up every 5 ms.
        awake[sql] += any(count - before.get(task, count) > 5 for task, count in switches(session).items())
    print(f"a thread was awake after {awake}, each run 16 times")
    # Without a processor for 10 ms one may.
    assert max(awake.values()) <= 2


def test_nothing_grows(victims: Database, session: Connection) -> None:
    """Descriptors, threads and memory after 200 statements of every kind are what they were after 40."""
    session.execute(UNDESCRIBED)

    def work(number: int) -> None:
        scores(session, victims)
        session.execute("SELECT s FROM plain WHERE a = 1 AND b = 2")
        session.execute("SELECT sum(total) FROM readings NATURAL JOIN ml.sum10 WHERE id < 5000")
        session.execute("SELECT total FROM readings NATURAL JOIN ml.sum10 LIMIT 1")
        with pytest.raises(errors.FdwError):
            session.execute("SELECT sum(y) FROM generate_series(100, -100, -1) n JOIN ml.broken p ON p.x = n")
        with pytest.raises(errors.FdwTableNotFound):
            session.execute("SELECT * FROM nothing WHERE a = 1")
        session.execute("SET statement_timeout = '20ms'")
        with pytest.raises(errors.QueryCanceled):
            session.execute("SELECT y FROM ml.slow WHERE x = 1")
        session.execute("RESET statement_timeout")

    session.execute("CREATE FOREIGN TABLE nothing (a float8) SERVER triton")
    for number in range(5):
        work(number)
    before = descriptors(session), threads(session)
    memory = memory_kb(session)
    for number in range(25):
        work(number)
    assert descriptors(session) <= before[0]
    assert threads(session) <= before[1]
    assert memory_kb(session) < memory + 8_000
