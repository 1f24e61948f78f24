"""The threads that work beside the backend's own: a small pool, and their rest when a statement ends.

A backend keeps the interpreter except where it waits for a model server. A thread that needs it in order to end, once
the statement is over, would ask for it all the time that the session is idle, 200 times a second, and hold what it has.
"""

from __future__ import annotations

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

    A thread is started when a function needs one, and stays until dismiss().
    """

    def __init__(self) -> None:
        self._tasks: Deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._idle = self._count = 0
        self._dismissed = False

    def run(self, task: Callable[[], None]) -> None:
        """Run a function on a thread, soon; it must not raise."""
        with self._changed:
            self._dismissed = False
            self._tasks.append(task)
            if self._idle >= len(self._tasks) or self._count >= MAX_THREADS:
                self._changed.notify()
                return
            self._count += 1
        start(self._work)

    def dismiss(self) -> None:
        """End the threads as soon as nothing is left to do, until run() is called again."""
        with self._changed:
            self._dismissed = True
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(lambda: self._tasks or self._dismissed)
                self._idle -= 1
                if not self._tasks:
                    self._count -= 1
                    return
                task = self._tasks.popleft()
            task()


pool = Pool()

# Threads that have outlived a statement with nothing in flight: somebody else's, or one that waits for the resolver.
_lasting: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def start(work: Callable[[], None]) -> None:
    """Start a thread that takes none of the host's signals and does not keep the process alive."""
    thread = threading.Thread(target=work, daemon=True)
    before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def rest() -> None:
    """Let the threads end, the pool's and gRPC's; to be called when no request is in flight.

    Waits REST_S at most, and never again for a thread for which that was not enough.
    """
    if threading.active_count() == 1:
        return
    pool.dismiss()
    ends_s = time.monotonic() + REST_S
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread not in _lasting:
            thread.join(max(0.0, ends_s - time.monotonic()))
            if thread.is_alive():
                _lasting.add(thread)
