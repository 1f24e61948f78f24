"""Every dtype in every form of column, each way, gives what the model gives when it is asked directly, bit for bit.

The model "tensors" returns what it was sent, and shows the bytes that reached it: so the way there and the way back
are compared with tritonclient's each by itself.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from typing import Any

import numpy as np
import psycopg
import pytest
from conftest import Database
from direct import NUMPY, Direct
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Connection = psycopg.Connection[Any]

# What the values of one example are asked for by scans, one request each.
SCANNED_ROWS = 3


@dataclass(frozen=True)
class Element:
    """One element of a tensor in SQL: its dtype, the types of an input and of an output."""

    dtype: str
    input: str
    output: str

    @property
    def tensor(self) -> str:
        """How the model's tensors of the dtype are called."""
        return self.dtype.lower()

    def values(self) -> st.SearchStrategy[Any]:
        """Draw values of the dtype, extreme ones among them."""
        if self.dtype == "BOOL":
            return st.booleans()
        if self.dtype == "BYTES":
            return st.binary(max_size=9) if self.input == "bytea" else texts(9)
        if self.dtype == "BF16":
            finite = st.floats(-(2.0**127), 2.0**127, width=32)
            return finite | st.sampled_from([math.inf, -math.inf, math.nan])
        if self.dtype in FLOAT_BITS:
            return st.floats(width=FLOAT_BITS[self.dtype]).map(one_nan)
        limits = np.iinfo(NUMPY[self.dtype])
        values = st.integers(int(limits.min), int(limits.max)) | st.sampled_from([int(limits.min), int(limits.max)])
        return values.map(Decimal) if self.dtype == "UINT64" else values


FLOAT_BITS: dict[str, Any] = {"FP16": 16, "FP32": 32, "FP64": 64}
FLOATS = (*FLOAT_BITS, "BF16")

ELEMENTS = {
    **{element.tensor: element for element in [
        Element("BOOL", "boolean", "boolean"),
        Element("INT8", "smallint", "smallint"),
        Element("INT16", "smallint", "smallint"),
        Element("INT32", "integer", "integer"),
        Element("INT64", "bigint", "bigint"),
        Element("UINT8", "smallint", "smallint"),
        Element("UINT16", "integer", "integer"),
        Element("UINT32", "bigint", "bigint"),
        Element("UINT64", "numeric", "numeric"),
        Element("FP16", "real", "real"),
        Element("BF16", "real", "real"),
        Element("FP32", "real", "real"),
        Element("FP64", "double precision", "double precision"),
        Element("BYTES", "text", "text"),
    ]},
    "fp16, double": Element("FP16", "double precision", "double precision"),
    "bf16, double": Element("BF16", "double precision", "double precision"),
    "fp32, double": Element("FP32", "double precision", "double precision"),
    "bytea": Element("BYTES", "bytea", "bytea"),
}  # fmt: skip


def one_nan(value: float) -> float:
    """Keep to one of the many NaN: on the way from Python to SQL a signalling one may change."""
    return math.nan if math.isnan(value) else value


def texts(size: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=size)


# ---- the forms of columns ----


@dataclass(frozen=True)
class Form:
    """How a table shows a tensor. ``shape`` names the model's tensors of that shape; ``width`` is the columns'."""

    shape: str
    array: bool
    width: int = 1

    def columns(self, element: Element) -> list[str]:
        """Write the definitions of the columns: the inputs, then the outputs, then what the model saw."""
        suffix = "[]" if self.array else ""
        defined = []
        for side, type_ in (("in", element.input), ("out", element.output)):
            for number in range(1, self.width + 1):
                index = f", index '{number}'" if self.width > 1 else ""
                tie = f"{side}put '{side}_{element.tensor}_{self.shape}'{index}"
                defined.append(f"{side}{number} {type_}{suffix} OPTIONS ({tie})")
        return [*defined, "seen text OPTIONS (output 'seen')"]

    def rows(self, element: Element) -> st.SearchStrategy[list[Any]]:
        """Draw rows: a value per column, arrays as nested lists."""
        values = element.values()
        rows = {
            "scalar": values.map(lambda value: [value]),
            "triple": st.lists(values, min_size=3, max_size=3),
            "vector": st.lists(values, max_size=4).map(lambda value: [value]),
            "matrix": matrices(values).map(lambda value: [value]),
        }[self.shape]
        return st.lists(rows, min_size=1, max_size=6)


def matrices(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[list[Any]]]:
    sizes = st.tuples(st.integers(1, 3), st.integers(1, 3)) | st.just((0, 0))
    return sizes.flatmap(
        lambda size: st.lists(st.lists(values, min_size=size[1], max_size=size[1]), min_size=size[0], max_size=size[0])
    )


FORMS = {
    "scalar": Form("scalar", array=False),
    "index": Form("triple", array=False, width=3),
    "vector": Form("vector", array=True),
    "matrix": Form("matrix", array=True),
}

ROLES = ("input", "output")
QUERIES = ("scan", "join")


# ---- comparison ----


def exact(value: Any) -> Any:
    """Give a value in a form in which every bit of it counts."""
    if isinstance(value, list):
        return [exact(item) for item in value]
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else struct.pack("<d", value)
    return value


