"""Run the tests that need a PostgreSQL on every supported version, one after the other; end with a line for each."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from dev import build, versions
from dev.checks import run_tests
from dev.places import Places
from dev.screen import Failure, say, shown

SUITES = ("tests/test_sql.py", "tests/integration")


class Counts(NamedTuple):
    """How many tests ended in which way; xfailed are those that failed as they were expected to."""

    passed: int
    failed: int
    skipped: int
    xfailed: int


NOTHING = Counts(0, 0, 0, 0)


@dataclass(frozen=True)
class Outcome:
    """What the tests showed on one PostgreSQL.

    problem: what ended the run otherwise; nothing where it went through.
    """

    release: str
    pg_config: Path
    counts: Counts = NOTHING
    seconds: float = 0
    problem: str = ""

    @property
    def is_good(self) -> bool:
        """Tell whether tests have run, and none has failed."""
        return self.counts.passed > 0 and self.counts.failed == 0 and not self.problem

    def __str__(self) -> str:
        """Give the line of the summary."""
        passed, failed, skipped, xfailed = self.counts
        counted = (
            f"{passed:5} passed, {failed:3} failed, {skipped:3} skipped, {xfailed:3} xfailed, {self.seconds:5.0f} s"
        )
        problem = f": {self.problem}" if self.problem else ""
        return f"PostgreSQL {self.release:6} {counted}  {shown(self.pg_config)}{problem}"


def run(places: Places, named: Sequence[int], arguments: Sequence[str]) -> int:
    """Run the tests on the named versions, on all without a name; return 1 where one fails or cannot be had.

    arguments: those of pytest. A version that nobody named and that cannot be had is said, and no failure.
    """
    outcomes: list[Outcome] = []
    absent: dict[int, str] = {}
    for version in versions.SUPPORTED:
        if named and version not in named:
            absent[version] = "not named in VERSIONS"
            continue
        try:
            found = versions.find(places, version)
        except Failure as failure:
            say(str(failure))
            absent[version] = failure.message
            continue
        for pg_config in found:
            outcomes.append(test(replace(places, postgres=pg_config), arguments))
            say(str(outcomes[-1]))
    for line in summary(outcomes, absent):
        say(line)
    return status(outcomes, [version for version in named if version in absent])


def test(places: Places, arguments: Sequence[str]) -> Outcome:
    """Build for one PostgreSQL, with every warning an error, and run the tests on it."""
    outcome = Outcome(versions.release(places.pg_config), places.pg_config)
    say(f"\n== PostgreSQL {outcome.release}: {shown(places.pg_config)} ==")
    started = time.monotonic()
    try:
        with places.locked():
            build.build_strictly(places)
            build.build(places)
    except Failure as failure:
        say(str(failure))
        return replace(outcome, seconds=time.monotonic() - started, problem=failure.message)
    report = places.log / f"matrix-{outcome.release}.xml"
    report.unlink(missing_ok=True)
    ended = run_tests(places, [*arguments, f"--junitxml={report}"], SUITES)
    counts = read_counts(report)
    unexplained = ended != 0 and counts.failed == 0
    problem = f"pytest ended with status {ended}" if unexplained else ""
    return replace(outcome, counts=counts, seconds=time.monotonic() - started, problem=problem)


def read_counts(report: Path) -> Counts:
    """Read from pytest's report how many tests ended in which way; none where it wrote no report."""
    if not report.exists():
        return NOTHING
    tree = ET.parse(report)
    total, failures, errors, skipped = (
        sum(int(suite.get(name, 0)) for suite in tree.iter("testsuite"))
        for name in ("tests", "failures", "errors", "skipped")
    )
    # pytest counts them among the skipped ones, and tells them apart by this.
    xfailed = sum(1 for found in tree.iter("skipped") if found.get("type") == "pytest.xfail")
    return Counts(total - failures - errors - skipped, failures + errors, skipped - xfailed, xfailed)


def summary(outcomes: Sequence[Outcome], absent: Mapping[int, str]) -> list[str]:
    """Write the lines at the end: what was run, and what was not, with the reason."""
    missing = [f"PostgreSQL {version:<6} NOT RUN: {reason}" for version, reason in absent.items()]
    return ["", *map(str, outcomes), *missing]


def status(outcomes: Sequence[Outcome], missing: Sequence[int]) -> int:
    """Give the exit status: 0 where tests have run, all are good, and no version that was named is missing."""
    return 0 if outcomes and all(outcome.is_good for outcome in outcomes) and not missing else 1


def read_versions(text: str) -> list[int]:
    """Read the versions that somebody wrote, "15 17" or "15,17"."""
    words = text.replace(",", " ").split()
    unknown = [word for word in words if word not in map(str, versions.SUPPORTED)]
    if unknown:
        supported = " ".join(map(str, versions.SUPPORTED))
        raise Failure(f"{', '.join(unknown)}: not a supported version", hint=f'VERSIONS="{supported}"')
    return [int(word) for word in words]
