"""Threads beside the backend's own: what they take, and that none stays when a statement has ended.

In processes of their own, as backends are: this one has threads of the tests' servers.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_http import FakeHttp
from fake_server import FakeServer

from fdw import threads

UNIT = Path(__file__).parent
BEGIN = f"""
import sys, threading, time
sys.path[:0] = {[str(UNIT.parents[1]), str(UNIT.parent), str(UNIT)]!r}
from fdw import host, threads
from helpers import doubles, fake_table, finish
"""


def run(program: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-c", BEGIN + program, *arguments], check=True, timeout=60)


def test_threads_take_no_signals_and_rest() -> None:
    run("""
import signal
masks = []
def task():
    masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    time.sleep(0.001)
for _ in range(2):
    assert threading.active_count() == 1
    for _ in range(200):
        threads.pool.run(task)
    assert threading.active_count() <= threads.MAX_THREADS + 1
    until = time.monotonic() + 10
    while len(masks) < 200 and time.monotonic() < until:
        time.sleep(0.01)
    assert len(masks) == 200, len(masks)
    assert all(signal.SIGTERM in mask and signal.SIGINT in mask for mask in masks)
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    time.sleep(0.1)
    assert threading.active_count() > 1, "they stay for what comes next"
    threads.REST_S = 10
    threads.rest()
    masks.clear()
assert "grpc" not in sys.modules and "tritonclient" not in sys.modules
""")


def test_a_task_is_done_before_its_thread_rests() -> None:
    run("""
done = []
for _ in range(50):
    threads.pool.run(lambda: (time.sleep(0.01), done.append(1)))
threads.REST_S = 10
threads.rest()
assert len(done) == 50, len(done)
assert threading.active_count() == 1
""")


@pytest.fixture(params=[FakeServer, FakeHttp], ids=["gRPC", "HTTP"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with request.param() as server:
        yield server.url


# After close() nothing gives the interpreter to another thread, as in a backend.
OPEN = """
threads.REST_S = 10
table = fake_table(sys.argv[1])
def begin():
    return finish(host.open(table, [1], [2]))
def predict(session):
    assert finish(host.submit(session, 1, [doubles(4.0)]))[0][0].tolist() == [8.0]
"""


def test_no_thread_outlives_a_scan(url: str) -> None:
    run(
        OPEN
        + """
for _ in range(30):
    session = begin()
    predict(session)
    host.close(session)
    assert threading.active_count() == 1, threading.enumerate()
""",
        url,
    )


def test_no_thread_outlives_what_is_no_scan(url: str) -> None:
    run(
        OPEN
        + """
from fdw import connections
for _ in range(30):
    ticket = host.check(table)
    finish(ticket)
    host.close(ticket)
    assert threading.active_count() == 1, threading.enumerate()
""",
        url,
    )


def test_no_thread_outlives_a_scan_that_is_cancelled() -> None:
    with FakeServer("slow") as server:
        run(
            OPEN
            + """
session = begin()
for first in range(30):
    session = begin()
    ticket = host.submit(session, 1, [doubles(4.0)])
    assert host.poll(ticket) != 0
    host.close(session)
    assert threading.active_count() == 1, threading.enumerate()
""",
            server.url,
        )


def test_the_threads_of_another_scan_are_not_waited_for() -> None:
    with FakeServer("slow") as server:
        run(
            OPEN
            + """
first, second = begin(), begin()
ticket = host.submit(first, 1, [doubles(4.0)])
began = time.monotonic()
host.close(second)
assert time.monotonic() - began < 5
assert finish(ticket)[0][0].tolist() == [8.0]
host.close(first)
assert threading.active_count() == 1, threading.enumerate()
""",
            server.url,
        )


def test_a_stranger_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "REST_S", 0.4)
    ends = threading.Event()
    stranger = threading.Thread(target=ends.wait, args=(60,))
    stranger.start()
    took_s = []
    for _ in range(2):
        began = time.monotonic()
        threads.rest()
        took_s.append(time.monotonic() - began)
    assert stranger.is_alive()
    ends.set()
    stranger.join()
    assert took_s[0] >= 0.4
    assert took_s[1] < 0.2
