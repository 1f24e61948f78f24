"""A table compared with a model: the problems, and cures that cure."""

from __future__ import annotations

from typing import Any

import pytest
from helpers import table

from fdw import compare, options
from fdw.signature import Model, TensorSpec

Column = tuple[str, str, dict[str, str]]


def model(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...] = (), **fields: Any) -> Model:
    return Model("m", "", inputs, outputs, **{"batched": True, "max_batch_size": 0, **fields})


def problems(columns: list[Column], against: Model, **table_options: str) -> list[compare.Problem]:
    parsed = options.read_table(table(*columns, model="m", **table_options))
    return compare.compare(parsed, against).problems


def column(name: str, role: str, tensor: str, dtype: str = "", shape: str = "", index: int = 0, **more: str) -> Column:
    said = {role: tensor, "dtype": dtype, "shape": shape, "index": str(index or ""), **more}
    return (name, "double precision", {key: value for key, value in said.items() if value})


X = TensorSpec("x", "FP64", (-1, 1))
Y = TensorSpec("y", "FP64", (-1, 1))
V = TensorSpec("v", "FP32", (-1, 3))
X_COLUMN = column("x", "input", "x", "FP64", "[-1,1]")
Y_COLUMN = column("y", "output", "y", "FP64", "[-1,1]")
V_COLUMNS = [column(f"v_{number}", "input", "v", "FP32", "[-1,3]", number) for number in (1, 2, 3)]


def test_a_table_that_shows_its_model() -> None:
    assert problems([X_COLUMN, Y_COLUMN], model((X,), (Y,))) == []
    assert problems([("x", "float8", {}), ("y", "float8", {})], model((X,), (Y,))) == []
    assert problems([X_COLUMN, Y_COLUMN, ("problem", "text", {"error": "true"})], model((X,), (Y,))) == []
    assert problems([X_COLUMN, Y_COLUMN, ("trouble", "text", {"error": "true"})], model((X,), (Y,))) == []
    # outputs and optional inputs may be left out
    left_out = (X, TensorSpec("z", "FP64", (-1, 1), optional=True))
    assert problems([X_COLUMN, Y_COLUMN], model(left_out, (TensorSpec("a", "BOOL", (-1, 1)), Y))) == []
    assert problems([*V_COLUMNS, Y_COLUMN], model((V,), (Y,), parameters=(("columns.v", "v_1,v_2,v_3"),))) == []


ONLY_DROPPING = "Only a statement that drops columns cures this: "


def by_hand(problem: compare.Problem) -> str:
    """Return the statement that a detail has instead of a cure, as it drops columns."""
    assert problem.cure is None
    assert problem.detail
    return problem.detail.partition(ONLY_DROPPING)[2]


def test_a_changed_dtype() -> None:
    assert problems([X_COLUMN, Y_COLUMN], model((X,), (TensorSpec("y", "BOOL", (-1, 1)),))) == [
        (
            "error",
            "y",
            'output tensor "y" of model "m" has dtype BOOL and shape [-1,1]',
            'Column "y" declares dtype FP64.',
            'ALTER FOREIGN TABLE "public"."t" ALTER COLUMN "y" TYPE boolean, '
            "ALTER COLUMN \"y\" OPTIONS (SET dtype 'BOOL')",
        )
    ]


def test_a_vector_that_shrinks() -> None:
    """The columns of a tensor must agree at the end of every statement, so that one statement changes them all."""
    shorter = TensorSpec("v", "FP32", (-1, 2))
    options_ = "OPTIONS (SET shape '[-1,2]')"
    assert problems([*V_COLUMNS, Y_COLUMN], model((shorter,), (Y,))) == [
        (
            "error",
            "v_1",
            'input tensor "v" of model "m" has dtype FP32 and shape [-1,2]',
            f'Columns "v_1", "v_2", "v_3" declare shape [-1,3]. {ONLY_DROPPING}'
            f'ALTER FOREIGN TABLE "public"."t" ALTER COLUMN "v_1" {options_}, ALTER COLUMN "v_2" {options_}, '
            'DROP COLUMN "v_3"',
            None,
        )
    ]


def test_a_vector_that_grows() -> None:
    longer = TensorSpec("v", "FP32", (-1, 4))
    found = problems([*V_COLUMNS, Y_COLUMN], model((longer,), (Y,), parameters=(("columns.v", "a,b,c,d"),)))
    assert [problem.problem for problem in found] == [
        'input tensor "v" of model "m" has dtype FP32 and shape [-1,4]',
        'no column for element 4 of input tensor "v" of model "m"',
    ]
    assert found[1].cure == (
        'ALTER FOREIGN TABLE "public"."t" ADD COLUMN "d" double precision '
        "OPTIONS (input 'v', dtype 'FP32', shape '[-1,4]', index '4')"
    )


