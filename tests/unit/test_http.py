"""Model servers over HTTP: what is sent, what is made of answers and failures."""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from fake_http import FakeHttp, Script
from fake_server import FAKE, NUMPY, FakeModel, FakeServer
from helpers import doubles, fails, fake_table, finish, score, strings, table

from fdw import connections, errors, host
from fdw.protocols import base, http_transport, triton_http

COLUMNS = (("x", "double precision", {}), ("y", "double precision", {}), ("label", "text", {}))


def endpoint(server: FakeHttp) -> str:
    return f"127.0.0.1:{server.port}"


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_a_batch(binary: bool) -> None:
    with FakeHttp(binary=binary) as server:
        y, label = score(fake_table(server.url), [1.0, -2.5])
        assert y[0].tolist() == [2.0, -5.0]
        assert strings(label) == [b"x=1", b"x=-2.5"]
        (request,) = server.requests
        assert ("data" in request["inputs"][0]) is not binary
        assert request["inputs"][0]["shape"] == [2, 1]
        assert [output["name"] for output in request["outputs"]] == ["y", "label"]


def test_a_server_is_asked_once_what_it_takes() -> None:
    with FakeHttp() as server:
        for _ in range(3):
            score(fake_table(server.url), [1.0])
        assert server.calls == {
            "/v2/models/fake": 1,
            "/v2/models/fake/config": 1,
            "/v2": 1,
            "/v2/models/fake/infer": 3,
        }


def test_connections_are_reused() -> None:
    with FakeHttp() as server:
        for _ in range(10):
            score(fake_table(server.url), [1.0])
        assert len(server.ports) <= 2, "metadata and configuration are asked for side by side"


def test_names_are_escaped_and_versions_asked_for() -> None:
    with FakeHttp(models={"a/b ü": FAKE}) as server:
        score(fake_table(server.url, model="a/b ü", version="7 /"), [1.0])
        assert "/v2/models/a%2Fb%20%C3%BC/versions/7%20%2F" in server.calls


def test_a_server_without_extensions() -> None:
    with FakeHttp(binary=False, has_extensions=False) as server:
        assert score(fake_table(server.url), [3.0], [2])[0][0].tolist() == [6.0]
        session = finish(host.open(fake_table(server.url), [1], [2]))
        assert finish(host.statistics(session)) is None


STATISTICS = ("queue", "compute_input", "compute_infer", "compute_output")


def test_statistics() -> None:
    with FakeHttp() as server:
        session = finish(host.open(fake_table(server.url), [1], [2]))
        assert finish(host.statistics(session)) == (2, 5)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b'{"model_stats": [5]}',
        b'{"model_stats": [{"inference_stats": {}}]}',
        *(
            json.dumps({"model_stats": [{"inference_stats": {name: {"ns": "NS"} for name in STATISTICS}}]})
            .replace('"NS"', number)
            .encode()
            for number in ("1e999", "9223372036854775808")
        ),
    ],
)
def test_statistics_that_make_no_sense_are_none(body: bytes) -> None:
    with FakeHttp() as server:
        session = finish(host.open(fake_table(server.url), [1], [2]))
        server.script = Script(body=body, everywhere=True)
        assert finish(host.statistics(session)) is None


@pytest.mark.parametrize("change", [{"decoupled": True}, {"sequence": True}])
def test_models_that_are_no_tables(change: dict[str, Any]) -> None:
    with FakeHttp(models={"fake": dataclasses.replace(FAKE, **change)}) as server, pytest.raises(errors.Unsupported):
        finish(host.describe(fake_table(server.url)))


def test_a_batch_is_split_by_the_models_limit() -> None:
    with FakeHttp(Script(delay_s=0.02), {"fake": dataclasses.replace(FAKE, max_batch_size=3)}) as server:
        values = [float(number) for number in range(20)]
        assert score(fake_table(server.url), values, [2])[0][0].tolist() == [2 * value for value in values]
        assert server.inferences == 7


def test_import() -> None:
    server_part: dict[str, Any] = {"oid": 7, "name": "s"}
    with FakeHttp() as server:
        server_part["options"] = {"url": server.url}
        statements, notices = finish(host.import_schema(server_part, {}, "models", "all", [], {}))
        assert len(statements) == 1
        assert notices == []
    with FakeHttp(has_extensions=False) as server:
        server_part["options"] = {"url": server.url}
        with fails(
            "0A000",
            f'model server "{endpoint(server)}" has no repository index',
            "The server said: Model index not found",
            "Name the models with LIMIT TO.",
        ):
            finish(host.import_schema(server_part, {}, "models", "all", [], {}))