class Directly:
    """What tritonclient says about rows of a form."""

    def __init__(self, client: Direct, element: Element, form: Form) -> None:
        self.client, self.element, self.form = client, element, form

    def answers(self, row: Sequence[Any]) -> tuple[list[Any], str]:
        """Give the output columns of a row, and what the model saw."""
        element, form = self.element, self.form
        array = self.tensor(row if form.width > 1 else row[0])
        if not form.array and element.dtype in FLOATS:
            array = array + array.dtype.type(0)  # the one thing that is altered: -0.0
        name = f"{element.tensor}_{form.shape}"
        inputs = {f"in_{name}": (element.dtype, array[np.newaxis])}
        output, seen = self.client.infer("tensors", inputs, [f"out_{name}", "seen"])
        values = self.values(output[0].tolist())
        return values if not form.array else [values], seen[0, 0].decode()

    def tensor(self, value: Any) -> np.ndarray:
        """Make the array of one row."""
        dtype = NUMPY[self.element.dtype]
        if self.element.dtype == "BYTES":
            encode = np.vectorize(lambda item: item.encode() if isinstance(item, str) else item, [np.object_])
            value = np.array(value, np.object_)
            value = encode(value) if value.size else value
        elif self.element.dtype == "UINT64":
            value = np.array(value, np.object_)
            value = value.astype(np.uint64) if value.size else value
        array = np.array(value, dtype)
        if self.form.shape == "scalar":
            return array.reshape(1)
        return array.reshape((0, 0)) if self.form.shape == "matrix" and not array.size else array

    def values(self, value: Any) -> Any:
        """Turn an answer into what SQL shows of it."""
        if isinstance(value, list):
            # PostgreSQL's empty arrays have no dimensions.
            found = [self.values(item) for item in value]
            return found if found != [[]] * len(found) else []
        if self.element.dtype == "BYTES":
            return value if self.element.output == "bytea" else value.decode()
        return Decimal(value) if self.element.dtype == "UINT64" else value


# ---- the matrix ----

covered: set[tuple[str, str, str, str]] = set()


@pytest.fixture(scope="module")
def direct(database: Database) -> Direct:
    return Direct(database.triton.grpc)


def make_tables(connection: Connection, element: Element, form: Form) -> None:
    connection.execute("SET client_min_messages = warning")
    connection.execute("DROP FOREIGN TABLE IF EXISTS t")
    connection.execute("DROP TABLE IF EXISTS v")
    options = "SERVER triton OPTIONS (model 'tensors', batch_size '4')"
    connection.execute(f"CREATE FOREIGN TABLE t ({', '.join(form.columns(element))}) {options}".encode())
    types = ", ".join(f"in{number} {type_}" for number, type_ in enumerate(column_types(element, form), start=1))
    connection.execute(f"CREATE TABLE v (id integer, {types})".encode())


def column_types(element: Element, form: Form) -> list[str]:
    return [element.input + ("[]" if form.array else "")] * form.width


def fill(connection: Connection, element: Element, form: Form, rows: Sequence[Sequence[Any]]) -> None:
    """Load the rows without a detour over text."""
    connection.execute("TRUNCATE v")
    with connection.cursor().copy("COPY v FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["integer", *column_types(element, form)])
        for number, row in enumerate(rows):
            copy.write_row((number, *row))


def queries(form: Form, role: str, rows: int) -> Iterator[tuple[str, str, int]]:
    """Give the cells' statements: kind of query, SQL, and which row it is about (-1: all, by id)."""
    columns = [f"out{number}" for number in range(1, form.width + 1)] if role == "output" else ["seen"]
    inputs = [f"in{number}" for number in range(1, form.width + 1)]
    shown = ", ".join(f"t.{column}" for column in columns)
    for number in range(min(rows, SCANNED_ROWS)):
        values = " AND ".join(f"t.{name} = (SELECT {name} FROM v WHERE id = {number})" for name in inputs)
        yield "scan", f"SELECT {number}, {shown} FROM t WHERE {values}", number
    yield "join", f"SELECT id, {shown} FROM v JOIN t USING ({', '.join(inputs)}) ORDER BY id", -1


def copied(connection: Connection, sql: str, types: Sequence[str]) -> list[list[Any]]:
    """Run a query by COPY TO in binary format."""
    with connection.cursor().copy(f"COPY ({sql}) TO STDOUT (FORMAT binary)".encode()) as copy:
        copy.set_types(["integer", *types])
        return [list(row) for row in copy.rows()]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("element", ELEMENTS)
def test_matrix(connection: Connection, direct: Direct, element: str, form: str) -> None:
    described, shown = ELEMENTS[element], FORMS[form]
    make_tables(connection, described, shown)
    reference = Directly(direct, described, shown)

    @settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(shown.rows(described))
    def check(rows: list[list[Any]]) -> None:
        fill(connection, described, shown, rows)
        answers = [reference.answers(row) for row in rows]
        for role in ROLES:
            for query, sql, number in queries(shown, role, len(rows)):
                expected = [
                    exact([id_, *outputs] if role == "output" else [id_, seen])
                    for id_, (outputs, seen) in enumerate(answers)
                    if number in (-1, id_)
                ]
                with connection.cursor(binary=True) as cursor:
                    found = [exact(list(row)) for row in cursor.execute(sql.encode()).fetchall()]
                assert found == expected, sql
                types = [described.output + ("[]" if shown.array else "")] * shown.width
                types = types if role == "output" else ["text"]
                assert [exact(row) for row in copied(connection, sql, types)] == expected, f"COPY: {sql}"
                covered.add((element, form, role, query))

    check()


def test_the_matrix_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\ncells of the matrix (dtype and type, form, role, query), each by SELECT and COPY: {len(covered)}")
    assert not covered or covered == set(product(ELEMENTS, FORMS, ROLES, QUERIES))
