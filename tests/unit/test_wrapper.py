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
    """Scan, and keep of each row what is wanted."""
    wanted = wanted or {"x", "y", "label"}
    scanned = instance.execute(list(quals), wanted, **keywords)
    return [{name: value for name, value in row.items() if name in wanted} for row in scanned]


def test_a_constant() -> None:
    with FakeServer() as server:
        # float8 constants come as text, numeric ones as float, int4 ones as int.
        for value in ("1.5", 1.5):
            assert rows(make(server), Qual("x", "=", value)) == [{"x": value, "y": 3.0, "label": "x=1.5"}]
        assert rows(make(server), Qual("x", "=", 2), wanted={"y"}) == [{"y": 4.0}]


def test_every_column_is_shown() -> None:
    """Multicorn leaves a whole row out of the columns that it says are read."""
    with FakeServer() as server:
        for wanted in (set(), {"label"}, {"x"}):
            row = {"x": 2, "y": 4.0, "label": "x=2"}
            assert list(make(server).execute([Qual("x", "=", 2)], wanted)) == [row]
        assert {output.name for request in server.requests for output in request.outputs} == {"y", "label"}


@pytest.mark.parametrize(
    ("type_", "values", "shown"),
    [
        ("integer", [0.5, 1.5, -2.5, 7.0], [0, 2, -2, 7]),
        ("numeric", [0.1, 1 / 3, 1e20], ["0.1", "0.333333333333333", "1e+20"]),
        ("real", [0.1, 1 / 3], [0.1, 1 / 3]),
    ],
)
def test_floats_for_other_types(type_: str, values: list[float], shown: list[Any]) -> None:
    """As PostgreSQL's casts have them, of which Multicorn uses none."""
    echo = FakeModel((("i", "FP64", (-1, 1)),), (("o", "FP64", (-1, 1)),), lambda inputs: {"o": inputs["i"]})
    with FakeServer(models={"fake": echo}) as server:
        instance = make(server, columns(("i", "double precision", {}), ("o", type_, {})))
        assert rows(instance, Qual("i", ("=", True), values), wanted={"o"}) == [{"o": value} for value in shown]


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


LOAD = "Load library model_fdw, for instance with session_preload_libraries."


@pytest.mark.parametrize("value", ["6.9e-310", 1234])
def test_a_list_that_is_none_is_refused(value: object) -> None:
    """Multicorn takes the type of the elements for that of an array that is computed."""
    with (
        FakeServer() as server,
        fails(
            "0A000",
            'cannot read the list for input column "x"',
            "Multicorn hands over only lists that are a constant, a parameter or a subquery's.",
            LOAD,
        ),
    ):
        rows(make(server), Qual("x", ("=", True), value))


def test_a_numeric_that_lost_digits_is_refused() -> None:
    echo = FakeModel((("i", "UINT64", (-1, 1)),), (("o", "UINT64", (-1, 1)),), lambda inputs: {"o": inputs["i"]})
    with FakeServer(models={"fake": echo}) as server:
        instance = make(server, columns(("i", "numeric", {}), ("o", "numeric", {})))
        assert rows(instance, Qual("i", "=", 123456789012345.0), wanted={"o"}) == [{"o": 123456789012345}]
        with fails("0A000", *LOST_DIGITS, LOAD):
            rows(instance, Qual("i", "=", 2.0**60))


LOST_DIGITS = (
    'cannot read the value of input column "i"',
    "Multicorn hands a numeric over as double precision, which is exact to 15 digits only.",
)


def test_a_numeric_for_a_float_that_lost_digits_is_refused() -> None:
    echo = FakeModel((("i", "FP64", (-1, 1)),), (("o", "FP64", (-1, 1)),), lambda inputs: {"o": inputs["i"]})
    with FakeServer(models={"fake": echo}) as server:
        numeric = make(server, columns(("i", "numeric", {}), ("o", "double precision", {})))
        assert rows(numeric, Qual("i", "=", 0.123456789012345), wanted={"o"}) == [{"o": 0.123456789012345}]
        with fails("0A000", *LOST_DIGITS, LOAD):
            rows(numeric, Qual("i", "=", 0.12345678901234568))
        double = make(server, columns(("i", "double precision", {}), ("o", "double precision", {})))
        assert rows(double, Qual("i", "=", 0.12345678901234568), wanted={"o"}) == [{"o": 0.12345678901234568}]


def test_lookups_leave_out_what_constants_give() -> None:
    with FakeServer(models={"fake": TWO}) as server:
        instance = make(server, TWO_COLUMNS)
        every, required = ("a", "b", "c"), ("a", "b")
        instance.begin(False)
        assert instance.get_path_keys() == [(every, 1), (required, 2)]
        listed = [Qual("a", ("=", True), [1, 2])]
        instance.get_rel_size(listed, {"a", "s"})
        assert instance.get_path_keys() == [(every, 1), (required, 2), (("b", "c"), 1), (("b",), 2)]
        # another scan of the same table in the same query, for which nothing is given
        instance.get_rel_size([], {"a", "s"})
        assert instance.get_path_keys() == [(every, 1), (required, 2)]
        # the next query
        list(instance.explain(listed, {"s"}))
        instance.get_rel_size([*listed, Qual("b", "=", "p"), Qual("c", "=", "t")], {"s"})
        assert instance.get_path_keys() == [], "nothing is left to look up"


