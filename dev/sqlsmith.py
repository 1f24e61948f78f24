"""Queries that sqlsmith makes at random, on a PostgreSQL of our own with the library preloaded: make test-sqlsmith.

sqlsmith reads the catalog of a database (dev/sqlsmith.sql) and writes queries; this program runs them. Each is
explained first, which counts those with a Model Join and has every plan written out, then executed and rolled back.
What ends a backend, and an internal error (class XX) that is not PostgreSQL's own, is a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from dev.places import CHECKOUT
from dev.screen import Failure, duration, say, shown, step
from dev.servers import Postgres, default_places

DATABASE, ROLE = "smith", "smith"
NODE = re.compile(r"Custom Scan \(Model (Join|Append)\)")
TIMEOUT = "500ms"
RECOVERY_S = 60
MOST_CRASHES = 20
TICK_S = 30

SERVER_SETTINGS = {
    "shared_preload_libraries": "model_fdw",
    "log_error_verbosity": "verbose",  # with SQLSTATEs
    "log_min_error_statement": "panic",
    "statement_timeout": TIMEOUT,
    "jit": "off",  # costs more than any of these queries
}
# They take turns, so that other plans win.
PLANNERS: tuple[dict[str, str], ...] = (
    {},
    {"enable_hashjoin": "off", "enable_mergejoin": "off"},
    {"enable_partitionwise_join": "on", "enable_partitionwise_aggregate": "on"},
    {"join_collapse_limit": "1", "from_collapse_limit": "1"},
    {"enable_material": "off", "enable_memoize": "off", "enable_hashagg": "off"},
    {"enable_nestloop": "off", "enable_seqscan": "off"},
    {"geqo_threshold": "2"},
    {"parallel_setup_cost": "0", "parallel_tuple_cost": "0", "min_parallel_table_scan_size": "0"},
)
QUERIES_PER_PLANNER = 50
# Internal errors that PostgreSQL makes without the library, too: what the message begins with, and where it is from.
STOCK: dict[str, str] = {}


@dataclass(frozen=True)
class Crash:
    """What the server's log tells of the end of a backend: the line, and the statement that was running."""

    what: str
    statement: str = ""


@dataclass
class Tally:
    """What came of the queries. errors: by SQLSTATE; internal: by message, the first query and how many there were."""

    queries: int = 0
    with_node: int = 0
    slowest_s: float = 0
    errors: Counter[str] = field(default_factory=Counter)
    internal: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    lost: int = 0

    def add_error(self, error: psycopg.Error, query: str) -> None:
        """Count an error that the server has told."""
        state = error.sqlstate or ""
        self.errors[f"{state} {psycopg.errors.lookup(state).__name__}"] += 1
        if state.startswith("XX"):
            message = f"{state}: {error.diag.message_primary}"
            self.internal[message] += 1
            self.examples.setdefault(message, query)


def read_crashes(log: str) -> list[Crash]:
    """Read from a server's log what ended backends: failed assertions, signals, panics."""
    crashes = [Crash(line) for line in re.findall(r"^TRAP:.*", log, flags=re.MULTILINE)]
    entry = re.compile(r"^[-\d]+ [:.\d]+ \w+ \[\d+\] (\w+): +(.*(?:\n\t.*)*)", flags=re.MULTILINE)
    ended = ""
    for severity, text in entry.findall(log):
        plain = re.sub(r"^[0-9A-Z]{5}: ", "", text.replace("\n\t", "\n"))
        if severity == "DETAIL" and ended and "was running: " in plain:
            crashes[-1] = Crash(ended, plain.partition("was running: ")[2])
        ended = plain if severity == "PANIC" or (severity == "LOG" and "was terminated by signal" in plain) else ""
        if ended:
            crashes.append(Crash(ended))
    return crashes


def read_queries(lines: Iterable[str]) -> Iterator[str]:
    """Take what "sqlsmith --dry-run" writes apart; only the last line of a query ends with a semicolon."""
    query: list[str] = []
    for line in lines:
        query.append(line)
        if line.rstrip().endswith(";"):
            yield "".join(query).strip().removesuffix(";")
            query = []


def is_stock(message: str) -> bool:
    """Tell whether an internal error is one of PostgreSQL's own."""
    return any(message.partition(": ")[2].startswith(known) for known in STOCK)


