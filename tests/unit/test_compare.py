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
            'Columns "v_1", "v_2", "v_3" declare shape [-1,3].',
            f'ALTER FOREIGN TABLE "public"."t" ALTER COLUMN "v_1" {options_}, ALTER COLUMN "v_2" {options_}, '
            'DROP COLUMN "v_3"',
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
    assert found.cure == (
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
    """What is missing is added first, so that the table is never without a column."""
    found = problems(
        [X_COLUMN, Y_COLUMN], model((TensorSpec("a", "FP64", (-1, 1)),), (TensorSpec("b", "BYTES", (-1,)),))
    )
    assert [(problem.severity, problem.column, problem.problem, problem.detail) for problem in found] == [
        ("error", None, 'no column for input tensor "a" of model "m"', "The model requires it."),
        ("warning", None, 'no column for any output tensor of model "m"', 'The model\'s output tensors are: "b".'),
        (
            "error",
            "x",
            'model "m" has no input tensor "x"',
            'Option "input" of column "x" names it. The model\'s input tensors are: "a".',
        ),
        (
            "error",
            "y",
            'model "m" has no output tensor "y"',
            'Option "output" of column "y" names it. The model\'s output tensors are: "b".',
        ),
    ]
    assert [(problem.cure or "").removeprefix('ALTER FOREIGN TABLE "public"."t" ') for problem in found] == [
        "ADD COLUMN \"a\" double precision OPTIONS (input 'a', dtype 'FP64', shape '[-1,1]')",
        "ADD COLUMN \"b\" text OPTIONS (output 'b', dtype 'BYTES', shape '[-1]')",
        'DROP COLUMN "x"',
        'DROP COLUMN "y"',
    ]


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
    assert [(problem.column, problem.cure) for problem in found] == [
        ("x", 'ALTER FOREIGN TABLE "public"."t" ALTER COLUMN "x" OPTIONS (ADD input \'x\')'),
        ("note", 'ALTER FOREIGN TABLE "public"."t" DROP COLUMN "note"'),
    ]


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
