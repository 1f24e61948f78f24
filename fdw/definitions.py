"""Models as foreign table definitions, and the SQL that makes them. No I/O.

A model becomes a table. A scalar tensor becomes a column, a vector of fixed length a column per element where its
elements have names, any other tensor one column of an array type. Columns say their role, tensor, element, dtype and
shape, so that planning a query on such a table asks no server.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping, NamedTuple, Sequence

from fdw import errors, signature
from fdw.options import MAX_INDEX, ImportOptions
from fdw.signature import INPUT, OUTPUT, ROLE_NAMES, Model, TensorSpec

MAX_NAME_BYTES = 63  # PostgreSQL's NAMEDATALEN - 1
MAX_COLUMNS = 1600
SYSTEM_COLUMNS = frozenset({"tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"})


class Notice(NamedTuple):
    """What an import tells beside its tables."""

    message: str
    detail: str | None = None
    hint: str | None = None

    def printable(self) -> Notice:
        """Return the notice without what could steer a terminal: it names what a server names."""
        detail, hint = self.detail, self.hint
        return Notice(
            errors.printable(self.message), detail and errors.printable(detail), hint and errors.printable(hint)
        )


@dataclass(frozen=True)
class ColumnDefinition:
    """A column to be: its name, SQL type and options."""

    name: str
    type: str
    options: dict[str, str]


@dataclass(frozen=True)
class TableDefinition:
    """A foreign table to be."""

    name: str
    columns: tuple[ColumnDefinition, ...]
    options: dict[str, str]


def shorten(name: str, limit_bytes: int = MAX_NAME_BYTES) -> str:
    """Cut a name to so many bytes of UTF-8, at a character's boundary."""
    return name.encode()[:limit_bytes].decode(errors="ignore")


@dataclass
class Names:
    """Gives out names that are free, within PostgreSQL's limits."""

    taken: set[str] = field(default_factory=set)

    def take(self, wanted: str, suffix: str = "") -> str:
        """Return ``wanted``, or that name with the suffix and a number where it is taken or cannot be."""
        name = wanted if wanted and len(wanted.encode()) <= MAX_NAME_BYTES else None
        number = 1 if suffix else 2
        while name is None or name in self.taken:
            ending = suffix if number == 1 else f"{suffix}_{number}"
            name = shorten(wanted, MAX_NAME_BYTES - len(ending)) + ending
            number += 1
        self.taken.add(name)
        return name


@dataclass
class ColumnNames:
    """Gives out the names of a table's columns; notes what had to change."""

    table: str
    notices: list[Notice]
    names: Names = field(default_factory=lambda: Names(set(SYSTEM_COLUMNS)))

    def take(self, wanted: str, role: str) -> str:
        """Return ``wanted``, or that name with the role as its suffix."""
        name = self.names.take(wanted, f"_{ROLE_NAMES[role]}")
        if name != wanted:
            self.notices.append(Notice(f'column "{wanted}" of foreign table "{self.table}" is imported as "{name}"'))
        return name


def define_table(
    model: Model,
    name: str,
    default_batch_size: int,
    settings: ImportOptions,
    notices: list[Notice],
    noun: str = "model",
) -> TableDefinition:
    """Define the foreign table of a model; appends to ``notices`` what had to be renamed.

    ``noun`` is the table option that names a model of the server: "model" or "method".

    Raises Unsupported (0A000) for a model that cannot be a table (decoupled, sequence, no tensors declared, a tensor of
    too many dimensions, too many columns), and BadOption (22023) if the statement names the elements of a tensor that
    has not so many.
    """
    signature.check_supported(model)
    if model.silent:
        raise errors.Unsupported(
            signature.silence(model),
            None,
            'Create its foreign table by hand, with options "input" or "output", "dtype" and "shape" on each column.',
        )
    own: list[Notice] = []
    names = ColumnNames(name, own)
    columns: list[ColumnDefinition] = []
    for role in (INPUT, OUTPUT):
        for spec in model.tensors(role):
            if spec.omittable and spec.dtype not in signature.DTYPES:
                what = f'{ROLE_NAMES[role]} field "{spec.name}" of method "{model.name}"'
                own.append(Notice(f"{what} becomes no column: its type is {spec.dtype}"))
            else:
                columns.extend(define_columns(model, role, spec, names, settings))
    if len(columns) > MAX_COLUMNS:
        raise errors.Unsupported(
            f'model "{model.name}" needs {len(columns)} columns, and a table has {MAX_COLUMNS}',
            None,
            "Import it with option \"expand\" set to 'none'.",
        )
    options = {noun: model.name}
    if model.version:
        options["version"] = model.version
    if 0 < model.max_batch_size < default_batch_size:
        options["batch_size"] = str(model.max_batch_size)
    notices.extend(own)
    return TableDefinition(name, tuple(columns), options)


