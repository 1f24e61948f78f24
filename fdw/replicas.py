"""Which endpoint of a server gets a request, and how hard a scan may try.

A server's endpoints are replicas: any of them may answer any request. One that cannot be reached, or does not have the
model, is left out for a while and then tried again by one request. A scan's effort is one for all its requests.
"""

from __future__ import annotations

import contextlib
import random
import time
from dataclasses import dataclass, field
from typing import Sequence

from fdw.errors import Failure
from fdw.options import Endpoint
from fdw.protocols.base import Call, Client
from fdw.tickets import Steps

# Pauses double from the first to the longest; each is shortened at random by up to a half, so that the backends of one
# database do not come back all at once.
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0


@dataclass
class Backoff:
    """Pauses that grow until reset."""

    pause_s: float = FIRST_PAUSE_S

    def next(self) -> float:
        """Return how long to wait now, in seconds."""
        pause_s, self.pause_s = self.pause_s, min(self.pause_s * 2, LONGEST_PAUSE_S)
        return pause_s * random.uniform(0.5, 1.0)


@dataclass
class _Absence:
    """Since something failed: when to try it again."""

    backoff: Backoff
    until_s: float


def _running(calls: list[Call[object]]) -> int:
    """Drop the calls that have ended, and count the others.

    Ended calls are found by asking them: whoever waits for them may not be polled now.
    """
    calls[:] = [call for call in calls if not call.done()]
    return len(calls)


@dataclass(eq=False)
class Replica:
    """An endpoint, its client, the calls it has not answered, and what it failed at: '' stands for everything."""

    endpoint: Endpoint
    client: Client
    _calls: list[Call[object]] = field(default_factory=list)
    _absent: dict[tuple[str, ...], _Absence] = field(default_factory=dict)

    def load(self) -> int:
        """Count the calls in flight."""
        return _running(self._calls)

    def add(self, call: Call[object]) -> None:
        """Take a call that has just been made here."""
        self._calls.append(call)

    def drop(self, call: Call[object]) -> None:
        """Forget a call that has ended, or that nobody waits for any more."""
        with contextlib.suppress(ValueError):
            self._calls.remove(call)

    def absent_until(self, model: tuple[str, str]) -> float:
        """Return when the replica may be tried for a model, in time.monotonic()'s seconds."""
        return max((absence.until_s for key in ((), model) if (absence := self._absent.get(key))), default=0.0)

    def leave_out(self, *model: str) -> None:
        """Leave the replica out for a while, for one model or for all; longer each time."""
        absence = self._absent.setdefault(model, _Absence(Backoff(), 0.0))
        absence.until_s = time.monotonic() + absence.backoff.next()

    def probe(self, model: tuple[str, str]) -> None:
        """Send no second request to a replica that was left out, before the first one tells how it is."""
        for key in ((), model):
            if key in self._absent:
                self.leave_out(*key)

    def welcome(self, model: tuple[str, str]) -> None:
        """Forget the failures: the replica has answered for this model."""
        if self._absent:
            self._absent.pop((), None)
            self._absent.pop(model, None)


def choose(replicas: Sequence[Replica], tried: set[Replica], model: tuple[str, str]) -> Replica:
    """Pick the replica with the fewest calls in flight.

    Those that a request has tried already come last, and those that are left out before them, the longest out first.
    """
    if len(replicas) == 1:
        return replicas[0]
    now_s = time.monotonic()

    def order(replica: Replica) -> tuple[bool, float, int, float]:
        until_s = replica.absent_until(model)
        return replica in tried, until_s if until_s > now_s else 0.0, replica.load(), random.random()

    chosen = min(replicas, key=order)
    chosen.probe(model)
    return chosen


@dataclass(eq=False)
class Effort:
    """What a scan may do in all: how often a request is tried, how many requests are made beyond the first of each.

    The number in flight is halved whenever the server is overloaded, and grows again by one for each round of answers.
    Until then it is whatever the scan's own limits allow.
    """

    max_attempts: int
    budget: int
    _left: int = field(init=False)
    _window: float = field(default=float("inf"), init=False)
    _calls: list[Call[object]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._left = self.budget

    def spend(self, requests: int = 1) -> bool:
        """Take requests from the budget; False: it is used up."""
        if self._left < requests:
            return False
        self._left -= requests
        return True

    def admit(self) -> Steps[None]:
        """Wait until a request may be made."""
        while _running(self._calls) + 1 > self._window:
            yield None

    def add(self, call: Call[object]) -> None:
        """Take a call that has just been made."""
        self._calls.append(call)

    def drop(self, call: Call[object]) -> None:
        """Forget a call that has ended, or that nobody waits for any more."""
        with contextlib.suppress(ValueError):
            self._calls.remove(call)

    def overloaded(self) -> None:
        """Halve the number of requests in flight."""
        self._window = max(1.0, min(self._window, _running(self._calls) + 1) / 2)

    def answered(self) -> None:
        """Let the number of requests in flight grow."""
        self._window += 1 / self._window


def is_overload(failure: Failure) -> bool:
    """Tell whether a server answered that it has too much to do: the same request may succeed later."""
    if failure.not_ready or failure.oversized or failure.cause is not None:
        return False
    return failure.status in ("UNAVAILABLE", "RESOURCE_EXHAUSTED")


def is_elsewhere(failure: Failure) -> bool:
    """Tell whether a replica lacks the model, which another one may have."""
    return failure.status == "NOT_FOUND" or failure.not_ready
