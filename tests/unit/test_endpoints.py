"""Several endpoints of one server, and one effort for all requests of a scan; asserted on what the servers saw."""

from __future__ import annotations

import contextlib
import gc
import socket
import time
import weakref
from typing import Any, Iterator

import grpc
import numpy as np
import pytest
from fake_server import Behaviour, FakeServer
from helpers import X, Y, doubles, fails, fake_table, finish, score, table

from fdw import errors, host
from fdw.options import Endpoint
from fdw.protocols import channel
from fdw.replicas import Effort, Replica


@contextlib.contextmanager
def replicas(*behaviours: str | Behaviour) -> Iterator[list[FakeServer]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(FakeServer(behaviour)) for behaviour in behaviours]


def url_of(servers: list[FakeServer]) -> str:
    return ", ".join(server.url for server in servers)


def address_of(servers: list[FakeServer]) -> str:
    return ", ".join(f"127.0.0.1:{server.port}" for server in servers)


def submit_many(description: dict[str, Any], batches: int, rows: int = 1) -> list[Any]:
    """Submit batches side by side and collect them in order, as the C library does."""
    session = finish(host.open(description, [1], [2]))
    try:
        columns = [np.arange(number * rows, (number + 1) * rows, dtype="f8").tobytes() for number in range(batches)]
        tickets = [host.submit(session, rows, [column]) for column in columns]
        return [finish(ticket)[0][0].tolist() for ticket in tickets]
    finally:
        host.close(session)


def right(batches: int, rows: int = 1) -> list[list[float]]:
    return [[2.0 * value for value in range(number * rows, (number + 1) * rows)] for number in range(batches)]


def infers(servers: list[FakeServer]) -> list[int]:
    return [server.calls["ModelInfer"] for server in servers]


def test_requests_go_where_the_least_are_in_flight() -> None:
    with replicas("slow", "slow", "slow") as servers:
        assert submit_many(fake_table(url_of(servers)), 12) == right(12)
        assert infers(servers) == [4, 4, 4]


def test_a_busy_endpoint_gets_less() -> None:
    with replicas(Behaviour(delay_s=1.0), Behaviour(delay_s=0.01)) as servers:
        session = finish(host.open(fake_table(url_of(servers)), [1], [2]))
        tickets = [host.submit(session, 1, [doubles(1.0)]) for _ in range(2)]
        while all(host.poll(ticket) for ticket in tickets):
            time.sleep(0.01)
        before = servers[0].calls["ModelInfer"]
        for _ in range(8):
            finish(host.submit(session, 1, [doubles(1.0)]))
        assert servers[0].calls["ModelInfer"] == before
        host.close(session)


def test_the_addresses_of_one_name_get_requests_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    with replicas("ok", "ok", "refuses") as servers:
        target = "ipv4:" + ",".join(f"127.0.0.1:{server.port}" for server in servers)
        monkeypatch.setattr(channel, "_target", lambda _: target)
        description = fake_table("grpc://models.example.com")
        # The first request may be made before all addresses are connected.
        submit_many(description, 4)
        assert submit_many(description, 12) == right(12)
        assert min(infers(servers[:2])) >= 4
        servers[0].stop()
        assert submit_many(description, 12) == right(12)


def test_a_name_whose_addresses_cannot_be_reached() -> None:
    with FakeServer("refuses") as server, pytest.raises(errors.ServerUnreachable) as caught:
        score(fake_table(f"grpc://localhost:{server.port}", max_attempts="1"), [1.0])
    assert caught.value.detail == "The connection was refused. Attempts: 1."


def test_the_description_lists_the_endpoints() -> None:
    with replicas("ok", "ok") as servers:
        assert finish(host.describe(fake_table(url_of(servers))))[6] == address_of(servers)


