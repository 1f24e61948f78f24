from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest
from helpers import finish

from fdw.errors import BadOption, Cancelled
from fdw.tickets import FINISHED, ON_EVENT, Notifier, Steps, Ticket, gather, notifier, wait


def steps(waits: list[float | None], result: Any, log: list[str] | None = None) -> Steps[Any]:
    try:
        yield from waits
        if isinstance(result, Exception):
            raise result
        return result
    finally:
        if log is not None:
            log.append("ended")


def test_a_ticket_without_waits_is_finished_at_once() -> None:
    ticket = Ticket(steps([], 7))
    assert (ticket.poll(), ticket.collect()) == (FINISHED, 7)


def test_poll_tells_when_to_come_back() -> None:
    ticket = Ticket(steps([None, None, time.monotonic() + 0.5, time.monotonic() - 1], 7))
    assert ticket.poll() == ON_EVENT
    assert 400 < ticket.poll() <= 501
    assert ticket.poll() == 1, "a time in the past is no reason to stop polling"
    with pytest.raises(RuntimeError, match="not finished"):
        ticket.collect()
    assert ticket.poll() == FINISHED
    assert ticket.collect() == 7


def test_errors_wait_for_collect() -> None:
    ticket = Ticket(steps([], BadOption("no")))
    assert ticket.poll() == FINISHED
    with pytest.raises(BadOption, match="no"):
        ticket.collect()


def test_cancel_ends_the_work_and_may_be_repeated() -> None:
    log: list[str] = []
    ticket = Ticket(steps([None, None], 7, log))
    ticket.cancel()
    ticket.cancel()
    assert log == ["ended"]
    assert ticket.poll() == FINISHED
    with pytest.raises(Cancelled):
        ticket.collect()


def test_cancel_after_the_end_keeps_the_result() -> None:
    ticket = Ticket(steps([], 7))
    ticket.cancel()
    assert ticket.collect() == 7


def test_a_forgotten_ticket_ends_its_work() -> None:
    log: list[str] = []
    ticket = Ticket(steps([None, None], 7, log))
    del ticket
    assert log == ["ended"]


def test_gather_bounds_what_runs_and_keeps_the_order() -> None:
    running, most = 0, 0

    def job(number: int) -> Steps[int]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(5 - number):
            yield None
        running -= 1
        return number

    assert finish(Ticket(gather((job(number) for number in range(5)), 2))) == [0, 1, 2, 3, 4]
    assert most == 2


def test_gather_wakes_for_the_earliest() -> None:
    soon = time.monotonic() + 0.2
    gathered = gather([steps([soon + 5], 1), steps([None], 2), steps([soon], 3)], 3)
    assert next(gathered) == soon


def test_gather_ends_the_others_after_an_error() -> None:
    log: list[str] = []
    with pytest.raises(BadOption):
        finish(Ticket(gather([steps([None] * 9, 1, log), steps([None], BadOption("no"))], 2)))
    assert log == ["ended"]


@pytest.mark.skipif(not hasattr(os, "eventfd"), reason="Python 3.9 cannot make an eventfd")
def test_an_event_is_written_to_the_eventfd() -> None:
    event_fd = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        own = Notifier()
        own.use_event_fd(event_fd)
        own.notify()
        own.notify()
        assert int.from_bytes(os.read(event_fd, 8), "little") == 2
        os.eventfd_write(event_fd, 2**64 - 2)
        own.notify()  # the counter is full: ignored
    finally:
        os.close(event_fd)
    own.notify()  # the eventfd is gone: ignored


def test_wait_checks_for_interrupts_every_50_ms() -> None:
    checks: list[float] = []

    def check() -> None:
        checks.append(time.monotonic())
        if len(checks) == 3:
            raise Cancelled("canceling statement due to user request")

    log: list[str] = []
    began_s = time.monotonic()
    with pytest.raises(Cancelled):
        wait(Ticket(steps([None] * 100, 7, log)), check)
    assert time.monotonic() - began_s < 0.5
    assert log == ["ended"]


def test_wait_wakes_on_an_event() -> None:
    def job() -> Steps[float]:
        notifier.notify()
        yield None
        return time.monotonic()

    began_s = time.monotonic()
    assert finish(Ticket(job())) - began_s < 0.04


def notify_elsewhere(own: Notifier) -> tuple[threading.Thread, threading.Event]:
    returned = threading.Event()

    def run() -> None:
        own.notify()
        returned.set()

    thread = threading.Thread(target=run)
    thread.start()
    return thread, returned


def test_a_thread_that_notifies_is_kept_while_requests_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fdw.tickets.KEPT_S", 10.0)
    own = Notifier()
    with own.sending():
        thread, returned = notify_elsewhere(own)
        own.wait(5)
        assert not returned.wait(0.05), "the thread went on"
    thread.join(5)
    assert returned.is_set()


def test_it_is_kept_for_a_short_time_only_and_the_maker_itself_never() -> None:
    own = Notifier()
    with own.sending():
        own.notify()
        thread, returned = notify_elsewhere(own)
        thread.join(5)
        assert returned.is_set()
