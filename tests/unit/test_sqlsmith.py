"""What "make test-sqlsmith" reads: the server's log, and sqlsmith's output; nothing is run."""

from __future__ import annotations

import psycopg

from dev import sqlsmith
from dev.sqlsmith import Crash, Tally, read_crashes, read_queries

STAMP = "2026-11-29 05:05:18.123 UTC"
QUIET = f"""\
{STAMP} [7] LOG:  00000: database system is ready to accept connections
{STAMP} [9] ERROR:  22012: division by zero, no PANIC, and nothing was terminated by signal 9
{STAMP} [9] LOCATION:  int4div, int.c:846
"""
KILLED = f"""\
{STAMP} [7] LOG:  00000: server process (PID 875) was terminated by signal 11: Segmentation fault
{STAMP} [7] DETAIL:  Failed process was running: EXPLAIN (VERBOSE) select
\t  ref_0.id as c0
\tfrom public.t as ref_0
{STAMP} [7] LOCATION:  LogChildExit, postmaster.c:3713
{STAMP} [7] LOG:  00000: terminating any other active server processes
"""
ASSERT = 'TRAP: failed Assert("!IsA(node, Var)"), File: "setrefs.c", Line: 2316, PID: 9850'


def test_a_quiet_log() -> None:
    assert read_crashes("") == []
    assert read_crashes(QUIET) == []


def test_a_signal_and_its_statement() -> None:
    what = "server process (PID 875) was terminated by signal 11: Segmentation fault"
    statement = "EXPLAIN (VERBOSE) select\n  ref_0.id as c0\nfrom public.t as ref_0"
    assert read_crashes(QUIET + KILLED + QUIET) == [Crash(what, statement)]


def test_a_signal_to_a_process_without_statement() -> None:
    line = f"{STAMP} [7] LOG:  00000: checkpointer process (PID 3) was terminated by signal 6: Aborted\n"
    assert read_crashes(line + KILLED)[0] == Crash("checkpointer process (PID 3) was terminated by signal 6: Aborted")
    assert len(read_crashes(line + KILLED)) == 2


def test_an_assertion_and_a_panic() -> None:
    log = f"{ASSERT}\n{STAMP} [9] PANIC:  XX000: could not locate a valid checkpoint record\n"
    assert [crash.what for crash in read_crashes(log)] == [ASSERT, "could not locate a valid checkpoint record"]


def test_queries() -> None:
    lines = ["\n", "select 1 as c0, \n", "  ';' as c1\n", "from t;\n", "select 2;\n", "select unfinished\n"]
    assert list(read_queries(lines)) == ["select 1 as c0, \n  ';' as c1\nfrom t", "select 2"]


def test_errors_are_counted_and_internal_ones_kept() -> None:
    tally = Tally()
    tally.add_error(psycopg.errors.DivisionByZero(), "SELECT 1 / 0")
    tally.add_error(psycopg.errors.InternalError_(), "SELECT 1")
    tally.add_error(psycopg.errors.InternalError_(), "SELECT 2")
    assert tally.errors == {"22012 DivisionByZero": 1, "XX000 InternalError_": 2}
    assert (list(tally.internal.values()), list(tally.examples.values())) == ([2], ["SELECT 1"])


def test_only_known_internal_errors_are_postgresqls_own(monkeypatch) -> None:
    monkeypatch.setattr(sqlsmith, "STOCK", {"could not devise": "a reason"})
    assert sqlsmith.is_stock("XX000: could not devise a query plan for the given query")
    assert not sqlsmith.is_stock("XX000: bogus varno: -4")
