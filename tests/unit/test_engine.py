"""The engine behind fdw.host against the fake server: what it sends, what it does about faults."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from fake_server import BEHAVIOURS, FAKE, Behaviour, FakeModel, FakeServer
from helpers import doubles, fails, fake_table, finish, score, strings, table

from fdw import connections, errors, host
from fdw.protocols.channel import failure_of
from fdw.tickets import notifier


def endpoint(server: FakeServer) -> str:
    return f"127.0.0.1:{server.port}"


def test_describe_asks_for_what_the_columns_do_not_say() -> None:
    with FakeServer() as server:
        described = finish(host.describe(fake_table(server.url, row_cost="2.5")))
        assert described == (
            [(1, "i", "d", False), (2, "o", "d", False), (3, "o", "s", False)],
            4096,
            4,
            2.5,
            "fake",
            "",
            endpoint(server),
            True,
        )
        finish(host.describe(fake_table(server.url)))
        assert server.calls == {"ModelMetadata": 1, "ModelConfig": 1}, "a model is asked for once"


def test_describing_a_described_table_needs_no_server() -> None:
    ticket = host.describe(
        table(("x", "float8", {"input": "x", "dtype": "FP64", "shape": "[-1,1]"}), url="grpc://127.0.0.1:1")
    )
    assert host.poll(ticket) == 0
    assert host.collect(ticket)[0] == [(1, "i", "d", False)]


def test_a_batch() -> None:
    with FakeServer() as server:
        y, label = score(fake_table(server.url), [1.0, -2.5])
        assert y[0].tolist() == [2.0, -5.0]
        assert strings(label) == [b"x=1", b"x=-2.5"]
        (request,) = server.requests
        assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in request.inputs] == [
            ("x", "FP64", [2, 1])
        ]


def test_results_come_in_the_order_wanted_and_only_they_are_asked_for() -> None:
    with FakeServer() as server:
        label, y = score(fake_table(server.url), [1.0], [3, 2])
        assert (strings(label), y[0].tolist()) == ([b"x=1"], [2.0])
        assert score(fake_table(server.url), [1.0], [3, 3])[1][0] == b"x=1"
        assert [output.name for output in server.requests[1].outputs] == ["label"]
        assert score(fake_table(server.url), [1.0], []) == []
        assert [output.name for output in server.requests[2].outputs] == ["y"], "the smallest, not all"


def test_a_server_without_configurations() -> None:
    with FakeServer(has_config=False) as server:
        assert score(fake_table(server.url), [3.0], [2])[0][0].tolist() == [6.0]


def test_a_batch_is_split_by_the_models_limit_and_put_together_in_order() -> None:
    models = {"fake": replace(FAKE, max_batch_size=3)}
    with FakeServer(Behaviour(delay_s=0.02), models) as server:
        values = [float(number) for number in range(20)]
        y, label = score(fake_table(server.url, max_in_flight="2"), values)
        assert y[0].tolist() == [2 * value for value in values]
        assert strings(label) == [b"x=%d" % value for value in values]
        assert sorted(request.inputs[0].shape[0] for request in server.requests) == [2, 3, 3, 3, 3, 3, 3]
        assert server.most_running == 2


def test_a_model_without_batch_dimension_gets_one_request_per_row() -> None:
    model = FakeModel(
        (("v", "INT32", (2,)),), (("w", "INT32", (2,)),), lambda inputs: {"w": inputs["v"] + 1}, max_batch_size=0
    )
    with FakeServer(models={"m": model}) as server:
        description = table(
            ("a", "integer", {"input": "v", "index": "1"}),
            ("b", "integer", {"input": "v", "index": "2"}),
            ("c", "integer", {"output": "w", "index": "2"}),
            url=server.url,
            model="m",
        )
        assert finish(host.describe(description))[-1] is False
        session = finish(host.open(description, [1, 2], [3]))
        columns = [np.arange(9, dtype="i4").tobytes(), np.arange(9, dtype="i4").tobytes()]
        (result,) = finish(host.submit(session, 9, columns))
        assert result[0].tolist() == list(range(1, 10))
        assert [list(request.inputs[0].shape) for request in server.requests] == [[2]] * 9
        assert server.most_running <= 4


def arrays(*rows: list[int]) -> tuple[bytes, bytes, bytes]:
    """Lay vectors of bigint out as the C library does."""
    dimensions = np.array([[1, len(row), 0, 0, 0, 0, 0] if row else [0] * 7 for row in rows], "i4")
    starts = np.cumsum([0] + [len(row) for row in rows])
    return np.concatenate(rows).astype("i8").tobytes(), starts.astype("i8").tobytes(), dimensions.tobytes()


def test_rows_of_different_lengths_are_sent_apart_and_put_back_in_order() -> None:
    model = FakeModel(
        (("v", "INT64", (-1, -1)),),
        (("double", "INT64", (-1, -1)), ("sum", "INT64", (-1, 1))),
        lambda inputs: {"double": 2 * inputs["v"], "sum": inputs["v"].sum(axis=1, keepdims=True)},
        max_batch_size=2,
    )
    with FakeServer(Behaviour(delay_s=0.02), {"m": model}) as server:
        columns = [("v", "bigint[]", {}), ("double", "bigint[]", {}), ("sum", "bigint", {})]
        description = table(*columns, url=server.url, model="m", max_in_flight="2")
        assert [column[2] for column in finish(host.describe(description))[0]] == ["[q", "[q", "q"]
        session = finish(host.open(description, [1], [2, 3], ["[q", "[q", "q"]))
        rows = [[1], [2, 3], [], [4], [5, 6, 7], [8], [9, 10]]
        double, total = finish(host.submit(session, 7, [arrays(*rows)]))
        starts, sizes = double.starts.tolist(), double.dimensions[:, 0].tolist()
        found = [double.values[start : start + size].tolist() for start, size in zip(starts, sizes)]
        assert found == [[2 * value for value in row] for row in rows]
        assert total[0].tolist() == [sum(row) for row in rows]
        sent = sorted(tuple(request.inputs[0].shape) for request in server.requests)
        assert sent == [(1, 0), (1, 1), (1, 3), (2, 1), (2, 2)]
        assert server.most_running == 2


def test_batches_are_in_flight_together() -> None:
    with FakeServer("slow") as server:
        session = finish(host.open(fake_table(server.url), [1], [2]))
        began_s = time.monotonic()
        tickets = [host.submit(session, 1, [doubles(float(number))]) for number in range(4)]
        answers = [finish(ticket)[0][0][0] for ticket in tickets]
        assert answers == [0, 2, 4, 6]
        assert time.monotonic() - began_s < 0.7, "four requests of 0.2 s each"
        assert server.most_running == 4


def test_input_buffers_may_be_reused_after_submit() -> None:
    with FakeServer("slow") as server:
        session = finish(host.open(fake_table(server.url), [1], [2]))
        buffer = bytearray(doubles(1.0, 2.0))
        ticket = host.submit(session, 2, [memoryview(buffer).toreadonly()])
        buffer[:] = bytes(16)
        assert finish(ticket)[0][0].tolist() == [2.0, 4.0]


def test_credentials_travel_with_every_request() -> None:
    with FakeServer() as server:
        user = {"token": "s3cret", "headers": "x-team: risk"}
        score(table(*COLUMNS, url=server.url, user=user, model="fake"), [1.0])
        assert server.headers["authorization"] == "Bearer s3cret"
        assert server.headers["x-team"] == "risk"


COLUMNS = (("x", "double precision", {}), ("y", "double precision", {}), ("label", "text", {}))


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compression(compression: str) -> None:
    with FakeServer() as server:
        description = table(*COLUMNS, url=server.url, server={"compression": compression}, model="fake")
        assert score(description, [1.0] * 4000, [2])[0][0].tolist() == [2.0] * 4000


# ------------------------------------------------------------ replies that cannot be right


@pytest.mark.parametrize(
    ("behaviour", "detail"),
    [
        ("wrong-rows", 'Output tensor "y" has shape [3,1] for 2 rows.'),
        ("wrong-dtype", 'Output tensor "y" has dtype INT64 instead of FP64.'),
        ("wrong-shape", 'Output tensor "y" has shape [1,2] per row instead of [1].'),
        ("truncated", 'Output tensor "y" holds 13 bytes instead of 16.'),
        ("surplus", 'Output tensor "y" holds 21 bytes instead of 16.'),
        ("missing-output", 'Output tensor "y" is missing.'),
        ("typed-truncated", 'Output tensor "y" holds 1 elements instead of 2.'),
    ],
)
@pytest.mark.parametrize("wanted", [[2], []], ids=["read", "counted"])
def test_a_wrong_reply_yields_no_row(behaviour: str, detail: str, wanted: list[int]) -> None:
    with FakeServer(behaviour) as server, fails("HV00M", 'model "fake" sent a malformed reply', detail):
        score(fake_table(server.url), [1.0, 2.0], wanted)


def test_typed_replies() -> None:
    with FakeServer("typed") as server:
        y, label = score(fake_table(server.url), [1.0, 2.0])
        assert (y[0].tolist(), strings(label)) == ([2.0, 4.0], [b"x=1", b"x=2"])


# ------------------------------------------------------------ servers that fail


def test_a_refused_connection() -> None:
    with FakeServer("refuses") as server:
        began_s = time.monotonic()
        with fails(
            "08001",
            f'could not reach model server "{endpoint(server)}"',
            "The connection was refused. Attempts: 3.",
            'Check option "url" of server "triton".',
        ):
            finish(host.describe(fake_table(server.url)))
        assert time.monotonic() - began_s < 1


@pytest.mark.parametrize("behaviour", ["accepts-and-hangs", "swallows"])
def test_a_server_that_lets_wait_is_given_up_after_connect_timeout(behaviour: str) -> None:
    with FakeServer(behaviour) as server:
        description = table(*COLUMNS, url=server.url, server={"connect_timeout_ms": "300"}, model="fake")
        began_s = time.monotonic()
        with fails(
            "08001",
            f'could not reach model server "{endpoint(server)}"',
            "The server did not answer in time. Attempts: 1.",
            'Check option "url" of server "triton".',
        ):
            finish(host.describe(description))
        assert 0.25 < time.monotonic() - began_s < 1


def test_a_host_without_address() -> None:
    with fails(
        "08001",
        'could not reach model server "no-such-host.invalid:8001"',
        "The host name could not be resolved. Attempts: 1.",
        'Check option "url" of server "triton".',
    ):
        finish(host.describe(fake_table("grpc://no-such-host.invalid", max_attempts="1")))


def test_plaintext_where_tls_is_expected() -> None:
    with (
        FakeServer() as server,
        fails(
            "08001",
            f'could not reach model server "{endpoint(server)}"',
            "The server does not speak TLS. Attempts: 1.",
            'Write a scheme without TLS in option "url", or enable TLS on the server.',
        ),
    ):
        finish(host.describe(fake_table(server.url.replace("grpc:", "grpcs:"), max_attempts="1")))


@pytest.mark.parametrize(
    ("behaviour", "timeout_ms"),
    [("never-answers", "200"), ("never-answers-metadata", "200")],
    ids=["infer", "metadata"],
)
def test_a_server_that_never_answers(behaviour: str, timeout_ms: str) -> None:
    with FakeServer(behaviour) as server:
        began_s = time.monotonic()
        with fails(
            "HV00M",
            f'model server "{endpoint(server)}" did not answer within 200 ms',
            'The request was for model "fake".',
            'Check whether the server answers at all; raise table option "timeout_ms" if the model needs longer.',
        ):
            score(fake_table(server.url, timeout_ms="200"), [1.0])
        assert time.monotonic() - began_s < 1
        assert max(server.calls.values()) == 1, "no retry after a deadline"


def test_a_connection_that_is_reset_in_mid_request() -> None:
    with FakeServer("resets") as server:
        with pytest.raises(errors.ConnectionLost) as caught:
            score(fake_table(server.url, max_attempts="2"), [1.0])
        assert caught.value.message == f'connection to model server "{endpoint(server)}" was lost'
        assert caught.value.detail is not None
        assert caught.value.detail.endswith("Attempts: 2.")
        assert server.calls["ModelInfer"] == 2
        server.behaviour = BEHAVIOURS["ok"]
        assert score(fake_table(server.url), [1.0], [2])[0][0].tolist() == [2.0]


def test_unavailable_is_tried_again() -> None:
    with FakeServer(Behaviour(status=grpc.StatusCode.UNAVAILABLE, times=2)) as server:
        began_s = time.monotonic()
        assert score(fake_table(server.url), [1.0], [2])[0][0].tolist() == [2.0]
        assert server.calls["ModelInfer"] == 3
        assert time.monotonic() - began_s >= 0.05 + 0.1, "pauses of 50-100 ms, then 100-200 ms"


def test_unavailable_for_too_long() -> None:
    with (
        FakeServer("status") as server,
        fails(
            "HV000",
            f'model "fake" failed on model server "{endpoint(server)}": scripted failure',
            "The server reports that it is unavailable. Attempts: 2.",
        ),
    ):
        score(fake_table(server.url, max_attempts="2"), [1.0])


def test_retries_end_at_the_deadline() -> None:
    with FakeServer("status") as server:
        began_s = time.monotonic()
        with pytest.raises(errors.ModelFailed):
            score(fake_table(server.url, max_attempts="20", timeout_ms="400"), [1.0])
        assert time.monotonic() - began_s < 0.6
        assert server.calls["ModelInfer"] <= 5


REPEATED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code not in (grpc.StatusCode.OK, *REPEATED)])
def test_no_other_status_is_tried_again(code: grpc.StatusCode) -> None:
    with FakeServer(Behaviour(status=code)) as server:
        with pytest.raises(errors.ModelFdwError):
            score(fake_table(server.url), [1.0])
        assert server.calls["ModelInfer"] == 1


def test_a_request_that_the_server_breaks_off_is_lost_and_not_refused() -> None:
    failure = failure_of(grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2", True)
    assert (failure.status, failure.cause) == ("UNAVAILABLE", "The server broke the request off.")


OWN = "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.1:8001: Failed to connect to remote host: "


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (f"{OWN}Connection refused", "The connection was refused."),
        (
            "connections to all backends failing; last error: UNKNOWN: ipv6:%5B::1%5D:8001: connection attempt timed"
            " out before receiving SETTINGS frame",
            "The server did not answer in time.",
        ),
        (
            "errors resolving nowhere.invalid:8001: [field:hostname lookup error:address lookup failed for"
            " nowhere.invalid:8001: Domain name not found]",
            "The host name could not be resolved.",
        ),
        (
            "DNS resolution failed for nowhere.invalid:8001: C-ares status is not ARES_SUCCESS",
            "The host name could not be resolved.",
        ),
    ],
)
def test_texts_of_no_connection_count_only_where_the_channel_has_none(text: str, cause: str) -> None:
    failure = failure_of(grpc.StatusCode.UNAVAILABLE, text, False)
    assert (failure.cause, failure.connected, failure.mute) == (cause, False, False)
    failure = failure_of(grpc.StatusCode.UNAVAILABLE, text, True)
    assert (failure.cause, failure.connected, failure.mute) == (None, True, False)


OWN_BYTES = 100


@pytest.mark.parametrize(
    ("code", "text", "what", "limit_bytes"),
    [
        ("RESOURCE_EXHAUSTED", "SERVER: Received message larger than max (100 vs. 90)", errors.REQUEST, 90),
        ("RESOURCE_EXHAUSTED", "grpc: received message larger than max (100 vs. 90)", errors.REQUEST, 90),
        ("RESOURCE_EXHAUSTED", "CLIENT: Received message larger than max (300 vs. 200)", errors.ANSWER, 200),
        ("RESOURCE_EXHAUSTED", "Received message larger than max (101 vs. 90)", errors.MESSAGE, None),
        ("RESOURCE_EXHAUSTED", "Received message larger than max (9 vs. 0)", errors.MESSAGE, None),
        ("RESOURCE_EXHAUSTED", "gRPC message exceeds maximum size 90: 100", errors.MESSAGE, None),
        ("RESOURCE_EXHAUSTED", "Received message exceeds the maximum configured message size.", errors.MESSAGE, None),
        ("UNKNOWN", "Received http2 header with status: 413", errors.MESSAGE, None),
        ("RESOURCE_EXHAUSTED", "quota exceeds maximum", "", None),
        ("INVALID_ARGUMENT", "sequence length 700 exceeds maximum 512", "", None),
        ("INTERNAL", "Received message larger than max (100 vs. 90)", "", None),
    ],
)
def test_which_message_was_too_large(code: str, text: str, what: str, limit_bytes: int | None) -> None:
    failure = failure_of(grpc.StatusCode[code], text, True, OWN_BYTES, 200)
    assert (failure.oversized, failure.limit_bytes) == (what, limit_bytes)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("INVALID_ARGUMENT", "upstream: Received RST_STREAM with error code 2"),
        ("INVALID_ARGUMENT", "Exception deserializing response!"),
        ("INVALID_ARGUMENT", "Received http2 header with status: 400"),
    ],
)
def test_a_servers_words_do_not_change_its_status(code: str, text: str) -> None:
    failure = failure_of(grpc.StatusCode[code], text, True)
    assert (failure.status, failure.cause) == (code, None)


def test_a_server_that_calls_itself_unreachable_is_not_looked_for() -> None:
    with socket.create_server(("127.0.0.9", 0)) as other:
        other.settimeout(0.3)
        port = other.getsockname()[1]
        text = f"failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.9:{port}: Socket closed"
        with FakeServer(Behaviour(status=grpc.StatusCode.UNAVAILABLE, status_text=text), port=port) as server:
            with fails(
                "08006",
                f'connection to model server "{endpoint(server)}" was lost',
                "The server closed the connection. Attempts: 1.",
                "Run the statement again once the server is back.",
            ):
                score(fake_table(server.url, max_attempts="1"), [1.0])
            with pytest.raises(TimeoutError):
                other.accept()


def test_what_a_server_says_of_another_is_no_reason_to_ask_again() -> None:
    text = "ledger written, notify: Connection refused"
    behaviour = Behaviour(status=grpc.StatusCode.UNAVAILABLE, status_text=text)
    with (
        FakeServer(behaviour) as server,
        fails(
            "HV000",
            f'model "fake" failed on model server "{endpoint(server)}": {text}',
            "The server reports that it is unavailable. Attempts: 1.",
        ),
    ):
        score(fake_table(server.url, max_attempts="1"), [1.0])


def test_a_model_that_is_not_there() -> None:
    with (
        FakeServer() as server,
        fails(
            "HV00R",
            f'model "nope" does not exist on model server "{endpoint(server)}"',
            "The server said: Request for unknown model: 'nope' is not found",
            'Check table option "model", or import the schema again.',
        ),
    ):
        finish(host.describe(fake_table(server.url, model="nope")))


def test_a_model_that_is_not_ready() -> None:
    text = "Request for unknown model: 'fake' has no available versions"
    behaviour = Behaviour(
        status=grpc.StatusCode.NOT_FOUND, status_text=text, status_methods=frozenset({"ModelMetadata", "ModelConfig"})
    )
    with (
        FakeServer(behaviour) as server,
        fails(
            "55000",
            f'model "fake" on model server "{endpoint(server)}" is not ready',
            f"The server said: {text}",
            "Load the model on the server, or wait until it is loaded.",
        ),
    ):
        finish(host.describe(fake_table(server.url)))


def test_messages_over_grpcs_own_limit_pass() -> None:
    with FakeServer() as server:
        values = [float(number) for number in range(600_000)]
        assert score(fake_table(server.url), values, [2])[0][0].tolist() == [2 * value for value in values]


def test_a_value_out_of_range_sends_nothing() -> None:
    model = replace(FAKE, inputs=(("x", "FP32", (-1, 1)),))
    with FakeServer(models={"fake": model}) as server:
        session = finish(host.open(fake_table(server.url), [1], [2]))
        limits = "FP32 takes -3.4028235e+38 to 3.4028235e+38."
        with fails("22003", 'value out of range for input column "x"', limits):
            host.submit(session, 1, [doubles(1e300)])
        assert server.calls["ModelInfer"] == 0


@pytest.mark.parametrize("change", [{"decoupled": True}, {"sequence": True}])
def test_models_that_are_no_tables(change: dict[str, Any]) -> None:
    with FakeServer(models={"fake": replace(FAKE, **change)}) as server:
        with pytest.raises(errors.Unsupported):
            finish(host.describe(fake_table(server.url)))
        with pytest.raises(errors.Unsupported):
            finish(host.open(fake_table(server.url), [1], [2]))


def test_a_model_is_asked_for_anew_after_its_error() -> None:
    with FakeServer() as server:
        score(fake_table(server.url), [1.0])
        server.behaviour = Behaviour(status=grpc.StatusCode.INVALID_ARGUMENT)
        with pytest.raises(errors.ModelFailed):
            score(fake_table(server.url), [1.0])
        assert server.calls["ModelMetadata"] == 2, "once more, to see whether it has changed"
        server.models["fake"] = replace(FAKE, inputs=(("z", "FP64", (-1, 1)),))
        with fails(
            "HV004",
            f'model "fake" on model server "127.0.0.1:{server.port}" has changed',
            'Its input tensor "x" was FP64[-1,1], and is not there now. A request for what it was failed: '
            f'model "fake" failed on model server "127.0.0.1:{server.port}": scripted failure.',
            "\"SELECT * FROM model_fdw_check('public.t')\" shows what differs, and the statements that cure it.",
        ):
            score(fake_table(server.url), [1.0])
        server.behaviour = Behaviour()
        with fails(
            "HV005",
            'model "fake" has no input tensor "x"',
            'Option "input" of column "x" names it.',
            'The model\'s input tensors are: "z".',
        ):
            score(fake_table(server.url), [1.0])


def test_a_change_that_the_table_survives() -> None:
    with FakeServer() as server:
        score(fake_table(server.url), [1.0])
        server.models["fake"] = replace(FAKE, outputs=(("y", "FP32", (-1, 1)), *FAKE.outputs[1:]))
        with pytest.raises(errors.WrongDtype) as caught:
            score(fake_table(server.url), [1.0])
        assert caught.value.message.endswith("has changed")
        assert caught.value.hint == "Run the statement again."
        assert score(fake_table(server.url), [1.0], [2])[0][0].tolist() == [2.0]


def test_what_is_known_of_a_model_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it may be out of date: the statement itself asks anew."""
    with FakeServer() as server:
        score(fake_table(server.url), [1.0])
        server.models["fake"] = replace(FAKE, inputs=(("x", "INT64", (-1, 1)),))
        described = {"dtype": "INT64", "shape": "[-1,1]"}
        new = table(
            ("x", "bigint", {"input": "x", **described}), ("y", "float8", {"output": "y"}), url=server.url, model="fake"
        )
        assert finish(host.describe(new))[0][0] == (1, "i", "q", False)
        host.close(finish(host.open(new, [1], [2])))
        assert server.calls["ModelMetadata"] == 2
        # where it does fit, it is believed for a minute
        monkeypatch.setattr("fdw.connections.MODEL_AGE_S", 0.05)
        time.sleep(0.1)
        host.close(finish(host.open(new, [1], [2])))
        assert server.calls["ModelMetadata"] == 3
        # and what was just asked for is not asked for again
        wrong = table(("x", "bigint", {"input": "z"}), url=server.url, model="fake")
        time.sleep(0.1)
        with pytest.raises(errors.WrongTensor):
            finish(host.describe(wrong))
        assert server.calls["ModelMetadata"] == 4


