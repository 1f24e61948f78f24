"""One thing changed at a time: batch size, requests in flight and latency, features, and memory over rows."""

from __future__ import annotations

import contextlib
import functools
import re
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.measure import Expected, Meter, Rate, Route, serial_limit
from bench.models import BUSY, BUSY_MS, write_busy_model, write_model
from bench.report import Report, rate, share, spread
from bench.workbench import (
    BATCH_SIZE,
    FEATURES,
    IN_FLIGHT,
    SESSION,
    VALUES,
    WIDTHS,
    Setting,
    Table,
    Workbench,
    create_model_tables,
    create_table,
    expect,
    joined,
    timed,
)
from dev.screen import Failure, step
from dev.servers import Postgres, Triton

BATCH_SIZES = (1, 16, 64, 256, 1024, 4096, 16384)
IN_FLIGHTS = (1, 2, 4, 8)
LATENCIES_MS = (0, 20)
REPLICAS = (1, 3)
# Two for each Triton: one that it computes, one that is on its way.
REPLICAS_IN_FLIGHT = 6
# What a run of a slow setting may take, in requests: a run of single rows then ends in some seconds.
MAX_REQUESTS = 2_000
MAX_WAITS = 50


def sweep_batch_size(bench: Workbench, meter: Meter, table: Table) -> Report:
    """Vary the rows of a request."""
    report = Report(
        f"Batch size ({IN_FLIGHT} in flight)",
        ["rows a batch", "Model Join, rows/s", "raw client, rows/s", "of the serial limit", "slowest - fastest"],
    )
    with step("batch sizes"):
        scan = meter.measure([bench.scan(table, table.rows)])["scan"].median
        for size in BATCH_SIZES:
            pair = measure_pair(bench, meter, table, min(table.rows, size * MAX_REQUESTS), Setting(batch_size=size))
            report.add(f"{size:,}", *pair.cells(scan))
    return report


def sweep_in_flight(bench: Workbench, meter: Meter, table: Table) -> Report:
    """Vary the requests in flight, on a fast wire and on a slow one."""
    report = Report(
        f"Requests in flight and latency ({BATCH_SIZE} rows a batch)",
        ["latency, in flight", "Model Join, rows/s", "raw client, rows/s", "of the serial limit", "slowest - fastest"],
        remarks=["The latency is added to the server's answers by a proxy, bench/delay.py."],
    )
    with step("requests in flight and latency"):
        scan = meter.measure([bench.scan(table, table.rows)])["scan"].median
        for latency_ms in LATENCIES_MS:
            for in_flight in IN_FLIGHTS:
                rows = min(table.rows, BATCH_SIZE * in_flight * MAX_WAITS) if latency_ms else table.rows
                setting = Setting(in_flight=in_flight, latency_ms=latency_ms)
                pair = measure_pair(bench, meter, table, rows, setting)
                report.add(f"{latency_ms} ms, {in_flight}", *pair.cells(scan))
    return report


def sweep_features(bench: Workbench, meter: Meter, rows: int) -> Report:
    """Vary the columns of a row."""
    report = Report(
        f"Features ({BATCH_SIZE} rows a batch, {IN_FLIGHT} in flight)",
        ["features", "Model Join, rows/s", "raw client, rows/s", "of the serial limit", "slowest - fastest"],
    )
    for features in WIDTHS:
        with step(f"{features} feature{'s'[: features > 1]}"):
            table = create_table(bench.session, f"wide{features}", features, min(rows, VALUES // features))
            bench.verify_rows(table, table.rows)
            scan = meter.measure([bench.scan(table, table.rows)])["scan"].median
            report.add(f"{features}", *measure_pair(bench, meter, table, table.rows, Setting()).cells(scan))
            bench.session.execute(f"DROP TABLE {table.name}")
    return report


def sweep_replicas(bench: Workbench, meter: Meter, table: Table) -> Report:
    """Vary the Tritons behind one foreign server, of a model that costs nothing and of one that keeps each busy."""
    report = Report(
        f"Endpoints behind one server ({BATCH_SIZE} rows a batch, {REPLICAS_IN_FLIGHT} in flight)",
        ["model, Tritons", "Model Join, rows/s", "of one Triton's", "slowest - fastest"],
        remarks=[f"Model {BUSY} computes one request after the other, {BUSY_MS} ms each."],
    )
    with contextlib.ExitStack() as started:
        repository = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="model_fdw-bench-")))
        write_model(repository, table.features)
        write_busy_model(repository)
        with step(f"starting {max(REPLICAS)} Tritons"):
            tritons = [
                started.enter_context(Triton([repository], name=f"bench-replica-{number}"))
                for number in range(max(REPLICAS))
            ]
        for model in (table.model, BUSY):
            routes = [replicas_route(bench, table, model, tritons[:count]) for count in REPLICAS]
            with step(f"model {model} on {' and '.join(map(str, REPLICAS))} Tritons"):
                rates = meter.measure(routes)
            alone = rates[routes[0].label].median
            for label, measured in rates.items():
                report.add(label, rate(measured.median), share(measured.median / alone), spread(measured.runs))
    return report


