"""What the library costs a database that asks no model: pgbench without it, with it, and with model tables beside."""

from __future__ import annotations

import contextlib
import os
import random
import re
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.measure import LOAD_SAMPLE_S, Meter, busy_cores
from bench.report import Report
from dev.screen import Failure, step
from dev.servers import Postgres

DATABASE = "idle"
TABLES = 10
# Each query is the join of all tables: what the planner's hooks see most of.
JOIN = " NATURAL JOIN ".join(f"dimension{number}" for number in range(TABLES))
TRANSACTIONS = re.compile(r"^number of transactions actually processed: ([0-9]+)", re.MULTILINE)
# The postmaster counts the time of a backend that it has seen end.
REAP_S = 0.1
TPS = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)
# No address is asked: the table is described whole.
MODEL = """
CREATE EXTENSION model_fdw;
CREATE SERVER triton FOREIGN DATA WRAPPER model_fdw OPTIONS (url 'grpc://127.0.0.1:1');
CREATE FOREIGN TABLE model (x float8 OPTIONS (input 'x', dtype 'FP64', shape '[-1,1]'),
    y float8 OPTIONS (output 'y', dtype 'FP64', shape '[-1,1]')) SERVER triton OPTIONS (model 'm');
"""


@dataclass(frozen=True)
class Work:
    """What pgbench runs; script: the statements of one transaction, one of pgbench's own where there is none."""

    label: str
    arguments: Sequence[str] = ()
    script: str = ""


WORKS = (
    Work("TPC-B-like, simple protocol"),
    Work("SELECT only, simple protocol", ("-S",)),
    Work("SELECT only, prepared", ("-S", "-M", "prepared")),
    Work(f"EXPLAIN of a join of {TABLES} tables", script=f"EXPLAIN SELECT * FROM {JOIN};"),
    Work("EXPLAIN of a partitionwise join, 2 x 16", script="EXPLAIN SELECT * FROM parted a JOIN parted b USING (id);"),
    Work("a connection for each SELECT", ("-S", "-C")),
    Work(
        "CREATE, ALTER and DROP TABLE",
        script="CREATE TABLE made (a int); ALTER TABLE made ADD b int; DROP TABLE made;",
    ),
)


@dataclass(frozen=True)
class Outcome:
    """One run of pgbench: transactions per second, and the server's CPU time for one of them."""

    tps: float
    cpu_ms: float


@dataclass(frozen=True)
class Variant:
    """A server to compare."""

    label: str
    preload: bool
    extension: bool


PLAIN = Variant("without", preload=False, extension=False)
VARIANTS = (
    Variant("preloaded", preload=True, extension=False),
    Variant("preloaded, model tables beside", preload=True, extension=True),
)


def compare_idle(meter: Meter, rounds: int, seconds: int) -> Report:
    """Run each work on all servers in turn, many short times; a ratio is of two runs of the same turn."""
    heads = [part for variant in VARIANTS for part in (f"{variant.label}: rate", "CPU time")]
    report = Report(
        f"pgbench beside an idle library, {rounds} turns of {seconds} s",
        ["work", "without: tps", "CPU time, ms", *heads],
    )
    with contextlib.ExitStack() as stack:
        with step("making three servers"):
            servers = {variant: stack.enter_context(serve(variant)) for variant in (PLAIN, *VARIANTS)}
        scripts = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for work in WORKS:
            with step(work.label):
                runs = take_turns(meter, servers, work, scripts, rounds, seconds)
            base = runs[PLAIN]
            cells = [
                f"{statistics.median(run.tps for run in base):,.0f}",
                f"{statistics.median(run.cpu_ms for run in base):.3g}",
            ]
            for variant in VARIANTS:
                pairs = list(zip(runs[variant], base, strict=True))
                cells.append(describe_ratios([run.tps / plain.tps for run, plain in pairs]))
                cells.append(describe_ratios([run.cpu_ms / plain.cpu_ms for run, plain in pairs]))
            report.add(work.label, *cells)
    report.remarks += [
        "Ratios are of a server with the library and the one without, each of two runs of one turn: median"
        " (lower and upper quartile). CPU time is the server's for a transaction, with its processes' start and end.",
    ]
    return report


@contextlib.contextmanager
def serve(variant: Variant) -> Iterator[Postgres]:
    """Run a server with pgbench's tables and those of the planner's work."""
    settings = {"shared_preload_libraries": "model_fdw"} if variant.preload else {}
    name = f"idle-{'extension' if variant.extension else 'preloaded' if variant.preload else 'plain'}-postgres"
    with Postgres(settings={**settings, "enable_partitionwise_join": "on", "autovacuum": "off"}, name=name) as postgres:
        postgres.psql("-c", f"CREATE DATABASE {DATABASE}")
        postgres.run("pgbench", "-i", "-q", database=DATABASE)
        for number in range(TABLES):
            postgres.psql(
                "-c", f"CREATE TABLE dimension{number} (id int PRIMARY KEY, v{number} int)", database=DATABASE
            )
        parts = "".join(
            f"CREATE TABLE parted{number} PARTITION OF parted FOR VALUES WITH (MODULUS 16, REMAINDER {number});"
            for number in range(16)
        )
        postgres.psql(
            "-c",
            f"CREATE TABLE parted (id int PRIMARY KEY, v int) PARTITION BY HASH (id); {parts}",
            database=DATABASE,
        )
        if variant.extension:
            postgres.psql("-c", MODEL, database=DATABASE)
        postgres.psql("-c", "VACUUM ANALYZE", database=DATABASE)
        yield postgres


def take_turns(
    meter: Meter, servers: dict[Variant, Postgres], work: Work, scripts: Path, rounds: int, seconds: int
) -> dict[Variant, list[Outcome]]:
    """Run one work on each server, again and again."""
    arguments = [*work.arguments, "-n", "-T", str(seconds)]
    if work.script:
        script = scripts / "script.sql"
        script.write_text(work.script)
        arguments += ["-f", str(script)]
    runs: dict[Variant, list[Outcome]] = {variant: [] for variant in servers}
    order = list(servers)
    chance = random.Random(1)
    for postgres in servers.values():
        # Caches are filled, and the server's files are in memory.
        postgres.run("pgbench", *arguments, database=DATABASE)
    for _ in range(rounds):
        meter.load.append(busy_cores(LOAD_SAMPLE_S))
        chance.shuffle(order)
        for variant in order:
            runs[variant].append(measure(servers[variant], *arguments))
    return runs


def describe_ratios(ratios: Sequence[float]) -> str:
    """Write the median of ratios and how far they lie from each other."""
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} - {high:.2f})"


def measure(postgres: Postgres, *arguments: str) -> Outcome:
    """Run pgbench with one client."""
    before = cpu_seconds(postgres)
    output = postgres.run("pgbench", *arguments, database=DATABASE)
    time.sleep(REAP_S)
    spent = cpu_seconds(postgres) - before
    tps, count = TPS.search(output), TRANSACTIONS.search(output)
    if tps is None or count is None:
        raise Failure(f"pgbench printed something else than expected: {output}")
    return Outcome(float(tps[1]), 1000 * spent / int(count[1]))


def cpu_seconds(postgres: Postgres) -> float:
    """Read the CPU time of the postmaster and of the backends that have ended."""
    assert postgres.running is not None
    fields = Path(f"/proc/{postgres.running.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")