def test_elements_that_change_places() -> None:
    vector = replace(FAKE, inputs=(("v", "FP64", (-1, 2)),), parameters={"columns.v": "a,b"})
    elements = {name: {"input": "v", "index": str(number)} for number, name in enumerate("ab", start=1)}
    described = table(
        *((name, "float8", said) for name, said in elements.items()),
        ("y", "float8", {"output": "y"}),
        url="",
        model="fake",
    )
    with FakeServer(models={"fake": vector}) as server:
        described["server"]["options"]["url"] = server.url
        host.close(finish(host.open(described, [1, 2], [3])))
    swapped = replace(vector, parameters={"columns.v": "b,a"})
    with FakeServer(models={"fake": swapped}) as server:
        described["server"]["options"]["url"] = server.url
        with fails(
            "HV004",
            'column "a" of foreign table "t" does not match model "fake"',
            'The column is element 1 of input tensor "v"; the model gives its name to element 2.',
            "\"SELECT * FROM model_fdw_check('public.t')\" shows what differs, and the statements that cure it.",
        ):
            finish(host.open(described, [1, 2], [3]))


def test_a_server_that_comes_back_is_found_at_once() -> None:
    with FakeServer() as server:
        score(fake_table(server.url), [1.0])
        port, url = server.port, server.url
    with pytest.raises(errors.ServerUnreachable):
        score(fake_table(url), [1.0])
    with FakeServer(port=port):
        began_s = time.monotonic()
        assert score(fake_table(url, max_attempts="1"), [1.0], [2])[0][0].tolist() == [2.0]
        assert time.monotonic() - began_s < 0.5


