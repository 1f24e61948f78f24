"""From a bare checkout to predictions on screen, with servers that end with the demo."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from dev.places import CHECKOUT, Places, tool_environment
from dev.screen import SCREEN, Failure, duration, say, step
from dev.servers import Postgres, Triton

DATABASE = "demo"
EXAMPLES = CHECKOUT / "examples"
SECTION = re.compile(r"== (.+) ==$")
TIMING = re.compile(r"Time: ([0-9.]+) ms")


def demo(places: Places) -> None:
    """Start servers, run the session of examples/demo.sql, and tell how long everything took."""
    postgres = Postgres(name="demo-postgres", places=places)
    triton = Triton([places.models], name="demo-triton", places=places)
    with contextlib.ExitStack() as started:
        with step("starting PostgreSQL"):
            started.enter_context(postgres)
        with step("starting Triton"):
            started.enter_context(triton)
        with step("loading 569 patients"):
            load_patients(places, postgres)
        say()
        sections = run_session(postgres, triton)
        SCREEN.steps.extend((f"SQL: {name}", seconds) for name, seconds in sections.items())
        say()
        with step("stopping both"):
            started.close()
    say()
    say_table(SCREEN.steps)


def load_patients(places: Places, postgres: Postgres) -> None:
    """Make the database with the rows to score."""
    postgres.psql("-c", f"CREATE DATABASE {DATABASE}")
    postgres.psql("-v", f"csv={places.patients}", "-f", EXAMPLES / "patients.sql", database=DATABASE)


def run_session(postgres: Postgres, triton: Triton) -> dict[str, float]:
    """Show the session as it runs; return the seconds that psql measured in each of its sections."""
    command: list[str | Path] = [postgres.bindir / "psql", "-X", "--echo-queries", "--pset=pager=off"]
    command += ["-v", f"url={triton.url}", "-f", EXAMPLES / "demo.sql"]
    process = subprocess.Popen(
        command,
        env={**tool_environment(), **postgres.environment(DATABASE)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        assert process.stdout is not None
        sections = show(process.stdout)
    if process.returncode != 0:
        raise Failure("the demo's SQL failed", log=postgres.log)
    return sections


def show(lines: Iterable[str]) -> dict[str, float]:
    """Write the lines of a session to the screen and add up its timings by section."""
    sections: dict[str, float] = {}
    name = ""
    for line in lines:
        say(line, end="")
        if found := SECTION.match(line):
            name = found[1]
            sections[name] = 0.0
        elif found := TIMING.match(line):
            sections[name] += float(found[1]) / 1000
    return sections


def say_table(rows: list[tuple[str, float]]) -> None:
    """Write what ran and how long it took."""
    width = max(len(name) for name, _ in rows)
    for name, seconds in [*rows, ("total", sum(seconds for _, seconds in rows))]:
        say(f"{name:{width}}  {duration(seconds):>12}")
