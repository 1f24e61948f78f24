"""Threads beside the backend's own: what they take, and that none wants to run when a statement has ended.

In processes of their own, as backends are: this one has threads of the tests' servers.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_http import FakeHttp
from fake_server import Behaviour, FakeServer

UNIT = Path(__file__).parent
BEGIN = f"""
import sys, threading, time
sys.path[:0] = {[str(UNIT.parents[1]), str(UNIT.parent), str(UNIT)]!r}
from fdw import host, threads
from helpers import doubles, fake_table, finish
"""


def run(program: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-c", BEGIN + program, *arguments], check=True, timeout=60)


def test_threads_take_no_signals_and_stay_for_what_comes_next() -> None:
    run("""
import signal
masks = []
def task():
    masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    time.sleep(0.001)
assert threading.active_count() == 1
counts = []
for _ in range(2):
    for _ in range(200):
        threads.pool.run(task)
    threads.pool.settle(10)
    assert len(masks) == 200, len(masks)
    masks.clear()
    counts.append(threading.active_count())
assert 1 < counts[0] <= counts[1] <= threads.MAX_THREADS + 1, counts
threads.pool.run(task)
threads.pool.settle(10)
assert all(signal.SIGTERM in mask and signal.SIGINT in mask for mask in masks) and masks
assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
assert threading.active_count() == counts[1], "there was one that had nothing to do"
assert "grpc" not in sys.modules and "tritonclient" not in sys.modules
""")


def test_no_task_is_left_where_no_thread_can_be_made() -> None:
    run("""
def fail(work):
    raise RuntimeError("can't start new thread")
done = []
made = threads.start
for _ in range(threads.MAX_THREADS + 1):
    threads.start = fail
    try:
        threads.pool.run(lambda: done.append("late"))
    except RuntimeError:
        pass
    else:
        raise AssertionError("it was taken")
threads.start = made
threads.pool.run(lambda: done.append("next"))
threads.pool.settle(10)
assert done == ["next"], done
""")


@pytest.fixture(params=[FakeServer, FakeHttp], ids=["gRPC", "HTTP"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with request.param() as server:
        yield server.url


# Whether threads want to run is seen while nothing gives the interpreter to them, as in an idle backend: those that do
# ask for it 200 times a second.
OPEN = """
import ctypes, pathlib
threads.REST_S = 10
table = fake_table(sys.argv[1])
def begin():
    return finish(host.open(table, [1], [2]))
def predict(session):
    assert finish(host.submit(session, 1, [doubles(4.0)]))[0][0].tolist() == [8.0]
def switches(thread):
    text = pathlib.Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if "ctxt_switches" in line)
def all_rest():
    others = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
    before = [switches(thread) for thread in others]
    ctypes.PyDLL(None).usleep(100_000)
    awake = [thread for thread, first in zip(others, before) if switches(thread) - first > 5]
    assert not awake, awake
def no_thread():
    assert threading.active_count() == 1, threading.enumerate()
"""


def test_no_thread_is_awake_after_a_scan(url: str) -> None:
    run(
        OPEN
        + """
for _ in range(10):
    session = begin()
    predict(session)
    host.close(session)
    no_thread() if "grpc:" in sys.argv[1] else all_rest()
""",
        url,
    )


def test_no_thread_is_awake_after_what_is_no_scan(url: str) -> None:
    run(
        OPEN
        + """
for _ in range(10):
    ticket = host.check(table)
    finish(ticket)
    host.close(ticket)
    no_thread() if "grpc:" in sys.argv[1] else all_rest()
""",
        url,
    )


def test_no_thread_is_awake_after_a_scan_that_is_cancelled() -> None:
    with FakeServer("slow") as server:
        run(
            OPEN
            + """
for _ in range(10):
    session = begin()
    ticket = host.submit(session, 1, [doubles(4.0)])
    assert host.poll(ticket) != 0
    host.close(session)
    no_thread()
""",
            server.url,
        )


@pytest.mark.parametrize("scheme", ["grpc", "http", "https"])
def test_no_thread_is_awake_after_a_connection_that_was_given_up(scheme: str) -> None:
    """The server takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        run(
            OPEN
            + """
ticket = host.open(table, [1], [2])
time.sleep(0.3)
assert host.poll(ticket) != 0
host.close(ticket)
all_rest()
""",
            f"{scheme}://127.0.0.1:{silent.getsockname()[1]}",
        )


def test_no_thread_is_awake_after_a_name_that_was_given_up() -> None:
    run("""
import socket
from fdw.protocols import http_transport
answered = threading.Event()
found, socket.getaddrinfo = socket.getaddrinfo, lambda host, *rest, **more: (
    found(host, *rest, **more) if more.get("flags") else answered.wait(20))
patience = http_transport._Patience(30)
ends = []
def resolve():
    try:
        http_transport._resolve("models.example.com", 80, patience)
    except http_transport._Cancelled:
        ends.append(time.monotonic())
threads.pool.run(resolve)
time.sleep(0.3)
began = time.monotonic()
patience.interrupt()
threads.pool.settle(10)
assert len(ends) == 1
assert ends[0] - began < 0.05, ends[0] - began
answered.set()
""")


# A scan whose request takes 1 s; its thread must not be waited for.
SLOW = (
    OPEN
    + """
threads.REST_S = 60
def goes_on(close):
    session = begin()
    ticket = host.submit(session, 1, [doubles(4.0)])
    other = close()
    began = time.monotonic()
    host.close(other)
    assert time.monotonic() - began < 0.5
    assert host.poll(ticket) != 0
    assert finish(ticket)[0][0].tolist() == [8.0]
    host.close(session)
    no_thread()
"""
)


def test_the_threads_of_another_scan_are_not_waited_for() -> None:
    with FakeServer(Behaviour(delay_s=1.0)) as server:
        run(SLOW + "goes_on(begin)", server.url)


def test_the_threads_of_a_scan_on_a_connection_that_was_dropped_are_not_waited_for() -> None:
    with FakeServer(Behaviour(delay_s=1.0)) as server:
        run(
            SLOW
            + """
from fdw import connections
def change():
    connections._connections.clear()
    return begin()
goes_on(change)
""",
            server.url,
        )


def test_a_stranger_is_waited_for_once() -> None:
    run("""
threads.REST_S = 0.4
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
assert took_s[0] >= 0.4 and took_s[1] < 0.2, took_s
""")


def test_a_thread_that_is_not_pythons_own_is_no_error() -> None:
    run("""
import _thread
ready, ends = threading.Event(), threading.Event()
def foreign():
    threading.current_thread()  # makes what stands for it
    ready.set()
    ends.wait(60)
_thread.start_new_thread(foreign, ())
ready.wait(10)
assert any(isinstance(thread, threading._DummyThread) for thread in threading.enumerate())
for _ in range(2):
    threads.rest()
ends.set()
""")
