"""Answers that are as large as a message may be: no cancel waits for them, and they take a few times their size."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Database
from fake_server import FAKE, Behaviour, FakeServer, Output

Connection = psycopg.Connection[Any]

pytestmark = pytest.mark.hosts("native", reason="Multicorn's own loop looks for a cancel 20 times a second")

MIB = 1 << 20
# What a busy machine with two processors may add to the 50 ms that decoding holds off a cancel.
LATE_S = 0.25

STRINGS = replace(FAKE, outputs=(("y", "BYTES", (-1, -1)),), compute=lambda _: {"y": []})


def fill(output: Output, strings: int, length: int) -> None:
    """Make an answer of one row of equal strings."""
    output.raw = (struct.pack("<I", length) + b"a" * length) * strings
    output.shape = [1, strings]


def peak_bytes(session: Connection) -> int:
    """Tell the largest memory that a backend has had."""
    pid = session.info.backend_pid
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


@pytest.fixture
def session(victims: Database) -> Iterator[Connection]:
    with victims.connect() as connection:
        yield connection


def table(session: Connection, server: FakeServer, max_message_bytes: int | None) -> None:
    option = f", max_message_bytes '{max_message_bytes}'" if max_message_bytes else ""
    session.execute("DROP SERVER IF EXISTS large CASCADE")
    session.execute(f"CREATE SERVER large FOREIGN DATA WRAPPER model_fdw OPTIONS (url '{server.url}'{option})")
    session.execute(
        "CREATE FOREIGN TABLE large (x float8 OPTIONS (input 'x'), y text[] OPTIONS (output 'y')) "
        "SERVER large OPTIONS (model 'fake')"
    )


def answering(strings: int, length: int) -> FakeServer:
    return FakeServer(Behaviour(spoil=lambda output: fill(output, strings, length)), {"fake": STRINGS})


def test_more_strings_than_a_message_may_hold_are_refused_at_once(session: Connection) -> None:
    with answering(16_000_000, 0) as server:
        table(session, server, None)
        session.execute("SELECT model_fdw_check('large')")  # starts Python
        before = peak_bytes(session)
        with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="too many strings"):
            session.execute("SELECT array_length(y, 1) FROM large WHERE x = 1")
        grown = peak_bytes(session) - before
    print(f"61 MiB of empty strings: refused, {grown / MIB:.0f} MiB more at the peak")
    assert grown < 4 * 64 * MIB


def test_no_cancel_waits_for_an_answer_to_be_decoded(session: Connection) -> None:
    with answering(16_000_000, 0) as server:
        table(session, server, 1 << 30)
        late = []
        for timeout_ms in range(300, 2000, 200):
            session.execute(f"SET statement_timeout = '{timeout_ms}ms'")
            begun = time.monotonic()
            try:
                session.execute("SELECT array_length(y, 1) FROM large WHERE x = 1")
            except psycopg.errors.QueryCanceled:
                late.append(time.monotonic() - begun - timeout_ms / 1000)
        session.execute("RESET statement_timeout")
    print(
        f"61 MiB of empty strings: {len(late)} timeouts, late by {', '.join(f'{1000 * each:.0f}' for each in late)} ms"
    )
    assert len(late) > 3
    assert max(late) < LATE_S


def test_a_large_answer_takes_a_few_times_its_size(session: Connection) -> None:
    with answering(2_000_000, 26) as server:
        table(session, server, None)
        session.execute("SELECT model_fdw_check('large')")  # starts Python
        before = peak_bytes(session)
        row = session.execute("SELECT array_length(y, 1), y[2000000] FROM large WHERE x = 1").fetchone()
        grown = peak_bytes(session) - before
    assert row == (2_000_000, "a" * 26)
    print(f"57 MiB of 2,000,000 strings: {grown / MIB:.0f} MiB more at the peak")
    assert grown < 4 * 64 * MIB
