"""ModelFdw driven as Multicorn2 3.2 drives it: its calls, its argument types, its Qual and ColumnDefinition shapes."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import pytest
from fake_server import FAKE, FakeModel, FakeServer
from helpers import fails

import fdw
from fdw import errors, wrapper


@dataclass
class Qual:
    """As Multicorn's: operator is a name, or (name, True for ANY and False for ALL)."""

    field_name: str
    operator: Any
    value: Any


@dataclass
class ColumnDefinition:
    """As Multicorn's."""

    column_name: str
    type_oid: int = 0
    typmod: int = -1
    type_name: str = ""
    base_type_name: str = ""
    options: dict[str, str] = field(default_factory=dict)


def columns(*definitions: tuple[str, str, dict[str, str]]) -> OrderedDict[str, ColumnDefinition]:
    return OrderedDict(
        (name, ColumnDefinition(name, type_name=type_, base_type_name=type_, options=options))
        for name, type_, options in definitions
    )


FAKE_COLUMNS = columns(
    ("x", "double precision", {"input": "x"}),
    ("y", "double precision", {"output": "y"}),
    ("label", "text", {"output": "label"}),
)


def make(server: FakeServer, definitions: Any = FAKE_COLUMNS, **options: str) -> wrapper.ModelFdw:
    return fdw.ModelFdw({"model": "fake", "url": server.url, **options}, definitions)


def rows(instance: wrapper.ModelFdw, *quals: Qual, wanted: set[str] | None = None, **keywords: Any) -> list[Any]:
    return list(instance.execute(list(quals), wanted or {"x", "y", "label"}, **keywords))


def test_a_constant() -> None:
    with FakeServer() as server:
        # float8 constants come as text, numeric ones as float, int4 ones as int.
        for value in ("1.5", 1.5):
            assert rows(make(server), Qual("x", "=", value)) == [{"x": value, "y": 3.0, "label": "x=1.5"}]
        assert rows(make(server), Qual("x", "=", 2), wanted={"y"}) == [{"y": 4.0}]


def test_only_wanted_outputs_are_asked_for() -> None:
    with FakeServer() as server:
        assert rows(make(server), Qual("x", "=", 2), wanted={"label"}) == [{"label": "x=2"}]
        assert [output.name for output in server.requests[0].outputs] == ["label"]
        assert rows(make(server), Qual("x", "=", 2), wanted={"x"}) == [{"x": 2}]
        assert [output.name for output in server.requests[1].outputs] == ["y"]


def test_a_list_binds_each_distinct_value_once_in_order() -> None:
    with FakeServer() as server:
        qual = Qual("x", ("=", True), ["3", "1", None, "3.0", "2"])
        assert [row["y"] for row in rows(make(server), qual)] == [6, 2, 4]
        assert len(server.requests) == 1, "one batch"


def test_nan_is_one_value() -> None:
    with FakeServer() as server:
        (row,) = rows(make(server), Qual("x", ("=", True), ["NaN", "nan"]))
        assert math.isnan(row["y"])


@pytest.mark.parametrize(
    "qual",
    [Qual("x", "=", None), Qual("x", ("=", True), []), Qual("x", ("=", True), [None]), Qual("x", ("=", True), None)],
)
def test_null_yields_no_rows_and_sends_nothing(qual: Qual) -> None:
    with FakeServer() as server:
        assert rows(make(server), qual) == []
        assert server.calls["ModelInfer"] == 0


def test_several_equalities_on_one_column() -> None:
    with FakeServer() as server:
        instance = make(server)
        found = rows(instance, Qual("x", ("=", True), ["1", "2", "3"]), Qual("x", ("=", True), ["3", "2", "9"]))
        assert [row["y"] for row in found] == [4, 6]
        assert rows(instance, Qual("x", "=", "1"), Qual("x", "=", "2")) == []
        assert rows(instance, Qual("x", "=", "1"), Qual("x", "=", None)) == []


UNBOUND = (
    "HV00L",
    'input column "x" of foreign table "fake" is not bound',
    None,
    'Give it a value with an equality, such as "WHERE x = ..." or "JOIN ... ON fake.x = ...".',
)


