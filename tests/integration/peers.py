"""Real servers of the Open Inference Protocol that are not Triton, where "make peers" has installed them."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import signal
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.processes import launch, private_directory, tie
from dev.servers import answers, await_ready, default_places, make_readable, server_environment, with_free_ports

START_S = 120.0


@dataclass(frozen=True)
class Peer:
    """Where a server listens."""

    http_port: int
    grpc_port: int

    def url(self, protocol: str) -> str:
        """Write the address for option "url"."""
        return f"{protocol}://127.0.0.1:{self.grpc_port if protocol == 'grpc' else self.http_port}"

    def ask(self, model: str, inputs: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
        """Ask the server itself, by JSON; return the data of its outputs."""
        request = urllib.request.Request(
            f"{self.url('http')}/v2/models/{model}/infer",
            json.dumps({"inputs": list(inputs)}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return {output["name"]: output["data"] for output in json.load(response)["outputs"]}


@contextlib.contextmanager
def run_peer(
    name: str, files: Path, ports: int, command: Callable[[Path, list[int]], list[str | Path]], **environment: str
) -> Iterator[Peer]:
    """Run a server in a copy of ``files``; its first two ports are those of HTTP and gRPC.

    ``command`` may write what the server needs into the copy, where it is run.
    """
    places = default_places()
    home = private_directory(places.account)
    copy = home / "files"
    shutil.copytree(files, copy, ignore=shutil.ignore_patterns("__pycache__"))
    log = places.log / f"{name.lower()}.log"
    started = []

    def start(free: list[int]) -> None:
        arguments = command(copy, free)
        make_readable(copy)
        running = launch(
            arguments,
            account=places.account,
            environment=server_environment(home, PYTHONDONTWRITEBYTECODE="1", **environment),
            directory=copy,
            log=log,
            stop_signal=signal.SIGTERM,
            leftovers=[str(home)],
        )
        leash = tie(running)
        started.append((running, leash, Peer(*free[:2])))
        await_ready(running, functools.partial(answers, free[0]), START_S, name, log)

    try:
        with_free_ports(ports, log, start)
        yield started[-1][2]
    finally:
        for running, leash, _ in started:
            running.stop()
            leash.release()
