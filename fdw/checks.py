"""What is wrong with a table by its own options, found when its DDL ends. No I/O, no numpy.

The rules are about columns that say "input" or "output". A dump makes a table first and sets the options of its columns
one by one, so nothing is concluded from an option that is not there: any part of a valid table is valid.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any, Mapping, Sequence, Tuple

from fdw import options
from fdw.errors import InvalidTable, ModelFdwError, Unsupported, WrongDtype, WrongTensor
from fdw.options import Column
from fdw.signature import INPUT, OUTPUT, ROLE_NAMES, column_kind, is_scalar, shape_text

# attnum, role, kind, optional: as fdw.host.describe has it
Entry = Tuple[int, str, str, bool]


@dataclass(frozen=True)
class Tie:
    """A column that says which tensor it is tied to."""

    column: Column
    role: str
    tensor: str

    @property
    def tensor_name(self) -> str:
        """The tensor, as messages name it."""
        return f'{ROLE_NAMES[self.role]} tensor "{self.tensor}"'


def ties_of(columns: Sequence[Column]) -> list[Tie]:
    """Pick the columns that say "input" or "output"."""
    return [
        Tie(column, INPUT if column.options.input else OUTPUT, column.options.input or column.options.output or "")
        for column in columns
        if column.options.input or column.options.output
    ]


def validate_table(description: Mapping[str, Any]) -> tuple[list[int], list[list[Entry]]]:
    """Check a table's options as a whole; see fdw.host.validate_table."""
    options.validate(options.TABLE, description["options"])
    columns = [options.read_column(column) for column in description["columns"]]
    name = description["name"]
    if not columns:
        raise InvalidTable(f'foreign table "{name}" has no columns', None, "Add a column for each input of the model.")
    ties = ties_of(columns)
    messages = [(column.attnum, OUTPUT, "s", False) for column in columns if column.options.error]
    for one, other in combinations(ties, 2):
        if (one.role, one.tensor) == (other.role, other.tensor):
            _check_agreement(name, one, other)
            _check_overlap(name, one, other)
    return [tie.column.attnum for tie in ties if tie.role == INPUT], _readings(name, ties, messages)


def _check_agreement(table: str, one: Tie, other: Tie) -> None:
    """Refuse columns of one tensor that declare different dtypes or shapes."""
    first, second = one.column.options, other.column.options
    for option, left, right in (
        ("dtype", first.dtype, second.dtype),
        ("shape", first.shape and shape_text(first.shape), second.shape and shape_text(second.shape)),
    ):
        if None not in (left, right) and left != right:
            raise WrongDtype(
                f'columns "{one.column.name}" and "{other.column.name}" of foreign table "{table}" '
                f"declare different {option}s",
                f'Column "{one.column.name}" says {left} and column "{other.column.name}" {right}; '
                f"both are tied to {one.tensor_name}.",
                f'Correct option "{option}" of one of them.',
            )


def _check_overlap(table: str, one: Tie, other: Tie) -> None:
    """Refuse two columns that feed the same element; two columns may well show the same element."""
    indexes = {one.column.options.index, other.column.options.index}
    if one.role == OUTPUT or (None not in indexes and len(indexes) == 2):
        return
    if len(indexes) == 2:
        whole = one if one.column.options.index is None else other
        detail = f'Column "{whole.column.name}" is the whole of {one.tensor_name}.'
    elif None in indexes:
        detail = f"Both are the whole of {one.tensor_name}."
    else:
        detail = f"Both are element {one.column.options.index} of {one.tensor_name}."
    raise WrongTensor(
        f'columns "{one.column.name}" and "{other.column.name}" of foreign table "{table}" feed the same input',
        detail,
        'Correct option "input" or "index" of one of them.',
    )


def _readings(table: str, ties: Sequence[Tie], messages: Sequence[Entry]) -> list[list[Entry]]:
    """Give the kinds of the columns in each way to read their shapes, the likeliest first.

    Whether the first dimension is that of the rows only the model's configuration tells; but where one tensor has no
    variable first dimension, none has one for the rows. An error of the likeliest reading is raised if none is left.
    """
    shapes = [tie.column.options.shape for tie in ties if tie.column.options.shape is not None]
    readings, failures = [], []
    for batched in (True, False):
        if batched and not all(shape[:1] == (-1,) for shape in shapes):
            continue
        try:
            entries = [_entry(table, tie, batched) for tie in ties]
        except ModelFdwError as error:
            failures.append(error)
        else:
            readings.append([*(entry for entry in entries if entry), *messages])
    if not readings:
        raise failures[0]
    return readings


def _entry(table: str, tie: Tie, batched: bool) -> Entry | None:
    """Tell a column's kind, if its options say enough for that."""
    column, said = tie.column, tie.column.options
    row_shape: tuple[int, ...] = ()
    if said.shape is not None:
        row_shape = said.shape[1:] if batched else said.shape
        _check_index(table, column, row_shape)
    elif said.index is None:
        return None
    if said.dtype is None:
        return None
    return column.attnum, tie.role, column_kind(column, tie.role, said.dtype, row_shape), said.optional


def _check_index(table: str, column: Column, row_shape: Sequence[int]) -> None:
    index, shape = column.options.index, column.options.shape or ()
    if index is None:
        return
    if len(row_shape) > 1 and not is_scalar(row_shape):
        raise Unsupported(
            f'option "index" of column "{column.name}" of foreign table "{table}" '
            "picks from a tensor that is no vector",
            f'Option "shape" says {shape_text(shape)}.',
            'Drop option "index".',
        )
    width = row_shape[0] if row_shape else 1
    if index > width >= 0:
        raise WrongTensor(
            f'option "index" of column "{column.name}" of foreign table "{table}" is out of range',
            f'Option "shape" says {shape_text(shape)}.',
            f"Valid values are between 1 and {width}.",
        )