@pytest.mark.parametrize(
    "quals",
    [
        [],
        [Qual("x", ">", "1")],
        [Qual("x", ("=", False), ["1"])],
        [Qual("x", ("<>", True), ["1"])],
        [Qual("y", "=", "1")],
    ],
)
def test_an_unbound_scan_raises(quals: list[Qual]) -> None:
    with FakeServer() as server, fails(*UNBOUND):
        rows(make(server), *quals)


def test_an_unbound_scan_costs_the_earth_and_a_bound_one_does_not() -> None:
    with FakeServer() as server:
        instance = make(server)
        wanted = {"x", "y"}
        assert instance.get_rel_size([], wanted) == (wrapper.UNBOUND_ROWS, 200)
        assert instance.get_rel_size([Qual("x", "=", "1")], wanted) == (1, 200)
        assert instance.get_rel_size([Qual("x", ("=", True), ["1", "2", "1"])], wanted) == (2, 200)
        assert instance.get_rel_size([Qual("x", "=", None)], set()) == (1, 100)
        for result in instance.get_rel_size([], wanted):
            assert isinstance(result, int)


TWO = replace(
    FAKE,
    inputs=(("a", "INT32", (-1, 1)), ("b", "BYTES", (-1, 1)), ("c", "BOOL", (-1, 1))),
    outputs=(("s", "BYTES", (-1, 1)),),
    compute=lambda given: {
        "s": [
            b"%d/%s/%d" % (number, text, flag)
            for number, text, flag in zip(
                given["a"].reshape(-1), given["b"], given.get("c", given["a"] * 0 + 9).reshape(-1)
            )
        ]
    },
    optional=frozenset({"c"}),
)
TWO_COLUMNS = columns(("a", "integer", {}), ("b", "text", {}), ("c", "boolean", {}), ("s", "text", {}))


def test_lists_bind_their_cross_product() -> None:
    with FakeServer(models={"fake": TWO}) as server:
        instance = make(server, TWO_COLUMNS)
        found = rows(
            instance,
            Qual("a", ("=", True), [1, 2]),
            Qual("b", ("=", True), ["p", "q"]),
            Qual("c", "=", "t"),
            wanted={"a", "b", "s"},
        )
        assert found == [
            {"a": 1, "b": "p", "s": "1/p/1"},
            {"a": 1, "b": "q", "s": "1/q/1"},
            {"a": 2, "b": "p", "s": "2/p/1"},
            {"a": 2, "b": "q", "s": "2/q/1"},
        ]
        assert (
            instance.get_rel_size([Qual("a", ("=", True), [1, 2]), Qual("b", ("=", True), ["p", "q"])], {"s"})[0] == 4
        )


def test_an_optional_input_may_stay_unbound() -> None:
    with FakeServer(models={"fake": TWO}) as server:
        instance = make(server, TWO_COLUMNS)
        (row,) = rows(instance, Qual("a", "=", 1), Qual("b", "=", "p"), wanted={"s"})
        assert row == {"s": "1/p/9"}
        assert [tensor.name for tensor in server.requests[0].inputs] == ["a", "b"]
        assert instance.get_path_keys() == [(("a", "b", "c"), 1), (("a", "b"), 2)]


def test_an_optional_input_that_is_read_must_be_bound() -> None:
    """A join condition may read it: an unbound one would be NULL there, and no row would match."""
    with FakeServer(models={"fake": TWO}) as server:
        instance = make(server, TWO_COLUMNS)
        quals = [Qual("a", "=", 1), Qual("b", "=", "p")]
        with pytest.raises(errors.UnboundInput, match='input column "c" of foreign table "fake" is not bound'):
            rows(instance, *quals, wanted={"c", "s"})
        assert instance.get_rel_size(quals, {"c", "s"})[0] == wrapper.UNBOUND_ROWS
        assert instance.get_rel_size(quals, {"s"})[0] == 1


@pytest.mark.parametrize(
    ("qual", "flag"),
    [
        (Qual("c", "=", "t"), 1),  # WHERE c; constants of type boolean come as text
        (Qual("c", "=", "f"), 0),
        (Qual("c", "<>", "t"), 0),  # WHERE NOT c, and c = false
        (Qual("c", "IS", "t"), 1),
        (Qual("c", "IS", "f"), 0),
        (Qual("c", "=", True), 1),
    ],
)
def test_booleans(qual: Qual, flag: int) -> None:
    with FakeServer(models={"fake": TWO}) as server:
        (row,) = rows(make(server, TWO_COLUMNS), Qual("a", "=", 1), Qual("b", "=", "p"), qual, wanted={"s"})
        assert row["s"] == f"1/p/{flag}"