def test_import_from_a_list_of_models() -> None:
    """KServe has no repository index, and lists its models elsewhere."""
    server_part: dict[str, Any] = {"oid": 7, "name": "s"}
    with FakeHttp(models={"a": FAKE, "b": FAKE}, has_extensions=False, nulls=True, lists_models=True) as server:
        server_part["options"] = {"url": server.url}
        statements, notices = finish(host.import_schema(server_part, {}, "models", "except", ["b"], {}))
        assert [statement.split('"')[1] for statement in statements] == ["a"]
        assert notices == []


def test_credentials_travel_with_every_request() -> None:
    columns = (("x", "double precision", {}), ("y", "double precision", {}), ("label", "text", {}))
    with FakeHttp() as server:
        score(table(*columns, url=server.url, user={"token": "s3cret", "headers": "x-team: risk"}, model="fake"), [1.0])
        assert server.headers["authorization"] == "Bearer s3cret"
        assert server.headers["x-team"] == "risk"


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with FakeHttp() as server:
        assert score(fake_table(server.url), [1.0], [2])[0][0].tolist() == [2.0]


def test_requests_are_in_flight_together_and_begin_before_anybody_waits() -> None:
    with FakeHttp(Script(delay_s=0.3)) as server:
        session = finish(host.open(fake_table(server.url), [1], [2]))
        finish(host.submit(session, 1, [doubles(0.0)]))
        began_s = time.monotonic()
        tickets = [host.submit(session, 1, [doubles(float(number))]) for number in range(4)]
        assert time.monotonic() - began_s < 0.1
        assert [finish(ticket)[0][0][0] for ticket in tickets] == [0, 2, 4, 6]
        assert time.monotonic() - began_s < 1.1


@pytest.mark.parametrize("script", [Script(chunked=True), Script(close=True), Script(drip=True)])
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_habits_of_servers(script: Script, binary: bool) -> None:
    with FakeHttp(script, binary=binary) as server:
        for _ in range(2 if not script.drip else 1):
            assert score(fake_table(server.url, timeout_ms="60000"), [1.0], [2])[0][0].tolist() == [2.0]


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_compression(compression: str, binary: bool) -> None:
    columns = (("x", "double precision", {}), ("y", "double precision", {}), ("label", "text", {}))
    with FakeHttp(binary=binary) as server:
        description = table(*columns, url=server.url, server={"compression": compression}, model="fake")
        assert score(description, [1.0] * 4000, [2])[0][0].tolist() == [2.0] * 4000
        assert server.headers["content-encoding"] == compression
        assert score(description, [1.0], [2])[0][0].tolist() == [2.0]
        assert "content-encoding" not in server.headers, "little is not worth it"


@pytest.mark.parametrize("protocol", ["grpc", "http", "json"])
def test_parameters_of_every_request(protocol: str) -> None:
    given_: dict[str, Any] = {"priority": 2, "threshold": 0.5, "debug": True, "tenant": "größe"}
    with FakeServer() if protocol == "grpc" else FakeHttp(binary=protocol == "http") as server:
        score(fake_table(server.url, parameters=json.dumps(given_)), [1.0])
        sent = server.requests[0]
        if protocol != "grpc":
            assert sent["parameters"] == given_
        else:
            for name, value in given_.items():
                assert getattr(sent.parameters[name], sent.parameters[name].WhichOneof("parameter_choice")) == value
        for value in (None, [1], {}, 2**63):
            with fails(
                "22023",
                'option "parameters" has an invalid value for "a"',
                "A parameter of the Open Inference Protocol is true or false, a number or text.",
                "Correct the value.",
            ):
                finish(host.describe(fake_table(server.url, parameters=json.dumps({"a": value}))))


def test_large_messages() -> None:
    values = [float(number) for number in range(400_000)]
    for binary in (True, False):
        with FakeHttp(binary=binary) as server:
            assert score(fake_table(server.url), values, [2])[0][0].tolist() == [2 * value for value in values]


