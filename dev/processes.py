"""Start servers, find them again, and end them: exactly those, also from another process later.

A process is known by its number and the time at which it started, since numbers are used again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dev.places import Account
from dev.screen import Failure

POLL_S = 0.02
PRIVATE_PREFIX = "model_fdw-"
# Below Linux's range for outgoing connections: a client that keeps knocking at a dead server's port could
# otherwise be given that very port as its own, connect to itself, and block the server's return.
PORTS = range(20000, 32000)


@dataclass(frozen=True)
class Running:
    """A server process with its group.

    started: the start time in the kernel's ticks, after the number of this boot.
    stop_signal: what asks the server to end.
    leftovers: patterns of the files and directories to remove after its end.
    """

    pid: int
    started: str
    stop_signal: int
    leftovers: tuple[str, ...]

    @staticmethod
    def from_dict(fields: Mapping[str, Any]) -> Running:
        """Read what as_dict() wrote."""
        return Running(**{**fields, "leftovers": tuple(fields["leftovers"])})

    def as_dict(self) -> dict[str, Any]:
        """Give the fields in a form that JSON can hold."""
        return asdict(self)

    def alive(self) -> bool:
        """Tell whether the process is there, is the same one, and is no zombie."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return start_time(self.pid) == self.started

    def send(self, number: int) -> None:
        """Send a signal to the server alone."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def send_group(self, number: int) -> None:
        """Send a signal to the server and to its helpers, also to those that have outlived it."""
        if self.alive() or not self._is_replaced():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def _is_replaced(self) -> bool:
        """Tell whether the number is somebody else's; the kernel gives it to nobody while the group has a member."""
        return start_time(self.pid) is not None or not self.started.startswith(boot_id())

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end; tell whether it came."""
        deadline = time.monotonic() + timeout_s
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True

    def stop(self, timeout_s: float = 20) -> None:
        """Ask the server to end, insist after the timeout, end what helpers it leaves, and clean up behind it."""
        self.send_group(signal.SIGCONT)
        self.send(self.stop_signal)
        self.wait(timeout_s)
        self.kill()
        self.clean()

    def kill(self) -> None:
        """End the server and its helpers at once, as a crash would."""
        self.send_group(signal.SIGKILL)
        self.wait(10)

    def clean(self) -> None:
        """Remove what the server leaves behind."""
        remove(self.leftovers)


@dataclass
class Leash:
    """Ties a server's life to ours: see dev/leash.py."""

    process: subprocess.Popen[bytes]

    def release(self) -> None:
        """Let go and wait until the server's files are gone."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def drop(self) -> None:
        """Let go of a server that has ended already, and leave its files alone."""
        self.process.kill()
        self.release()


def launch(
    command: Sequence[str | Path],
    *,
    account: Account,
    environment: Mapping[str, str],
    directory: Path,
    log: Path,
    stop_signal: int,
    leftovers: Sequence[str],
) -> Running:
    """Start a server in a session of its own, so that Ctrl-C at the terminal does not reach it."""
    with log.open("a") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=environment,
            start_new_session=True,
            **account.popen_arguments(),
        )
    running = Running(process.pid, start_time(process.pid) or "", int(stop_signal), tuple(leftovers))
    # Whoever holds the Running reaps the process; Popen's own complaint at its deletion says nothing.
    process.returncode = 0
    return running


def tie(running: Running) -> Leash:
    """Make a server end with this process."""
    process = subprocess.Popen(
        [sys.executable, "-I", Path(__file__).with_name("leash.py"), json.dumps(running.as_dict())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    return Leash(process)


def remove(patterns: Sequence[str]) -> None:
    """Remove the files and directories that the patterns match."""
    for path in (found for pattern in map(Path, patterns) for found in pattern.parent.glob(pattern.name)):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def start_time(pid: int) -> str | None:
    """Read when a process started; None where it is gone or a zombie. See proc(5), /proc/pid/stat."""
    try:
        # The name in parentheses may hold anything, so count from its end.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, ticks = fields[0], fields[19]
    return None if state in "ZX" else f"{boot_id()}/{ticks}"


def boot_id() -> str:
    """Read the number of this boot. See random(4)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def private_directory(account: Account) -> Path:
    """Make a directory that only the servers' user enters, with a name short enough for a socket."""
    directory = Path(tempfile.mkdtemp(prefix=PRIVATE_PREFIX, dir="/tmp"))
    account.own(directory)
    return directory


def free_ports(count: int) -> list[int]:
    """Find ports on the loopback address where nobody listens."""
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        for port in shuffled(PORTS):
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                ports.append(port)
            if len(ports) == count:
                return ports
    raise Failure(f"no free port between {PORTS.start} and {PORTS.stop}")


def shuffled(ports: range) -> list[int]:
    """Give the ports in an order that two checkouts do not share."""
    start = int.from_bytes(os.urandom(4), "big") % len(ports)
    return [*ports[start:], *ports[:start]]


def is_listening(port: int) -> bool:
    """Tell whether somebody accepts connections at a loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