def replicas_route(bench: Workbench, table: Table, model: str, tritons: Sequence[Triton]) -> Route:
    """Join with a model on several Tritons behind one foreign server."""
    name = f"{model}_on_{len(tritons)}"
    urls = ",".join(triton.url for triton in tritons)
    bench.session.execute(
        f"CREATE SERVER {name} FOREIGN DATA WRAPPER model_fdw"
        f" OPTIONS (url '{urls}', default_batch_size '{BATCH_SIZE}', default_max_in_flight '{REPLICAS_IN_FLIGHT}')"
    )
    bench.session.execute(f"CREATE SCHEMA {name}")
    bench.session.execute(f"IMPORT FOREIGN SCHEMA models LIMIT TO ({model}) FROM SERVER {name} INTO {name}")
    query = joined(table, table.rows, f"{name}.{model}")
    return Route(
        f"{model}, {len(tritons)}",
        functools.partial(timed, bench.session, query),
        expect(bench.session, table, table.rows),
    )


@dataclass(frozen=True)
class Pair:
    """The Model Join and the client that only sends, in one setting."""

    join: Rate
    raw: Rate

    def cells(self, scan: float) -> Iterator[str]:
        """Write the cells of a row."""
        yield rate(self.join.median)
        yield rate(self.raw.median)
        yield share(self.join.median / serial_limit(scan, self.raw.median))
        yield spread(self.join.runs)


def measure_pair(bench: Workbench, meter: Meter, table: Table, rows: int, setting: Setting) -> Pair:
    """Measure both in turn."""
    routes = [bench.join("join", table, rows, setting), bench.client("raw", "raw", table, rows, setting)]
    rates = meter.measure(routes)
    return Pair(rates["join"], rates["raw"])


# ---- memory

MAX_GROWTH_MB = 64
STATUS = re.compile(r"^(VmRSS|VmHWM|RssAnon):\s+(\d+) kB$", re.MULTILINE)


def watch_memory(bench: Workbench, table: Table, millions: int) -> Report:
    """Score ever more rows in one backend, which must not grow with them.

    The rows are the table's, read again and again within one statement.
    """
    report = Report(
        "Memory of one backend",
        ["after", "VmRSS, MB", "VmHWM, MB", "RssAnon, MB"],
        remarks=[
            "VmRSS and VmHWM count the pages of shared buffers that the backend has touched;"
            " RssAnon is what it has for itself."
        ],
    )
    model = bench.apply(table, Setting())
    with (
        step(f"memory over {millions} times {table.rows:,} rows"),
        psycopg.connect(bench.postgres.conninfo(), autocommit=True) as session,
    ):
        session.execute(SESSION)
        # Read the table anew each time instead of keeping its rows.
        session.execute("SET enable_material = off")
        report.add("connection", *cells(memory(session)))
        own_mb = []
        for repeats in (1, millions):
            run = timed(session, joined_repeatedly(table, model, repeats))
            once = expect(bench.session, table, table.rows)
            Expected(repeats * once.rows, repeats * once.total, once.features).check("memory", run)
            found = memory(session)
            own_mb.append(found["RssAnon"])
            report.add(f"{repeats * table.rows:,} rows", *cells(found))
    grown_mb = own_mb[-1] - own_mb[0]
    report.remarks.append(f"RssAnon has grown by {grown_mb:.1f} MB; {MAX_GROWTH_MB} MB are allowed.")
    if grown_mb > MAX_GROWTH_MB:
        raise Failure(f"the backend has grown by {grown_mb:.1f} MB over {millions} times {table.rows:,} rows")
    return report


