"""Models run directly with tritonclient: what SQL must agree with."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import ml_dtypes
import numpy as np
import tritonclient.grpc as triton_client

from dev.servers import default_places

NUMPY = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}

INPUT_TYPES = {
    "BOOL": "boolean",
    "INT8": "smallint",
    "INT16": "smallint",
    "UINT8": "smallint",
    "INT32": "integer",
    "UINT16": "integer",
    "INT64": "bigint",
    "UINT32": "bigint",
    "UINT64": "numeric(20)",
    "FP16": "double precision",
    "FP32": "double precision",
    "FP64": "double precision",
    "BYTES": "text",
}

# How an output is shown so that every bit of it can be compared.
EXACT = {"FP16": "float4send({})", "FP32": "float4send({})", "FP64": "float8send({})"}

Row = tuple[Any, ...]
# tensor name -> dtype and the columns that are its elements
Tensors = Mapping[str, tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class Case:
    """A model, the columns of its foreign table, and rows to ask it about."""

    name: str
    feeds: Tensors
    fetches: Tensors
    rows: Callable[[], list[Row]]
    model: str = ""
    version: str = ""
    batched: bool = True
    scalar_shape: tuple[int, ...] = (1,)
    most_rows: int = 4096
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """The input columns, in the order of the rows' values."""
        return [column for _, columns in self.feeds.values() for column in columns]

    @property
    def types(self) -> list[str]:
        """The input columns' SQL types."""
        return [INPUT_TYPES[dtype] for dtype, columns in self.feeds.values() for _ in columns]

    @property
    def outputs(self) -> list[str]:
        """The output columns."""
        return [column for _, columns in self.fetches.values() for column in columns]

    @property
    def shown(self) -> str:
        """The select list that shows the outputs of alias p bit for bit."""
        return ", ".join(
            EXACT.get(dtype, "{}").format(f'p."{column}"')
            for dtype, columns in self.fetches.values()
            for column in columns
        )

    def matches(self, values: Sequence[str]) -> str:
        """The condition that binds the inputs of alias p to SQL expressions."""
        return " AND ".join(f'p."{column}" = {value}' for column, value in zip(self.columns, values))


def tensor_of(dtype: str, rows: Sequence[Sequence[Any]]) -> np.ndarray:
    """Make an array of a dtype; the values as the wrapper sends them: -0.0 as 0.0, text as UTF-8."""
    if dtype == "BYTES":
        return np.array([[value.encode() for value in row] for row in rows], np.object_)
    with np.errstate(under="ignore"):
        array = np.array([[int(v) if isinstance(v, Decimal) else v for v in row] for row in rows], NUMPY[dtype])
    return array + array.dtype.type(0) if array.dtype.kind == "f" else array


def exact(dtype: str, value: Any) -> Any:
    """Give an answer in the form in which the select list shows it."""
    if dtype in EXACT:
        return np.array(value, ">f8" if dtype == "FP64" else ">f4").tobytes()
    if dtype == "BYTES":
        return value.decode()
    return Decimal(int(value)) if dtype == "UINT64" else value.item()


class Direct:
    """A client of a Triton."""

    def __init__(self, address: str) -> None:
        self.client = triton_client.InferenceServerClient(address)

    def infer(
        self, model: str, inputs: Mapping[str, tuple[str, np.ndarray]], outputs: Sequence[str], version: str = ""
    ) -> list[np.ndarray]:
        """Make one request."""
        tensors = []
        for name, (dtype, array) in inputs.items():
            tensor = triton_client.InferInput(name, list(array.shape), dtype)
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        wanted = [triton_client.InferRequestedOutput(name) for name in outputs]
        result = self.client.infer(model, tensors, version, wanted)
        arrays = [result.as_numpy(name) for name in outputs]
        assert all(array is not None for array in arrays)
        return arrays

    def answers(self, case: Case, rows: Sequence[Row]) -> list[Row]:
        """Ask a case's model about rows; return the outputs of each, in comparable form."""
        step = case.most_rows if case.batched else 1
        return [answer for first in range(0, len(rows), step) for answer in self._ask(case, rows[first : first + step])]

    def _ask(self, case: Case, rows: Sequence[Row]) -> list[Row]:
        inputs, at = {}, 0
        for name, (dtype, columns) in case.feeds.items():
            array = tensor_of(dtype, [row[at : at + len(columns)] for row in rows])
            inputs[name] = (dtype, array if case.batched else array[0])
            at += len(columns)
        arrays = self.infer(case.model or case.name, inputs, list(case.fetches), case.version)
        columns_of_answers: list[list[Any]] = []
        for array, (dtype, columns) in zip(arrays, case.fetches.values()):
            elements = array.reshape(len(rows), len(columns))
            columns_of_answers += [[exact(dtype, value) for value in column] for column in elements.T]
        return list(zip(*columns_of_answers))


