from __future__ import annotations

from typing import Any

import pytest
from helpers import ColumnText, fails, table

from fdw import options, signature
from fdw.signature import Model, TensorSpec

MODEL = Model(
    "churn",
    "",
    inputs=(
        TensorSpec("v", "FP32", (-1, 3)),
        TensorSpec("n", "INT32", (-1, 1)),
        TensorSpec("both", "INT64", (-1,)),
        TensorSpec("maybe", "BYTES", (-1, 1), optional=True),
    ),
    outputs=(
        TensorSpec("both", "INT64", (-1,)),
        TensorSpec("p", "FP32", (-1, 2)),
        TensorSpec("m", "FP32", (-1, 2, 2)),
        TensorSpec("deep", "FP32", (-1, 1, 1, 1, 1, 1, 1, 2)),
    ),
    batched=True,
    max_batch_size=8,
)

V = [(f"v{number}", "double precision", {"input": "v", "index": str(number)}) for number in (1, 2, 3)]
N = ("n", "integer", {})
BOTH = ("b", "bigint", {"input": "both"})
P2 = ("p2", "real", {"output": "p", "index": "2"})
GOOD = (*V, N, BOTH, P2)


def read(*columns: ColumnText) -> options.Table:
    return options.read_table(table(*columns, model="churn"))


def plan(*columns: ColumnText, bound: list[int] | None = None, wanted: list[int] | None = None) -> signature.Plan:
    return signature.plan(read(*columns), MODEL, [1, 2, 3, 4, 5] if bound is None else bound, wanted or [])


@pytest.mark.parametrize(
    ("dtype", "input_type", "output_type"),
    [
        ("BOOL", "boolean", "boolean"),
        ("INT8", "smallint", "smallint"),
        ("INT16", "smallint", "smallint"),
        ("UINT8", "smallint", "smallint"),
        ("INT32", "integer", "integer"),
        ("UINT16", "integer", "integer"),
        ("INT64", "bigint", "bigint"),
        ("UINT32", "bigint", "bigint"),
        ("UINT64", "numeric(20)", "numeric(20)"),
        ("FP16", "double precision", "real"),
        ("BF16", "double precision", "real"),
        ("FP32", "double precision", "real"),
        ("FP64", "double precision", "double precision"),
        ("BYTES", "text", "text"),
    ],
)
def test_natural_types(dtype: str, input_type: str, output_type: str) -> None:
    assert signature.sql_type(dtype, "i") == input_type
    assert signature.sql_type(dtype, "o") == output_type
    assert signature.sql_type(dtype, "i", array=True) == f"{input_type.removesuffix('(20)')}[]"
    assert signature.sql_type(dtype, "o", array=True) == f"{output_type.removesuffix('(20)')}[]"


def test_every_dtype_has_a_type() -> None:
    assert set(signature.DTYPES) == set(options.DTYPES)


def test_bytes_of_a_bytea_column() -> None:
    assert signature.kind_of("BYTES", "i", "bytea") == "b"
    assert signature.kind_of("BYTES", "o", "text") == "s"


@pytest.mark.parametrize(
    ("dtype", "role", "column_type", "kind"),
    [
        ("FP32", "i", "double precision[]", "[d"),
        ("FP32", "i", "real[]", "[f"),
        ("FP64", "i", "real[]", "[f"),
        ("FP32", "i", "numeric[]", "[d"),
        ("FP32", "i", "vector", "[f"),
        ("FP64", "i", "vector", "[f"),
        ("FP32", "o", "real[]", "[f"),
        ("FP16", "o", "double precision[]", "[d"),
        ("FP32", "o", "vector", "[f"),
        ("FP64", "o", "real[]", "[d"),
        ("BYTES", "i", "bytea[]", "[b"),
        ("BYTES", "o", "text[]", "[s"),
        ("UINT64", "o", "numeric[]", "[Q"),
        ("BOOL", "i", "boolean[]", "[?"),
    ],
)
def test_arrays_of_floats_cross_as_the_column_has_them(dtype: str, role: str, column_type: str, kind: str) -> None:
    assert signature.array_kind_of(dtype, role, column_type) == kind


@pytest.mark.parametrize(
    ("shape", "options_", "column_type", "kind"),
    [
        ("[-1,3]", {}, "real[]", "[f"),
        ("[-1,3]", {}, "vector", "[f"),
        ("[-1,3]", {"index": "1"}, "real", "d"),
        ("[-1,-1]", {}, "real[]", "[f"),
        ("[-1,2,2]", {}, "real[]", "[f"),
        ("[-1,1]", {}, "real", "d"),
        ("[-1,1]", {}, "real[]", "[f"),
        ("[-1]", {}, "real", "d"),
        ("[-1]", {}, "real[]", "d"),
        ("[3]", {}, "real[]", "[f"),
        ("[1]", {}, "real", "d"),
    ],
)
def test_what_is_an_array(shape: str, options_: dict[str, str], column_type: str, kind: str) -> None:
    """A described table and the model itself say the same."""
    described = read(("v", column_type, {"input": "v", "dtype": "FP32", "shape": shape, **options_}))
    dimensions = described.columns[0].options.shape
    assert dimensions is not None
    spec = TensorSpec("v", "FP32", dimensions)
    model = Model("m", "", (spec,), (), signature.is_batched(0, [spec]), 0)
    assert [slot.kind for slot in signature.describe(described, None)] == [kind]
    assert [slot.kind for slot in signature.describe(described, model)] == [kind]


