"""Methods of one's own as models: what is sent, what is made of answers."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any, Callable

import example_pb2 as pb
import grpc
import numpy as np
import pytest
from example_server import DESCRIPTOR_SET, SERVICE, ExampleServer, appraise
from google.protobuf import descriptor_pb2
from helpers import doubles, fails, finish, table
from hypothesis import given
from hypothesis import strategies as st

from fdw import errors, host
from fdw.protocols import descriptors, generic_grpc, reflection, timestamps
from fdw.protocols.base import Call, Finished, InputData

GRPC = {"protocol": "grpc"}
METHOD = f"{SERVICE}/Appraise"

# SQL type of a column -> how its values cross.
NUMPY = {"double precision": "f8", "boolean": "u1", "bigint": "i8", "numeric(20)": "u8", "real": "f4"}


def text_column(values: list[Any]) -> tuple[bytes, bytes]:
    encoded = [value if isinstance(value, bytes) else str(value).encode() for value in values]
    return np.cumsum([0, *map(len, encoded)]).astype("i8").tobytes(), b"".join(encoded)


def array_column(rows: list[list[float]], dtype: str = "f8") -> tuple[bytes, bytes, bytes]:
    starts = np.cumsum([0, *map(len, rows)]).astype("i8").tobytes()
    dimensions = np.array([[1, len(row), 0, 0, 0, 0, 0] for row in rows], "i4").tobytes()
    return np.array([value for row in rows for value in row], dtype).tobytes(), starts, dimensions


def column(type_: str, values: list[Any]) -> Any:
    if type_.endswith("[]"):
        return array_column(values)
    if type_ in NUMPY:
        return np.array(values, NUMPY[type_]).tobytes()
    return text_column(values)


def read(answer: Any, type_: str) -> list[Any]:
    """Turn a result column into Python values."""
    values, offsets, nulls, starts, dimensions = answer
    if offsets is not None:
        items: list[Any] = [bytes(values[a:b]) for a, b in zip(offsets, offsets[1:])]
        if type_ != "bytea":
            items = [item.decode() for item in items]
    else:
        items = np.asarray(values).tolist()
    if starts is not None:
        items = [items[start : start + size[0]] for start, size in zip(starts.tolist(), dimensions.tolist())]
    return [None if nulls is not None and nulls[row] else item for row, item in enumerate(items)]


def ask(
    server: Any,
    inputs: dict[str, tuple[str, list[Any]]],
    outputs: dict[str, str],
    method: str = METHOD,
    own: dict[str, str] | None = None,
    **options: str,
) -> list[list[Any]]:
    """Score rows: inputs are field -> (SQL type, values), outputs field -> SQL type."""
    columns = [(name, type_, {"input": name}) for name, (type_, _) in inputs.items()]
    columns += [(f"{name}_out", type_, {"output": name}) for name, type_ in outputs.items()]
    described = table(*columns, url=server.url, server={**GRPC, **(own or {})}, method=method, **options)
    bound = list(range(1, len(inputs) + 1))
    session = finish(host.open(described, bound, list(range(len(inputs) + 1, len(columns) + 1))))
    rows = len(next(iter(inputs.values()))[1])
    try:
        result = finish(host.submit(session, rows, [column(type_, values) for type_, values in inputs.values()]))
    finally:
        host.close(session)
    return [read(answer, type_) for answer, type_ in zip(result, outputs.values())]


NAMES: dict[str, tuple[str, list[Any]]] = {
    "name": ("text", ["vase", "größe"]),
    "weight": ("double precision", [1.5, -1]),
}


@pytest.mark.parametrize("reflection", ["v1", "v1alpha"])
def test_rows_by_reflection(reflection: str) -> None:
    with ExampleServer(reflection) as server:
        assert ask(server, NAMES, {"name": "text", "price": "double precision"}) == [["vase", "größe"], [15.0, None]]
        (request,) = server.requests
        assert [(item.name, item.weight) for item in request.items] == [("vase", 1.5), ("größe", -1)]
        assert not request.items[0].HasField("paid")
        assert not request.items[0].HasField("place")
        calls = server.calls["reflection"]
        ask(server, NAMES, {"name": "text"})
        assert server.calls["reflection"] == calls, "a method is asked for once"


def test_fields_beside_the_rows() -> None:
    with ExampleServer() as server:
        assert ask(server, NAMES, {"name": "text"}, parameters='{"currency": "EUR"}') == [["vase", "größe"]]
        assert server.requests[0].currency == "EUR"
        one: dict[str, tuple[str, list[Any]]] = {"weight": ("double precision", [1, 2])}
        prices = {"price": "double precision", "sorted": "double precision[]"}
        asked = ask(server, one, prices, f"{SERVICE}/AppraiseOne", parameters='{"sizes": [3, 1]}')
        assert asked == [[10, 20], [[1, 3], [1, 3]]]
        rows = 'option "parameters" sets field "{}" of method "{}", which holds the rows'
        with fails("22023", rows.format("items", METHOD), None, "Leave the field out."):
            ask(server, NAMES, {"name": "text"}, parameters='{"items": [{}]}')
        with fails("22023", rows.format("weight", f"{SERVICE}/AppraiseOne"), None, "Leave the field out."):
            ask(server, one, prices, f"{SERVICE}/AppraiseOne", parameters='{"weight": 5}')
        with pytest.raises(errors.BadOption) as caught:
            ask(server, NAMES, {"name": "text"}, parameters='{"curency": "EUR"}')
        assert caught.value.message == f'option "parameters" does not fit the request of method "{METHOD}"'


def test_rows_by_descriptor_set() -> None:
    with ExampleServer("") as server:
        own = {"descriptor_set": str(DESCRIPTOR_SET)}
        assert ask(server, NAMES, {"name": "text"}, own=own) == [["vase", "größe"]]
        assert server.calls == {"Appraise": 1}


def test_every_kind_of_field() -> None:
    inputs: dict[str, tuple[str, list[Any]]] = {
        "name": ("text", ["a", "b"]),
        "weight": ("double precision", [1, 2]),
        "sizes": ("double precision[]", [[1.5, 2.5], [3.5, 4.5]]),
        "condition": ("text", ["CONDITION_NEW", "CONDITION_UNSPECIFIED"]),
        "place.town": ("text", ["Ulm", "Rom"]),
        "place.country": ("text", ["de", "it"]),
        "made": ("timestamp with time zone", ["2026-01-02 03:04:05.678901+00", "1969-12-31 23:00:00-01"]),
        "paid": ("bigint", [-(2**63), 2**63 - 1]),
        "edition": ("numeric(20)", [0, 2**64 - 1]),
        "digest": ("bytea", [b"\x00\xff", b""]),
        "museum": ("bigint", [0, 7]),
        "whole": ("boolean", [True, False]),
    }
    outputs = {
        "name": "text",
        "price": "double precision",
        "offers": "double precision[]",
        "remarks": "text[]",
        "until": "timestamp with time zone",
        "condition": "text",
        "market.town": "text",
        "market.country": "text",
        "compared": "numeric(20)",
        "seal": "bytea",
        "price_list": "text",
    }
    with ExampleServer() as server:
        assert ask(server, inputs, outputs) == [
            ["a", "b"],
            [10, 20],
            [[1.5, 2.5], [3.5, 4.5]],
            [["a", "museum"], ["b", "museum"]],
            ["2026-01-02 03:04:05.678901+00", "1970-01-01 00:00:00+00"],
            ["CONDITION_NEW", "CONDITION_UNSPECIFIED"],
            ["Ulm", "Rom"],
            ["de", "it"],
            [0, 2**64 - 1],
            [b"\xff\x00", b""],
            ["autumn", "autumn"],
        ]
        first, second = server.requests[0].items
        assert first == pb.Item(
            name="a",
            weight=1,
            sizes=[1.5, 2.5],
            condition=pb.CONDITION_NEW,
            place=pb.Place(town="Ulm", country="de"),
            made={"seconds": 1767323045, "nanos": 678901000},
            paid=-(2**63),
            edition={"value": 0},
            digest=b"\x00\xff",
            museum=0,
            whole=True,
        )
        assert second.WhichOneof("register") == "museum"


def test_rows_of_different_lengths() -> None:
    sizes = [[1.0], [], [2.0, 3.0, 4.0], [5.0]]
    inputs: dict[str, tuple[str, list[Any]]] = {
        "name": ("text", ["a", "b", "c", "d"]),
        "sizes": ("double precision[]", sizes),
    }
    with ExampleServer() as server:
        names, offers, remarks = ask(
            server, inputs, {"name": "text", "offers": "double precision[]", "remarks": "text[]"}
        )
        assert (names, offers) == (["a", "b", "c", "d"], sizes)
        assert remarks == [["a"], [], ["c", "unknown"], ["d"]]


def test_answers_of_different_lengths_in_one_reply() -> None:
    def answer(request: Any, _: Any) -> Any:
        return pb.AppraiseResponse(values=[pb.Value(offers=range(row), remarks=["r"] * row) for row in range(2)])

    with ExampleServer(Appraise=answer) as server:
        assert ask(server, NAMES, {"offers": "double precision[]", "remarks": "text[]"}) == [[[], [0.0]], [[], ["r"]]]
        columns = (("name", "text", {}), ("first", "double precision", {"output": "offers", "index": "1"}))
        described = table(*columns, url=server.url, server=GRPC, method=METHOD)
        described["columns"][0]["options"] = {"input": "name"}
        session = finish(host.open(described, [1], [2]))
        with fails(
            "HV00M", f'model "{METHOD}" sent a malformed reply', 'Output tensor "offers" has a row without element 1.'
        ):
            finish(host.submit(session, 2, [text_column(["a", "b"])]))


def test_an_unknown_number_of_an_enum() -> None:
    with ExampleServer(Appraise=lambda request, _: pb.AppraiseResponse(values=[{"condition": 99}] * 2)) as server:
        assert ask(server, NAMES, {"condition": "text"}) == [["99", "99"]]


def test_columns() -> None:
    inputs: dict[str, tuple[str, list[Any]]] = {
        "weights": ("double precision", [1, 2, 3]),
        "conditions": ("text", ["CONDITION_USED", "CONDITION_NEW", "CONDITION_UNSPECIFIED"]),
    }
    outputs = {"prices": "double precision", "classes": "text", "total": "double precision"}
    with ExampleServer() as server:
        assert ask(server, inputs, outputs, f"{SERVICE}/AppraiseColumns") == [
            [10, 20, 30],
            ["class 2", "class 1", "class 0"],
            [60, 60, 60],
        ]
        assert ask(server, inputs, {"total": "double precision"}, f"{SERVICE}/AppraiseColumns") == [[60, 60, 60]]


def test_rows_in_columns_out() -> None:
    inputs: dict[str, tuple[str, list[Any]]] = {"town": ("text", ["Ulm", "London"]), "country": ("text", ["de", "uk"])}
    with ExampleServer() as server:
        assert ask(server, inputs, {"rents": "real"}, f"{SERVICE}/AppraiseMixed") == [[3, 6]]


def test_one_row_a_request() -> None:
    inputs: dict[str, tuple[str, list[Any]]] = {
        "weight": ("double precision", [1, 2, 3]),
        "sizes": ("double precision[]", [[3, 1], [], [2]]),
    }
    outputs = {"price": "double precision", "sorted": "double precision[]"}
    with ExampleServer() as server:
        assert ask(server, inputs, outputs, f"{SERVICE}/AppraiseOne") == [[10, 20, 30], [[1, 3], [], [2]]]
        assert server.calls["AppraiseOne"] == 3


def test_a_column_that_the_table_lacks_is_not_sent_and_one_that_is_unbound_is_an_error() -> None:
    columns = (("name", "text", {"input": "name"}), ("weight", "double precision", {"input": "weight"}))
    columns += (("paid", "bigint", {"input": "paid"}), ("price", "double precision", {"output": "price"}))
    with ExampleServer() as server:
        described = table(*columns, url=server.url, server=GRPC, method=METHOD)
        kinds = finish(host.describe(described))[0]
        assert kinds == [(1, "i", "s", False), (2, "i", "d", False), (3, "i", "q", True), (4, "o", "d", False)]
        with pytest.raises(errors.UnboundInput):
            finish(host.open(described, [1], [4]))
        session = finish(host.open(described, [1, 2], [4]))
        finish(host.submit(session, 1, [text_column(["a"]), doubles(1.0)]))
        assert not server.requests[0].items[0].HasField("paid")


def test_nothing_wanted_still_asks() -> None:
    with ExampleServer() as server:
        assert ask(server, NAMES, {}) == []
        assert server.calls["Appraise"] == 1


def test_requests_are_cut_to_the_size_that_the_server_takes() -> None:
    names = [f"thing {number:08}" for number in range(400_000)]  # 4 MiB is the most that a server takes by default
    with ExampleServer() as server:
        assert ask(server, {"name": ("text", names)}, {"name": "text"}) == [names]
        assert server.calls["Appraise"] > 1


# ------------------------------------------------------------ answers that cannot be right


@pytest.mark.parametrize(
    "output", [{"price": "double precision"}, {"price_list": "text"}, {}], ids=["row", "all", "none"]
)
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_as_many_answers_as_rows(rows: int, output: dict[str, str]) -> None:
    with (
        ExampleServer(Appraise=lambda request, _: pb.AppraiseResponse(values=[pb.Value()] * rows)) as server,
        fails("HV00M", f'method "{METHOD}" sent a malformed reply', f"The reply has {rows} rows for 2."),
    ):
        ask(server, NAMES, output)


@pytest.mark.parametrize("output", [{"prices": "double precision"}, {"total": "double precision"}, {}])
def test_as_many_elements_as_rows(output: dict[str, str]) -> None:
    inputs: dict[str, tuple[str, list[Any]]] = {
        "weights": ("double precision", [1, 2]),
        "conditions": ("text", ["CONDITION_NEW"] * 2),
    }
    method = f"{SERVICE}/AppraiseColumns"
    with (
        ExampleServer(AppraiseColumns=lambda request, _: pb.AppraiseColumnsResponse(prices=[1.0])) as server,
        fails("HV00M", f'method "{method}" sent a malformed reply', "The reply has 1 rows for 2."),
    ):
        ask(server, inputs, output, method)


def test_text_that_postgresql_cannot_hold() -> None:
    answer = pb.AppraiseResponse(values=[{"name": "a\0b"}] * 2)
    with ExampleServer(Appraise=lambda request, _: answer) as server, pytest.raises(errors.InvalidText):
        ask(server, NAMES, {"name": "text"})


def test_a_message_that_cannot_be_parsed() -> None:
    class Garbage:
        def SerializeToString(self) -> bytes:
            return b"\xff\xff\xff"

    with ExampleServer(Appraise=lambda request, _: Garbage()) as server, pytest.raises(errors.ModelFdwError) as caught:
        ask(server, NAMES, {"name": "text"})
    assert caught.value.sqlstate == "HV00M"


def refuse(request: Any, context: Any) -> Any:
    """Refuse requests with an item that has a negative weight."""
    if any(item.weight < 0 for item in request.items):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "weight is negative")
    return appraise(request)


def test_the_servers_own_error() -> None:
    with (
        ExampleServer(Appraise=refuse) as server,
        fails(
            "HV000",
            f'method "{METHOD}" failed on model server "127.0.0.1:{server.port}": weight is negative',
            'The request was made of input columns "name", "weight" of foreign table "t".',
            "To get the answers of the other rows, add a text column with OPTIONS (error 'true').",
        ),
    ):
        ask(server, NAMES, {"name": "text"})


@pytest.mark.parametrize("method", ["Appraise", "AppraiseAmong"], ids=["idempotent", "not idempotent"])
def test_refused_rows_beside_good_ones(method: str) -> None:
    columns: tuple[Any, ...] = (
        ("name", "text", {"input": "name"}),
        ("weight", "double precision", {"input": "weight"}),
    )
    columns += (("price", "double precision", {}), ("until", "text", {}), ("problem", "text", {"error": "true"}))
    with ExampleServer(**{method: refuse}) as server:
        described = table(*columns, url=server.url, server=GRPC, method=f"{SERVICE}/{method}", rows="items")
        session = finish(host.open(described, [1, 2], [3, 4, 5]))
        ticket = host.submit(session, 4, [text_column(list("abcd")), doubles(1, -1, 2, -2)])
        if method == "AppraiseAmong":
            with pytest.raises(errors.ModelRefused) as caught:
                finish(ticket)
            hint = 'Set table option "idempotent" to "true" if rows of a refused request can be sent once more.'
            assert (caught.value.hint, server.calls[method]) == (hint, 1)
            return
        price, until, problem = finish(ticket)
        assert read(price, "double precision") == [10, None, 20, None]
        assert read(until, "text") == [None] * 4
        assert read(problem, "text") == [None, "weight is negative"] * 2


# ------------------------------------------------------------ values that cannot be sent


def test_values_that_fields_cannot_hold() -> None:
    with ExampleServer() as server:
        with fails(
            "22P02",
            'invalid value for enum field "condition"',
            "Its values are: CONDITION_UNSPECIFIED, CONDITION_NEW, CONDITION_USED.",
        ):
            ask(server, {"condition": ("text", ["new"])}, {"name": "text"})
        with pytest.raises(errors.InvalidValue):
            ask(server, {"made": ("timestamp with time zone", ["infinity"])}, {"name": "text"})
        with pytest.raises(errors.InvalidText):
            ask(server, {"name": ("bytea", [b"\xff"])}, {"name": "text"})
        with fails(
            "0A000",
            f'fields "museum" and "library" of method "{METHOD}" cannot be sent together',
            "They belong to one oneof, which holds one of them at a time.",
            "Bind one of the two columns.",
        ):
            ask(server, {"museum": ("bigint", [1]), "library": ("text", ["x"])}, {"name": "text"})
        assert server.calls["Appraise"] == 0


@pytest.mark.parametrize(("field", "dtype"), [("notes", "map"), ("parts", "repeated model_fdw.example.v1.Item")])
def test_fields_that_no_column_can_hold(field: str, dtype: str) -> None:
    with ExampleServer() as server, pytest.raises(errors.Unsupported) as caught:
        ask(server, {field: ("text", ["x"])}, {"name": "text"})
    assert f'dtype "{dtype}" of input tensor "{field}"' in caught.value.message


# ------------------------------------------------------------ methods


def test_methods_that_are_no_tables() -> None:
    with ExampleServer() as server:
        with fails(
            "0A000",
            f'method "{SERVICE}/WatchPrices" is streaming, which is not supported',
            "The messages of a stream are no rows of the inputs.",
        ):
            ask(server, {"weight": ("double precision", [1])}, {"price": "double precision"}, f"{SERVICE}/WatchPrices")
        with fails(
            "0A000",
            f'method "{SERVICE}/AppraiseAmong" has several repeated messages, and it is not said which one holds the '
            "rows",
            'They are: "items", "markets".',
            'Set table option "rows" to one of them.',
        ):
            ask(server, NAMES, {"name": "text"}, f"{SERVICE}/AppraiseAmong")
        assert ask(server, NAMES, {"name": "text"}, f"{SERVICE}/AppraiseAmong", rows="items") == [["vase", "größe"]]
        with pytest.raises(errors.BadOption):
            ask(server, NAMES, {"name": "text"}, f"{SERVICE}/AppraiseAmong", rows="nothing")
        with pytest.raises(errors.WrongTensor):
            ask(server, NAMES, {"name": "text"}, rows="single")
        for method in (f"{SERVICE}/Nothing", "other.v1.Service/Method"):
            with pytest.raises(errors.UnknownModel) as caught:
                ask(server, NAMES, {"name": "text"}, method)
            assert caught.value.message.startswith(f'method "{method}" does not exist')


def test_a_server_without_reflection() -> None:
    with (
        ExampleServer("") as server,
        fails(
            "0A000",
            f'model server "127.0.0.1:{server.port}" does not offer reflection',
            None,
            'Set server option "descriptor_set", or let the server offer reflection.',
        ),
    ):
        ask(server, NAMES, {"name": "text"})


def test_descriptor_files_that_cannot_be_used(tmp_path: Path) -> None:
    garbage, missing, partial = tmp_path / "garbage", tmp_path / "missing", tmp_path / "partial"
    garbage.write_bytes(b"not a descriptor")
    file = descriptor_pb2.FileDescriptorProto(name="a.proto", dependency=["b.proto"])
    partial.write_bytes(descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString())
    with ExampleServer("") as server:
        for path, message in (
            (garbage, f'file "{garbage}" of option "descriptor_set" is no complete set of descriptors'),
            (partial, f'file "{partial}" of option "descriptor_set" is no complete set of descriptors'),
            (missing, f'could not read file "{missing}" of option "descriptor_set": No such file or directory'),
        ):
            with pytest.raises(errors.DescriptorFile) as caught:
                ask(server, NAMES, {"name": "text"}, own={"descriptor_set": str(path)})
            assert caught.value.message == message


def test_a_set_without_well_known_imports(tmp_path: Path) -> None:
    whole = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTOR_SET.read_bytes())
    own = [file for file in whole.file if not file.name.startswith("google/")]
    path = tmp_path / "own.binpb"
    path.write_bytes(descriptor_pb2.FileDescriptorSet(file=own).SerializeToString())
    with ExampleServer("") as server:
        assert ask(server, NAMES, {"name": "text"}, own={"descriptor_set": str(path)}) == [["vase", "größe"]]


# ------------------------------------------------------------ repeating


@pytest.mark.parametrize(
    ("method", "options", "calls"),
    [("Appraise", {}, 2), ("AppraiseMixed", {}, 1), ("AppraiseMixed", {"idempotent": "true"}, 2)],
)
@pytest.mark.parametrize(
    "text",
    [
        "restarting",
        "written, but not told: Connection refused",
        "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.1:5432: Connection refused",
    ],
    ids=["own", "about another", "of another"],
)
def test_only_idempotent_methods_are_called_again(method: str, options: dict[str, str], calls: int, text: str) -> None:
    def fail(request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.UNAVAILABLE, text)

    answers = {method: fail}
    inputs = {"town": ("text", ["Ulm"])} if method == "AppraiseMixed" else NAMES
    outputs = {"rents": "real"} if method == "AppraiseMixed" else {"name": "text"}
    with ExampleServer(**answers) as server:
        with pytest.raises(errors.ModelFdwError):
            ask(server, inputs, outputs, f"{SERVICE}/{method}", max_attempts="2", **options)
        assert server.calls[method] == calls


@pytest.mark.parametrize(
    "text", ["failed to connect to all addresses", "connections to all backends failing; DNS resolution failed"]
)
def test_a_server_that_answers_what_grpc_says_of_no_connection_is_not_asked_again(text: str) -> None:
    def fail(request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.UNAVAILABLE, text)

    inputs = {"town": ("text", ["Ulm"])}
    with ExampleServer(AppraiseMixed=fail) as server:
        with pytest.raises(errors.ModelFailed, match=re.escape(text)):
            ask(server, inputs, {"rents": "real"}, f"{SERVICE}/AppraiseMixed", max_attempts="3")
        assert server.calls["AppraiseMixed"] == 1


@pytest.mark.parametrize(("options", "times"), [({}, 1), ({"idempotent": "true"}, 5)])
def test_rows_whose_answer_was_too_large_are_served_once(options: dict[str, str], times: int) -> None:
    served = 0

    def answer(request: Any, context: Any) -> Any:
        nonlocal served
        served += 1
        return pb.AppraiseMixedResponse(rents=[1.0] * 100_000)

    inputs = {"town": ("text", ["Ulm"] * 16)}
    with ExampleServer(AppraiseMixed=answer) as server:
        with pytest.raises(errors.OversizedMessage):
            ask(
                server,
                inputs,
                {"rents": "real"},
                f"{SERVICE}/AppraiseMixed",
                own={"max_message_bytes": "65536"},
                **options,
            )
        assert served == times


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("RESOURCE_EXHAUSTED", "Received message larger than max (9000000 vs. 200)"),
        ("INVALID_ARGUMENT", "Received http2 header with status: 413"),
    ],
)
def test_what_a_server_passes_on_of_a_limit_is_no_reason_to_serve_rows_again(code: str, text: str) -> None:
    def answer(request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode[code], text)

    with ExampleServer(AppraiseMixed=answer) as server:
        with pytest.raises(errors.ModelFdwError):
            ask(server, {"town": ("text", ["Ulm"] * 64)}, {"rents": "real"}, f"{SERVICE}/AppraiseMixed")
        assert server.calls["AppraiseMixed"] == 1


def test_a_method_that_never_answers() -> None:
    def hang(request: Any, context: Any) -> Any:
        time.sleep(1)
        return appraise(request)

    with ExampleServer(Appraise=hang) as server, pytest.raises(errors.RequestTimeout) as caught:
        ask(server, NAMES, {"name": "text"}, timeout_ms="200")
    assert caught.value.detail == f'The request was for method "{METHOD}".'


# ------------------------------------------------------------ import


def imported(server: Any, schema: str = "models", restriction: str = "all", names: tuple[str, ...] = ()) -> Any:
    described = {"oid": 5, "name": "s", "options": {"url": server.url, **GRPC}}
    return finish(host.import_schema(described, {}, schema, restriction, list(names), {}))


def test_import() -> None:
    with ExampleServer() as server:
        statements, notices = imported(server)
        assert [statement.partition("(")[0] for statement in statements] == [
            'CREATE FOREIGN TABLE "Appraise" ',
            'CREATE FOREIGN TABLE "AppraiseColumns" ',
            'CREATE FOREIGN TABLE "AppraiseMixed" ',
            'CREATE FOREIGN TABLE "AppraiseOne" ',
        ]
        assert statements[3] == (
            'CREATE FOREIGN TABLE "AppraiseOne" (\n'
            "\t\"weight\" double precision OPTIONS (input 'weight', dtype 'FP64', shape '[-1]'),\n"
            "\t\"sizes\" double precision[] OPTIONS (input 'sizes', dtype 'FP32', shape '[-1,-1]'),\n"
            "\t\"price\" double precision OPTIONS (output 'price', dtype 'FP64', shape '[-1]'),\n"
            "\t\"sorted\" real[] OPTIONS (output 'sorted', dtype 'FP32', shape '[-1,-1]')\n"
            f") SERVER \"s\" OPTIONS (method '{SERVICE}/AppraiseOne', batch_size '1')"
        )
        lines = statements[0].split("\n")
        assert "\t\"place_town\" text OPTIONS (input 'place.town', dtype 'BYTES', shape '[-1]')," in lines
        assert (
            "\t\"made\" timestamp with time zone OPTIONS (input 'made', dtype 'BYTES', shape '[-1]', optional 'true'),"
            in lines
        )
        assert "\t\"digest\" bytea OPTIONS (input 'digest', dtype 'BYTES', shape '[-1]')," in lines
        assert "\t\"name_output\" text OPTIONS (output 'name', dtype 'BYTES', shape '[-1]')," in lines
        texts = [notice.message for notice in notices]
        assert f'input field "notes" of method "{METHOD}" becomes no column: its type is map' in texts
        assert any(text.startswith(f'skipped method "{SERVICE}/WatchPrices": ') for text in texts)
        assert any(text.startswith(f'skipped method "{SERVICE}/AppraiseAmong": ') for text in texts)


def test_import_some() -> None:
    with ExampleServer() as server:
        for schema in (SERVICE, "model_fdw.example.v1", "model_fdw"):
            assert len(imported(server, schema)[0]) == 4
        with fails(
            "HV00Q",
            f'remote schema "nope" does not exist on model server "127.0.0.1:{server.port}"',
            None,
            f'Import from remote schema "models" or "{SERVICE}".',
        ):
            imported(server, "nope")
        assert len(imported(server, restriction="limit to", names=("Appraise",))[0]) == 1
        assert len(imported(server, restriction="except", names=("Appraise",))[0]) == 3
        with pytest.raises(errors.Unsupported):
            imported(server, restriction="limit to", names=("WatchPrices",))


# ------------------------------------------------------------ pieces


def test_what_is_generated_is_of_one_proto() -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTOR_SET.read_bytes()).file
    (own,) = [file for file in files if file.name == "example.proto"]
    for message in own.message_type:
        for field in (*message.field, *(field for nested in message.nested_type for field in nested.field)):
            field.ClearField("json_name")  # which the generated code leaves out
    assert own == descriptor_pb2.FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)


def test_every_field_of_the_example_is_commented() -> None:
    lines = (Path(__file__).parents[2] / "protos" / "example.proto").read_text().splitlines()
    declared = re.compile(r"\s*(message|enum|service|oneof|rpc) |.* = [0-9]+;$")
    for before, line in zip(lines, lines[1:]):
        assert not declared.match(line) or before.strip().startswith("//"), line


@given(st.integers(-62_135_596_800, 253_402_300_799), st.integers(0, 999_999_999))
def test_timestamps_round_trip(seconds: int, nanos: int) -> None:
    shown = timestamps.show("t", pb.Value(until={"seconds": seconds, "nanos": nanos}).until)
    assert timestamps.parse("t", shown) == {"seconds": seconds, "nanos": nanos}


@pytest.mark.parametrize(
    ("text", "seconds", "nanos"),
    [
        (b"1970-01-01 01:00:00+01", 0, 0),
        (b"1969-12-31T18:30:00.5-05:30", 0, 500_000_000),
        (b"2026-11-24 22:03:49.000001Z", 1795557829, 1000),
        (b"1890-01-01 00:53:28+00:53:28", -2524521600, 0),
        (b"0001-01-01 00:00:00Z", -62135596800, 0),
        (b"9999-12-31 23:59:59.999999999Z", 253402300799, 999_999_999),
    ],
)
def test_texts_of_timestamps(text: bytes, seconds: int, nanos: int) -> None:
    assert timestamps.parse("t", text) == {"seconds": seconds, "nanos": nanos}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"infinity",
        b"2026-11-24",
        b"24.11.2026 22:03:49 UTC",
        b"0044-03-15 12:00:00+00 BC",
        b"2026-02-30 00:00:00Z",
        b"2026-02-03 24:00:00Z",
        b"0001-01-01 00:00:00+01",
    ],
)
def test_texts_that_are_no_timestamps(text: bytes) -> None:
    with pytest.raises(errors.InvalidValue):
        timestamps.parse("t", text)


def test_layouts_of_messages() -> None:
    """Which layouts are guessed, over small messages written down as text."""
    repeated, optional = (
        descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED,
        descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
    )
    number, message = descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE, descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
    fields = {"n": (number, optional), "N": (number, repeated), "m": (message, optional), "M": (message, repeated)}

    def guess(request: str, response: str) -> str:
        file = descriptor_pb2.FileDescriptorProto(name="f.proto", package="p", syntax="proto3")
        file.message_type.add(name="Row").field.add(name="x", number=1, type=number, label=optional)
        for name, shape in (("In", request), ("Out", response)):
            declared = file.message_type.add(name=name)
            for position, letter in enumerate(shape, start=1):
                type_, label = fields[letter]
                type_name = ".p.Row" if type_ == message else None
                declared.field.add(name=f"f{position}", number=position, type=type_, label=label, type_name=type_name)
        file.service.add(name="S").method.add(name="Do", input_type=".p.In", output_type=".p.Out")
        try:
            found = descriptors.find_method(descriptors.make_pool([file.SerializeToString()]), "p.S/Do")
        except errors.Unsupported as error:
            return error.message.rpartition('" ')[2]
        return f"{found.request.layout} {found.response.layout}"

    assert guess("M", "M") == "rows rows"
    assert guess("Mn", "Mn") == "rows rows"
    assert guess("M", "N") == "rows columns"
    assert guess("N", "N") == "columns columns"
    assert guess("NN", "Nn") == "columns columns"
    assert guess("N", "M") == "columns rows"
    assert guess("n", "n") == "single single"
    assert guess("nm", "m") == "single single"
    assert guess("N", "n") == "single single"
    assert guess("Nn", "N") == "single single"
    assert guess("M", "n") == "single single"
    assert guess("MM", "M").startswith("has several repeated messages")
    assert guess("M", "MM").startswith("has several repeated messages")
    assert guess("n", "") == "answers nothing that a column can hold"


# ------------------------------------------------------------ servers that give any descriptors


class Reflecting:
    """A server that answers every request for a file with the one that ``answer`` makes of the request's number."""

    def __init__(self, answer: Callable[[int], bytes], delay_s: float = 0) -> None:
        self.timeouts_ms: list[int] = []
        self._answer = answer
        self._delay_s = delay_s

    def call(self, path: str, message: bytes, read: Any, timeout_ms: int, parse: Any) -> Call[Any]:
        time.sleep(self._delay_s)
        response = reflection._CLASSES["Response"]()
        files = response.file_descriptor_response.file_descriptor_proto
        files.append(self._answer(len(self.timeouts_ms)))
        self.timeouts_ms.append(timeout_ms)
        return Finished(response)

    def files(self, timeout_ms: int) -> generic_grpc.Chain[list[bytes]]:
        client: Any = self
        chain = generic_grpc.Chain(reflection.files_of(client, "h:1", "p.S", reflection.Deadline(timeout_ms)))
        assert chain.done()
        return chain


