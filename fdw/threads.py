"""The threads that work beside the backend's own: a small pool, and their rest when a statement ends.

A backend keeps the interpreter except where it waits for a model server. A thread that needs it in order to end, once
the statement is over, would ask for it all the time that the session is idle, 200 times a second, and hold what it has.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import weakref
from collections import deque
from typing import Callable, Deque

MAX_THREADS = 64

# How long the end of a statement waits for its threads at most. They need far less, unless all processors are busy.
REST_S = 0.01


class Pool:
    """Runs functions on at most MAX_THREADS threads; what finds none free waits in a queue.

    A thread is started when a function needs one. It stays, and sleeps where there is nothing to do, without a time
    after which it would want to run.
    """

    def __init__(self) -> None:
        self._tasks: Deque[Callable[[], None]] = deque()
        lock = threading.Lock()
        self._added, self._settled = threading.Condition(lock), threading.Condition(lock)
        self._idle = self._count = 0

    def run(self, task: Callable[[], None]) -> None:
        """Run a function on a thread, soon; it must not raise. Raises RuntimeError where no thread can be made."""
        with self._added:
            self._tasks.append(task)
            if self._idle >= len(self._tasks) or self._count >= MAX_THREADS:
                self._added.notify()
                return
            self._count += 1
        try:
            _lasting.add(start(self._work))
        except BaseException:
            with self._added, contextlib.suppress(ValueError):  # another thread may have taken it
                self._count -= 1
                self._tasks.remove(task)
            raise

    def settle(self, limit_s: float) -> None:
        """Wait until all threads sleep."""
        with self._settled:
            self._settled.wait_for(lambda: self._idle == self._count and not self._tasks, limit_s)

    def _work(self) -> None:
        while True:
            with self._added:
                self._idle += 1
                self._settled.notify()
                self._added.wait_for(lambda: self._tasks)
                self._idle -= 1
                task = self._tasks.popleft()
            task()
            del task  # it holds a request


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