@pytest.mark.parametrize(("version", "safe"), [(None, True), (140019, False), (150004, False), (160000, True)])
def test_joins_that_multicorn_gets_wrong_are_refused(
    monkeypatch: pytest.MonkeyPatch, version: int | None, safe: bool
) -> None:
    monkeypatch.setattr(wrapper, "server_version", lambda: version)
    with FakeServer() as server:
        instance = make(server)
        assert instance.get_path_keys() == ([(("x",), 1)] if safe else [])
        detail = (
            None
            if safe
            else "Other tables give it a value only where library model_fdw is loaded: before PostgreSQL 16, Multicorn "
            "by itself would lose the other conditions of such a join."
        )
        with fails(UNBOUND[0], UNBOUND[1], detail, UNBOUND[3]):
            rows(instance)


def left_open(instance: wrapper.ModelFdw) -> Any:
    """Begin a scan, which sends four requests, and read one row, as before an error elsewhere in the query."""
    scan = instance.execute([Qual("x", ("=", True), ["1", "2", "3", "4", "5", "6"])], {"y"})
    assert next(scan)["y"] == 2.0
    return scan


def test_what_an_error_leaves_open_ends_with_the_transaction() -> None:
    with FakeServer("slow") as server:
        instance = make(server, batch_size="1")
        instance.begin(False)
        outer = left_open(instance)
        instance.sub_begin(2)
        inner = left_open(instance)
        kept = left_open(instance)
        assert len(instance._open) == 3
        instance.sub_rollback(2)
        assert list(instance._open.values()) == [1]
        assert next(outer)["y"] == 4.0, "that of the transaction goes on"
        instance.sub_begin(2)
        last = left_open(instance)
        instance.sub_commit(2)
        assert list(instance._open.values()) == [1, 1]
        instance.rollback()
        assert instance._open == {}
        time.sleep(0.5)
        assert server.running == 0
        for scan in (outer, inner, kept, last):
            scan.close()


def test_threads_block_signals() -> None:
    """PostgreSQL's signal handlers must not run in threads that gRPC makes."""
    with FakeServer() as server:
        script = (
            "import os, sys, signal, threading\n"
            "os.environ['OPENBLAS_NUM_THREADS'] = '1'  # the test imports numpy before the wrapper does\n"
            "sys.path[:0] = sys.argv[2:]\n"
            "import fdw\n"
            "from test_wrapper import FAKE_COLUMNS, Qual\n"
            "main = threading.get_native_id()\n"
            "table = fdw.ModelFdw({'model': 'fake', 'url': sys.argv[1]}, FAKE_COLUMNS)\n"
            "assert [row['y'] for row in table.execute([Qual('x', '=', '1')], {'y'})] == [2.0]\n"
            "assert not signal.pthread_sigmask(signal.SIG_BLOCK, []), 'blocked in the main thread'\n"
            "import pathlib\n"
            "others = [t for t in pathlib.Path('/proc/self/task').iterdir() if t.name != str(main)]\n"
            "assert others\n"
            "for task in others:\n"
            "    try:\n"
            "        text = (task / 'status').read_text()\n"
            "    except OSError:\n"
            "        continue  # it has ended meanwhile\n"
            "    status = dict(line.split(':', 1) for line in text.splitlines())\n"
            "    blocked = int(status['SigBlk'], 16)\n"
            "    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM, signal.SIGHUP):\n"
            "        assert blocked >> (number - 1) & 1, (task.name, number)\n"
        )
        subprocess.run([sys.executable, "-c", script, server.url, *sys.path], check=True)


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


ARRAY_TYPES = {
    "FP32": ("real[]", -1, [[0.5, -1.0], [], [2.0]]),
    "INT64": ("bigint[]", -1, [[2**63 - 1], [1, 2]]),
    "BYTES": ("text[]", 2, [["héllo", ""], ["a", "b"]]),
}


@pytest.mark.parametrize("dtype", ARRAY_TYPES)
def test_arrays_there_and_back(dtype: str) -> None:
    type_, length, values = ARRAY_TYPES[dtype]
    shape = (-1, length)
    echo = FakeModel((("i", dtype, shape),), (("o", dtype, shape),), lambda inputs: {"o": inputs["i"]})
    with FakeServer(models={"fake": echo}) as server:
        instance = make(server, columns(("i", type_, {}), ("o", type_, {})))
        for value in values:
            assert rows(instance, Qual("i", "=", value), wanted={"i", "o"}) == [{"i": value, "o": value}]


def test_matrices_there_and_back() -> None:
    echo = FakeModel((("i", "FP64", (-1, -1, 2)),), (("o", "FP64", (-1, -1, 2)),), lambda inputs: {"o": inputs["i"]})
    with FakeServer(models={"fake": echo}) as server:
        instance = make(server, columns(("i", "double precision[]", {}), ("o", "double precision[]", {})))
        value = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
        assert rows(instance, Qual("i", "=", value), wanted={"o"}) == [{"o": value}]
        with fails(
            "2202E", 'array does not fit input column "i"', 'The array has shape [1,1]; tensor "i" takes [-1,2].'
        ):
            rows(instance, Qual("i", "=", [[1.0]]), wanted={"o"})
        with fails("22004", 'array for input column "i" contains a NULL element'):
            rows(instance, Qual("i", "=", [[1.0, None]]), wanted={"o"})
        with fails(
            "22P02", 'invalid value for input column "i"', "The column takes values of type double precision[]."
        ):
            rows(instance, Qual("i", "=", "1"), wanted={"o"})


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
        assert next(scan)["y"] == 2.0
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
            "Requests: one per outer row; for batches load library model_fdw",
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