def importing(number: int) -> bytes:
    file = descriptor_pb2.FileDescriptorProto(name=f"f{number}", dependency=[f"f{number + 1}"])
    return file.SerializeToString()


def test_files_that_cannot_be_read() -> None:
    garbage = b"\xff\xff\xff"
    for read in (
        Reflecting(lambda _: garbage).files(1000).value,
        lambda: descriptors.missing_imports({"f": garbage}),
        lambda: list(descriptors.list_methods([garbage])),
    ):
        with pytest.raises(errors.MalformedReply) as caught:
            read()
        assert caught.value.message == "descriptors of the gRPC services cannot be used"


def test_imports_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Reflecting(importing, delay_s=0.02)
    failure = server.files(200).failure()
    assert failure is not None
    assert failure.status == "DEADLINE_EXCEEDED"
    assert 2 <= len(server.timeouts_ms) <= 10
    assert server.timeouts_ms == sorted(server.timeouts_ms, reverse=True)
    assert server.timeouts_ms[-1] < 200
    monkeypatch.setattr(reflection, "MAX_FILES", 50)
    server = Reflecting(importing)
    with fails(
        "0A000",
        'service "p.S" of model server "h:1" imports more than 50 files',
        None,
        'Set server option "descriptor_set".',
    ):
        server.files(60_000).value()
    assert len(server.timeouts_ms) == 50


