"""Tickets: work in progress that is waited for elsewhere.

A ticket runs a generator. The generator starts requests, yields until it may go on, looks again, and returns the
result. What it yields is the time (``time.monotonic()``, seconds) at which it wants to look again even if nothing
happens, or None. Nothing here waits or makes threads: whoever waits, C on the backend's latch or wait() below, calls
poll().
"""

from __future__ import annotations

import itertools
import os
import struct
import threading
import time
from contextlib import nullcontext
from typing import Callable, ContextManager, Generator, Generic, Iterable, TypeVar

from fdw.errors import Cancelled

T = TypeVar("T")

# A piece of work: yields when to look again, returns the result.
Steps = Generator["float | None", None, T]

FINISHED = 0
ON_EVENT = -1

WAIT_SLICE_S = 0.05

# How long a thread of gRPC's is kept at most while a request is being made. Longer than that takes, and no more than a
# delay where the one who makes it waits for that very thread, as the end of a channel does.
KEPT_S = 0.002

_ONE = struct.pack("=Q", 1)


class Notifier:
    """Tells the waiter that some ticket's state may have changed; notify() is called from gRPC's threads."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._event_fd: int | None = None
        # Reentrant: a call that has ended already notifies from the thread that makes it.
        self._sending = threading.RLock()

    def use_event_fd(self, event_fd: int) -> None:
        """Write to this Linux eventfd from now on, too."""
        self._event_fd = event_fd

    def notify(self) -> None:
        """Wake the waiter up; return when no request is being made, see sending()."""
        self._event.set()
        if self._event_fd is not None:
            try:
                os.write(self._event_fd, _ONE)
            except BlockingIOError:
                pass  # the counter is full: the waiter has more than enough reason to wake up
            except OSError:
                self._event_fd = None  # the host closed it: the backend is going away
        if self._sending.acquire(timeout=KEPT_S):
            self._sending.release()

    def sending(self) -> ContextManager[object]:
        """Keep threads that notify until the end of the block, in which requests are made.

        gRPC's thread ends with the last call in flight, and the next call has to start a new one, which costs as much
        as the call itself. A server that is faster than its client brings that about with every call. A thread that is
        kept has not ended its call yet when the next one is made, and goes on with that.
        """
        return self._sending

    def wait(self, timeout_s: float) -> None:
        """Wait for notify(), at most so long."""
        self._event.wait(timeout_s)
        self._event.clear()


notifier = Notifier()


# What steps yield in the middle of long work, so that whoever polls can look for interrupts: they are ready to go on.
GO_ON = 0.0


class Ticket(Generic[T]):
    """One piece of work; its result or error is kept until collect()."""

    def __init__(self, steps: Steps[T]) -> None:
        self._steps: Steps[T] | None = steps
        self._result: T | None = None
        self._error: BaseException | None = None
        self.poll()  # start what can be started now

    def poll(self) -> int:
        """Do what can be done without waiting.

        Returns 0 when finished; n > 0: poll again after at most n ms, or earlier on an event; -1: on an event.
        """
        if self._steps is None:
            return FINISHED
        try:
            wake_s = next(self._steps)
        except StopIteration as stop:
            self._steps, self._result = None, stop.value
            return FINISHED
        except Exception as error:
            self._steps, self._error = None, error
            return FINISHED
        if wake_s is None:
            return ON_EVENT
        return max(1, int((wake_s - time.monotonic()) * 1000) + 1)

    def collect(self) -> T:
        """Return the result or raise the error; once, after poll() gave 0."""
        if self._steps is not None:
            raise RuntimeError("collect() of a ticket that is not finished")
        error, result = self._error, self._result
        self._error = self._result = None
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    def cancel(self) -> None:
        """Give the work up: the generator's finally clauses cancel what is in flight."""
        steps, self._steps = self._steps, None
        if steps is not None:
            self._error = Cancelled("request was cancelled")
            steps.close()


def gather(jobs: Iterable[Steps[T]], limit: int) -> Steps[list[T]]:
    """Run pieces of work side by side, at most ``limit`` at once; return their results in order.

    The first error ends the others.
    """
    waiting = enumerate(jobs)
    active: dict[int, Steps[T]] = {}
    results: dict[int, T] = {}
    try:
        while True:
            for number, job in itertools.islice(waiting, limit - len(active)):
                active[number] = job
            if not active:
                return [results[number] for number in sorted(results)]
            wakes = []
            finished = len(results)
            for number, job in list(active.items()):
                try:
                    wake_s = next(job)
                except StopIteration as stop:
                    results[number] = stop.value
                    del active[number]
                else:
                    if wake_s is not None:
                        wakes.append(wake_s)
            if len(results) == finished:
                yield min(wakes, default=None)
    finally:
        for job in active.values():
            job.close()


def wait(
    ticket: Ticket[T],
    check_interrupts: Callable[[], None],
    working: Callable[[], ContextManager[None]] = nullcontext,
) -> T:
    """Wait for a ticket where no C library does it, and return its result.

    Waits in slices of 50 ms and calls ``check_interrupts`` between them, which raises to stop; the ticket is then
    cancelled. ``working`` is entered wherever work is done, not while waiting.
    """
    try:
        while True:
            with working():
                pause_ms = ticket.poll()
            if pause_ms == FINISHED:
                return ticket.collect()
            slice_s = WAIT_SLICE_S if pause_ms == ON_EVENT else min(WAIT_SLICE_S, pause_ms / 1000)
            notifier.wait(slice_s)
            check_interrupts()
    finally:
        with working():
            ticket.cancel()