# ------------------------------------------------------------ ending


def wait_until(condition: Any, seconds: float = 2.0) -> None:
    ends_s = time.monotonic() + seconds
    while not condition() and time.monotonic() < ends_s:
        time.sleep(0.01)
    assert condition()


@pytest.mark.parametrize("end", ["cancel", "close", "forget"])
def test_what_is_in_flight_is_cancelled_on_the_server(end: str) -> None:
    with FakeServer("never-answers") as server:
        session = finish(host.open(fake_table(server.url), [1], [2]))
        tickets = [host.submit(session, 1, [doubles(1.0)]) for _ in range(3)]
        wait_until(lambda: server.running == 3)
        assert [host.poll(ticket) for ticket in tickets] == [-1, -1, -1]
        if end == "cancel":
            for ticket in tickets:
                host.cancel(ticket)
                host.cancel(ticket)
        elif end == "close":
            host.close(session)
            host.close(session)
        else:
            del session, tickets
            gc.collect()
        wait_until(lambda: server.running == 0)
        server.behaviour = Behaviour()
        assert score(fake_table(server.url), [1.0], [2])[0][0].tolist() == [2.0]


def test_the_end_of_a_request_is_an_event() -> None:
    with FakeServer("slow") as server:
        session = finish(host.open(fake_table(server.url), [1], [2]))
        ticket = host.submit(session, 1, [doubles(1.0)])
        notifier._event.clear()
        began_s = time.monotonic()
        notifier.wait(5)
        assert 0.1 < time.monotonic() - began_s < 2
        assert host.poll(ticket) == 0


