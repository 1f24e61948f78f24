"""The servers, the data, and the statements that the benchmark measures."""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psycopg

from bench.client import Task
from bench.measure import Expected, Route, Run
from bench.models import write_model
from dev.places import CHECKOUT
from dev.screen import Failure, step
from dev.servers import HOST, Postgres, Triton

FEATURES = 10
BATCH_SIZE, IN_FLIGHT = 4096, 4
WIDTHS = (1, 10, 30, 100)
PAYLOAD_MODELS = CHECKOUT / "bench" / "payload_models"
# Values in a table of other features than ten: so that all of them take about as long.
VALUES = 10_000_000
SEED = 0.42
# One process, one core: what is compared is the work, not how it is spread.
SESSION = "SET max_parallel_workers_per_gather = 0"


@dataclass(frozen=True)
class Table:
    """Rows to score."""

    name: str
    features: int
    rows: int

    @property
    def model(self) -> str:
        """Name the model, which is also the foreign table."""
        return f"sum{self.features}"

    @property
    def columns(self) -> list[str]:
        """Name the features."""
        return [f"f{number}" for number in range(1, self.features + 1)]

    def source(self, rows: int) -> str:
        """Name the first rows, as an item of FROM."""
        return self.name if rows == self.rows else f"(SELECT * FROM {self.name} WHERE id <= {rows}) AS sample"


@dataclass(frozen=True)
class Setting:
    """How the model is asked, the same for all routes. latency_ms: what the wire to the server adds."""

    batch_size: int = BATCH_SIZE
    in_flight: int = IN_FLIGHT
    latency_ms: int = 0


@dataclass
class Workbench:
    """A database with rows, a Triton with models, and a session in which the statements run.

    addresses: the server's address by latency in ms.
    """

    postgres: Postgres
    triton: Triton
    session: psycopg.Connection
    addresses: dict[int, str]
    wires: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def verify_rows(self, table: Table, rows: int) -> None:
        """Compare each row's output with SQL: a sum over all rows would not notice two that were swapped."""
        model = self.apply(table, Setting())
        [[count, wrong]] = self.session.execute(
            "SELECT count(*), count(*) FILTER (WHERE NOT abs(total - exact) <= %s * exact)"
            f" FROM (SELECT total, {exact_sum(table)} AS exact"
            f" FROM {table.source(rows)} NATURAL JOIN {model}) AS answers",
            [Expected(1, 1.0, table.features).tolerance],
        ).fetchall()
        if (count, wrong) != (rows, 0):
            raise Failure(f"{table.model}: {count} of {rows} rows came back, {wrong} of them with a wrong output")

    # ---- the model's tables

    def schema(self, latency_ms: int) -> str:
        """Name the schema of the foreign tables behind a wire with this latency; make it at first use."""
        name = f"ml{latency_ms}" if latency_ms else "ml"
        if latency_ms not in self.addresses:
            self.addresses[latency_ms] = self.wires.enter_context(wire(self.triton.grpc, latency_ms))
        if self.session.execute("SELECT to_regnamespace(%s)", [name]).fetchone() == (None,):
            create_model_tables(self.session, name, self.addresses[latency_ms])
            # A tensor of one element becomes a column of the tensor's name.
            with contextlib.suppress(psycopg.errors.UndefinedColumn):
                self.session.execute(f"ALTER FOREIGN TABLE {name}.sum1 RENAME x TO f1")
            for width in WIDTHS:
                self.session.execute(
                    f"ALTER FOREIGN TABLE {name}.sum{width} OPTIONS (ADD batch_size '1', ADD max_in_flight '1')"
                )
        return name

    def apply(self, table: Table, setting: Setting) -> str:
        """Give a model's table the setting; return its name."""
        name = f"{self.schema(setting.latency_ms)}.{table.model}"
        self.session.execute(
            f"ALTER FOREIGN TABLE {name} OPTIONS"
            f" (SET batch_size '{setting.batch_size}', SET max_in_flight '{setting.in_flight}')"
        )
        return name

    # ---- routes

    def scan(self, table: Table, rows: int) -> Route:
        """Read the rows and add up the features."""
        query = f"SELECT {rows}, NULL, sum({' + '.join(table.columns)}) FROM {table.source(rows)}"
        return Route("scan", functools.partial(timed, self.session, query), expect(self.session, table, rows))

    def join(self, label: str, table: Table, rows: int, setting: Setting) -> Route:
        """Join with the model and read the outputs."""

        def run() -> Run:
            model = self.apply(table, setting)
            return timed(self.session, joined(table, rows, model))

        return Route(label, run, expect(self.session, table, rows))

    def join_one_by_one(self, label: str, table: Table, rows: int) -> Route:
        """Run the same query without the Model Join: one request a row."""

        def run() -> Run:
            model = self.apply(table, Setting())
            self.session.execute("SET model_fdw.enable_model_join = off")
            try:
                return timed(self.session, joined(table, rows, model))
            finally:
                self.session.execute("RESET model_fdw.enable_model_join")

        return Route(label, run, expect(self.session, table, rows))

    def join_written(self, label: str, table: Table, rows: int) -> Route:
        """Join with the model and write the outputs into a table."""

        def run() -> Run:
            model = self.apply(table, Setting())
            self.session.execute("TRUNCATE scored")
            started = time.perf_counter()
            self.session.execute(f"INSERT INTO scored SELECT id, total FROM {table.source(rows)} NATURAL JOIN {model}")
            return self._read_scored(time.perf_counter() - started)

        return Route(label, run, expect(self.session, table, rows))

    def client(self, label: str, peer: str, table: Table, rows: int, setting: Setting, reader: str = "libpq") -> Route:
        """Run a client program of bench/client.py."""

        def run() -> Run:
            self.schema(setting.latency_ms)
            self.session.execute("TRUNCATE scored")
            task = Task(
                self.postgres.conninfo(),
                self.addresses[setting.latency_ms],
                table.model,
                table.source(rows),
                table.features,
                setting.batch_size,
                setting.in_flight,
                reader,
            )
            answer = run_program([sys.executable, "-m", "bench.client", peer, json.dumps(asdict(task))])
            return self._read_scored(answer.seconds) if peer == "write-back" else answer

        return Route(label, run, expect(self.session, table, rows))

    def _read_scored(self, seconds: float) -> Run:
        """Read back what a route wrote, outside the measured time."""
        [[rows, total]] = self.session.execute(
            "SELECT count(*), sum(total::double precision) FROM (SELECT DISTINCT ON (id) * FROM scored) AS once"
        ).fetchall()
        return Run(rows, seconds, total)