# ------------------------------------------------------------ every dtype

SAMPLES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "INT8": [-128, 127],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1, 2**53 + 1],
    "UINT8": [0, 255],
    "UINT16": [0, 65535],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1, 2**53 + 1],
    "FP32": [0.1, -3.4028234663852886e38, 1e-45],
    "FP64": [0.1, 1.7976931348623157e308, 5e-324, 1 / 3],
}

KINDS = {"BOOL": "u1", "INT8": "i2", "INT16": "i2", "INT32": "i4", "INT64": "i8", "UINT8": "i2", "UINT16": "i4"}
KINDS |= {"UINT32": "i8", "UINT64": "u8", "FP16": "f8", "BF16": "f8", "FP32": "f8", "FP64": "f8"}


def echo(dtype: str) -> dict[str, FakeModel]:
    declaration = (-1, 1)
    return {"fake": FakeModel((("x", dtype, declaration),), (("y", dtype, declaration),), lambda i: {"y": i["x"]})}


def ask_echo(server: FakeHttp, dtype: str, column: Any, rows: int, type_: str = "text") -> Any:
    description = table(("x", type_, {"input": "x"}), ("y", type_, {"output": "y"}), url=server.url, model="fake")
    session = finish(host.open(description, [1], [2]))
    return finish(host.submit(session, rows, [column]))[0]


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("dtype", SAMPLES)
def test_every_dtype(dtype: str, binary: bool) -> None:
    values = np.array(SAMPLES[dtype], KINDS[dtype])
    with FakeHttp(models=echo(dtype), binary=binary) as server:
        answer = ask_echo(server, dtype, values.tobytes(), len(values))
        assert answer[0].tolist() == values.astype(NUMPY[dtype]).tolist()


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_strings(binary: bool) -> None:
    values = ["", 'a"b\\c\n', "größe \U0001f600", "\u2028"]
    encoded = [value.encode() for value in values]
    offsets = np.cumsum([0, *map(len, encoded)]).astype("i8")
    with FakeHttp(models=echo("BYTES"), binary=binary) as server:
        answer = ask_echo(server, "BYTES", (offsets.tobytes(), b"".join(encoded)), len(values))
        assert strings(answer) == encoded


def test_bytes_that_are_no_text() -> None:
    column = (np.array([0, 2], "i8").tobytes(), b"\xff\x00")
    with FakeHttp(models=echo("BYTES")) as server:
        assert strings(ask_echo(server, "BYTES", column, 1, "bytea")) == [b"\xff\x00"]
    with (
        FakeHttp(models=echo("BYTES"), binary=False) as server,
        fails(
            "22021",
            'input tensor "x" holds bytes that are not UTF-8, which JSON cannot carry',
            "The model server takes tensors as JSON only.",
            'Let server option "url" name the gRPC port of the model server.',
        ),
    ):
        ask_echo(server, "BYTES", column, 1, "bytea")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_lacks(value: float) -> None:
    with FakeHttp(models=echo("FP64")) as server:
        assert str(ask_echo(server, "FP64", doubles(value), 1)[0][0]) == str(value)
    with FakeHttp(models=echo("FP64"), binary=False) as server, pytest.raises(errors.ValueOutOfRange):
        ask_echo(server, "FP64", doubles(value), 1)
    answer = {"outputs": [{"name": "y", "datatype": "FP64", "shape": [1, 1], "data": [value]}]}
    script = Script(body=json.dumps(answer).encode())  # as Python's own json writes them
    with FakeHttp(script, models=echo("FP64"), binary=False) as server:
        assert str(ask_echo(server, "FP64", doubles(1.0), 1)[0][0]) == str(value)


@pytest.mark.parametrize("dtype", ["FP16", "BF16"])
def test_dtypes_without_json(dtype: str) -> None:
    with FakeHttp(models=echo(dtype)) as server:
        assert ask_echo(server, dtype, doubles(1.5, -0.25), 2)[0].tolist() == [1.5, -0.25]
    with FakeHttp(models=echo(dtype), binary=False) as server, pytest.raises(errors.Unsupported) as caught:
        ask_echo(server, dtype, doubles(1.5), 1)
    assert caught.value.message == f'input tensor "x" has dtype {dtype}, which JSON cannot carry'