class Smith:
    """Sessions that run one stream of queries."""

    def __init__(self, postgres: Postgres, queries: Iterator[str], deadline: float) -> None:
        """Run until the deadline."""
        self.postgres, self.queries, self.deadline = postgres, queries, deadline
        self.tally = Tally()
        self.lock = threading.Lock()

    def run(self, sessions: int) -> None:
        """Run the queries in several sessions, each in a thread."""
        threads = [threading.Thread(target=self._session, daemon=True) for _ in range(sessions)]
        for thread in threads:
            thread.start()
        told = time.monotonic()
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.2)
            if time.monotonic() > told + TICK_S:
                told = time.monotonic()
                say(f"  {self.tally.queries} queries, {self.tally.with_node} with a Model Join")

    def _next(self) -> tuple[int, str] | None:
        with self.lock:
            tally = self.tally
            if time.monotonic() > self.deadline or tally.lost > MOST_CRASHES:
                return None
            query = next(self.queries, None)
            tally.queries += 1
            return None if query is None else (tally.queries, query)

    def _session(self) -> None:
        connection = None
        while (taken := self._next()) is not None:
            number, query = taken
            try:
                connection = connection or connect(self.postgres)
                self._query(connection, number, query)
            except psycopg.Error as error:
                if connection is None or connection.broken:
                    with self.lock:
                        self.tally.lost += 1
                    connection = None
                else:
                    connection.rollback()
                    with self.lock:
                        self.tally.add_error(error, query)
        if connection is not None:
            connection.close()

    def _query(self, connection: psycopg.Connection[Any], number: int, query: str) -> None:
        started = time.monotonic()
        try:
            for name, value in PLANNERS[number // QUERIES_PER_PLANNER % len(PLANNERS)].items():
                connection.execute(f"SET LOCAL {name} = {value}".encode())
            rows = connection.execute(f"EXPLAIN (VERBOSE) {query}".encode()).fetchall()
            if any(NODE.search(line) for (line,) in rows):
                with self.lock:
                    self.tally.with_node += 1
            connection.execute(query.encode())
            connection.rollback()
        finally:
            with self.lock:
                self.tally.slowest_s = max(self.tally.slowest_s, time.monotonic() - started)


def connect(postgres: Postgres) -> psycopg.Connection[Any]:
    """Open a session; wait for a server that recovers from a crash."""
    deadline = time.monotonic() + RECOVERY_S
    while True:
        try:
            return psycopg.connect(conninfo(postgres), prepare_threshold=None)
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def conninfo(postgres: Postgres) -> str:
    """Give the connection string of the role that sqlsmith has."""
    return f"host={postgres.host} port={postgres.port} user={ROLE} dbname={DATABASE}"


@contextlib.contextmanager
def model_server() -> Iterator[str]:
    """Run the tests' model server, give its URL. It reads its program from us: its user may not see the checkout."""
    account = default_places().account
    with (CHECKOUT / "tests" / "fake_server.py").open() as program:
        process = subprocess.Popen(
            [sys.executable, "-"],
            stdin=program,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            **account.popen_arguments(),
        )
    try:
        assert process.stdout is not None
        yield f"grpc://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def smith(postgres: Postgres, seed: int) -> Iterator[Iterator[str]]:
    """Run sqlsmith, which only writes queries, and give them."""
    command = ["sqlsmith", f"--target={conninfo(postgres)}", "--dry-run", "--exclude-catalog", f"--seed={seed}"]
    log = default_places().log / "sqlsmith.log"
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert process.stdout is not None
        yield read_queries(process.stdout)
    finally:
        process.kill()
        process.wait()


def owner(postgres: Postgres, query: str) -> str:
    """Tell whether a query fails without the node as well."""
    with connect(postgres) as connection:
        try:
            connection.execute("SET model_fdw.enable_model_join = off")
            connection.execute(f"EXPLAIN (VERBOSE) {query}".encode())
            connection.execute(query.encode())
        except psycopg.Error as error:
            return f"without the node: {error.sqlstate} {error.diag.message_primary}"
    return "without the node: no error"


def report(postgres: Postgres, tally: Tally, crashes: Sequence[Crash]) -> list[str]:
    """Say what came of the queries; return what is wrong."""
    say(
        f"{tally.queries} queries, {tally.with_node} planned with a Model Join, the slowest {duration(tally.slowest_s)}"
    )
    for error, count in tally.errors.most_common():
        say(f"{count:6} {error}")
    wrong = []
    for crash in crashes:
        wrong.append(crash.what)
        say(f"crash: {crash.what}\n{crash.statement}")
    for message, count in tally.internal.most_common():
        if not is_stock(message):
            wrong.append(message)
        known = " (PostgreSQL's own)" if is_stock(message) else f"; {owner(postgres, tally.examples[message])}"
        say(f"{count} times {message}{known}\n{tally.examples[message]}")
    if tally.lost and not crashes:
        wrong.append(f"{tally.lost} sessions were lost")
    return wrong


def main() -> int:
    """Run; return 1 where something is wrong, or where too few queries had a node."""
    parser = argparse.ArgumentParser(
        prog="make test-sqlsmith", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--minutes", type=float, default=10, help="how long to run")
    parser.add_argument("--least", type=int, default=5000, help="how many queries must be planned with a Model Join")
    parser.add_argument("--seed", type=int, default=random.randrange(2**31), help="sqlsmith's")
    parser.add_argument("--sessions", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    postgres = Postgres(settings=SERVER_SETTINGS, name="sqlsmith-postgres")
    with model_server() as url, postgres:
        release = postgres.psql("-Atc", "SHOW server_version").strip()
        with step(f"preparing a database in PostgreSQL {release}"):
            prepare(postgres, url)
        say(f"seed {arguments.seed}")
        deadline = time.monotonic() + 60 * arguments.minutes
        with smith(postgres, arguments.seed) as queries:
            run = Smith(postgres, queries, deadline)
            run.run(arguments.sessions)
        crashes = read_crashes(postgres.log.read_text(errors="replace"))
        wrong = report(postgres, run.tally, crashes)
    if run.tally.with_node < arguments.least:
        wrong.append(f"only {run.tally.with_node} queries of {arguments.least} were planned with a Model Join")
    for line in dict.fromkeys(wrong):
        say(f"FAILED: {line}")
    say(f"the server's log is {shown(postgres.log)}")
    return 1 if wrong else 0


def prepare(postgres: Postgres, url: str) -> None:
    """Make the database."""
    postgres.psql("-c", f"CREATE DATABASE {DATABASE}")
    script = Path(__file__).with_suffix(".sql").read_text()
    postgres.psql("-v", f"url={url}", "-f", "-", database=DATABASE, text=script)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(str(failure))
