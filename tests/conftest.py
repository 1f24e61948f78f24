"""The servers that tests share: real ones, of our own, started when a test first asks for them.

- ``database``: PostgreSQL and Triton for tests that leave both running; ``connection`` is a session in it, with an
  empty schema "scratch" of its own.
- ``victims``: another pair, for tests that kill, stop and pause servers or backends.

A server that does not start is a failure. When they stop, their logs must not tell of a crash.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dev.servers import Postgres, Triton, default_places

DATABASE = "test"
MODELS = Path(__file__).with_name("models")

# What a healthy server never writes, whatever its clients do.
CRASHES = re.compile(
    r"was terminated by signal|PANIC:|TRAP:|Fatal Python error|Traceback \(most recent|stack smashing|double free"
    r"|XX000|unexpected error in the model engine"
)


@dataclass(frozen=True)
class Database:
    """A database with the extension, the foreign server "triton", and all models imported into schema "ml"."""

    postgres: Postgres
    triton: Triton

    def connect(self, **parameters: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """Open a session in autocommit mode; ``parameters`` are settings of the session."""
        options = " ".join(f"-c {name}={value}" for name, value in parameters.items())
        conninfo = self.postgres.conninfo(DATABASE)
        return psycopg.connect(conninfo, autocommit=True, options=options, prepare_threshold=None)

    @contextlib.contextmanager
    def session(self, **parameters: Any) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """Open a session with an empty schema "scratch" first in its search path; close it at the end."""
        with self.connect(**parameters) as connection:
            make_scratch(connection)
            yield connection

    def prepare(self) -> None:
        """Make the database."""
        self.postgres.psql("-c", f"CREATE DATABASE {DATABASE}")
        with self.connect() as connection:
            connection.execute("SET client_min_messages = warning")
            connection.execute("CREATE EXTENSION model_fdw")
            connection.execute(f"CREATE SERVER triton FOREIGN DATA WRAPPER model_fdw OPTIONS (url '{self.triton.url}')")
            connection.execute("CREATE SCHEMA ml")
            connection.execute("IMPORT FOREIGN SCHEMA models FROM SERVER triton INTO ml")

    def set_option(self, table: str, **options: object) -> None:
        """Set options of a foreign table, whether they are there already or not; None drops one."""
        with self.connect() as connection:
            set_table_options(connection, table, **options)


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


@contextlib.contextmanager
def run_servers(name: str) -> Iterator[Database]:
    """Run a pair of servers; look for crashes in PostgreSQL's log when they have stopped."""
    settings = {
        "log_error_verbosity": "verbose",  # with SQLSTATEs
        "max_prepared_transactions": "2",
        "deadlock_timeout": "1min",
    }
    postgres = Postgres(settings=settings, name=f"{name}-postgres")
    with postgres, Triton([default_places().models, MODELS], name=f"{name}-triton") as triton:
        database = Database(postgres, triton)
        database.prepare()
        _running.append(database)
        try:
            yield database
        finally:
            _running.remove(database)
    crashes = [line for line in postgres.log.read_text(errors="replace").splitlines() if CRASHES.search(line)]
    assert not crashes, f"{postgres.log}:\n" + "\n".join(crashes)


@pytest.fixture(scope="session")
def database() -> Iterator[Database]:
    with run_servers("test") as database:
        yield database


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
def victim_servers() -> Iterator[Database]:
    with run_servers("victim") as database:
        yield database


@pytest.fixture
def victims(victim_servers: Database) -> Iterator[Database]:
    """Servers that a test may kill and pause; whatever it did, the next test finds them running."""
    yield victim_servers
    victim_servers.triton.resume()
    if victim_servers.triton.running is None or not victim_servers.triton.running.alive():
        victim_servers.triton.start()