def sockets() -> int:
    return sum(
        os.path.realpath(link).rpartition("/")[2].startswith("socket:") for link in Path("/proc/self/fd").iterdir()
    )


def test_a_connection_that_nobody_holds_is_closed() -> None:
    with FakeServer() as server:
        connections._connections.clear()
        gc.collect()
        before = sockets()
        score(fake_table(server.url), [1.0])
        assert sockets() == before + 2, "both ends are in this process"
        connections._connections.clear()
        wait_until(lambda: sockets() == before)


def test_a_retry_waits_in_poll_not_in_a_thread() -> None:
    with FakeServer(Behaviour(status=grpc.StatusCode.UNAVAILABLE, times=1)) as server:
        session = finish(host.open(fake_table(server.url), [1], [2]))
        ticket = host.submit(session, 1, [doubles(1.0)])
        wait_until(lambda: host.poll(ticket) > 0)
        assert host.poll(ticket) <= 101
        time.sleep(0.12)
        assert server.calls["ModelInfer"] == 1, "nobody polled"
        assert finish(ticket)[0][0].tolist() == [2.0]


# ------------------------------------------------------------ connections


def test_connections_are_kept_and_dropped_when_options_change() -> None:
    with FakeServer() as server:
        connections._connections.clear()
        score(fake_table(server.url), [1.0])
        (first,) = connections._connections.values()
        score(fake_table(server.url), [1.0])
        assert list(connections._connections.values()) == [first]
        changed = table(*COLUMNS, url=server.url, server={"keepalive_ms": "400000"}, model="fake")
        session = finish(host.open(fake_table(server.url), [1], [2]))
        score(changed, [1.0])
        (second,) = connections._connections.values()
        assert second is not first
        assert finish(host.submit(session, 1, [doubles(4.0)]))[0][0].tolist() == [8.0], "an open scan goes on"


