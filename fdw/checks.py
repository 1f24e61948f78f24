"""What is wrong with a table by its own options, found when its DDL ends. No I/O, no numpy.

The rules are about columns that say "input" or "output". A dump makes a table first and sets the options of its columns
one by one, so nothing is concluded from an option that is not there: any part of a valid table is valid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, NoReturn, Sequence, Tuple

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
    groups: dict[tuple[str, str], list[Tie]] = {}
    for tie in ties:
        groups.setdefault((tie.role, tie.tensor), []).append(tie)
    for (role, _), group in groups.items():
        _check_agreement(name, group)
        if role == INPUT:
            _check_overlaps(name, group)
    return [tie.column.attnum for tie in ties if tie.role == INPUT], _readings(name, ties, messages)


def _check_agreement(table: str, group: Sequence[Tie]) -> None:
    """Refuse columns of one tensor that declare different dtypes or shapes."""
    for option, said in (("dtype", _dtype), ("shape", _shape)):
        saying = [(tie.column.name, text) for tie in group if (text := said(tie.column))]
        for name, text in saying[1:]:
            first, expected = saying[0]
            if text != expected:
                raise WrongDtype(
                    f'columns "{first}" and "{name}" of foreign table "{table}" declare different {option}s',
                    f'Column "{first}" says {expected} and column "{name}" {text}; '
                    f"both are tied to {group[0].tensor_name}.",
                    f'Correct option "{option}" of one of them.',
                )


def _dtype(column: Column) -> str | None:
    return column.options.dtype


def _shape(column: Column) -> str | None:
    return None if column.options.shape is None else shape_text(column.options.shape)


def _check_overlaps(table: str, group: Sequence[Tie]) -> None:
    """Refuse two columns that feed the same element; two columns may well show the same element."""
    fed: dict[int | None, Tie] = {}
    for tie in group:
        index = tie.column.options.index
        # a column without index is the whole, with which any other one overlaps
        other = next(iter(fed.values()), None) if index is None else fed.get(index) or fed.get(None)
        if other is not None:
            _refuse_overlap(table, other, tie)
        fed[index] = tie


def _refuse_overlap(table: str, one: Tie, other: Tie) -> NoReturn:
    indexes = [one.column.options.index, other.column.options.index]
    if indexes == [None, None]:
        detail = f"Both are the whole of {one.tensor_name}."
    elif None in indexes:
        whole = one if indexes[0] is None else other
        detail = f'Column "{whole.column.name}" is the whole of {one.tensor_name}.'
    else:
        detail = f"Both are element {indexes[0]} of {one.tensor_name}."
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