def test_a_vector_that_becomes_a_matrix() -> None:
    [found] = problems([*V_COLUMNS, Y_COLUMN], model((TensorSpec("v", "FP32", (-1, 3, 2)),), (Y,)))
    assert by_hand(found) == (
        'ALTER FOREIGN TABLE "public"."t" ADD COLUMN "v" double precision[] '
        "OPTIONS (input 'v', dtype 'FP32', shape '[-1,3,2]'), "
        'DROP COLUMN "v_1", DROP COLUMN "v_2", DROP COLUMN "v_3"'
    )


def test_a_scalar_that_becomes_a_vector() -> None:
    [found] = problems([X_COLUMN, Y_COLUMN], model((TensorSpec("x", "FP64", (-1, 5)),), (Y,)))
    assert found.cure == (
        'ALTER FOREIGN TABLE "public"."t" ALTER COLUMN "x" TYPE double precision[], '
        "ALTER COLUMN \"x\" OPTIONS (SET shape '[-1,5]')"
    )


def test_renamed_tensors() -> None:
    """The columns stay, and get the new names where they are plain: one tensor has gone, one of its kind has come."""
    renamed = model((TensorSpec("a", "FP64", (-1, 1)),), (TensorSpec("w", "FP32", (-1, 3)), Y))
    outputs = [column(f"v_{number}", "output", "v", "FP32", "[-1,3]", number) for number in (1, 2, 3)]
    set_output = [f"ALTER COLUMN \"v_{number}\" OPTIONS (SET output 'w')" for number in (1, 2, 3)]
    assert problems([X_COLUMN, *outputs, Y_COLUMN], renamed) == [
        (
            "error",
            "x",
            'model "m" has no input tensor "x"',
            'Column "x" names it. Tensor "a", of the same dtype and shape, has no column.',
            'ALTER FOREIGN TABLE "public"."t" ALTER COLUMN "x" OPTIONS (SET input \'a\')',
        ),
        (
            "error",
            "v_1",
            'model "m" has no output tensor "v"',
            'Columns "v_1", "v_2", "v_3" name it. Tensor "w", of the same dtype and shape, has no column.',
            f'ALTER FOREIGN TABLE "public"."t" {", ".join(set_output)}',
        ),
    ]


@pytest.mark.parametrize(
    "outputs",
    [
        (TensorSpec("b", "BYTES", (-1,)),),
        (TensorSpec("b", "FP64", (-1, 2)),),
        (TensorSpec("b", "FP64", (-1, 1)), TensorSpec("c", "FP64", (-1, 1))),
    ],
    ids=["dtype", "shape", "which"],
)
def test_renamed_tensors_of_another_kind(outputs: tuple[TensorSpec, ...]) -> None:
    """What is missing is offered, and what shows nothing any more is nobody's to drop but the reader's."""
    names = ", ".join(f'"{spec.name}"' for spec in outputs)
    missing, gone = problems([X_COLUMN, Y_COLUMN], model((X,), outputs))
    assert missing[:4] == (
        "warning",
        None,
        'no column for any output tensor of model "m"',
        f"The model's output tensors are: {names}.",
    )
    assert (missing.cure or "").startswith('ALTER FOREIGN TABLE "public"."t" ADD COLUMN "b" ')
    assert gone == (
        "error",
        "y",
        'model "m" has no output tensor "y"',
        f'Option "output" of column "y" names it. The model\'s output tensors are: {names}. '
        f'{ONLY_DROPPING}ALTER FOREIGN TABLE "public"."t" DROP COLUMN "y"',
        None,
    )


def test_two_tensors_that_have_gone() -> None:
    both = [X_COLUMN, Y_COLUMN, column("z", "output", "z", "FP64", "[-1,1]")]
    found = problems(both, model((X,), (TensorSpec("b", "FP64", (-1, 1)),)))
    assert [(problem.column, bool(problem.cure)) for problem in found] == [(None, True), ("y", False), ("z", False)]