def nested(depth: int, fields: int, last: int = 1) -> descriptors.Method:
    """Make a method whose message holds messages, each so often, so deep; the last so many numbers."""
    types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="f.proto", package="p", syntax="proto3")
    for level in range(depth + 1):
        declared = file.message_type.add(name=f"M{level}")
        for number in range(1, (fields if level < depth else last) + 1):
            field = declared.field.add(name=f"f{number}", number=number, label=types.LABEL_OPTIONAL)
            field.type = types.TYPE_MESSAGE if level < depth else types.TYPE_DOUBLE
            if level < depth:
                field.type_name = f".p.M{level + 1}"
    answer = file.message_type.add(name="Answer")
    answer.field.add(name="y", number=1, type=types.TYPE_DOUBLE, label=types.LABEL_OPTIONAL)
    file.service.add(name="S").method.add(name="Do", input_type=".p.M0", output_type=".p.Answer")
    return descriptors.find_method(descriptors.make_pool([file.SerializeToString()]), "p.S/Do")


def test_messages_in_messages() -> None:
    (leaf,) = nested(40, 1).request.leaves
    assert (len(leaf.path), leaf.dtype) == (41, "FP64")
    with fails("0A000", 'message "p.M0" is nested too deeply'):
        nested(1500, 1)
    (leaf,) = nested(90, 1).request.leaves
    assert (len(leaf.path), leaf.dtype, leaf.is_supported) == (64, "deeply nested p.M64", False)
    assert len(nested(1, 9, 1000).request.leaves) == 9000
    for last in (0, 1):
        with fails("0A000", 'message "p.M0" has more than 10000 fields'):
            nested(24, 2, last)