def test_a_fraction_equals_no_integer() -> None:
    with FakeServer(models={"fake": TWO}) as server:
        instance = make(server, TWO_COLUMNS)
        found = rows(instance, Qual("a", ("=", True), [3.5, "4.0", "5"]), Qual("b", "=", "p"), wanted={"s"})
        assert found == [{"s": "4/p/9"}, {"s": "5/p/9"}]
        with fails("22003", 'value out of range for input column "a" (integer)'):
            rows(instance, Qual("a", "=", "3000000000"), Qual("b", "=", "p"))
        with fails("22P02", 'invalid value for input column "a"', "The column takes values of type integer."):
            rows(instance, Qual("a", "=", "many"), Qual("b", "=", "p"))
        found = rows(instance, Qual("a", "=", 1), Qual("b", "=", date(2024, 2, 29)), wanted={"s"})
        assert found == [{"s": "1/2024-02-29/9"}]


ECHO_TYPES = {
    "BOOL": ("boolean", "t", True),
    "INT8": ("smallint", "-128", -128),
    "UINT8": ("smallint", "255", 255),
    "INT64": ("bigint", str(-(2**63)), -(2**63)),
    "UINT64": ("numeric", str(2**64 - 1), 2**64 - 1),
    "FP32": ("real", "0.5", 0.5),
    "FP64": ("double precision", "0.1", 0.1),
    "BYTES": ("text", "héllo", "héllo"),
}


@pytest.mark.parametrize("dtype", ECHO_TYPES)
def test_every_kind_there_and_back(dtype: str) -> None:
    type_, given, expected = ECHO_TYPES[dtype]
    echo = FakeModel((("i", dtype, (-1, 1)),), (("o", dtype, (-1, 1)),), lambda inputs: {"o": inputs["i"]})
    with FakeServer(models={"fake": echo}) as server:
        instance = make(server, columns(("i", type_, {}), ("o", type_, {})))
        assert rows(instance, Qual("i", "=", given), wanted={"o"}) == [{"o": expected}]


@pytest.mark.parametrize("given", [b"\0\xff", "\\x00ff"])
def test_bytea(given: Any) -> None:
    echo = FakeModel((("i", "BYTES", (-1, 1)),), (("o", "BYTES", (-1, 1)),), lambda inputs: {"o": inputs["i"]})
    with FakeServer(models={"fake": echo}) as server:
        instance = make(server, columns(("i", "bytea", {}), ("o", "bytea", {})))
        assert rows(instance, Qual("i", "=", given), wanted={"o"}) == [{"o": b"\0\xff"}]


def test_batches_start_small_grow_and_stay_in_order() -> None:
    with FakeServer() as server:
        values = [str(number) for number in range(1000)]
        found = rows(make(server, batch_size="300"), Qual("x", ("=", True), values), wanted={"y"})
        assert [row["y"] for row in found] == [2.0 * number for number in range(1000)]
        sizes = sorted(request.inputs[0].shape[0] for request in server.requests)
        assert sizes == sorted([64, 256, 300, 300, 80])


def test_batches_are_in_flight_together() -> None:
    with FakeServer("slow") as server:
        qual = Qual("x", ("=", True), ["1", "2", "3", "4", "5"])
        assert [row["y"] for row in rows(make(server, batch_size="1"), qual, wanted={"y"})] == [2, 4, 6, 8, 10]
        assert server.most_running == 4


def test_rows_that_nobody_reads_are_cancelled() -> None:
    with FakeServer("slow") as server:
        scan = make(server, batch_size="1").execute([Qual("x", ("=", True), ["1", "2", "3", "4", "5", "6"])], {"y"})
        assert next(scan) == {"y": 2.0}
        scan.close()
        assert server.calls["ModelInfer"] <= 5
        time.sleep(0.5)
        assert (server.calls["ModelInfer"] <= 5, server.running) == (True, 0)


def test_multicorn_keywords_are_accepted() -> None:
    with FakeServer() as server:
        instance = make(server)
        assert len(rows(instance, Qual("x", "=", 1), sortkeys=[], limit=3, offset=0)) == 1


