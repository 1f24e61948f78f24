"""The threads that work beside the backend's own: a small pool, and their rest when a statement ends.

A backend keeps the interpreter except where it waits for a model server. A thread that needs it in order to end, once
the statement is over, would ask for it all the time that the session is idle, 200 times a second, and hold what it has.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
import weakref
from queue import SimpleQueue
from typing import Any, Callable

MAX_THREADS = 64

# How long the end of a statement waits for its threads at most. They need far less, unless all processors are busy.
REST_S = 0.01


class Pool:
    """Runs functions on at most MAX_THREADS threads; what finds none free waits in a queue.

    A thread is started when a function needs one. It stays, and sleeps where there is nothing to do, without a time
    after which it would want to run.
    """

    def __init__(self) -> None:
        self._tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._settled = threading.Condition()
        self._unfinished = self._threads = 0

    def run(self, task: Callable[[], None]) -> None:
        """Run a function on a thread, soon; it must not raise. Raises RuntimeError where no thread can be made."""
        with self._settled:
            if self._unfinished >= self._threads and self._threads < MAX_THREADS:
                _lasting.add(start(self._work))
                self._threads += 1
            self._unfinished += 1
        self._tasks.put(task)

    def settle(self, limit_s: float) -> None:
        """Wait until all is done, and the threads sleep."""
        with self._settled:
            self._settled.wait_for(lambda: self._unfinished == 0, limit_s)

    def _work(self) -> None:
        while True:
            task = self._tasks.get()
            task()
            del task  # it holds a request
            with self._settled:
                self._unfinished -= 1
                self._settled.notify()


# Threads that no statement waits for: the pool's, which sleep, and those that have outlived a statement with nothing in
# flight, which are somebody else's or wait for the resolver.
_lasting: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

pool = Pool()


def start(work: Callable[[], None]) -> threading.Thread:
    """Start a thread that takes none of the host's signals and does not keep the process alive."""
    thread = threading.Thread(target=work, daemon=True)
    before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return thread


def look_up(host: str, port: int) -> tuple[threading.Event, list[Any]]:
    """Look a host name up on a thread of its own: the resolver cannot be interrupted.

    The list, of socket.getaddrinfo()'s entries, is filled when the event is set; it stays empty where that fails.
    """
    answered = threading.Event()
    answers: list[Any] = []

    def work() -> None:
        with contextlib.suppress(OSError, UnicodeError):
            answers.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        answered.set()

    start(work)
    return answered, answers


def rest() -> None:
    """Let the pool's threads fall asleep, and the others, gRPC's, end; to be called when no request is in flight.

    Waits REST_S, and never again for a thread for which that was not enough.
    """
    if threading.active_count() == 1:
        return
    ends_s = time.monotonic() + REST_S
    pool.settle(REST_S)
    for thread in threading.enumerate():
        if thread is threading.current_thread() or thread in _lasting or thread.ident is None:
            continue
        with contextlib.suppress(AssertionError, RuntimeError):  # it is no thread of Python's own
            thread.join(max(0.0, ends_s - time.monotonic()))
        if thread.is_alive():
            _lasting.add(thread)
