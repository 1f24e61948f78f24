"""The benchmark: make bench ARGS="..."; what the rows mean is in bench/README.md.

Starts a PostgreSQL and a Triton of its own, runs every route in turn, several times, checks every answer,
and prints the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg
from tritonclient.grpc import InferenceServerClient

from bench.idle import compare_idle
from bench.measure import Meter, Rate, Route, Run, serial_limit
from bench.multicorn import multicorn
from bench.payloads import compare_payloads
from bench.report import Report, machine, rate, share, spread, times
from bench.sweeps import (
    sweep_batch_size,
    sweep_features,
    sweep_in_flight,
    sweep_replicas,
    watch_first_prediction,
    watch_memory,
)
from bench.udf import find_plpython, udf
from bench.workbench import (
    BATCH_SIZE,
    FEATURES,
    IN_FLIGHT,
    Setting,
    Table,
    Workbench,
    create_table,
    expect,
    set_up,
)
from dev.places import CHECKOUT
from dev.screen import Failure, say, step

SAMPLE = 5_000
IDLE_TURNS, IDLE_TURN_S = 11, 1
PAYLOAD_ROWS = 100_000
LARGE_BATCH = 16384
QUICK_ROWS, QUICK_RUNS = 100_000, 1

JOIN = f"Model Join, {BATCH_SIZE} rows a batch, {IN_FLIGHT} in flight"
JOIN_LARGE = f"Model Join, {LARGE_BATCH} rows a batch, {IN_FLIGHT} in flight"
JOIN_WRITTEN = "Model Join, results written: INSERT INTO ... SELECT"
JOIN_OFF = "the same query with the Model Join off"
SCAN, RAW = "scan", "raw"
UDF = "PL/Python function, one request a row"
MULTICORN = "Multicorn, one request a row"
MULTICORN_JOIN = f"Multicorn's table, library loaded: Model Join, {BATCH_SIZE} rows a batch"
SPARK = f"Spark predict_batch_udf, local[2], parquet, {BATCH_SIZE} rows a batch, warm"


@dataclass(frozen=True)
class Options:
    """The command line."""

    rows: int
    runs: int
    sweeps: bool
    full: bool
    markdown: bool
    only_idle: bool
    plpython: list[Path]
    spark_python: Path


def parse() -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description="Measure the Model Join and its peers.")
    parser.add_argument("--rows", type=int, help="rows of the table (default: 1,000,000)")
    parser.add_argument("--runs", type=int, help="runs of which the median is taken (default: 3)")
    parser.add_argument("--quick", action="store_true", help="100,000 rows, one run, no sweeps: does it work at all?")
    parser.add_argument(
        "--sweeps", action=argparse.BooleanOptionalAction, default=None, help="vary one thing at a time, too"
    )
    parser.add_argument("--full", action="store_true", help="watch memory over 20 times the rows instead of 5")
    parser.add_argument("--only", choices=["idle"], help="only what the library costs where no model is asked")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument(
        "--plpython", type=Path, nargs=1, default=[], metavar="BINDIR", help="programs of a PostgreSQL with plpython3u"
    )
    parser.add_argument(
        "--spark-python",
        type=Path,
        default=Path(sys.executable),
        metavar="PYTHON",
        help="an interpreter with pyspark, pandas, pyarrow and tritonclient",
    )
    given = parser.parse_args()
    return Options(
        rows=given.rows or (QUICK_ROWS if given.quick else 1_000_000),
        runs=given.runs or (QUICK_RUNS if given.quick else 3),
        sweeps=not given.quick if given.sweeps is None else given.sweeps,
        full=given.full,
        markdown=given.markdown,
        only_idle=given.only == "idle",
        plpython=given.plpython,
        spark_python=given.spark_python,
    )


# ---- the main table


def compare(bench: Workbench, meter: Meter, table: Table, options: Options) -> Report:
    """Measure the Model Join beside the limits and the peers."""
    missing: dict[str, str] = {}
    with (
        udf(UDF, bench.triton.grpc, find_plpython(options.plpython)) as scored_by_function,
        multicorn(MULTICORN, MULTICORN_JOIN, bench.triton.grpc, table.rows) as hosted,
    ):
        routes = list(own_routes(bench, table))
        if isinstance(hosted, str):
            missing |= {MULTICORN: hosted, MULTICORN_JOIN: hosted}
        else:
            routes += hosted
        if isinstance(scored_by_function, Route):
            routes.append(scored_by_function)
        else:
            missing[UDF] = scored_by_function
        with step(f"{len(routes)} routes, {options.runs} times"):
            rates = meter.measure(routes)
    try:
        rates[SPARK] = run_spark(bench, meter, table, options)
    except Failure as failure:
        missing[SPARK] = failure.message
    return tabulate(rates, missing, table)


def own_routes(bench: Workbench, table: Table) -> Iterator[Route]:
    """List the routes that need nothing but what is installed anyway, in the order of the table."""
    rows, setting = table.rows, Setting()
    yield bench.scan(table, rows)
    yield bench.client(RAW, "raw", table, rows, setting)
    yield bench.join(JOIN, table, rows, setting)
    yield bench.join(JOIN_LARGE, table, rows, Setting(batch_size=LARGE_BATCH))
    yield bench.join_written(JOIN_WRITTEN, table, rows)
    for reader, name in (("cursor", "psycopg pipeline"), ("libpq", "psycopg pipeline at libpq's level")):
        yield bench.client(f"{name}, results kept", "keep", table, rows, setting, reader)
        yield bench.client(f"{name}, written back with COPY", "write-back", table, rows, setting, reader)
    yield bench.join_one_by_one(JOIN_OFF, table, min(rows, SAMPLE))


def tabulate(rates: dict[str, Rate], missing: dict[str, str], table: Table) -> Report:
    """Set every rate against the serial limit and against the Model Join."""
    limit = serial_limit(rates[SCAN].median, rates[RAW].median)
    join = rates[JOIN].median
    names = {
        SCAN: f"scan: SELECT sum(f1 + ... + f{FEATURES})",
        RAW: f"raw: tritonclient, prebuilt batches, {BATCH_SIZE} rows, {IN_FLIGHT} in flight",
    }
    report = Report(
        f"{table.rows:,} rows, {table.features} features, model {table.model}",
        ["route", "rows/s", "of the serial limit", "Model Join is", "slowest - fastest"],
    )
    for label, measured in rates.items():
        sample = f" ({measured.rows:,} rows)" if measured.rows != table.rows else ""
        value = measured.median
        report.add(
            names.get(label, label) + sample,
            rate(value),
            share(value / limit),
            times(join / value),
            spread(measured.runs),
        )
        if label == RAW:
            report.add("serial limit: 1 / (1 / scan + 1 / raw)", rate(limit), share(1), times(join / limit))
    for label, reason in missing.items():
        report.add(label, reason)
    return report


# ---- Spark


def run_spark(bench: Workbench, meter: Meter, table: Table, options: Options) -> Rate:
    """Run bench/spark.py; a failure says why it cannot."""
    if shutil.which("java") is None:
        raise Failure("not available: no Java here")
    probe: list[str | Path] = [options.spark_python, "-c", "import pyspark, pandas, pyarrow, tritonclient.grpc"]
    result = subprocess.run(probe, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise Failure(f"not available: {(result.stderr.strip().splitlines() or ['no such Python'])[-1]}")
    with tempfile.TemporaryDirectory() as directory, step("Spark, by itself"):
        csv = Path(directory) / "rows.csv"
        write_csv(bench, table, csv)
        task = {
            "csv": str(csv),
            "address": bench.triton.grpc,
            "batch_size": BATCH_SIZE,
            "runs": meter.runs,
        }
        command: list[str | Path] = [options.spark_python, CHECKOUT / "bench" / "spark.py", json.dumps(task)]
        result = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise Failure(f"failed: {(result.stderr.strip().splitlines() or ['no output'])[-1]}")
    expected = expect(bench.session, table, table.rows)
    runs = [Run(**run) for run in json.loads(result.stdout.splitlines()[-1])]
    for run in runs:
        expected.check(SPARK, run)
    return Rate(table.rows, [run.rows / run.seconds for run in runs])


def write_csv(bench: Workbench, table: Table, csv: Path) -> None:
    """Write the rows where Spark reads them."""
    with (
        csv.open("wb") as file,
        bench.session.cursor() as cursor,
        cursor.copy(f"COPY {table.name} TO STDOUT (FORMAT csv)") as copy,
    ):
        for line in copy:
            file.write(line)


# ---- all of it


def measure(options: Options) -> Iterator[Report | Failure]:
    """Measure table after table, or say why not; the last one says under which conditions."""
    meter, load_average = Meter(options.runs), os.getloadavg()[0]
    if options.only_idle:
        yield compare_idle(meter, IDLE_TURNS, IDLE_TURN_S)
        yield Report("Conditions", remarks=machine(meter.load, load_average))
        return
    with set_up() as bench:
        with step(f"making {options.rows:,} rows, and comparing each output with SQL"):
            table = create_table(bench.session, "readings", FEATURES, options.rows)
            bench.verify_rows(table, table.rows)
        tables: list[Callable[[], Report]] = [
            partial(compare, bench, meter, table, options),
            partial(measure_payloads, bench, meter, min(options.rows, PAYLOAD_ROWS)),
        ]
        if options.sweeps:
            tables += [
                partial(sweep_batch_size, bench, meter, table),
                partial(sweep_in_flight, bench, meter, table),
                partial(sweep_features, bench, meter, options.rows),
                partial(sweep_replicas, bench, meter, table),
                partial(watch_memory, bench, table, 20 if options.full else 5),
                partial(watch_first_prediction, bench),
                partial(compare_idle, meter, IDLE_TURNS, IDLE_TURN_S),
            ]
        for make in tables:
            try:
                yield make()
            except (Failure, psycopg.Error) as error:
                # The other tables may be fine.
                yield Failure(str(error).strip())
        versions = describe_versions(bench)
    yield Report(
        "Conditions",
        remarks=[
            *machine(meter.load, load_average),
            versions,
            f"rates are medians of {options.runs} runs in turn; the answer of every run was checked",
        ],
    )


def measure_payloads(bench: Workbench, meter: Meter, rows: int) -> Report:
    """Measure rows of arrays and of texts."""
    with step("arrays and texts"):
        return compare_payloads(bench, meter, rows)


def describe_versions(bench: Workbench) -> str:
    """Name what ran."""
    [[version]] = bench.session.execute("SHOW server_version").fetchall()
    triton = InferenceServerClient(bench.triton.grpc).get_server_metadata().version
    return f"PostgreSQL {version}, Triton {triton} with its Python backend, Python {platform.python_version()}"


def main() -> int:
    """Measure, print each table when it is there, and return the exit status."""
    options = parse()
    problems: list[str] = []
    try:
        for found in measure(options):
            if isinstance(found, Failure):
                problems.append(f"bench: {found}")
                say(f"\n{problems[-1]}\n")
            else:
                say(f"\n{found.markdown() if options.markdown else found.text()}\n")
    except (Failure, psycopg.Error) as error:
        problems.append(f"bench: {error}")
    except KeyboardInterrupt:
        problems.append("interrupted")
    for problem in problems:
        say(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