@pytest.mark.parametrize(
    ("dtype", "item"),
    [
        ("INT32", 1.5),
        ("INT32", True),
        ("INT32", "1"),
        ("FP64", None),
        ("FP64", "1.5"),
        ("FP64", True),
        ("FP32", 1e39),
        ("BOOL", 2),
        ("BYTES", 5),
        ("UINT64", None),
    ],
)
def test_json_elements_of_another_type(dtype: str, item: Any) -> None:
    answer = {"outputs": [{"name": "y", "datatype": dtype, "shape": [1, 1], "data": [item]}]}
    model = dataclasses.replace(FAKE, outputs=(("y", dtype, (-1, 1)),))
    with (
        FakeHttp(Script(body=json.dumps(answer).encode()), {"fake": model}, binary=False) as server,
        fails(
            "HV00M", 'model "fake" sent a malformed reply', f'Output tensor "y" holds an element that is no {dtype}.'
        ),
    ):
        score(table(("x", "float8", {}), ("y", "text", {}), url=server.url, model="fake"), [1.0], [2])


def test_an_integer_out_of_its_range() -> None:
    answer = {"outputs": [{"name": "y", "datatype": "INT8", "shape": [1, 1], "data": [128]}]}
    model = dataclasses.replace(FAKE, outputs=(("y", "INT8", (-1, 1)),))
    script = Script(body=json.dumps(answer).encode())
    with FakeHttp(script, {"fake": model}, binary=False) as server, pytest.raises(errors.MalformedReply):
        score(table(("x", "float8", {}), ("y", "int2", {}), url=server.url, model="fake"), [1.0], [2])


def test_nested_json_data() -> None:
    answer = {"outputs": [{"name": "y", "datatype": "FP64", "shape": [2, 1], "data": [[5], [6.5]]}]}
    with FakeHttp(Script(body=json.dumps(answer).encode()), binary=False) as server:
        assert score(fake_table(server.url), [1.0, 2.0], [2])[0][0].tolist() == [5, 6.5]


# ------------------------------------------------------------ answers that cannot be right

GOOD = {"name": "y", "datatype": "FP64", "shape": [2, 1], "data": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"shape": [3, 1], "data": [1, 2, 3]}, 'Output tensor "y" has shape [3,1] for 2 rows.'),
        ({"datatype": "INT64", "data": [1, 2]}, 'Output tensor "y" has dtype INT64 instead of FP64.'),
        ({"data": [1.0]}, 'Output tensor "y" holds 1 elements instead of 2.'),
        ({"data": [1.0, 2.0, 3.0]}, 'Output tensor "y" holds 3 elements instead of 2.'),
        ({"name": "z"}, 'Output tensor "y" is missing.'),
        ({"shape": None}, 'Member "outputs[0].shape" of the answer is missing.'),
        ({"shape": [2, "x"]}, 'Member "outputs[0].shape[1]" of the answer is no integer of 64 bits.'),
        ({"shape": [2, None]}, 'Member "outputs[0].shape[1]" of the answer is missing.'),
        ({"shape": 5}, 'Member "outputs[0].shape" of the answer is no list.'),
        ({"name": 5}, 'Member "outputs[0].name" of the answer is no text.'),
        ({"datatype": None}, 'Member "outputs[0].datatype" of the answer is missing.'),
        ({"data": None}, 'Member "outputs[0].data" of the answer is missing.'),
        ({"parameters": 5}, 'Member "outputs[0].parameters" of the answer is no object.'),
        ({"parameters": {"binary_data_size": []}}, None),
        ({"datatype": "FP16"}, 'Output tensor "y" has dtype FP16 as JSON data.'),
        ({"parameters": {"binary_data_size": 16}}, None),
    ],
)
def test_a_wrong_json_answer_yields_no_row(change: dict[str, Any], detail: str | None) -> None:
    body = json.dumps({"outputs": [{**GOOD, **change}]}).encode()
    with FakeHttp(Script(body=body), binary=False) as server, pytest.raises(errors.MalformedReply) as caught:
        score(fake_table(server.url), [1.0, 2.0], [2])
    assert detail is None or caught.value.detail == detail


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"outputs": [', b"\xff\xfe", b"[" * 100_000])
def test_an_answer_that_is_not_json(body: bytes) -> None:
    with (
        FakeHttp(Script(body=body), binary=False) as server,
        fails("HV00M", 'model "fake" sent a malformed reply', "The answer is not JSON."),
    ):
        score(fake_table(server.url), [1.0])


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"null", "The answer is no object."),
        (b"[]", "The answer is no object."),
        (b"5", "The answer is no object."),
        (b"{}", 'Member "outputs" of the answer is missing.'),
        (b'{"outputs": null}', 'Member "outputs" of the answer is missing.'),
        (b'{"outputs": [5]}', 'Member "outputs[0]" of the answer is no object.'),
    ],
)
def test_json_of_another_protocol(body: bytes, detail: str) -> None:
    with (
        FakeHttp(Script(body=body), binary=False) as server,
        fails("HV00M", 'model "fake" sent a malformed reply', detail),
    ):
        score(fake_table(server.url), [1.0])


