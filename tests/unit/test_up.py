"""What "make up" keeps: servers that are well, and the ports of those that are not."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from dev import up
from dev.processes import Running, free_ports
from dev.servers import Postgres, Triton


class Server(Running):
    """A process that is there or not."""

    def alive(self) -> bool:
        """Tell so by its number."""
        return self.pid > 0

    def stop(self, timeout_s: float = 20) -> None:
        """Note that it was asked to."""
        STOPPED.append(self.pid)


STOPPED: list[int] = []
NAMES = ("postgres", "grpc", "http", "metrics")


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """PostgreSQL listens, Triton would answer; the other ports are free."""
    STOPPED.clear()
    ports = dict(zip(NAMES, free_ports(4)))
    monkeypatch.setattr(up, "answers", lambda port: port == ports["http"])
    with socket.create_server(("127.0.0.1", ports["postgres"])):
        yield ports


def adopt(
    postgres_pid: int, triton_pid: int, ports: dict[str, int], *, renew_triton: bool = False
) -> tuple[bool, Postgres, Triton]:
    postgres, triton = Postgres(), Triton([])
    running = {"PostgreSQL": Server(postgres_pid, "", 2, ()), "Triton": Server(triton_pid, "", 15, ())}
    return up.adopt_healthy(postgres, triton, running, ports, renew_triton=renew_triton), postgres, triton


def test_both_are_well(ports: dict[str, int]) -> None:
    well, postgres, triton = adopt(1, 2, ports)
    assert (well, postgres.port, triton.http_port, STOPPED) == (True, ports["postgres"], ports["http"], [])


@pytest.mark.parametrize(("triton_pid", "renew_triton"), [(-2, False), (2, True)], ids=["dead", "other models"])
def test_a_healthy_postgresql_stays_where_triton_starts_anew(
    ports: dict[str, int], triton_pid: int, renew_triton: bool
) -> None:
    well, postgres, triton = adopt(1, triton_pid, ports, renew_triton=renew_triton)
    assert (well, triton_pid in STOPPED, 1 in STOPPED) == (False, True, False)
    assert postgres.running is not None
    assert (triton.running, triton.grpc_port, triton.metrics_port) == (None, ports["grpc"], ports["metrics"])


def test_a_port_that_somebody_else_has_is_not_kept(ports: dict[str, int]) -> None:
    well, postgres, triton = adopt(-1, 2, ports)
    assert (well, postgres.running, postgres.port) == (False, None, 0)
    assert triton.running is not None


def test_the_first_time(ports: dict[str, int]) -> None:
    postgres, triton = Postgres(), Triton([])
    assert not up.adopt_healthy(postgres, triton, {}, {}, renew_triton=False)
    assert (postgres.port, triton.grpc_port) == (0, 0)


def test_models_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELS", "/nonexistent")
    with pytest.raises(up.Failure, match='"/nonexistent" is not a directory'):
        up.own_models()
