"""The servers that tests share: real ones, of our own, started when a test first asks for them.

- ``database``: PostgreSQL and Triton for tests that leave both running; ``connection`` is a session in it, with an
  empty schema "scratch" of its own.
- ``victims``: another pair, for tests that kill, stop and pause servers or backends.

A server that does not start is a failure. When they stop, their logs must not tell of a crash.

``--host`` says whose tables the tests use: those of our own foreign data wrapper, or Multicorn's, with our library
loaded or without it (make test ARGS="--host multicorn"). A test that cannot run there says why (mark "hosts"). Tests of
Multicorn run where a PostgreSQL has it: the one that is tested, else Debian's.
"""

from __future__ import annotations

import contextlib
import random
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest

from dev import multicorn, valgrind
from dev.places import installed
from dev.servers import Postgres, Triton, default_places
from fdw import connections

DATABASE = "test"
NATIVE, MULTICORN, ALONE = "native", "multicorn", "multicorn-alone"
HOSTS = (NATIVE, MULTICORN, ALONE)
MODELS = Path(__file__).with_name("models")

# What a healthy server never writes, whatever its clients do; XX000 is the only SQLSTATE that Multicorn has.
MULTICORN_CRASHES = re.compile(
    r"was terminated by signal|PANIC:|TRAP:|Fatal Python error|Traceback \(most recent|stack smashing|double free"
    r"|unexpected error in the model engine"
)
CRASHES = re.compile(rf"{MULTICORN_CRASHES.pattern}|XX000")

# No files in the checkout, no failures because the machine is busy.
hypothesis.settings.register_profile("unit", database=None, deadline=None)
hypothesis.settings.load_profile("unit")

pytest.register_assert_rewrite("helpers")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--host", choices=HOSTS, default=NATIVE, help="whose foreign tables the tests use")
    parser.addoption(
        "--full", action="store_true", help="every query shape under every setting, all cancels at random; not a part"
    )
    parser.addoption("--chroot", action="store_true", help="also run test_chroot.py, which takes minutes")
    seed = random.SystemRandom().randrange(1_000_000)
    parser.addoption("--seed", default=str(seed), help="of random statements: a number; 7:300 runs statement 300 alone")
    parser.addoption("--times", type=float, default=1, help="how many times as many random statements as usual")
    parser.addoption("--replica-rows", type=int, default=500_000, help="rows that test_replicas.py joins")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "hosts(*names, reason): the only hosts that can do this, and why")