@pytest.mark.parametrize("has_extensions", [True, False])
def test_null_for_what_an_answer_does_not_say(has_extensions: bool) -> None:
    server_part: dict[str, Any] = {"oid": 7, "name": "s"}
    with FakeHttp(binary=False, has_extensions=has_extensions, nulls=True) as server:
        assert score(fake_table(server.url), [3.0], [2])[0][0].tolist() == [6.0]
        if has_extensions:
            server_part["options"] = {"url": server.url}
            assert len(finish(host.import_schema(server_part, {}, "models", "all", [], {}))[0]) == 1


@pytest.mark.parametrize(
    "config",
    [
        {"max_batch_size": None, "input": None, "parameters": None, "model_transaction_policy": None},
        {"parameters": {"a": None}, "model_transaction_policy": {"decoupled": None}, "sequence_batching": None},
        {"input": [{"name": "x", "optional": None}], "parameters": {"a": {"string_value": None}}},
    ],
)
def test_null_in_a_configuration(config: dict[str, Any]) -> None:
    parsed = triton_http._parse_config(triton_http._Json(config))
    assert (parsed.max_batch_size, parsed.decoupled, parsed.sequence, parsed.optional_inputs) == (
        0,
        False,
        False,
        set(),
    )
    assert dict(parsed.parameters) in ({}, {"a": ""})


@pytest.mark.parametrize("length", ["\xb2", "9" * 5000, "-1", "3"])
def test_a_length_of_json_that_is_none(length: str) -> None:
    response = http_transport.HttpResponse(200, "OK", {"inference-header-content-length": length}, b"{}")
    with fails(
        "HV00M",
        'model "m" sent a malformed reply',
        "Header Inference-Header-Content-Length does not fit an answer of 2 bytes.",
    ):
        triton_http._parse_inference("m", response, 1 << 20)


def test_metadata_of_impossible_dimensions() -> None:
    body = b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 9223372036854775808]}]}'
    with FakeHttp(Script(body=body, everywhere=True)) as server, pytest.raises(errors.MalformedReply):
        score(fake_table(server.url), [1.0])


def test_an_error_in_an_answer_of_status_200() -> None:
    with (
        FakeHttp(Script(body=b'{"error": "no luck"}')) as server,
        fails(
            "HV000",
            f'model "fake" failed on model server "{endpoint(server)}": no luck',
            'The request was made of input columns "x" of foreign table "t".',
            "To get the answers of the other rows, add a text column with OPTIONS (error 'true').",
        ),
    ):
        score(fake_table(server.url), [1.0])


# ------------------------------------------------------------ statuses

FAILED = 'model "fake" failed on model server "{}": {}'
DENIED = 'access to model "fake" on model server "{}" was denied'