def create_model_tables(session: psycopg.Connection, schema: str, address: str) -> None:
    """Import the models into a schema, through a server of the same name."""
    session.execute("CREATE EXTENSION IF NOT EXISTS model_fdw")
    session.execute(f"CREATE SERVER {schema} FOREIGN DATA WRAPPER model_fdw OPTIONS (url 'grpc://{address}')".encode())
    session.execute(f"CREATE SCHEMA {schema}".encode())
    session.execute(f"IMPORT FOREIGN SCHEMA models FROM SERVER {schema} INTO {schema}".encode())


def create_table(session: psycopg.Connection, name: str, features: int, rows: int) -> Table:
    """Make a table of random numbers, the same ones every time."""
    table = Table(name, features, rows)
    values = ", ".join(f"random() AS {column}" for column in table.columns)
    session.execute(f"SELECT setseed({SEED})")
    session.execute(f"CREATE TABLE {name} AS SELECT id, {values} FROM generate_series(1, {rows}) AS id")
    for column in table.columns:
        session.execute(f"ALTER TABLE {name} ALTER {column} SET NOT NULL")
    session.execute(f"ALTER TABLE {name} ADD PRIMARY KEY (id)")
    session.execute(f"VACUUM ANALYZE {name}")
    return table


def expect(session: psycopg.Connection, table: Table, rows: int) -> Expected:
    """Let SQL add up what the model is asked to add up, from the same single-precision inputs."""
    [[count, total]] = session.execute(f"SELECT count(*), sum({exact_sum(table)}) FROM {table.source(rows)}").fetchall()
    if count != rows:
        raise Failure(f"table {table.name} has {count} of {rows} rows")
    return Expected(rows, total, table.features)


def timed(session: psycopg.Connection, query: str) -> Run:
    """Time a query whose first two columns are the rows and the sum of the outputs."""
    started = time.perf_counter()
    rows, total, *_ = session.execute(query).fetchall()[0]
    return Run(rows, time.perf_counter() - started, total)


def exact_sum(table: Table) -> str:
    """Write the model's sum in SQL: double precision, from the single-precision numbers that are sent."""
    return " + ".join(f"{column}::real::double precision" for column in table.columns)


def joined(table: Table, rows: int, model: str) -> str:
    """Write the query that reads all outputs."""
    return f"SELECT count(*), sum(total::double precision) FROM {table.source(rows)} NATURAL JOIN {model}"


def run_program(command: Sequence[str | Path]) -> Run:
    """Run a program that writes a Run as JSON."""
    result = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise Failure(f"{' '.join(map(str, command[1:4]))} failed: {result.stderr.strip()}")
    return Run(**json.loads(result.stdout))


@contextlib.contextmanager
def wire(address: str, latency_ms: int) -> Iterator[str]:
    """Put a latency between us and a server; give the address to use."""
    command = [sys.executable, str(CHECKOUT / "bench" / "delay.py"), address, str(latency_ms)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"{HOST}:{int(process.stdout.readline())}"
        finally:
            process.terminate()


@contextlib.contextmanager
def set_up() -> Iterator[Workbench]:
    """Start the servers, and stop them at the end."""
    with contextlib.ExitStack() as started:
        repository = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="model_fdw-bench-")))
        for width in WIDTHS:
            write_model(repository, width)
        with step("starting PostgreSQL"):
            postgres = started.enter_context(Postgres(name="bench-postgres"))
        with step("starting Triton"):
            triton = started.enter_context(Triton([repository, PAYLOAD_MODELS], name="bench-triton"))
        session = started.enter_context(psycopg.connect(postgres.conninfo(), autocommit=True))
        session.execute("CREATE TABLE scored (id integer NOT NULL, total real NOT NULL)")
        session.execute(SESSION)
        workbench = Workbench(postgres, triton, session, {0: triton.grpc})
        started.enter_context(workbench.wires)
        yield workbench