def joined_repeatedly(table: Table, model: str, repeats: int) -> str:
    """Write the joined query over the table's rows, so many times."""
    if repeats == 1:
        return joined(table, table.rows, model)
    return (
        "SELECT count(*), sum(total::double precision)"
        f" FROM (SELECT rows.* FROM generate_series(1, {repeats})"
        f" CROSS JOIN LATERAL (SELECT * FROM {table.name} OFFSET 0) AS rows) AS repeated NATURAL JOIN {model}"
    )


def memory(session: psycopg.Connection) -> dict[str, float]:
    """Read what the kernel says of the backend's memory, in MB."""
    status = Path(f"/proc/{session.info.backend_pid}/status").read_text()
    sizes = {name: int(size_kb) for name, size_kb in STATUS.findall(status)}
    return {name: sizes[name] / 1024 for name in ("VmRSS", "VmHWM", "RssAnon")}


def cells(sizes_mb: dict[str, float]) -> Iterator[str]:
    """Write the cells of a row."""
    return (f"{size_mb:.1f}" for size_mb in sizes_mb.values())


# ---- the first query of a session

FRESH_SESSIONS = 11
FRESH_ROWS = 100_000
WORKERS = 2
# Planned in parallel, however few the rows are.
PARALLEL = (
    f"SET max_parallel_workers_per_gather = {WORKERS}",
    "SET parallel_setup_cost = 0",
    "SET parallel_tuple_cost = 0",
    "SET min_parallel_table_scan_size = 0",
)


def watch_first_prediction(bench: Workbench) -> Report:
    """Time what a session waits for its first prediction, with the library preloaded and without."""
    report = Report(
        "First query of a session, from connecting to its answer",
        ["library", "one row, ms", "slowest, ms", "parallel join, ms", "slowest, ms"],
        remarks=[
            f"Medians of {FRESH_SESSIONS} fresh connections. The parallel join scores {FRESH_ROWS:,} rows"
            f" in the session and {WORKERS} workers, each of which starts Python unless it is preloaded."
        ],
    )
    for label, settings in (("not preloaded", {}), ("preloaded", {"shared_preload_libraries": "model_fdw"})):
        with step(f"first queries, {label}"), Postgres(settings=settings, name="bench-first") as postgres:
            with psycopg.connect(postgres.conninfo(), autocommit=True) as session:
                create_model_tables(session, "ml", bench.triton.grpc)
                session.execute("ALTER FOREIGN TABLE ml.sum10 OPTIONS (ADD row_cost '10')")
                table = create_table(session, "readings", FEATURES, FRESH_ROWS)
            values = ", ".join(f"1 AS {column}" for column in table.columns)
            one = f"SELECT total FROM (SELECT {values} OFFSET 0) AS row NATURAL JOIN ml.sum10"
            times_ms = [
                time_fresh_sessions(postgres, (), one),
                time_fresh_sessions(postgres, PARALLEL, joined(table, table.rows, "ml.sum10")),
            ]
            report.add(
                label,
                *(f"{value:.0f}" for runs in times_ms for value in (statistics.median(runs), max(runs))),
            )
    return report


def time_fresh_sessions(postgres: Postgres, settings: Sequence[str], query: str) -> list[float]:
    """Time connections that run one query, in ms."""
    times_ms = []
    for _ in range(FRESH_SESSIONS):
        started = time.perf_counter()
        with psycopg.connect(postgres.conninfo(), autocommit=True) as session:
            for setting in settings:
                session.execute(setting.encode())
            session.execute(query.encode()).fetchall()
            times_ms.append((time.perf_counter() - started) * 1000)
            [[plan]] = session.execute(f"EXPLAIN (FORMAT JSON) {query}".encode()).fetchall()
            if settings and "Workers Planned" not in str(plan):
                raise Failure("the parallel join was not planned in parallel")
    return times_ms