@pytest.mark.parametrize(
    ("status", "body", "sqlstate", "message", "attempts"),
    [
        (400, b'{"error": "bad shape"}', "HV000", FAILED.format("{}", "bad shape"), 1),
        (422, b'{"detail": "not a number"}', "HV000", FAILED.format("{}", "not a number"), 1),
        (401, b'{"error": "token expired"}', "28000", DENIED, 1),
        (403, b"", "28000", DENIED, 1),
        (404, b'{"error": "Model fake not found"}', "HV00R", 'model "fake" does not exist on model server "{}"', 1),
        (404, b'{"error": "model fake is not ready"}', "55000", 'model "fake" on model server "{}" is not ready', 1),
        (413, b"", "54000", 'message to or from model server "{}" is too large', 1),
        (429, b'{"error": "quota"}', "53000", 'model server "{}" is out of resources: quota', 2),
        (500, b'{"error": "boom\\n  File x.py"}', "HV000", FAILED.format("{}", "boom"), 1),
        (502, b"", "HV000", FAILED.format("{}", "HTTP status 502 (Bad Gateway)"), 2),
        (503, b'{"error": "queue is full"}', "HV000", FAILED.format("{}", "queue is full"), 2),
        (504, b"", "HV000", FAILED.format("{}", "HTTP status 504 (Gateway Timeout)"), 2),
        (501, b"", "0A000", 'model server "{}" does not support this request', 1),
        (302, b"", "0A000", 'model server "{}" does not support this request', 1),
    ],
)
def test_statuses(status: int, body: bytes, sqlstate: str, message: str, attempts: int) -> None:
    with FakeHttp(Script(status=status, body=body)) as server:
        with pytest.raises(errors.ModelFdwError) as caught:
            score(fake_table(server.url, max_attempts="2"), [1.0])
        assert (caught.value.sqlstate, caught.value.message) == (sqlstate, message.format(endpoint(server)))
        assert server.inferences == attempts


def test_an_html_page_is_no_message() -> None:
    script = Script(status=500, body=b"<h1>sorry</h1>", kind="text/html; charset=utf-8")
    with FakeHttp(script) as server, pytest.raises(errors.ModelFailed) as caught:
        score(fake_table(server.url), [1.0])
    assert caught.value.message.endswith("HTTP status 500 (Internal Server Error)")


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("text/plain; charset=iso-8859-1", "délai".encode("latin-1"), "d\ufffdlai"),
        ("text/plain", b"a\0b", "a?b"),
        ("application/json", b"[" * 100_000, "HTTP status 502 (Bad Gateway)"),
        ("application/json", b'{"error": "\\ud800\\u0000 bad"}', "?? bad"),
    ],
    ids=["latin", "zero", "nested", "surrogate"],
)
def test_an_unreadable_message(kind: str, body: bytes, said: str) -> None:
    with FakeHttp(Script(status=502, body=body, kind=kind)) as server:
        with pytest.raises(errors.ModelFailed) as caught:
            score(fake_table(server.url, max_attempts="2"), [1.0])
        assert caught.value.message == FAILED.format(endpoint(server), said)
        assert server.inferences == 2


def test_unavailable_is_tried_again() -> None:
    with FakeHttp(Script(status=503, times=2)) as server:
        assert score(fake_table(server.url), [1.0], [2])[0][0].tolist() == [2.0]
        assert server.inferences == 3


# ------------------------------------------------------------ networks


def unreachable(where: str, detail: str, hint: str = 'Check option "url" of server "triton".') -> Any:
    return fails("08001", f'could not reach model server "{where}"', detail, hint)


def test_a_refused_connection() -> None:
    with (
        FakeServer("refuses") as server,
        unreachable(f"127.0.0.1:{server.port}", "The connection was refused. Attempts: 2."),
    ):
        finish(host.describe(fake_table(f"http://127.0.0.1:{server.port}", max_attempts="2")))


def test_a_host_without_address() -> None:
    with unreachable("no-such-host.invalid:8000", "The host name could not be resolved. Attempts: 1."):
        finish(host.describe(fake_table("http://no-such-host.invalid", max_attempts="1")))


def test_a_resolver_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    genuine = http_transport.socket.getaddrinfo

    def look_up(*arguments: Any, flags: int = 0, **others: Any) -> Any:
        if not flags:
            released.wait()
        return genuine(*arguments, flags=flags, **others)

    monkeypatch.setattr(http_transport.socket, "getaddrinfo", look_up)
    description = table(
        ("x", "float8", {}), url="http://slow.invalid", server={"connect_timeout_ms": "300"}, model="fake"
    )
    began_s = time.monotonic()
    try:
        with unreachable("slow.invalid:8000", "The server did not answer in time. Attempts: 1."):
            finish(host.describe(description))
        assert 0.25 < time.monotonic() - began_s < 1
    finally:
        released.set()


