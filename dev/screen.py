"""What a person sees: one line a step, with its duration, and one explanation of a failure."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

TICK_S = 10
LAST_LINES = 12


class Failure(Exception):
    """Something that went wrong and is explained: a message, a hint, and the log that tells more."""

    def __init__(self, message: str, *, hint: str = "", log: Path | None = None) -> None:
        """Keep the parts apart; str() puts them together."""
        super().__init__(message)
        self.message, self.hint, self.log = message, hint, log

    def __str__(self) -> str:
        """Give the message, the log's last lines and path, and the hint."""
        parts = [self.message]
        if self.log is not None and self.log.exists():
            parts += [f"    {line}" for line in last_lines(self.log)]
            parts.append(f"  The whole output is in {shown(self.log)}")
        if self.hint:
            parts.append(f"  Hint: {self.hint}")
        return "\n".join(parts)


class Screen:
    """What people read while commands run."""

    def say(self, text: str = "", end: str = "\n") -> None:
        """Write a line at once, also into a pipe."""
        sys.stdout.write(text + end)
        sys.stdout.flush()

    @contextlib.contextmanager
    def step(self, label: str) -> Iterator[None]:
        """Show a label, the time every ten seconds while the body runs, and the duration."""
        started = time.monotonic()
        self.say(f"{label} ...", end="")
        done = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(started, done), daemon=True)
        ticker.start()
        outcome = "failed after "
        try:
            yield
            outcome = ""
        finally:
            done.set()
            ticker.join()
            seconds = time.monotonic() - started
            self.say(f" {outcome}{duration(seconds)}")

    def _tick(self, started: float, done: threading.Event) -> None:
        while not done.wait(TICK_S):
            self.say(f" {duration(time.monotonic() - started)} ...", end="")


SCREEN = Screen()
say = SCREEN.say
step = SCREEN.step


def duration(seconds: float) -> str:
    """Write a duration the way people read it: 38 ms, 0.4 s, 24 s, 3 min 5 s."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def last_lines(log: Path) -> list[str]:
    """Read the end of a log, empty lines left out."""
    lines = log.read_text(errors="replace").splitlines()
    return [line[:200] for line in lines if line.strip()][-LAST_LINES:]


def shown(path: Path) -> str:
    """Write a path the short way where it lies below the current directory."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def run_logged(
    command: Sequence[str | Path],
    log: Path,
    failure: str,
    *,
    environment: Mapping[str, str],
    hint: str = "",
    append: bool = False,
    popen_arguments: Mapping[str, Any] | None = None,
) -> None:
    """Run a command with its output in a log; where it fails, raise the failure with that log."""
    with log.open("a" if append else "w") as output:
        output.write("$ " + " ".join(map(str, command)) + "\n")
        output.flush()
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            check=False,
            **(popen_arguments or {}),
        )
    if result.returncode != 0:
        raise Failure(failure, log=log, hint=hint)
