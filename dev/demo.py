"""From a bare checkout to predictions on screen, with servers that end with the demo."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path

from dev.places import CHECKOUT, Places, tool_environment
from dev.screen import Failure, duration, say, step
from dev.servers import Postgres, Triton

DATABASE = "demo"
EXAMPLES = CHECKOUT / "examples"


def demo(places: Places) -> None:
    """Start servers, run the session of examples/demo.sql, and tell how long all of it took."""
    started_at = time.monotonic()
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
        run_session(postgres, triton)
        say()
        with step("stopping both"):
            started.close()
    say()
    say(f"all of it: {duration(time.monotonic() - started_at)}")


def load_patients(places: Places, postgres: Postgres) -> None:
    """Make the database with the rows to score."""
    postgres.psql("-c", f"CREATE DATABASE {DATABASE}")
    postgres.psql("-v", f"csv={places.patients}", "-f", EXAMPLES / "patients.sql", database=DATABASE)


def run_session(postgres: Postgres, triton: Triton) -> None:
    """Show the session as it runs."""
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
        for line in process.stdout:
            say(line, end="")
    if process.returncode != 0:
        raise Failure("the demo's SQL failed", log=postgres.log)