@pytest.mark.parametrize("dead", ["refuses", "resets"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_loss_of_all_endpoints_but_one_costs_no_row(dead: str, place: int) -> None:
    kinds: list[str | Behaviour] = [dead, dead, dead]
    kinds[place] = "ok"
    with replicas(*kinds) as servers:
        assert submit_many(fake_table(url_of(servers), max_attempts="1"), 10) == right(10)
        assert servers[place].calls["ModelInfer"] >= 1


def test_the_loss_of_all_endpoints_is_an_error_that_lists_them() -> None:
    with (
        replicas("refuses", "refuses") as servers,
        fails(
            "08001",
            f'could not reach model server "{address_of(servers)}"',
            "The connection was refused. Attempts: 2.",
            'Check option "url" of server "triton".',
        ),
    ):
        score(fake_table(url_of(servers), max_attempts="1"), [1.0])


def test_an_endpoint_that_swallows_packets_costs_one_connect_timeout() -> None:
    with replicas("swallows", "ok") as servers:
        description = table(X, Y, url=url_of(servers), server={"connect_timeout_ms": "300"}, model="fake")
        began_s = time.monotonic()
        for _ in range(10):
            assert score(description, [1.0], [2])[0][0].tolist() == [2.0]
        assert time.monotonic() - began_s < 2


def test_a_dead_endpoint_is_left_out_and_tried_again_later() -> None:
    with replicas("ok", "ok") as servers:
        description = fake_table(url_of(servers))
        submit_many(description, 10)
        port = servers[0].port
        servers[0].stop()
        assert submit_many(description, 10) == right(10)
        with FakeServer(port=port) as revived:
            ends_s = time.monotonic() + 5
            while not revived.calls["ModelInfer"] and time.monotonic() < ends_s:
                submit_many(description, 4)
                time.sleep(0.02)
            assert revived.calls["ModelInfer"]


@pytest.mark.parametrize("text", ["Request for unknown model: 'fake' is not found", "'fake' has no available versions"])
def test_an_endpoint_without_the_model_is_left_out_for_it(text: str) -> None:
    lacking = Behaviour(
        status=grpc.StatusCode.NOT_FOUND,
        status_text=text,
        status_methods=frozenset({"ModelMetadata", "ModelConfig", "ModelInfer"}),
    )
    with replicas(lacking, "ok") as servers:
        description = fake_table(url_of(servers))
        assert submit_many(description, 20) == right(20)
        # Until its first answer comes, it gets its share.
        before = servers[0].calls["ModelInfer"]
        assert before < 20
        assert submit_many(description, 20) == right(20)
        assert servers[0].calls["ModelInfer"] - before <= 3


def test_no_endpoint_has_the_model() -> None:
    with replicas("ok", "ok") as servers, pytest.raises(errors.UnknownModel):
        score(fake_table(url_of(servers), model="nope"), [1.0])
    assert all(server.calls for server in servers)


def test_a_deadline_is_not_repeated_elsewhere() -> None:
    with replicas("never-answers", "never-answers") as servers:
        with pytest.raises(errors.RequestTimeout):
            score(fake_table(url_of(servers), timeout_ms="200"), [1.0])
        assert sum(infers(servers)) == 1


@pytest.mark.parametrize("count", [1, 2])
def test_answers_are_not_kept(count: int) -> None:
    with replicas(*["ok"] * count) as servers:
        session = finish(host.open(fake_table(url_of(servers)), [1], [2]))
        for _ in range(20):
            finish(host.submit(session, 1, [doubles(1.0)]))
        held = [*session.effort._calls, *(call for replica in session.connection.replicas for call in replica._calls)]
        assert held == []


# ------------------------------------------------------------ one effort for all requests


def test_one_budget_for_all_requests_of_a_scan() -> None:
    with FakeServer("status") as server:
        with pytest.raises(errors.ModelFailed) as caught:
            submit_many(fake_table(server.url, max_attempts="20", retry_budget="3"), 8)
        assert server.calls["ModelInfer"] <= 8 + 3
        assert caught.value.detail is not None
        assert caught.value.detail.endswith(
            "The scan has made 3 requests more than it has batches, and may make no more."
        )
        assert caught.value.hint == 'Raise table option "retry_budget", or find out why the server fails so often.'


def test_failover_spends_the_budget() -> None:
    with replicas("refuses", "ok") as servers:
        description = fake_table(url_of(servers), retry_budget="0")
        with pytest.raises(errors.ServerUnreachable) as caught:
            for _ in range(20):
                score(description, [1.0])
        assert "may make no more" in str(caught.value.detail)


@pytest.mark.parametrize("status", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_an_overloaded_server_gets_less_at_once_and_no_row_is_lost(status: grpc.StatusCode) -> None:
    behaviour = Behaviour(status=status, status_text="Exceeds maximum queue size", at_most=2, delay_s=0.02)
    with FakeServer(behaviour) as server:
        assert submit_many(fake_table(server.url, max_attempts="20"), 40) == right(40)
        assert server.calls["ModelInfer"] < 3 * 40


def test_the_number_in_flight_is_halved_and_grows_again() -> None:
    effort = Effort(3, 10)
    calls = [Pending() for _ in range(8)]
    for call in calls:
        assert next(effort.admit(), "admitted") == "admitted"
        effort.add(call)
    calls[0].ended = True
    effort.overloaded()
    assert next(effort.admit(), "admitted") is None
    for call in calls[:5]:
        call.ended = True
    assert next(effort.admit(), "admitted") == "admitted"
    effort.add(Pending())
    assert next(effort.admit(), "admitted") is None
    for _ in range(5):
        effort.answered()
    assert next(effort.admit(), "admitted") == "admitted"


class Pending:
    """A call that ends when the test says so."""

    ended = False

    def done(self) -> bool:
        return self.ended

    def failure(self) -> None:
        return None

    def value(self) -> None:
        return None

    def cancel(self) -> None:
        pass


@pytest.mark.parametrize("count", [1, 2])
def test_calls_that_have_ended_are_forgotten(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection outlives its scans: what it kept of a call, it would keep until the session ends."""
    made: list[weakref.ref[Any]] = []
    add = Replica.add

    def spy(self: Replica, call: Any) -> None:
        made.append(weakref.ref(call))
        add(self, call)

    monkeypatch.setattr(Replica, "add", spy)
    with replicas(*["ok"] * count) as servers:
        assert submit_many(fake_table(url_of(servers)), 10) == right(10)
        gc.collect()
        assert len(made) >= 10
        assert not [call for call in made if call() is not None]


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("unix-abstract", "dns:///unix-abstract:4711"),
        ("xds", "dns:///xds:4711"),
        ("gpu-1.example.com", "dns:///gpu-1.example.com:4711"),
        ("127.0.0.1", "ipv4:127.0.0.1:4711"),
        ("::1", "ipv6:[::1]:4711"),
    ],
)
def test_a_host_is_never_the_scheme_of_a_uri(host: str, target: str) -> None:
    assert channel._target(Endpoint("grpc", host, 4711)) == target


def test_a_host_that_is_named_as_a_scheme_of_grpcs_leads_to_no_socket() -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(b"\0" + b"4711")
        listener.listen()
        listener.setblocking(False)
        with pytest.raises(errors.ServerUnreachable):
            score(fake_table("grpc://unix-abstract:4711", max_attempts="1"), [1.0])
        with pytest.raises(BlockingIOError):
            listener.accept()
