"""The peers that are client programs: python -m bench.client raw | keep | write-back TASK.

Each is a process of its own, as it would be in real life, and writes one line of JSON: rows, seconds, and
the sum of the outputs. What any program does once (imports, connections, the first request) is not timed.

keep and write-back are what one writes today to score a table: binary COPY, numpy, tritonclient with several
requests in flight. Rows are handed to numpy by the batch, not one by one. There are two ways to read them:
psycopg's cursor.copy(), as its manual shows it, and the same connection at libpq's level, for those who
have profiled the first.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import pq
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput, InferResult

Array: TypeAlias = npt.NDArray[Any]
Row: TypeAlias = "bytes | bytearray | memoryview"

# The binary format of COPY: a signature, flags, the length of an extension; at the end a field count of -1.
COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
COPY_TRAILER = struct.pack("!h", -1)
OUTPUT = "total"


@dataclass(frozen=True)
class Task:
    """What to score, where, and how. reader: a name of READERS."""

    conninfo: str
    address: str
    model: str
    source: str
    features: int
    batch_size: int
    in_flight: int
    reader: str = "libpq"


# ---- PostgreSQL


def read_with_cursor(connection: psycopg.Connection, copy: str) -> Iterator[Row]:
    """Read the messages of a COPY, one a row, as psycopg's manual does."""
    with connection.cursor() as cursor, cursor.copy(copy.encode()) as messages:
        yield from messages


def read_with_libpq(connection: psycopg.Connection, copy: str) -> Iterator[Row]:
    """Read the same with the calls of libpq."""
    libpq = connection.pgconn
    result = libpq.exec_(copy.encode())
    if result.status != pq.ExecStatus.COPY_OUT:
        sys.exit(result.get_error_message())
    receive = libpq.get_copy_data
    length, message = receive(0)
    while length > 0:
        yield message
        length, message = receive(0)
    while ended := libpq.get_result():
        if ended.status != pq.ExecStatus.COMMAND_OK:
            sys.exit(ended.get_error_message())


READERS = {"cursor": read_with_cursor, "libpq": read_with_libpq}


def record(features: int) -> np.dtype[Any]:
    """Describe a row of COPY: a field count, then length and value of the number and of each feature."""
    value = np.dtype([("length", ">i4"), ("value", ">f8")])
    return np.dtype([("fields", ">i2"), ("id_length", ">i4"), ("id", ">i4"), ("features", value, (features,))])


def scored_record() -> np.dtype[Any]:
    """Describe a row of the table that takes the results: number and output."""
    return np.dtype([("fields", ">i2"), ("id_length", ">i4"), ("id", ">i4"), ("total_length", ">i4"), ("total", ">f4")])


def read_batches(connection: psycopg.Connection, task: Task) -> Iterator[tuple[Array, Array]]:
    """Read the source: batch after batch the rows' numbers and their features, FP32[n, features]."""
    columns = ", ".join(f"f{number}" for number in range(1, task.features + 1))
    copy = f"COPY (SELECT id, {columns} FROM {task.source}) TO STDOUT (FORMAT BINARY)"
    layout = record(task.features)
    messages = READERS[task.reader](connection, copy)
    # The first message carries the header before its row; the last one is the trailer.
    rows: list[Row] = [bytes(next(messages))[len(COPY_HEADER) :]]
    append = rows.append
    for message in messages:
        append(message)
        if len(rows) > task.batch_size:
            yield unpack(rows[:-1], layout)
            del rows[:-1]
    rows.pop()
    if rows:
        yield unpack(rows, layout)


def unpack(rows: list[Row], layout: np.dtype[Any]) -> tuple[Array, Array]:
    """Turn rows of COPY into numbers and features."""
    table = np.frombuffer(b"".join(rows), layout)
    return table["id"], table["features"]["value"].astype(np.float32)


def pack(ids: Array, totals: Array) -> bytes:
    """Turn results into rows of COPY."""
    table = np.empty(len(ids), scored_record())
    table["fields"], table["id_length"], table["total_length"] = 2, 4, 4
    table["id"], table["total"] = ids, totals
    return table.tobytes()


# ---- Triton


