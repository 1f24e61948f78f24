"""One thing changed at a time: batch size, requests in flight and latency, features, and memory over rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.measure import Expected, Meter, Rate, serial_limit
from bench.report import Report, rate, share, spread
from bench.workbench import (
    BATCH_SIZE,
    IN_FLIGHT,
    SESSION,
    VALUES,
    WIDTHS,
    Setting,
    Table,
    Workbench,
    create_table,
    expect,
    joined,
    timed,
)
from dev.screen import step

BATCH_SIZES = (1, 16, 64, 256, 1024, 4096, 16384)
IN_FLIGHTS = (1, 2, 4, 8)
LATENCIES_MS = (0, 20)
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
        report.add("connection", *memory(session))
        for repeats in (1, millions):
            run = timed(session, joined_repeatedly(table, model, repeats))
            once = expect(bench.session, table, table.rows)
            Expected(repeats * once.rows, repeats * once.total, once.features).check("memory", run)
            report.add(f"{repeats * table.rows:,} rows", *memory(session))
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


def memory(session: psycopg.Connection) -> Iterator[str]:
    """Read what the kernel says of the backend's memory."""
    status = Path(f"/proc/{session.info.backend_pid}/status").read_text()
    sizes = {name: int(size_kb) for name, size_kb in STATUS.findall(status)}
    for name in ("VmRSS", "VmHWM", "RssAnon"):
        yield f"{sizes[name] / 1024:.1f}"
