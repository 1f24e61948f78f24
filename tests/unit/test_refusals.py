"""Requests that a server refuses: bad rows and messages that are too large, cut down to what it takes."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest
from fake_server import FAKE, Arrays, Behaviour, FakeModel, FakeServer
from helpers import LABEL, X, Y, doubles, fails, finish, score, table

from fdw import errors, host

WRONG = ("wrong", "text", {"error": "true"})


def refuse_negative(inputs: Arrays) -> Arrays:
    x = inputs["x"]
    if (x < 0).any():
        raise ValueError("negative input")
    return {"y": 2 * x, "label": [b"x=%g" % value for value in x.reshape(-1)]}


PICKY = replace(FAKE, compute=refuse_negative)


def texts(column: Any) -> list[str | None]:
    data, offsets, nulls = column[0], column[1], column[2]
    values = [bytes(data[start:end]).decode() for start, end in zip(offsets, offsets[1:])]
    return [None if nulls is not None and nulls[row] else value for row, value in enumerate(values)]


def numbers(column: Any) -> list[float | None]:
    return [None if column.nulls is not None and column.nulls[row] else v for row, v in enumerate(column[0].tolist())]


def ask(description: dict[str, Any], values: list[float], wanted: list[int]) -> Any:
    session = finish(host.open(description, [1], wanted))
    try:
        return finish(host.submit(session, len(values), [doubles(*values)]))
    finally:
        host.close(session)


def check(description: dict[str, Any], values: list[float]) -> None:
    y, label, wrong = ask(description, values, [2, 3, 4])
    assert numbers(y) == [None if value < 0 else 2 * value for value in values]
    assert texts(label) == [None if value < 0 else f"x={value:g}" for value in values]
    assert texts(wrong) == ["negative input" if value < 0 else None for value in values]


@pytest.mark.parametrize("max_batch_size", [1_000_000, 7, 1])
@pytest.mark.parametrize(
    "values",
    [
        [1.0],
        [-1.0],
        [-1.0, 2.0],
        [1.0, -2.0, 3.0, -4.0, 5.0],
        [-1.0] * 9,
        [1.0] * 9,
        [-1.0 if number % 41 == 7 else float(number) for number in range(200)],
    ],
    ids=["good", "bad", "first", "some", "all", "none", "many"],
)
def test_bad_rows_get_the_message_and_good_ones_their_answers(values: list[float], max_batch_size: int) -> None:
    with FakeServer(models={"fake": replace(PICKY, max_batch_size=max_batch_size)}) as server:
        check(table(X, Y, LABEL, WRONG, url=server.url, model="fake"), values)


def test_a_model_without_batch_dimension() -> None:
    def compute(inputs: Arrays) -> Arrays:
        if inputs["x"][0] < 0:
            raise ValueError("negative input")
        return {"y": 2 * inputs["x"], "label": [b"x=%g" % inputs["x"][0]]}

    model = FakeModel((("x", "FP64", (1,)),), (("y", "FP64", (1,)), ("label", "BYTES", (1,))), compute, 0)
    with FakeServer(models={"fake": model}) as server:
        check(table(X, Y, LABEL, WRONG, url=server.url, model="fake"), [1.0, -2.0, 3.0, -4.0])


def test_one_bad_row_costs_two_requests_for_each_halving() -> None:
    values = [1.0] * 4096
    values[1234] = -1.0
    with FakeServer(models={"fake": PICKY}) as server:
        check(table(X, Y, LABEL, WRONG, url=server.url, model="fake", retry_budget="24"), values)
        assert server.calls["ModelInfer"] == 1 + 2 * 12
        assert server.most_running <= 2


def test_the_budget_ends_the_search() -> None:
    values = [1.0] * 4096
    values[1234] = -1.0
    with FakeServer(models={"fake": PICKY}) as server:
        with pytest.raises(errors.ModelRefused) as caught:
            ask(table(X, Y, LABEL, WRONG, url=server.url, model="fake", retry_budget="10"), values, [2])
        assert server.calls["ModelInfer"] <= 1 + 10
        assert caught.value.message.endswith("negative input")
        assert caught.value.detail == "The scan has made 10 requests more than it has batches, and may make no more."


@pytest.mark.parametrize("wanted", [[4], [], [2]], ids=["message", "nothing", "answer"])
def test_whatever_is_read(wanted: list[int]) -> None:
    with FakeServer(models={"fake": PICKY}) as server:
        result = ask(table(X, Y, LABEL, WRONG, url=server.url, model="fake"), [1.0, -2.0], wanted)
        assert len(result) == len(wanted)
        if wanted == [4]:
            assert texts(result[0]) == [None, "negative input"]
        assert {output.name for request in server.requests for output in request.outputs} == {"y"}


def test_arrays_of_different_lengths() -> None:
    def compute(inputs: Arrays) -> Arrays:
        if (inputs["v"] < 0).any():
            raise ValueError("negative input")
        return {"w": inputs["v"] + 1}

    model = FakeModel((("v", "FP64", (-1, -1)),), (("w", "FP64", (-1, -1)),), compute)
    columns = (
        ("v", "double precision[]", {"input": "v"}),
        ("w", "double precision[]", {"output": "w"}),
        ("wrong", "text", {"error": "true"}),
    )
    rows = [[1.0], [2.0, 3.0], [-1.0], [4.0, -5.0], [6.0], [7.0, 8.0]]
    for values in (rows, [[-1.0]]):
        lengths = [len(row) for row in values]
        elements = doubles(*(value for row in values for value in row))
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        dimensions = np.array([[1, length, 0, 0, 0, 0, 0] for length in lengths], np.int32)
        column = (elements, starts.tobytes(), dimensions.tobytes())
        with FakeServer(models={"m": model}) as server:
            session = finish(host.open(table(*columns, url=server.url, model="m"), [1], [2, 3]))
            w, wrong = finish(host.submit(session, len(values), [column]))
            for row, value in enumerate(values):
                bad = min(value) < 0
                assert bool(w.nulls[row]) == bad
                start, length = w.starts[row], w.dimensions[row][0]
                assert bad or w.values[start : start + length].tolist() == [item + 1 for item in value]
                assert texts(wrong)[row] == ("negative input" if bad else None)


def test_rows_of_several_shapes_get_their_own_messages() -> None:
    def compute(inputs: Arrays) -> Arrays:
        if (inputs["v"] < 0).any():
            raise ValueError(f"negative input {inputs['v'].min():g}")
        return {"w": inputs["v"][:, 0]}

    model = FakeModel((("v", "FP64", (-1, -1)),), (("w", "FP64", (-1,)),), compute)
    columns = (
        ("v", "double precision[]", {"input": "v"}),
        ("w", "double precision", {"output": "w"}),
        ("wrong", "text", {"error": "true"}),
    )
    rows = [[1.0], [-2.0, 0.0], [-3.0], [4.0, 0.0], [-5.0]]
    lengths = [len(row) for row in rows]
    column = (
        doubles(*(value for row in rows for value in row)),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64).tobytes(),
        np.array([[1, length, 0, 0, 0, 0, 0] for length in lengths], np.int32).tobytes(),
    )
    with FakeServer(models={"m": model}) as server:
        session = finish(host.open(table(*columns, url=server.url, model="m"), [1], [2, 3]))
        w, wrong = finish(host.submit(session, len(rows), [column]))
    assert numbers(w) == [1.0, None, None, 4.0, None]
    assert texts(wrong) == [None, "negative input -2", "negative input -3", None, "negative input -5"]


@pytest.mark.parametrize("max_in_flight", ["1", "2"])
def test_halves_count_as_the_request_that_they_were(max_in_flight: str) -> None:
    def compute(inputs: Arrays) -> Arrays:
        time.sleep(0.01)
        return refuse_negative(inputs)

    with FakeServer(models={"fake": replace(FAKE, compute=compute, max_batch_size=16)}) as server:
        description = table(
            X, Y, LABEL, WRONG, url=server.url, model="fake", retry_budget="1000", max_in_flight=max_in_flight
        )
        check(description, [-1.0] * 48)
        assert server.most_running <= int(max_in_flight)


def test_without_inputs_no_columns_are_named() -> None:
    def compute(_: Arrays) -> Arrays:
        raise ValueError("no input")

    model = replace(FAKE, compute=compute, optional=frozenset({"x"}))
    with FakeServer(models={"fake": model}) as server:
        session = finish(host.open(table(X, Y, LABEL, url=server.url, model="fake"), [], [2]))
        with pytest.raises(errors.ModelRefused) as caught:
            finish(host.submit(session, 1, []))
    assert caught.value.detail is None


def test_without_such_a_column_the_statement_fails_and_names_the_inputs() -> None:
    with (
        FakeServer(models={"fake": PICKY}) as server,
        fails(
            "HV000",
            f'model "fake" failed on model server "127.0.0.1:{server.port}": negative input',
            'The request was made of input columns "x" of foreign table "t".',
            "To get the answers of the other rows, add a text column with OPTIONS (error 'true').",
        ),
    ):
        ask(table(X, Y, LABEL, url=server.url, model="fake"), [1.0, -2.0], [2])


def test_only_refusals_are_bisected() -> None:
    with FakeServer("wrong-rows") as server:
        with pytest.raises(errors.MalformedReply):
            ask(table(X, Y, LABEL, WRONG, url=server.url, model="fake"), [1.0, 2.0], [2])
        assert server.calls["ModelInfer"] == 1
    with FakeServer("resets") as server:
        with pytest.raises(errors.ConnectionLost):
            ask(table(X, Y, LABEL, WRONG, url=server.url, model="fake", max_attempts="1"), [1.0, 2.0], [2])
        assert server.calls["ModelInfer"] == 1


# ------------------------------------------------------------ messages that are too large


def test_requests_are_cut_below_our_own_limit() -> None:
    values = [float(number) for number in range(50_000)]
    with FakeServer() as server:
        description = table(X, Y, LABEL, url=server.url, server={"max_message_bytes": "65536"}, model="fake")
        assert ask(description, values, [2])[0][0].tolist() == [2 * value for value in values]
        assert all(request.ByteSize() <= 65536 for request in server.requests)
        assert server.calls["ModelInfer"] == 8, "none was sent in vain"


def test_the_servers_limit_is_learned_from_its_refusal() -> None:
    values = [float(number) for number in range(50_000)]
    with FakeServer(max_request_bytes=100_000) as server:
        description = table(X, Y, LABEL, url=server.url, model="fake", retry_budget="2")
        session = finish(host.open(description, [1], [2]))
        for _ in range(3):
            column = finish(host.submit(session, len(values), [doubles(*values)]))[0]
            assert column[0].tolist() == [2 * value for value in values]
        host.close(session)
        assert server.calls["ModelInfer"] == 3 * 8


def test_an_answer_that_is_too_large_takes_fewer_rows() -> None:
    def compute(inputs: Arrays) -> Arrays:
        return {"text": [b"a" * 1000 for _ in inputs["x"]]}

    model = FakeModel((("x", "FP64", (-1, 1)),), (("text", "BYTES", (-1, 1)),), compute)
    with FakeServer(models={"m": model}) as server:
        description = table(
            X, ("text", "text", {"output": "text"}), url=server.url, server={"max_message_bytes": "65536"}, model="m"
        )
        session = finish(host.open(description, [1], [2]))
        for _ in range(2):
            (column,) = finish(host.submit(session, 1000, [doubles(*[1.0] * 1000)]))
            assert texts(column) == ["a" * 1000] * 1000
        host.close(session)
        assert server.calls["ModelInfer"] <= (1 + 2 + 4 + 8 + 16 + 32) + 17


@pytest.mark.parametrize("text", ["Received message larger than max (9 vs. 0)", "message is larger than max"])
def test_what_a_server_says_of_its_limit_leaves_later_batches_whole(text: str) -> None:
    values = [float(number) for number in range(1024)]
    behaviour = Behaviour(status=grpc.StatusCode.RESOURCE_EXHAUSTED, status_text=text, times=1)
    with FakeServer(behaviour) as server:
        session = finish(host.open(table(X, Y, LABEL, url=server.url, model="fake", retry_budget="10"), [1], [2]))
        for _ in range(3):
            column = finish(host.submit(session, len(values), [doubles(*values)]))[0]
            assert column[0].tolist() == [2 * value for value in values]
        host.close(session)
        assert server.calls["ModelInfer"] == 3 + 2 + 0


def test_a_limit_that_nothing_keeps_ends_with_the_budget() -> None:
    values = [float(number) for number in range(1024)]
    text = "Received message larger than max (9 vs. 0)"
    with FakeServer(Behaviour(status=grpc.StatusCode.RESOURCE_EXHAUSTED, status_text=text)) as server:
        with pytest.raises(errors.OversizedMessage):
            ask(table(X, Y, LABEL, url=server.url, model="fake", retry_budget="10"), values, [2])
        assert server.calls["ModelInfer"] <= 11


def test_words_of_a_model_about_a_maximum_are_its_refusal() -> None:
    def refuse(inputs: Arrays) -> Arrays:
        if (inputs["x"] < 0).any():
            raise ValueError("sequence length 700 exceeds maximum 512")
        return {"y": 2 * inputs["x"], "label": [b""] * len(inputs["x"])}

    values = [float(number) for number in range(63)] + [-1.0]
    with FakeServer(models={"fake": replace(FAKE, compute=refuse)}) as server:
        y, wrong = ask(table(X, Y, LABEL, WRONG, url=server.url, model="fake"), values, [2, 4])
        assert numbers(y) == [*(2 * value for value in values[:-1]), None]
        assert texts(wrong) == [*[None] * 63, "sequence length 700 exceeds maximum 512"]


def test_a_row_that_is_too_large_by_itself() -> None:
    model = FakeModel((("s", "BYTES", (-1, 1)),), (("n", "INT64", (-1, 1)),), lambda _: {"n": [[1]]})
    with FakeServer(models={"m": model}) as server:
        description = table(
            ("s", "text", {"input": "s"}),
            ("n", "bigint", {"output": "n"}),
            url=server.url,
            server={"max_message_bytes": "65536"},
            model="m",
        )
        session = finish(host.open(description, [1], [2]))
        offsets = np.array([0, 100_000], np.int64).tobytes()
        with pytest.raises(errors.OversizedMessage) as caught:
            finish(host.submit(session, 1, [(offsets, b"a" * 100_000)]))
        assert caught.value.hint == 'Raise option "max_message_bytes" of server "triton", or the limit of the server.'


# ------------------------------------------------------------ answers that are compressed


def bomb(rows: int) -> FakeModel:
    def compute(inputs: Arrays) -> Arrays:
        return {"text": [b"a" * rows for _ in inputs["x"]]}

    return FakeModel((("x", "FP64", (-1, 1)),), (("text", "BYTES", (-1, 1)),), compute)


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_an_answer_is_decompressed_to_no_more_than_a_message_may_have(algorithm: grpc.Compression) -> None:
    name = algorithm.name.lower()
    columns = (X, ("text", "text", {"output": "text"}))
    own = {"max_message_bytes": "65536", "compression": name}
    for size, fits in ((60_000, True), (30_000_000, False)):
        with FakeServer(Behaviour(compression=algorithm), {"m": bomb(size)}) as server:
            described = table(*columns, url=server.url, server=own, model="m")
            session = finish(host.open(described, [1], [2]))
            ticket = host.submit(session, 1, [doubles(1.0)])
            if fits:
                assert texts(finish(ticket)[0]) == ["a" * size]
            else:
                with pytest.raises(errors.OversizedMessage):
                    finish(ticket)
            host.close(session)


def test_an_answer_that_nobody_asked_to_compress_is_not_looked_into() -> None:
    columns = (X, ("text", "text", {"output": "text"}))
    with FakeServer(Behaviour(compression=grpc.Compression.Gzip), {"m": bomb(10_000)}) as server:
        detail = "The reply is compressed, which was not asked for."
        with fails("HV00M", 'model "m" sent a malformed reply', detail):
            score(table(*columns, url=server.url, model="m", max_attempts="1"), [1.0], [2])


def test_no_control_character_of_a_server_reaches_a_terminal() -> None:
    text = "\x1b[2Jboom\x07\r\x7f\x9b31m\u202egnp"
    refuses = Behaviour(status=grpc.StatusCode.INTERNAL, status_text=text)
    with FakeServer(refuses) as server, pytest.raises(errors.ModelFdwError) as caught:
        ask(table(X, Y, LABEL, url=server.url, model="fake"), [1.0], [2])
    assert "?[2Jboom????31m?gnp" in caught.value.message


def bomb_memory(limit: int) -> int:
    """Return by how many bytes this process grows at most when a bomb of 300 MB, 300 kB compressed, is thrown at it."""
    program = f"""
import resource, sys
sys.path[:0] = {[*map(str, sys.path)]!r}
from fake_server import *; from helpers import *; from test_refusals import bomb
import subprocess
from fdw import errors
columns = (X, ("text", "text", {{"output": "text"}}))
own = {{"max_message_bytes": "{limit}", "compression": "gzip"}}
described = table(*columns, url=sys.argv[1], server=own, model="m", max_attempts="1")
session = finish(host.open(described, [1], [2]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    finish(host.submit(session, 1, [doubles(1.0)]))
except errors.OversizedMessage:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    with FakeServer(Behaviour(compression=grpc.Compression.Gzip), {"m": bomb(300_000_000)}) as server:
        command = [sys.executable, "-c", program, server.url]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout) * 1024


def test_a_bomb_takes_no_more_memory_than_a_few_messages() -> None:
    assert bomb_memory(1_000_000) < 30_000_000