def test_a_server_that_declares_no_tensors() -> None:
    """What the columns declare counts: there is nothing to compare with."""
    silent = model((), silent=frozenset("io"), batched=True)
    columns = [*V_COLUMNS, Y_COLUMN, ("problem", "text", {"error": "true"})]
    assert problems(columns, silent) == []
    assert problems([X_COLUMN, Y_COLUMN], model((X,), silent=frozenset("o"))) == []
    [found] = problems([X_COLUMN, ("y", "float8", {"output": "y", "dtype": "FP64"})], silent)
    assert found == (
        "error",
        None,
        'column "y" of foreign table "t" lacks option "shape", and model "m" declares no tensors',
        'What the columns declare counts where the model server is silent. Set "shape".',
        None,
    )


def test_elements_in_another_order() -> None:
    named = [column(name, "input", "v", "FP32", "[-1,3]", number) for number, name in enumerate("abc", start=1)]
    [found] = problems([*named, Y_COLUMN], model((V,), (Y,), parameters=(("columns.v", "c,b,a"),)))
    assert found.detail == 'Column "a" is element 1; the model gives this name to element 3.'
    assert found.cure == (
        'ALTER FOREIGN TABLE "public"."t" ALTER COLUMN "a" OPTIONS (SET index \'3\'), '
        "ALTER COLUMN \"c\" OPTIONS (SET index '1')"
    )


def test_optional_inputs() -> None:
    z = TensorSpec("z", "FP64", (-1, 1))
    says = column("z", "input", "z", "FP64", "[-1,1]", optional="true")
    says_not = column("z", "input", "z", "FP64", "[-1,1]")
    [found] = problems([X_COLUMN, says, Y_COLUMN], model((X, z), (Y,)))
    assert found == (
        "error",
        "z",
        'input tensor "z" of model "m" is required',
        'Column "z" declares it optional.',
        'ALTER FOREIGN TABLE "public"."t" ALTER COLUMN "z" OPTIONS (DROP optional)',
    )
    [found] = problems([X_COLUMN, says_not, Y_COLUMN], model((X, TensorSpec("z", "FP64", (-1, 1), True)), (Y,)))
    assert found == (
        "warning",
        "z",
        'input tensor "z" of model "m" is optional',
        'Column "z" does not declare it optional.',
        'ALTER FOREIGN TABLE "public"."t" ALTER COLUMN "z" OPTIONS (ADD optional \'true\')',
    )


@pytest.mark.parametrize(("given", "verb"), [({}, "ADD"), ({"batch_size": "512"}, "SET")])
def test_batch_size(given: dict[str, str], verb: str) -> None:
    small = model((X,), (Y,), max_batch_size=8)
    [found] = problems([X_COLUMN, Y_COLUMN], small, **given)
    assert found.severity == "warning"
    assert found.cure == f'ALTER FOREIGN TABLE "public"."t" OPTIONS ({verb} batch_size \'8\')'
    assert problems([X_COLUMN, Y_COLUMN], small, batch_size="8") == []


def test_columns_without_options() -> None:
    """They are tied by their names."""
    both = model((X,), (TensorSpec("x", "FP64", (-1, 1)), Y))
    found = problems([("x", "float8", {}), ("y", "float8", {}), ("note", "text", {})], both)
    assert [problem.column for problem in found] == ["x", "note"]
    assert found[0].cure == 'ALTER FOREIGN TABLE "public"."t" ALTER COLUMN "x" OPTIONS (ADD input \'x\')'
    assert by_hand(found[1]) == 'ALTER FOREIGN TABLE "public"."t" DROP COLUMN "note"'


def test_models_that_are_no_tables() -> None:
    [found] = problems([X_COLUMN], model((X,), (Y,), decoupled=True))
    assert (found.severity, found.cure) == ("error", None)
    assert found.problem == 'model "m" is decoupled, which is not supported'


def test_a_batch_dimension_that_goes() -> None:
    """A shape is read by the others beside it, so that one statement corrects all."""
    [found] = problems(
        [X_COLUMN, Y_COLUMN],
        model((TensorSpec("x", "FP64", (1,)),), (TensorSpec("y", "INT64", (1,)),), batched=False),
    )
    assert found == (
        "error",
        "x",
        'model "m" has no batch dimension',
        'Input tensor "x" of model "m" has dtype FP64 and shape [1]; '
        'output tensor "y" of model "m" has dtype INT64 and shape [1].',
        'ALTER FOREIGN TABLE "public"."t" ALTER COLUMN "x" TYPE double precision, '
        "ALTER COLUMN \"x\" OPTIONS (SET shape '[1]'), "
        'ALTER COLUMN "y" TYPE bigint, '
        "ALTER COLUMN \"y\" OPTIONS (SET dtype 'INT64', SET shape '[1]')",
    )