@pytest.mark.parametrize(
    ("max_batch_size", "shapes", "batched"),
    [
        (8, [(-1, 3), (-1, 1)], True),
        (0, [(-1, 3), (-1,)], True),
        (0, [(3,), (1,)], False),
        (0, [(-1,), (1,)], False),
        (0, [(), (-1,)], False),
    ],
)
def test_batch_dimension(max_batch_size: int, shapes: list[tuple[int, ...]], batched: bool) -> None:
    specs = [TensorSpec("t", "FP32", shape) for shape in shapes]
    assert signature.is_batched(max_batch_size, specs) is batched


def test_columns_are_tied_by_option_or_by_name() -> None:
    slots = signature.describe(read(*GOOD), MODEL)
    assert [(s.attnum, s.role, s.tensor, s.index, s.kind, s.optional) for s in slots] == [
        (1, "i", "v", 1, "d", False),
        (2, "i", "v", 2, "d", False),
        (3, "i", "v", 3, "d", False),
        (4, "i", "n", None, "i", False),
        (5, "i", "both", None, "q", False),
        (6, "o", "p", 2, "f", False),
    ]


def test_a_described_table_needs_no_model() -> None:
    described = read(
        ("a", "double precision", {"input": "v", "dtype": "FP32", "shape": "[-1,3]", "index": "1"}),
        ("t", "bytea", {"input": "maybe", "dtype": "BYTES", "shape": "[-1,1]", "optional": "true"}),
        ("p", "real", {"output": "p", "dtype": "FP32", "shape": "[-1,2]", "index": "2"}),
    )
    assert signature.is_self_described(described)
    slots = signature.describe(described, None)
    assert [(s.role, s.tensor, s.kind, s.optional) for s in slots] == [
        ("i", "v", "d", False),
        ("i", "maybe", "b", True),
        ("o", "p", "f", False),
    ]
    assert not signature.is_self_described(read(*GOOD))


WRONG: list[tuple[ColumnText, str, str, str, str | None]] = [
    (
        ("zzz", "text", {}),
        "HV005",
        'column "zzz" of foreign table "t" matches no tensor of model "churn"',
        'The model\'s input tensors are: "v", "n", "both", "maybe"; its output tensors are: "both", "p", "m", "deep".',
        'Set column option "input" or "output" to a tensor\'s name.',
    ),
    (
        ("x", "text", {"input": "p"}),
        "HV005",
        'model "churn" has no input tensor "p"',
        'Option "input" of column "x" names it.',
        'The model\'s input tensors are: "v", "n", "both", "maybe".',
    ),
    (
        ("both", "bigint", {}),
        "HV005",
        'column "both" of foreign table "t" is ambiguous',
        'Model "churn" has both an input and an output tensor of this name.',
        'Set column option "input" or "output".',
    ),
    (
        ("n", "integer", {"dtype": "INT64", "shape": "[-1]"}),
        "HV004",
        'column "n" of foreign table "t" does not match model "churn"',
        'The column declares dtype INT64 and shape [-1]; input tensor "n" has dtype INT32 and shape [-1,1].',
        "\"SELECT * FROM model_fdw_check('public.t')\" shows what differs, and the statements that cure it.",
    ),
    (
        ("v", "double precision", {"index": "4"}),
        "HV005",
        'option "index" of column "v" of foreign table "t" is out of range',
        'The input tensor "v" of model "churn" has shape [3] per row.',
        "Valid values are between 1 and 3.",
    ),
    (
        ("deep", "real[]", {}),
        "0A000",
        'column "deep" of foreign table "t" is tied to a tensor that has too many dimensions',
        'The output tensor "deep" of model "churn" has shape [1,1,1,1,1,1,2] per row; '
        "an array has at most 6 dimensions.",
        None,
    ),
    (
        ("m", "real", {"index": "1"}),
        "0A000",
        'option "index" of column "m" of foreign table "t" picks from a tensor that is no vector',
        'The output tensor "m" of model "churn" has shape [2,2] per row.',
        None,
    ),
]


@pytest.mark.parametrize(("column", "sqlstate", "message", "detail", "hint"), WRONG, ids=[w[2] for w in WRONG])
def test_columns_that_do_not_fit(
    column: ColumnText, sqlstate: str, message: str, detail: str, hint: str | None
) -> None:
    with fails(sqlstate, message, detail, hint):
        signature.describe(read(column), MODEL)