def define_columns(
    model: Model, role: str, spec: TensorSpec, names: ColumnNames, settings: ImportOptions
) -> list[ColumnDefinition]:
    """Define the columns of one tensor: one, or one per element of a vector of fixed length."""
    check_tensor(model, role, spec)
    elements = _names_of_elements(model, spec, settings, names.notices)
    scalar = signature.is_scalar(model.row_shape(spec))
    if scalar or elements is None:
        type_ = spec.type or signature.sql_type(spec.dtype, role, array=not scalar)
        if role == INPUT and not scalar and type_ == "double precision[]" and spec.dtype != "FP64":
            type_ = f"{settings.float_arrays}[]"
        options = column_options(role, spec)
        name = elements[0] if elements else settings.name(spec.column or spec.name)
        return [ColumnDefinition(names.take(name, role), type_, options)]
    return define_elements(role, spec, dict(enumerate(elements, start=1)), names)


def check_tensor(model: Model, role: str, spec: TensorSpec) -> None:
    """Refuse a tensor that no column can show (0A000)."""
    signature.check_dtype(model, role, spec)
    row_shape = model.row_shape(spec)
    if len(row_shape) > signature.MAX_DIMENSIONS:
        raise errors.Unsupported(
            f'{ROLE_NAMES[role]} tensor "{spec.name}" of model "{model.name}" has shape '
            f"{signature.shape_text(row_shape)} per row, and an array has at most {signature.MAX_DIMENSIONS} dimensions"
        )


def define_elements(
    role: str, spec: TensorSpec, elements: Mapping[int, str], names: ColumnNames
) -> list[ColumnDefinition]:
    """Define columns for elements of a vector, given their names by number."""
    type_ = signature.sql_type(spec.dtype, role)
    return [
        ColumnDefinition(names.take(name, role), type_, {**column_options(role, spec), "index": str(number)})
        for number, name in elements.items()
    ]


def column_options(role: str, spec: TensorSpec) -> dict[str, str]:
    """Describe a tensor by a column's options."""
    options = {ROLE_NAMES[role]: spec.name, "dtype": spec.dtype, "shape": signature.shape_text(spec.shape)}
    return {**options, "optional": "true"} if spec.optional and role == INPUT else options


def plain_element_names(spec: TensorSpec, count: int) -> list[str]:
    """Name the elements of a vector by their numbers."""
    return [f"{spec.name}_{number}" for number in range(1, count + 1)]


def _names_of_elements(
    model: Model, spec: TensorSpec, settings: ImportOptions, notices: list[Notice]
) -> Sequence[str] | None:
    """Name the elements that become columns: as the statement says, else the model; None: the tensor is one column.

    A scalar is a vector of one element here.
    """
    row_shape = model.row_shape(spec)
    scalar = signature.is_scalar(row_shape)
    count = 1 if scalar else row_shape[0] if len(row_shape) == 1 else 0
    given = dict(settings.columns).get(spec.name)
    if given is not None:
        if len(given) == count:
            return given
        raise errors.BadOption(
            f'option "columns" names {len(given)} elements of tensor "{spec.name}" of model "{model.name}"',
            f"The tensor has shape {signature.shape_text(row_shape)} per row.",
            "Name all its elements, or import the model apart with LIMIT TO.",
        )
    if not 0 < count <= MAX_INDEX or (settings.expand == "none" and not scalar):
        return None
    names = signature.element_names(model, spec)
    if names is not None and len(names) == count:
        return [settings.name(name) for name in names]
    if names is not None:
        parameter = f"{signature.NAMES_PARAMETER}{spec.name}"
        notices.append(
            Notice(
                f'parameter "{parameter}" of model "{model.name}" is ignored: it does not name {count} columns',
                None,
                "Correct the parameter in the model's configuration.",
            )
        )
    if settings.expand != "all" or scalar:
        return None
    return [settings.name(name) for name in plain_element_names(spec, count)]


# ---- SQL ----


def quote_identifier(name: str) -> str:
    """Quote an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """Quote an SQL string, right whatever standard_conforming_strings says."""
    quoted = "'" + text.replace("'", "''") + "'"
    return " E" + quoted.replace("\\", "\\\\") if "\\" in text else quoted


def options_clause(options: Mapping[str, str | None]) -> str:
    """Write an OPTIONS clause; a name may have ADD, SET or DROP before it, and DROP has no value."""
    parts = [name if value is None else f"{name} {quote_literal(value)}" for name, value in options.items()]
    return f"OPTIONS ({', '.join(parts)})"


def column_clause(column: ColumnDefinition) -> str:
    """Write a column as CREATE FOREIGN TABLE and ADD COLUMN take it."""
    return f"{quote_identifier(column.name)} {column.type} {options_clause(column.options)}"


def create_statement(table: TableDefinition, server_name: str) -> str:
    """Write the CREATE FOREIGN TABLE statement of a definition."""
    columns = ",\n".join(f"\t{column_clause(column)}" for column in table.columns)
    return (
        f"CREATE FOREIGN TABLE {quote_identifier(table.name)} (\n{columns}\n) "
        f"SERVER {quote_identifier(server_name)} {options_clause(table.options)}"
    )