class Pipeline:
    """Sends batches, so many in flight, and hands over the answers in order."""

    def __init__(self, task: Task, take: Callable[[Array, Array], None]) -> None:
        """Connect, and open the way with one row; `take` is called with a batch's numbers and outputs."""
        self._client = InferenceServerClient(task.address)
        self._model, self._in_flight, self._take = task.model, task.in_flight, take
        self._outputs = [InferRequestedOutput(OUTPUT)]
        self._waiting: deque[tuple[Array, Answer]] = deque()
        self._client.infer(self._model, prepare(np.zeros((1, task.features), np.float32)), outputs=self._outputs)

    def send(self, ids: Array, inputs: list[InferInput]) -> None:
        """Send a batch; wait for the oldest one first where enough are in flight."""
        if len(self._waiting) >= self._in_flight:
            self._take_oldest()
        answer = Answer()
        self._client.async_infer(self._model, inputs, answer.arrive, outputs=self._outputs)
        self._waiting.append((ids, answer))

    def drain(self) -> None:
        """Wait for all that is in flight."""
        while self._waiting:
            self._take_oldest()

    def _take_oldest(self) -> None:
        ids, answer = self._waiting.popleft()
        self._take(ids, answer.wait())


class Answer:
    """The answer to one request, once it is there."""

    def __init__(self) -> None:
        """Wait for arrive()."""
        self._arrived = threading.Event()
        self._result: InferResult | None = None
        self._error: Exception | None = None

    def arrive(self, result: InferResult | None, error: Exception | None) -> None:
        """Take the answer; called by a thread of the client's."""
        self._result, self._error = result, error
        self._arrived.set()

    def wait(self) -> Array:
        """Give the outputs, one a row."""
        self._arrived.wait()
        if self._result is None:
            sys.exit(f"inference failed: {self._error}")
        totals: Array = self._result.as_numpy(OUTPUT)
        return totals.reshape(-1)


def prepare(batch: Array) -> list[InferInput]:
    """Make a request's input of a batch."""
    tensor = InferInput("x", batch.shape, "FP32")
    tensor.set_data_from_numpy(batch)
    return [tensor]


# ---- the peers


@dataclass
class Kept:
    """Results kept in memory."""

    totals: list[Array] = field(default_factory=list)

    def take(self, ids: Array, totals: Array) -> None:
        """Keep a batch."""
        self.totals.append(totals)

    def report(self, seconds: float) -> dict[str, float]:
        """Add up the results, which is not part of the time."""
        everything = np.concatenate(self.totals)
        return {"rows": len(everything), "seconds": seconds, "total": float(everything.sum(dtype=np.float64))}


def run_raw(task: Task) -> dict[str, float]:
    """Send batches that were prepared before: what client and server can do at most."""
    with psycopg.connect(task.conninfo) as connection:
        batches = [(ids, prepare(batch)) for ids, batch in read_batches(connection, task)]
    kept = Kept()
    pipeline = Pipeline(task, kept.take)
    started = time.perf_counter()
    for ids, inputs in batches:
        pipeline.send(ids, inputs)
    pipeline.drain()
    return kept.report(time.perf_counter() - started)


def run_keep(task: Task) -> dict[str, float]:
    """Read, convert, send; keep the results here."""
    kept = Kept()
    pipeline = Pipeline(task, kept.take)
    with psycopg.connect(task.conninfo) as connection:
        started = time.perf_counter()
        for ids, batch in read_batches(connection, task):
            pipeline.send(ids, prepare(batch))
        pipeline.drain()
        return kept.report(time.perf_counter() - started)


def run_write_back(task: Task) -> dict[str, float]:
    """Read, convert, send; write the results into table "scored" while other batches are in flight."""
    kept = Kept()
    with psycopg.connect(task.conninfo) as connection, psycopg.connect(task.conninfo) as second:

        def take(ids: Array, totals: Array) -> None:
            kept.take(ids, totals)
            writer.write(pack(ids, totals))

        pipeline = Pipeline(task, take)
        started = time.perf_counter()
        with second.cursor() as cursor, cursor.copy("COPY scored (id, total) FROM STDIN (FORMAT BINARY)") as writer:
            writer.write(COPY_HEADER)
            for ids, batch in read_batches(connection, task):
                pipeline.send(ids, prepare(batch))
            pipeline.drain()
            writer.write(COPY_TRAILER)
        second.commit()
        return kept.report(time.perf_counter() - started)


PEERS = {"raw": run_raw, "keep": run_keep, "write-back": run_write_back}


def main() -> None:
    """Run the peer that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m bench.client")
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("task", type=json.loads, help="the fields of Task as JSON")
    arguments = parser.parse_args()
    sys.stdout.write(json.dumps(PEERS[arguments.peer](Task(**arguments.task))) + "\n")


if __name__ == "__main__":
    main()