def test_a_required_message_without_a_column() -> None:
    types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="f.proto", package="p")
    inner, request = file.message_type.add(name="Inner"), file.message_type.add(name="Request")
    inner.field.add(name="x", number=1, type=types.TYPE_INT32, label=types.LABEL_OPTIONAL)
    request.field.add(name="inner", number=1, type=types.TYPE_MESSAGE, label=types.LABEL_REQUIRED, type_name=".p.Inner")
    request.field.add(name="a", number=2, type=types.TYPE_INT32, label=types.LABEL_OPTIONAL)
    file.service.add(name="S").method.add(name="Do", input_type=".p.Request", output_type=".p.Inner")
    method = descriptors.find_method(descriptors.make_pool([file.SerializeToString()]), "p.S/Do")
    four = np.array([4], "i4").tobytes()
    written = generic_grpc._write(
        method, [InputData("a", "INT32", (1,), four), InputData("inner.x", "INT32", (1,), four)], 1
    )
    assert written == b"\x0a\x02\x08\x04\x10\x04"
    with fails(
        "HV005",
        'requests of method "p.S/Do" cannot be written without required fields',
        'They are: "inner".',
        "Give the table input columns for them, or for fields inside of them.",
    ):
        generic_grpc._write(method, [InputData("a", "INT32", (1,), four)], 1)
