"""Other payloads than a few numbers: arrays as answers, and texts, beside tritonclient with the same ones."""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput

from bench.measure import Expected, Meter, Route, Run
from bench.report import Report, rate, share, spread
from bench.workbench import BATCH_SIZE, IN_FLIGHT, Workbench, timed

Array = np.ndarray[Any, Any]

TEXT = "'the soup number ' || id || ' was lovely and the waiters rude, thank you'"


@dataclass(frozen=True)
class Payload:
    """A model, and what is compared: how an answer is added up in SQL and in numpy, and what that must give."""

    label: str
    model: str
    column: str
    dtype: str
    output: str
    added_in_sql: str
    added_in_numpy: Callable[[Array], float]
    expected: str
    at_least: float  # of the rate of tritonclient


PAYLOADS = (
    Payload(
        "a vector of 384 FP32 as answer",
        "vectors",
        "x",
        "FP32",
        "v",
        "sum(v[384]::double precision)",
        lambda answers: float(answers[:, 383].sum(dtype=np.float64)),
        "sum(x * 383)",
        0.5,
    ),
    Payload(
        "a text of 60 bytes each way",
        "texts",
        "text",
        "BYTES",
        "copy",
        "sum(octet_length(copy))::double precision",
        lambda answers: float(sum(map(len, answers.ravel()))),
        "sum(octet_length(text))::double precision",
        1 / 3,
    ),
)


def compare_payloads(bench: Workbench, meter: Meter, rows: int) -> Report:
    """Measure each payload by the Model Join and by tritonclient with prebuilt batches."""
    bench.session.execute(
        f"CREATE TABLE payloads AS SELECT id, (id % 1000)::double precision AS x, {TEXT} AS text"
        f" FROM generate_series(1, {rows}) AS id"
    )
    bench.session.execute("VACUUM ANALYZE payloads")
    schema = bench.schema(0)
    report = Report(
        f"{rows:,} rows with larger payloads, {BATCH_SIZE} rows a batch, {IN_FLIGHT} in flight",
        ["payload", "Model Join, rows/s", "tritonclient, rows/s", "ratio", "required", "slowest - fastest join"],
    )
    for payload in PAYLOADS:
        [[total]] = bench.session.execute(f"SELECT {payload.expected} FROM payloads").fetchall()
        expected = Expected(rows, total, 1)
        join = (
            f"SELECT count(*), {payload.added_in_sql} FROM (SELECT {payload.column} FROM payloads) AS payloads"
            f" NATURAL JOIN {schema}.{payload.model}"
        )
        routes = [
            Route("join", functools.partial(timed, bench.session, join), expected),
            Route("raw", functools.partial(run_raw, bench, payload, batches(bench, payload)), expected),
        ]
        rates = meter.measure(routes)
        ratio = rates["join"].median / rates["raw"].median
        report.add(
            payload.label,
            rate(rates["join"].median),
            rate(rates["raw"].median),
            share(ratio),
            f"{share(payload.at_least)} or more",
            spread(rates["join"].runs),
        )
    return report


def batches(bench: Workbench, payload: Payload) -> list[InferInput]:
    """Prepare the requests' inputs."""
    values = [value for (value,) in bench.session.execute(f"SELECT {payload.column} FROM payloads").fetchall()]
    array = np.array(values, np.float32) if payload.dtype == "FP32" else np.array([v.encode() for v in values], object)
    prepared = []
    for first in range(0, len(values), BATCH_SIZE):
        batch = array[first : first + BATCH_SIZE].reshape(-1, 1)
        tensor = InferInput(payload.column, batch.shape, payload.dtype)
        tensor.set_data_from_numpy(batch)
        prepared.append(tensor)
    return prepared


def run_raw(bench: Workbench, payload: Payload, prepared: Sequence[InferInput]) -> Run:
    """Send prepared batches, several in flight, and take the answers out of their messages."""
    client = InferenceServerClient(bench.triton.grpc)
    wanted = [InferRequestedOutput(payload.output)]
    waiting: deque[tuple[threading.Event, list[Any]]] = deque()
    answers: list[Array] = []

    def take() -> None:
        arrived, box = waiting.popleft()
        arrived.wait()
        result, error = box
        if error is not None:
            raise error
        answers.append(result.as_numpy(payload.output))

    def arrive(arrived: threading.Event, box: list[Any], result: Any, error: Any) -> None:
        box += [result, error]
        arrived.set()

    started = time.perf_counter()
    for tensor in prepared:
        if len(waiting) == IN_FLIGHT:
            take()
        arrived = threading.Event()
        box: list[Any] = []
        client.async_infer(payload.model, [tensor], functools.partial(arrive, arrived, box), outputs=wanted)
        waiting.append((arrived, box))
    while waiting:
        take()
    seconds = time.perf_counter() - started
    return Run(sum(map(len, answers)), seconds, sum(map(payload.added_in_numpy, answers)))