def test_explain_does_not_look_at_values() -> None:
    with FakeServer() as server:
        instance = make(server)
        lines = list(instance.explain([Qual("x", "=", "?")], {"y"}, verbose=True))
        assert lines == [
            "Model: fake",
            f"Server: 127.0.0.1:{server.port}",
            "Batch Size: 4096",
            "In Flight: 4",
            "Joins: one request per outer row, unless library model_fdw is loaded",
        ]
        assert list(instance.explain([], {"y"}, sortkeys=[], verbose=False))[2] == "Unbound Inputs: x"
        assert server.calls["ModelInfer"] == 0


def test_options_are_checked_by_level() -> None:
    with FakeServer() as server:
        with fails("HV00D", 'invalid option "batchsize"', None, 'Perhaps you meant the option "batch_size".'):
            make(server, batchsize="3")
        with fails(
            "HV00J",
            'option "model" is required for a foreign table of Multicorn',
            "Multicorn does not tell the name of the table.",
            'Set option "model".',
        ):
            fdw.ModelFdw({"url": server.url}, FAKE_COLUMNS)


def test_a_pending_cancel_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    pending = threading.Event()

    def check() -> None:
        if pending.is_set():
            raise errors.Cancelled("canceling statement due to user request")

    monkeypatch.setattr(wrapper, "check_interrupts", check)
    with FakeServer("never-answers") as server:
        threading.Timer(0.2, pending.set).start()
        began_s = time.monotonic()
        with fails("57014", "canceling statement due to user request"):
            rows(make(server), Qual("x", "=", 1))
        assert time.monotonic() - began_s < 0.5


def test_no_interrupts_outside_a_server() -> None:
    wrapper.check_interrupts()


def test_import_schema() -> None:
    models = {"a": replace(FAKE, max_batch_size=7), "b": replace(FAKE, decoupled=True), "c": FAKE}
    with FakeServer(models=models) as server:
        merged = {"url": server.url, "token": "t"}
        tables = fdw.ModelFdw.import_schema("models", merged, {}, None, [])
        assert [(table.name, table.options) for table in tables] == [
            ("a", {"model": "a", "batch_size": "7"}),
            ("c", {"model": "c"}),
        ]
        assert [column.name for column in tables[0].columns] == ["x", "y", "label"]
        assert [t.name for t in fdw.ModelFdw.import_schema("models", merged, {}, "limit", ["c"])] == ["c"]
        assert [t.name for t in fdw.ModelFdw.import_schema("models", merged, {}, "except", ["a"])] == ["c"]
        with pytest.raises(errors.UnknownOption):
            fdw.ModelFdw.import_schema("models", merged, {"zzz": "1"}, None, [])


STUB = """
import sys, types

multicorn = types.ModuleType("multicorn")

class ForeignDataWrapper:
    def __init__(self, options, columns):
        self.seen = dict(options)

class Definition:
    def __init__(self, *args, **kwargs):
        self.args, self.kwargs = args, kwargs

multicorn.ForeignDataWrapper = ForeignDataWrapper
multicorn.ColumnDefinition = multicorn.TableDefinition = Definition
utils = types.ModuleType("multicorn.utils")
notices = []
utils.log_to_postgres = lambda message, level=20, hint=None, detail=None: notices.append(message)
multicorn.utils = utils
sys.modules.update({"multicorn": multicorn, "multicorn.utils": utils})

import fdw
assert issubclass(fdw.ModelFdw, ForeignDataWrapper)
url = sys.argv[1]
assert fdw.ModelFdw({"url": url, "model": "c"}, {}).seen == {"url": url, "model": "c"}
(table,) = fdw.ModelFdw.import_schema("models", {"url": url}, {}, None, [])
assert table.args == ("c",) and table.kwargs["options"] == {"model": "c"}
column = table.kwargs["columns"][0]
assert column.args == ("x",) and column.kwargs["type_name"] == "double precision"
assert notices == ['skipped model "b": model "b" is decoupled, which is not supported']
"""


def test_with_multicorn_installed() -> None:
    with FakeServer(models={"b": replace(FAKE, decoupled=True), "c": FAKE}) as server:
        subprocess.run([sys.executable, "-c", STUB, server.url], check=True)
