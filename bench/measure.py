"""Runs and their medians: what every figure of the benchmark is made of."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dev.screen import Failure

PROC_STAT = Path("/proc/stat")
LOAD_SAMPLE_S = 0.25
# Half the distance between 1 and the next number: the relative error of one operation.
FLOAT32_ROUNDING = 2.0**-24
FLOAT64_ROUNDING = 2.0**-53


@dataclass(frozen=True)
class Run:
    """One pass over rows: how many, how long, and the sum of what the model answered, if it was asked."""

    rows: int
    seconds: float
    total: float | None = None


@dataclass(frozen=True)
class Expected:
    """What a pass must give: its rows, and the sum that SQL finds without the model.

    features: the inputs of the model, which adds them up in single precision.
    """

    rows: int
    total: float
    features: int

    @property
    def tolerance(self) -> float:
        """Bound what rounding alone can change in the sum of all outputs.

        The inputs are the same on both sides, single precision and not negative. The model adds the features
        of a row in single precision; SQL adds them, and both sides add the rows, in double precision, each in
        its own order.
        """
        in_rows = error_bound(self.features, FLOAT32_ROUNDING)
        over_rows = 2 * error_bound(self.rows * self.features, FLOAT64_ROUNDING)
        return (in_rows + over_rows) * self.total

    def check(self, label: str, run: Run) -> None:
        """Refuse a pass that lost a row or a value."""
        if run.rows != self.rows:
            raise Failure(f"{label}: {run.rows} rows instead of {self.rows}")
        if run.total is not None and not abs(run.total - self.total) <= self.tolerance:
            raise Failure(f"{label}: the outputs add up to {run.total!r} instead of {self.total!r}")


def error_bound(terms: int, rounding: float) -> float:
    """Bound the relative error of a sum of numbers that are not negative, added in any order.

    u (n - 1) / (1 - u (n - 1)): Higham, Accuracy and Stability of Numerical Algorithms, section 4.2.
    """
    accumulated = rounding * (terms - 1)
    return accumulated / (1 - accumulated)


@dataclass(frozen=True)
class Route:
    """A way of rows to the model and back, or one part of it."""

    label: str
    run: Callable[[], Run]
    expected: Expected


@dataclass
class Rate:
    """The runs of one route, in rows per second."""

    rows: int
    runs: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Give the median run."""
        return statistics.median(self.runs)


@dataclass
class Meter:
    """Runs routes in turn, and watches what else the machine does in the pauses."""

    runs: int
    load: list[float] = field(default_factory=list)

    def measure(self, routes: Sequence[Route]) -> dict[str, Rate]:
        """Run every route once, then every route again, and so on; check each answer."""
        rates = {route.label: Rate(route.expected.rows) for route in routes}
        for _ in range(self.runs):
            self.load.append(busy_cores(LOAD_SAMPLE_S))
            for route in routes:
                run = route.run()
                route.expected.check(route.label, run)
                rates[route.label].runs.append(run.rows / run.seconds)
        return rates


def serial_limit(scan: float, raw: float) -> float:
    """Give the rate of reading all rows, then sending them, with no work between."""
    return 1 / (1 / scan + 1 / raw)


def busy_cores(seconds: float) -> float:
    """Measure how many cores are at work, whoever's work it is, while we only wait."""
    idle, total = ticks()
    time.sleep(seconds)
    idle_after, total_after = ticks()
    passed = total_after - total
    return cores() * (1 - (idle_after - idle) / passed) if passed else 0.0


def ticks() -> tuple[int, int]:
    """Read the machine's idle and total time, in the kernel's ticks, all cores together."""
    times = [int(word) for word in PROC_STAT.read_text().splitlines()[0].split()[1:9]]
    return times[3] + times[4], sum(times)


def cores() -> int:
    """Count the cores that the kernel's times add up."""
    return sum(line.startswith("cpu") for line in PROC_STAT.read_text().splitlines()) - 1