def test_users_have_connections_of_their_own() -> None:
    with FakeServer() as server:
        connections._connections.clear()
        for token in ("a", "b", "a"):
            score(table(*COLUMNS, url=server.url, user={"token": token}, model="fake"), [1.0])
        assert len(connections._connections) == 2


def test_servers_without_oid_do_not_push_each_other_out() -> None:
    with FakeServer() as one, FakeServer() as other:
        connections._connections.clear()
        for server in (one, other, one, other):
            description = fake_table(server.url)
            description["server"]["oid"] = 0
            score(description, [1.0])
        assert one.calls["ModelMetadata"] == other.calls["ModelMetadata"] == 1


def test_the_number_of_connections_is_bounded() -> None:
    with FakeServer() as server:
        for number in range(connections.MAX_CONNECTIONS + 3):
            score(table(*COLUMNS, url=server.url, user={"token": str(number)}, model="fake"), [1.0])
        assert len(connections._connections) == connections.MAX_CONNECTIONS


def test_the_fake_server_as_a_program() -> None:
    program = Path(__file__).parent.parent / "fake_server.py"
    command = [sys.executable, str(program), "--behaviour", "status", "--times", "1", "--status", "ABORTED"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = f"grpc://127.0.0.1:{int(process.stdout.readline())}"
            with pytest.raises(errors.ModelFailed):
                score(fake_table(url), [1.0])
            assert score(fake_table(url), [1.0], [2])[0][0].tolist() == [2.0]
        finally:
            process.kill()
