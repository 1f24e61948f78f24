"""What is wrong with a table by its own options."""

from __future__ import annotations

from typing import Any

import pytest
from helpers import table

from fdw import errors, host
from fdw.options import DTYPES

Options = dict[str, str]


def validate(*columns: Options, **options: Any) -> Any:
    described = [(f"c{number}", "double precision", column) for number, column in enumerate(columns, start=1)]
    return host.validate_table(table(*described, **options))


def test_an_error_of_a_table_is_an_error_of_no_part_of_it_only() -> None:
    """A dump sets the options of columns one by one: what is valid as a whole is valid at each step."""
    columns: list[Options] = [
        {"input": "v", "index": "2", "dtype": "FP32", "shape": "[-1,3]"},
        {"input": "v", "index": "3", "dtype": "FP32", "shape": "[-1,3]"},
        {"output": "w", "index": "1", "dtype": "FP64", "shape": "[-1]"},
        {"output": "v", "dtype": "INT64", "shape": "[-1,1]"},
        {"input": "u", "dtype": "FP64"},
        {"input": "t", "shape": "[-1,1]"},
    ]
    validate(*columns)
    for present in range(2 ** len(columns)):
        validate(*[column if present >> number & 1 else {} for number, column in enumerate(columns)])


def test_readings_of_a_shape() -> None:
    """Without a tensor that settles it, the first dimension may be that of the rows or the model's own."""
    vector = {"input": "v", "index": "2", "dtype": "FP32", "shape": "[-1,3]"}
    variable = {"input": "u", "index": "2", "dtype": "FP64", "shape": "[-1]"}
    inputs, readings = validate(vector, {})
    assert (inputs, readings) == ([1], [[(1, "i", "d", False)]])
    assert validate(variable)[1] == [[(1, "i", "d", False)]]
    with pytest.raises(errors.ModelFdwError):
        validate(vector, variable)


def test_what_is_not_described_is_not_judged() -> None:
    assert validate({}, {"index": "3"}, {"dtype": "BYTES"}) == ([], [[], []])
    assert validate({"input": "x"}, {"output": "x", "dtype": "FP32"}) == ([1], [[], []])


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_has_a_kind(dtype: str) -> None:
    [[first], *_] = validate({"output": "y", "dtype": dtype, "shape": "[-1,1]"})[1]
    assert first[:2] == (1, "o")


def test_options_of_the_table_are_checked_again() -> None:
    """Multicorn checks none when a table is made."""
    with pytest.raises(errors.UnknownOption) as caught:
        validate({}, batchsize="8")
    assert caught.value.hint == 'Perhaps you meant the option "batch_size".'
    with pytest.raises(errors.BadOption):
        validate({"input": "x", "index": "0"})