def test_a_server_that_swallows_connections() -> None:
    with FakeServer("swallows") as server:
        description = table(
            ("x", "float8", {}),
            url=f"http://127.0.0.1:{server.port}",
            server={"connect_timeout_ms": "300"},
            model="fake",
        )
        began_s = time.monotonic()
        with unreachable(f"127.0.0.1:{server.port}", "The server did not answer in time. Attempts: 1."):
            finish(host.describe(description))
        assert 0.25 < time.monotonic() - began_s < 1


def test_the_addresses_of_one_name_share_connections_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeServer("swallows") as silent, FakeServer("refuses") as closed, FakeHttp() as server:
        genuine = http_transport.socket.getaddrinfo

        def look_up(host_name: str, port: Any, **others: Any) -> Any:
            if host_name != "several.invalid":
                return genuine(host_name, port, **others)
            if others.get("flags"):
                raise http_transport.socket.gaierror
            ports = (silent.port, closed.port, server.port)
            return [entry for number in ports for entry in genuine("127.0.0.1", number, **others)]

        monkeypatch.setattr(http_transport.socket, "getaddrinfo", look_up)
        description = table(
            *COLUMNS,
            url="http://several.invalid",
            server={"connect_timeout_ms": "900"},
            model="fake",
            max_attempts="1",
        )
        for _ in range(5):
            connections._connections.clear()
            assert score(description, [1.0], [2])[0][0].tolist() == [2.0]


def timed_out(server: Any, timeout_ms: int) -> Any:
    return fails(
        "HV00M",
        f'model server "127.0.0.1:{server.port}" did not answer within {timeout_ms} ms',
        'The request was for model "fake".',
        'Check whether the server answers at all; raise table option "timeout_ms" if the model needs longer.',
    )


def test_a_server_that_never_answers() -> None:
    with FakeHttp(Script(hang=True)) as server:
        began_s = time.monotonic()
        with timed_out(server, 200):
            score(fake_table(server.url, timeout_ms="200"), [1.0])
        assert time.monotonic() - began_s < 1
        assert server.inferences == 1


def test_a_server_that_drips() -> None:
    with FakeHttp(Script(drip=True)) as server:
        began_s = time.monotonic()
        with timed_out(server, 400):
            score(fake_table(server.url, timeout_ms="400"), [1.0])
        assert time.monotonic() - began_s < 1.5


