"""Tables for people: aligned text on a terminal, Markdown for a README."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.measure import cores

CPUINFO, MEMINFO = Path("/proc/cpuinfo"), Path("/proc/meminfo")


@dataclass
class Report:
    """A table: a title, the heads of the columns, the rows, and remarks below. The first column is text."""

    title: str
    heads: Sequence[str] = ()
    rows: list[Sequence[str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """Add a row; missing cells at its end stay empty."""
        self.rows.append([*cells, *[""] * (len(self.heads) - len(cells))])

    def text(self) -> str:
        """Align the columns; the remark of a row that has no numbers may be longer than its column."""
        lines = [self.heads, *self.rows] if self.heads else []
        widths = [max(len(line[number]) for line in lines if has_numbers(line)) for number in range(len(self.heads))]
        body = [align(line, widths) for line in lines]
        if body:
            body.insert(1, "-" * (sum(widths) + 2 * len(widths) - 2))
        return "\n".join([self.title, "", *body, *self.remarks])

    def markdown(self) -> str:
        """Write a table of GitHub's Markdown."""
        rules = ["---", *["---:"] * (len(self.heads) - 1)]
        lines = [self.heads, rules, *self.rows] if self.heads else []
        body = ["| " + " | ".join(line) + " |" for line in lines]
        remarks = [f"- {remark}" for remark in self.remarks]
        return "\n".join([f"### {self.title}", "", *body, *([""] if body and remarks else []), *remarks])


def has_numbers(line: Sequence[str]) -> bool:
    """Tell a row of numbers from one that says why there are none."""
    return len(line) < 3 or bool(line[2])


def align(line: Sequence[str], widths: Sequence[int]) -> str:
    """Write text to the left and numbers to the right of their columns."""
    first = line[0].ljust(widths[0])
    if not has_numbers(line):
        return f"{first}  {line[1]}"
    cells = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
    return "  ".join([first, *cells]).rstrip()


def rate(value: float) -> str:
    """Write rows per second with three digits that mean something."""
    return f"{float(f'{value:.3g}'):,.0f}"


def times(value: float) -> str:
    """Write a factor."""
    return f"{value:,.0f} x" if value >= 99.5 else f"{value:.3g} x"


def share(value: float) -> str:
    """Write a part of one."""
    return f"{value:.4f}" if value < 0.01 else f"{value:.2f}"


def spread(runs: Sequence[float]) -> str:
    """Write the slowest and the fastest run."""
    return f"{rate(min(runs))} - {rate(max(runs))}" if len(runs) > 1 else ""


def machine(load: Sequence[float], load_average: float) -> list[str]:
    """Say when and where, and what else the machine did."""
    today = datetime.datetime.now(datetime.timezone.utc).date()
    model = next(
        (line.partition(":")[2].strip() for line in CPUINFO.read_text().splitlines() if line.startswith("model name")),
        platform.machine(),
    )
    memory_kb = int(MEMINFO.read_text().split()[1])
    return [
        f"{today}, {cores()} cores ({model}), {memory_kb / 2**20:.0f} GB of memory,"
        f" {platform.system()} {platform.release()}",
        f"other load: {statistics.median(load):.2f} cores in the pauses between the runs (median), at most"
        f" {max(load):.2f}; load average {load_average:.1f} before the start, {os.getloadavg()[0]:.1f} at the end",
    ]