def test_decoupled_and_sequence_models_are_refused() -> None:
    for change, word in (({"decoupled": True}, "is decoupled"), ({"sequence": True}, "is a sequence model")):
        changed: Any = {**vars(MODEL), **change}
        with pytest.raises(signature.Unsupported) as caught:
            signature.describe(read(N), Model(**changed))
        assert caught.value.sqlstate == "0A000"
        assert caught.value.message == f'model "churn" {word}, which is not supported'


def test_plan_lays_a_vector_out_in_order_of_index() -> None:
    made = plan(*GOOD, bound=[3, 5, 1, 4, 2], wanted=[6])
    assert [(feed.tensor, feed.row_shape, feed.columns, feed.names) for feed in made.feeds] == [
        ("v", (3,), (2, 4, 0), ("v1", "v2", "v3")),
        ("n", (1,), (3,), ("n",)),
        ("both", (), (1,), ("b",)),
    ]
    assert [(fetch.tensor, fetch.picks[0].element, fetch.picks[0].position) for fetch in made.fetches] == [("p", 1, 0)]


def test_plan_without_wanted_columns_asks_for_the_smallest_output() -> None:
    assert [(fetch.tensor, fetch.picks) for fetch in plan(*GOOD).fetches] == [("both", ())]


def test_plan_of_an_optional_input() -> None:
    maybe = ("maybe", "text", {})
    assert "maybe" not in [feed.tensor for feed in plan(*GOOD, maybe).feeds]
    assert "maybe" in [feed.tensor for feed in plan(*GOOD, maybe, bound=[1, 2, 3, 4, 5, 7]).feeds]


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_plan_misses_an_element(missing: int) -> None:
    with fails(
        "HV005",
        f'foreign table "t" has no column for element {missing} of input tensor "v" of model "churn"',
        "The tensor has shape [3] per row; all elements of a vector must be bound.",
        f"Add a column with OPTIONS (input 'v', index '{missing}').",
    ):
        plan(*V[: missing - 1], *V[missing:], N, BOTH, bound=[1, 2, 3, 4])


def test_plan_misses_a_required_tensor() -> None:
    with fails(
        "HV005",
        'foreign table "t" has no column for input tensor "both" of model "churn"',
        "The model requires it.",
        "Add a column with OPTIONS (input 'both').",
    ):
        plan(*V, N, bound=[1, 2, 3, 4])


def test_plan_misses_a_binding() -> None:
    with fails(
        "HV00L",
        'input column "v2" of foreign table "t" is not bound',
        None,
        'Give it a value with an equality, such as "WHERE v2 = ..." or "JOIN ... ON t.v2 = ...".',
    ):
        plan(*GOOD, bound=[1, 3, 4, 5])


def test_plan_with_two_columns_of_one_element() -> None:
    with fails(
        "HV005",
        'columns "v1" and "again" of foreign table "t" feed the same input',
        'Both are element 1 of input tensor "v" of model "churn".',
        'Correct option "input" or "index" of one of them.',
    ):
        plan(*GOOD, ("again", "real", {"input": "v", "index": "1"}))


def test_a_vector_of_variable_length_is_as_long_as_the_table_says() -> None:
    model = Model("m", "", (TensorSpec("v", "FP32", (-1, -1)),), (TensorSpec("y", "FP32", (-1, 1)),), True, 0)
    made = signature.plan(read(*V), model, [1, 2, 3], [])
    assert made.feeds[0].row_shape == (3,)


WHOLE = ("whole", "real[]", {"input": "v"})


def test_plan_takes_a_whole_vector_from_an_array() -> None:
    made = plan(WHOLE, N, BOTH, ("p", "real[]", {}), P2, bound=[3, 1, 2], wanted=[5, 4])
    assert [(feed.tensor, feed.row_shape, feed.columns, feed.is_array) for feed in made.feeds] == [
        ("v", (3,), (1,), True),
        ("n", (1,), (2,), False),
        ("both", (), (0,), False),
    ]
    assert [(pick.position, pick.is_array) for pick in made.fetches[0].picks] == [(0, False), (1, True)]


def test_plan_of_an_array_that_is_not_bound() -> None:
    with fails(
        "HV00L",
        'input column "whole" of foreign table "t" is not bound',
        None,
        'Give it a value with an equality, such as "WHERE whole = ..." or "JOIN ... ON t.whole = ...".',
    ):
        plan(WHOLE, N, BOTH, bound=[2, 3])


def test_plan_with_an_array_and_an_element() -> None:
    with fails(
        "HV005",
        'columns "whole" and "v1" of foreign table "t" feed the same input',
        'Column "whole" is the whole of input tensor "v" of model "churn".',
        'Correct option "input" or "index" of one of them.',
    ):
        plan(V[0], WHOLE, N, BOTH, bound=[1, 2, 3, 4])


def test_plan_for_a_host_that_knows_another_kind() -> None:
    with fails(
        "HV004",
        'column "n" of foreign table "t" does not match model "churn"',
        "It was taken for bigint[], and the model has integer.",
        "Run the statement again, or import the foreign table again.",
    ):
        signature.plan(read(*GOOD), MODEL, [1, 2, 3, 4, 5], [6], ["d", "d", "d", "[q", "q", "f"])