# ---- the rows ----


def patients() -> list[Row]:
    with default_places().patients.open(newline="") as file:
        reader = csv.reader(file)
        header = next(reader)
        return [tuple(float(value) for value in row[1 : header.index("diagnosis")]) for row in reader]


def patient_columns() -> list[str]:
    with default_places().patients.open(newline="") as file:
        header = next(csv.reader(file))
    return header[1 : header.index("diagnosis")]


FLOATS = (0.0, -0.0, 1.0, -1.5, 0.1, 1 / 3, 1e-30, 123456.789, 2.0**53 + 1, float("inf"), float("-inf"), float("nan"))


def some_floats(width: int, count: int, special: bool = True) -> Callable[[], list[Row]]:
    """Rows of floats of many magnitudes, some with special values; -0.0 and equal rows among them."""

    def make() -> list[Row]:
        source = random.Random(20)
        rows = [tuple(source.uniform(-1, 1) * 10 ** source.randint(-6, 6) for _ in range(width)) for _ in range(count)]
        if special:
            rows += [tuple(source.choice(FLOATS) for _ in range(width)) for _ in range(count // 4)]
        return [*rows, *rows[:5]]

    return make


def sides() -> list[Row]:
    source = random.Random(21)
    possible = [(3.0, 4.0, 5.0), (1.0, 1.0, 2.0), (100000.0, 99999.99979, 0.00029)]
    return possible + [tuple(source.uniform(0.1, 9) for _ in range(3)) for _ in range(300)]


TEXTS = [
    "",
    " ",
    "What a lovely surprise, thank you!",
    "Cold soup and rude waiters.",
    "Grüße aus Köln, das war schön",
    "素晴らしい",
    "🎉" * 50,
    "a" * 20_000,
    "quote ' and \" and \\ and %s and \t and \n",
    "i love it, i hate it",
]


def texts() -> list[Row]:
    source = random.Random(22)
    words = ["good", "bad", "great", "awful", "lovely", "rude", "never", "always", "the", "a", "not"]
    return [(text,) for text in TEXTS] + [(" ".join(source.choices(words, k=6)),) for _ in range(200)]


def loans() -> list[Row]:
    source = random.Random(23)
    return [
        (
            source.choice([0.0, source.uniform(0, 150_000)]),
            source.choice([17, 18, source.randint(-(2**31), 2**31 - 1), source.randint(0, 99)]),
            source.random() < 0.5,
            source.choice(["house", "car", "education", "boat", "", "häuschen"]),
            source.choice([0, 2**62, source.randint(0, 100_000)]),
        )
        for _ in range(400)
    ]


ECHO = {
    "bool": "BOOL",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "fp16": "FP16",
    "fp32": "FP32",
    "fp64": "FP64",
    "bytes": "BYTES",
}

LARGEST = {"FP16": 65504.0, "FP32": float(np.finfo(np.float32).max), "FP64": float(np.finfo(np.float64).max)}
SMALLEST = {"FP16": 2.0**-24, "FP32": 2.0**-149, "FP64": 2.0**-1074}


def extremes(dtype: str) -> list[Any]:
    """The values of a dtype where mistakes happen."""
    if dtype == "BOOL":
        return [True, False]
    if dtype == "BYTES":
        return TEXTS
    if dtype in LARGEST:
        largest, smallest = LARGEST[dtype], SMALLEST[dtype]
        return [largest, -largest, smallest, -smallest, smallest / 4 or 0.0, *FLOATS[:8], *FLOATS[9:]]
    limits = np.iinfo(NUMPY[dtype])
    values = [limits.min, limits.max, 0, 1, limits.min + 1, limits.max - 1, limits.max // 2, limits.max // 2 + 1]
    return [Decimal(value) for value in values] if dtype == "UINT64" else values


def echo_rows() -> list[Row]:
    source = random.Random(24)
    values = {name: extremes(dtype) for name, dtype in ECHO.items()}
    # FP16 holds no 123456.789.
    values["fp16"] = [value for value in values["fp16"] if not 65504 < abs(value) < float("inf")]
    rows = [tuple(values[name][number % len(values[name])] for name in ECHO) for number in range(26)]
    return rows + [tuple(source.choice(values[name]) for name in ECHO) for _ in range(300)]


ECHO_FEEDS = {f"in_{name}": (dtype, [f"in_{name}"]) for name, dtype in ECHO.items()}
ECHO_FETCHES = {f"out_{name}": (dtype, [f"out_{name}"]) for name, dtype in ECHO.items()}
X: Tensors = {"x": ("FP64", ["x"])}
Y: Tensors = {"y": ("FP64", ["y"])}

CASES = [
    Case(
        "breast_cancer",
        {"features": ("FP32", patient_columns())},
        {"probabilities": ("FP32", ["malignant", "benign"])},
        patients,
    ),
    Case(
        "sum10",
        {"x": ("FP32", [f"f{n}" for n in range(1, 11)])},
        {"total": ("FP32", ["total"])},
        some_floats(10, 5000),
    ),
    Case(
        "sentiment", {"text": ("BYTES", ["text"])}, {"label": ("BYTES", ["label"]), "score": ("FP32", ["score"])}, texts
    ),
    Case("discount", {"price": ("FP64", ["price"])}, {"discounted": ("FP64", ["discounted"])}, some_floats(1, 200)),
    Case(
        "discount_1",
        {"price": ("FP64", ["price"])},
        {"discounted": ("FP64", ["discounted"])},
        some_floats(1, 200),
        model="discount",
        version="1",
    ),
    Case(
        "discount_2",
        {"price": ("FP64", ["price"])},
        {"discounted": ("FP64", ["discounted"])},
        some_floats(1, 200),
        model="discount",
        version="2",
    ),
    Case("triangle", {"sides": ("FP64", ["a", "b", "c"])}, {"area": ("FP64", ["area"])}, sides),
    Case(
        "loan",
        {
            "income": ("FP64", ["income"]),
            "age": ("INT32", ["age"]),
            "employed": ("BOOL", ["employed"]),
            "purpose": ("BYTES", ["purpose"]),
            "debts": ("INT64", ["debts"]),
        },
        {"approved": ("BOOL", ["approved"]), "rate": ("FP32", ["rate"]), "reason": ("BYTES", ["reason"])},
        loans,
    ),
    Case(
        "affine",
        {"a": ("FP64", ["a"]), "b": ("FP64", ["b"])},
        {"s": ("FP64", ["s"]), "d": ("FP64", ["d"])},
        some_floats(2, 400),
    ),
    Case("chain", {"s": ("FP64", ["s"])}, {"t": ("INT64", ["t"])}, some_floats(1, 300, special=False)),
    Case("echo", ECHO_FEEDS, ECHO_FETCHES, echo_rows),
    Case("optional", {**X, "bias": ("FP64", ["bias"])}, Y, some_floats(2, 100)),
    Case("optional_unbound", X, Y, some_floats(1, 100), model="optional"),
    Case("small_batch", X, Y, some_floats(1, 100), most_rows=8),
    Case("no_batch", {"x": ("FP64", ["x_1", "x_2", "x_3"])}, Y, some_floats(3, 40), batched=False),
    Case("clash", {"value": ("FP64", ["value"])}, {"value": ("FP64", ["value_output"])}, some_floats(1, 100)),
    Case("broken", X, Y, lambda: [(value,) for value in (0.0, 1.0, 2.0, 0.25, 1e300, float("inf"))]),
    Case("slow", X, Y, lambda: [(1.0,), (2.0,), (3.0,)]),
]