def pytest_report_header(config: pytest.Config) -> list[str]:
    found = multicorn.find_multicorn(default_places())
    settings = "all for each shape" if config.getoption("full") else "some for each shape (make test-full: all)"
    host = f"host: {config.getoption('host')}; {f'Multicorn: {found.pg_config}' if found else multicorn.NOT_FOUND}"
    return [host, f"settings: {settings}"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    host = config.getoption("host")
    for item in items:
        for mark in item.iter_markers("hosts"):
            if host not in mark.args:
                item.add_marker(pytest.mark.skip(reason=f"{host}: {mark.kwargs['reason']}"))


@dataclass(frozen=True)
class Database:
    """A database with the foreign server "triton", and all models imported into schema "ml"."""

    postgres: Postgres
    triton: Triton
    host: str = NATIVE
    name: str = DATABASE

    def connect(self, **parameters: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """Open a session in autocommit mode; ``parameters`` are settings of the session."""
        options = " ".join(f"-c {name}={value}" for name, value in parameters.items())
        conninfo = self.postgres.conninfo(self.name)
        return psycopg.connect(conninfo, autocommit=True, options=options, prepare_threshold=None)

    @contextlib.contextmanager
    def session(self, **parameters: Any) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """Open a session with an empty schema "scratch" first in its search path; close it at the end."""
        with self.connect(**parameters) as connection:
            make_scratch(connection)
            yield connection

    def prepare(self) -> None:
        """Make the database."""
        self.postgres.psql("-c", f"CREATE DATABASE {self.name}")
        if self.host == MULTICORN:
            self.postgres.psql("-c", f"ALTER DATABASE {self.name} SET session_preload_libraries = 'model_fdw'")
        with self.connect() as connection:
            connection.execute("SET client_min_messages = warning")
            connection.execute(f"CREATE EXTENSION {'model_fdw' if self.host == NATIVE else 'multicorn'}".encode())
            connection.execute(create_server(self.host, "triton", f"url '{self.triton.url}'").encode())
            connection.execute("CREATE SCHEMA ml")
            connection.execute("IMPORT FOREIGN SCHEMA models FROM SERVER triton INTO ml")


def create_server(host: str, name: str, options: str) -> str:
    """Write the statement that makes a foreign server, the only one in which hosts differ."""
    if host == NATIVE:
        return f"CREATE SERVER {name} FOREIGN DATA WRAPPER model_fdw OPTIONS ({options})"
    return multicorn.create_server(name, options)


def compile_library(source: Path, target: Path) -> None:
    """Build a library in C for the PostgreSQL that is tested."""
    pg_config = default_places().pg_config
    flags = subprocess.run([pg_config, "--cppflags"], capture_output=True, text=True, check=True).stdout.split()
    include = f"-I{installed(pg_config, 'includedir-server')}"
    subprocess.run(["gcc", "-g", "-shared", "-fPIC", include, *flags, "-o", target, source], check=True)


def run_client(postgres: Postgres, program: str, *arguments: str | Path) -> str:
    """Run a client program of a server's PostgreSQL, which must succeed and complain of nothing."""
    environment = {**postgres.environment("postgres"), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    command = [postgres.bindir / program, *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return result.stdout


def server_like_triton(connection: psycopg.Connection[Any], name: str, options: str) -> str:
    """Write the statement that makes a foreign server of the host that "triton" has."""
    row = connection.execute(
        "SELECT fdwname FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = srvfdw "
        "WHERE srvname = 'triton'"
    ).fetchone()
    return create_server(NATIVE if row == ("model_fdw",) else MULTICORN, name, options)


def make_scratch(connection: psycopg.Connection[Any]) -> None:
    """Give a session an empty schema "scratch", first in its search path."""
    connection.execute("SET client_min_messages = warning")
    connection.execute("DROP SCHEMA IF EXISTS scratch CASCADE")
    connection.execute("CREATE SCHEMA scratch")
    connection.execute("SET search_path = scratch, public")
    connection.execute("RESET client_min_messages")


def set_table_options(connection: psycopg.Connection[Any], table: str, **options: object) -> None:
    """Set options of a foreign table, whether they are there already or not; None drops one."""
    row = connection.execute(
        "SELECT coalesce(ftoptions, '{}') FROM pg_foreign_table WHERE ftrelid = %s::regclass", [table]
    ).fetchone()
    assert row is not None
    present = {option.partition("=")[0] for option in row[0]}
    for name, value in options.items():
        if value is not None:
            action = f"{'SET' if name in present else 'ADD'} {name} '{value}'"
        elif name in present:
            action = f"DROP {name}"
        else:
            continue
        connection.execute(f"ALTER FOREIGN TABLE {table} OPTIONS ({action})".encode())


def set_locally(connection: psycopg.Connection[Any], settings: Mapping[str, str]) -> None:
    """Set settings, by their names from PostgreSQL 16 on, until the end of the transaction."""
    for name, value in settings.items():
        renamed = name == "debug_parallel_query" and connection.info.server_version < 160000
        connection.execute(f"SET LOCAL {'force_parallel_mode' if renamed else name} = '{value}'".encode())


_running: list[Database] = []


def revive() -> bool:
    """Start a Triton again that has died, and tell whether one had.

    Version 2.51 can crash when many requests are cancelled (its issues 7368 and 8034), as every early end of a query
    cancels some; a test that is about something else goes on.
    """
    dead = [database for database in _running if not (database.triton.running and database.triton.running.alive())]
    for database in dead:
        print("\nTriton has died, and is started again")
        database.triton.start()
    return bool(dead)


@pytest.fixture(autouse=True)
def living_servers() -> None:
    """Let no test suffer from what a crash of Triton in an earlier one left."""
    revive()


@pytest.fixture(autouse=True)
def no_connections() -> None:
    """Let no test of the engine remember the models of a fake server that had the same port before."""
    connections._connections.clear()


@contextlib.contextmanager
def run_postgres(name: str, host: str = NATIVE) -> Iterator[Postgres]:
    """Run a PostgreSQL that has a host; look for crashes, and for what valgrind found, when it has stopped."""
    settings = {
        "log_error_verbosity": "verbose",  # with SQLSTATEs
        "max_prepared_transactions": "2",
        "deadlock_timeout": "1min",
    }
    if host != NATIVE:
        places = multicorn.find_multicorn(default_places()) or pytest.skip(multicorn.NOT_FOUND)
        postgres = multicorn.multicorn_postgres(places, settings=settings, name=f"{name}-postgres")
    elif valgrind.is_wanted():
        reports = valgrind.new_reports(default_places(), name)
        # Preloaded, so that Python is started once, not slowly in each session.
        settings["shared_preload_libraries"] = "model_fdw"
        postgres = Postgres(
            settings=settings,
            variables=valgrind.ENVIRONMENT,
            under=valgrind.command(reports),
            name=f"{name}-postgres",
        )
    else:
        postgres = Postgres(settings=settings, name=f"{name}-postgres")
    with postgres:
        yield postgres
    crashes = CRASHES if host == NATIVE else MULTICORN_CRASHES
    found = [line for line in postgres.log.read_text(errors="replace").splitlines() if crashes.search(line)]
    assert not found, f"{postgres.log}:\n" + "\n".join(found)
    if postgres.under:
        errors = [str(error) for error in valgrind.read_errors(reports) if error.is_ours]
        assert not errors, f"{reports}:\n" + "\n".join(errors)


@contextlib.contextmanager
def run_servers(name: str, host: str) -> Iterator[Database]:
    """Run a pair of servers."""
    with (
        run_postgres(name, host) as postgres,
        Triton([default_places().models, MODELS], name=f"{name}-triton") as triton,
    ):
        database = Database(postgres, triton, host)
        database.prepare()
        _running.append(database)
        try:
            yield database
        finally:
            _running.remove(database)


@pytest.fixture(scope="session")
def host(request: pytest.FixtureRequest) -> str:
    """Whose foreign tables the tests use."""
    name: str = request.config.getoption("host")
    return name


@pytest.fixture(scope="session")
def database(host: str) -> Iterator[Database]:
    with run_servers("test", host) as database:
        yield database


@pytest.fixture(scope="session")
def multicorn_postgres() -> Iterator[Postgres]:
    """A PostgreSQL with Multicorn."""
    with run_postgres("multicorn", MULTICORN) as postgres:
        yield postgres


@pytest.fixture(scope="session")
def loaded(multicorn_postgres: Postgres, database: Database) -> Database:
    """A database of Multicorn's tables with the library loaded."""
    made = Database(multicorn_postgres, database.triton, MULTICORN, "loaded")
    made.prepare()
    return made


@pytest.fixture(scope="session")
def native_beside(multicorn_postgres: Postgres, database: Database) -> Database:
    """A database of our own tables in the PostgreSQL with Multicorn."""
    made = Database(multicorn_postgres, database.triton, NATIVE, "native")
    made.prepare()
    return made


@pytest.fixture(scope="session")
def alone(multicorn_postgres: Postgres, database: Database) -> Database:
    """A database of Multicorn's tables without the library."""
    made = Database(multicorn_postgres, database.triton, ALONE, "alone")
    made.prepare()
    return made


@pytest.fixture(scope="session")
def lasting_connection(database: Database) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    with database.connect() as connection:
        yield connection


@pytest.fixture
def connection(
    lasting_connection: psycopg.Connection[tuple[Any, ...]],
) -> psycopg.Connection[tuple[Any, ...]]:
    """A session with an empty schema "scratch" first in its search path, and nothing else of an earlier test.

    It is one session for all tests: what a test leaves behind in the backend is found by those that follow.
    """
    lasting_connection.rollback()
    lasting_connection.autocommit = True
    lasting_connection.execute("DISCARD ALL")
    make_scratch(lasting_connection)
    return lasting_connection


@pytest.fixture(scope="session")
def victim_servers(host: str) -> Iterator[Database]:
    with run_servers("victim", host) as database:
        yield database


@pytest.fixture
def victims(victim_servers: Database) -> Iterator[Database]:
    """Servers that a test may kill and pause; whatever it did, the next test finds them running."""
    yield victim_servers
    victim_servers.triton.resume()
    if victim_servers.triton.running is None or not victim_servers.triton.running.alive():
        victim_servers.triton.start()