def test_the_deadline_counts_only_what_is_spent_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the backend holds the interpreter while the answer has long come."""
    with FakeHttp(Script(delay_s=0.05)) as server:
        session = finish(host.open(fake_table(server.url, timeout_ms="300"), [1], [2]))
        finish(host.submit(session, 1, [doubles(1.0)]))
        interval_s = sys.getswitchinterval()
        sys.setswitchinterval(1000)
        try:
            ticket = host.submit(session, 1, [doubles(2.0)])
            until_s = time.monotonic() + 0.6
            while time.monotonic() < until_s:
                pass
        finally:
            sys.setswitchinterval(interval_s)
        assert finish(ticket)[0][0].tolist() == [4.0]


@pytest.mark.parametrize(
    ("script", "detail"),
    [
        (Script(cut=True), "The server reset the connection. Attempts: 2."),
        (Script(stop_after=10), "The server closed the connection. Attempts: 2."),
        (Script(stop_after=0, chunked=True), "The server closed the connection. Attempts: 2."),
    ],
)
def test_a_connection_that_breaks_in_mid_answer(script: Script, detail: str) -> None:
    with FakeHttp(script) as server:
        with fails(
            "08006",
            f'connection to model server "{endpoint(server)}" was lost',
            detail,
            "Run the statement again once the server is back.",
        ):
            score(fake_table(server.url, max_attempts="2"), [1.0] * 1000)
        server.script = Script()
        assert score(fake_table(server.url), [1.0], [2])[0][0].tolist() == [2.0]


def test_a_server_of_another_protocol() -> None:
    with (
        FakeHttp(Script(raw=b"\0\0\6\4\0\0\0\0\0\0\0")) as server,
        unreachable(endpoint(server), "The server does not speak HTTP. Attempts: 1.", errors.PORT_HINT),
    ):
        score(fake_table(server.url, max_attempts="1"), [1.0])
    answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
    with (
        FakeHttp(Script(raw=answer)) as server,
        unreachable(endpoint(server), "The server does not speak gRPC. Attempts: 1.", errors.PORT_HINT),
    ):
        score(fake_table(server.url.replace("http:", "grpc:"), max_attempts="1"), [1.0])
    with FakeServer() as grpc_server, pytest.raises(errors.ModelFdwError) as caught:
        score(fake_table(f"http://127.0.0.1:{grpc_server.port}", max_attempts="1", timeout_ms="2000"), [1.0])
    assert caught.value.sqlstate in ("08001", "08006")


def test_plaintext_where_tls_is_expected() -> None:
    with FakeHttp() as server, pytest.raises(errors.ServerUnreachable) as caught:
        score(fake_table(server.url.replace("http:", "https:"), max_attempts="1"), [1.0])
    assert caught.value.detail == "The server does not speak TLS. Attempts: 1."


def test_requests_are_cut_below_our_own_limit() -> None:
    columns = (("x", "double precision", {}), ("y", "double precision", {}), ("label", "text", {}))
    with FakeHttp() as server:
        description = table(*columns, url=server.url, server={"max_message_bytes": "65536"}, model="fake")
        values = [float(number) for number in range(20_000)]
        assert score(description, values, [2])[0][0].tolist() == [2 * value for value in values]


def test_an_answer_that_is_too_large() -> None:
    columns = (("x", "double precision", {}), ("y", "double precision", {}), ("label", "text", {}))
    with FakeHttp(Script(body=b" " * 70_000)) as server:
        description = table(*columns, url=server.url, server={"max_message_bytes": "65536"}, model="fake")
        with pytest.raises(errors.OversizedMessage):
            score(description, [1.0])


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "body", [b"-1\r\n" + b"x" * 9_000_000, b"%x\r\n%s\r\n0\r\n\r\n" % (70_000, b" " * 70_000)], ids=["-1", "chunk"]
)
def test_chunks_that_are_too_large(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    received = 0
    receive_into = http_transport._Wire.receive_into

    def count(wire: http_transport._Wire, buffer: Any) -> int:
        nonlocal received
        size = receive_into(wire, buffer)
        received += size
        return size

    monkeypatch.setattr(http_transport._Wire, "receive_into", count)
    with FakeHttp(Script(raw=CHUNKED + body)) as server:
        description = table(*COLUMNS, url=server.url, server={"max_message_bytes": "65536"}, model="fake")
        with pytest.raises(errors.OversizedMessage):
            score(description, [1.0])
    assert received < 3_000_000


@pytest.mark.parametrize("size", [b"-5", b"zz"])
def test_chunks_of_no_size(size: bytes) -> None:
    with FakeHttp(Script(raw=CHUNKED + size + b"\r\nabc\r\n")) as server, pytest.raises(errors.ModelFdwError) as caught:
        score(fake_table(server.url, max_attempts="1"), [1.0])
    assert caught.value.sqlstate in ("08001", "08006")


def test_cancel_closes_the_connection() -> None:
    with FakeHttp(Script(hang=True)) as server:
        session = finish(host.open(fake_table(server.url), [1], [2]))
        ticket = host.submit(session, 1, [doubles(1.0)])
        until_s = time.monotonic() + 5
        while not server.inferences and time.monotonic() < until_s:
            time.sleep(0.01)
        host.close(session)
        host.cancel(ticket)
        server.released.set()
        server.script = Script()
        assert score(fake_table(server.url), [1.0], [2])[0][0].tolist() == [2.0]


def test_a_server_that_closed_an_idle_connection() -> None:
    with FakeHttp(Script(close=False)) as server:
        score(fake_table(server.url), [1.0])
        (replica,) = finish(host.open(fake_table(server.url), [1], [2])).connection.replicas
        for connection in replica.client._http._idle:
            connection.sock.interrupt()
        assert score(fake_table(server.url, max_attempts="1"), [1.0], [2])[0][0].tolist() == [2.0]


def test_json_has_a_limit_of_its_own() -> None:
    body = json.dumps({"outputs": [{"name": "y", "shape": [1], "datatype": "FP64", "data": [1.0]}], "pad": "a" * 5000})
    response = http_transport.HttpResponse(200, "OK", {}, body.encode())
    with pytest.raises(base.RequestFailed) as caught:
        triton_http._parse_inference("m", response, 5000)
    assert caught.value.failure.oversized == errors.ANSWER
