"""Servers end with all that they started, however they end themselves."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dev.places import find_account
from dev.processes import Running, launch, start_time

# A server with a helper that wants no SIGTERM, as the processes of Triton's models do; it says the helper's number.
SERVER = """
trap '' TERM
sleep 600 &
echo $!
trap 'exit 0' INT
wait
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Running, int]]:
    """Start a server, and read its helper's number."""
    log = tmp_path / "log"
    environment = {"PATH": "/usr/bin:/bin"}
    running = launch(
        ["sh", "-c", SERVER],
        account=find_account(),
        environment=environment,
        directory=Path("/"),
        log=log,
        stop_signal=signal.SIGINT,
        leftovers=[str(tmp_path / "leftover*")],
    )
    deadline = time.monotonic() + 10
    while not (text := log.read_text()).endswith("\n"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield running, int(text)
    running.kill()


def ended(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while start_time(pid) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_a_helper_ends_with_a_server_that_is_stopped(server: tuple[Running, int], tmp_path: Path) -> None:
    running, helper = server
    (tmp_path / "leftover-1").touch()
    assert start_time(helper) is not None
    running.stop()
    assert not running.alive()
    assert ended(helper)
    assert not (tmp_path / "leftover-1").exists()


@pytest.mark.parametrize("end", [Running.kill, Running.stop])
def test_a_helper_does_not_outlive_a_server_that_crashed(server: tuple[Running, int], end: type[Running.kill]) -> None:
    running, helper = server
    running.send(signal.SIGKILL)
    assert running.wait(10)
    assert start_time(helper) is not None
    end(running)
    assert ended(helper)


def test_a_number_that_is_somebody_elses_is_left_alone(server: tuple[Running, int]) -> None:
    """It was given to another process of this boot, or its group is one of another boot."""
    running, helper = server
    boot = running.started.partition("/")[0]
    replace(running, started=f"{boot}/1").stop(timeout_s=0)
    replace(running, started="another/1").stop(timeout_s=0)
    assert running.alive()
    running.send(signal.SIGKILL)
    assert running.wait(10)
    replace(running, started="another/1").stop(timeout_s=0)
    time.sleep(0.1)
    assert start_time(helper) is not None


def test_what_is_read_is_what_was_written(server: tuple[Running, int]) -> None:
    running, _ = server
    read = Running.from_dict(running.as_dict())
    assert read == running
    assert read.alive()
    assert not replace(read, started="another").alive()
    assert os.getpgid(read.pid) == read.pid
