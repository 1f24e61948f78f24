"""IMPORT FOREIGN SCHEMA: a server's models as foreign table definitions.

The one remote schema is "models". A model becomes a table of its name; each vector of fixed length becomes a column per
element, any other tensor one column. Columns say their role, tensor, element, dtype and shape, so that planning a query
on an imported table asks no server.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional, Sequence, Tuple

from fdw import errors, signature
from fdw.connections import Connection, ask_index, ask_model, connect, server_effort
from fdw.options import MAX_INDEX, Server
from fdw.protocols.base import IndexEntry
from fdw.signature import INPUT, OUTPUT, Model, TensorSpec
from fdw.tickets import Steps, gather

REMOTE_SCHEMA = "models"
MAX_NAME_BYTES = 63  # PostgreSQL's NAMEDATALEN - 1
MAX_COLUMNS = 1600
SYSTEM_COLUMNS = frozenset({"tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"})

# How many models are asked about at the same time.
IN_FLIGHT = 8

Notice = Tuple[str, Optional[str]]


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


@dataclass(frozen=True)
class _Skipped:
    """A model that becomes no table, and why."""

    model: str
    error: errors.ModelFdwError


@dataclass
class _Names:
    """Gives out column names that are free, within PostgreSQL's limits; notes what had to change."""

    table: str
    notices: list[Notice]
    taken: set[str] = field(default_factory=set)

    def take(self, wanted: str, suffix: str) -> str:
        """Return ``wanted``, or that name with the suffix and a number where it is taken or cannot be."""
        name = wanted if wanted and len(wanted.encode()) <= MAX_NAME_BYTES else None
        number = 1
        while name is None or name in self.taken or name in SYSTEM_COLUMNS:
            ending = suffix if number == 1 else f"{suffix}_{number}"
            name = shorten(wanted, MAX_NAME_BYTES - len(ending)) + ending
            number += 1
        if name != wanted:
            self.notices.append((f'column "{wanted}" of foreign table "{self.table}" is imported as "{name}"', None))
        self.taken.add(name)
        return name


def shorten(name: str, limit_bytes: int) -> str:
    """Cut a name to so many bytes of UTF-8, at a character's boundary."""
    return name.encode()[:limit_bytes].decode(errors="ignore")


def import_tables(
    server: Server, remote_schema: str, restriction: str, names: Sequence[str]
) -> Steps[tuple[list[TableDefinition], list[Notice]]]:
    """Ask the server for its models and define a table for each; see fdw.host.import_schema."""
    if remote_schema != REMOTE_SCHEMA:
        raise errors.UnknownSchema(
            f'remote schema "{remote_schema}" does not exist on model server "{server.options.address}"',
            None,
            f'Import from remote schema "{REMOTE_SCHEMA}".',
        )
    connection = connect(server)
    index = yield from ask_index(connection)
    notices: list[Notice] = []
    chosen = _choose(connection, index, restriction, names, notices)
    answers = yield from gather((_ask(connection, name) for name in chosen), IN_FLIGHT)
    tables = []
    for answer in answers:
        try:
            if isinstance(answer, _Skipped):
                raise answer.error
            tables.append(define_table(answer, server, notices))
        except errors.ModelFdwError as error:
            name = answer.model if isinstance(answer, _Skipped) else answer.name
            if restriction == "limit to":
                raise
            notices.append((f'skipped model "{name}": {error.message}', error.hint))
    return tables, notices


def _ask(connection: Connection, name: str) -> Steps[Model | _Skipped]:
    options = connection.server.options
    request = errors.Request(connection.endpoint, connection.server.name, name, timeout_ms=options.default_timeout_ms)
    try:
        return (yield from ask_model(connection, request, server_effort(options)))
    except (errors.UnknownModel, errors.ModelNotReady, errors.ModelFailed) as error:
        return _Skipped(name, error)


def _choose(
    connection: Connection, index: Sequence[IndexEntry], restriction: str, names: Sequence[str], notices: list[Notice]
) -> list[str]:
    """Pick the models to import by LIMIT TO or EXCEPT; only those that have a version that is ready."""
    ready = {entry.name for entry in index if entry.ready}
    reasons = {entry.name: entry.reason for entry in index if entry.name not in ready}
    if restriction == "limit to":
        for name in names:
            if name in reasons:
                raise errors.model_not_ready(
                    errors.Request(connection.endpoint, connection.server.name, name), reasons[name]
                )
        return sorted(ready.intersection(names))
    excluded = set(names) if restriction == "except" else set()
    for name in sorted(reasons.keys() - excluded):
        reason = f": {reasons[name]}" if reasons[name] else ""
        notices.append((f'skipped model "{name}": it is not ready{reason}', None))
    return sorted(ready - excluded)


def define_table(model: Model, server: Server, notices: list[Notice]) -> TableDefinition:
    """Define the foreign table of a model; appends to ``notices`` what had to be renamed.

    Raises Unsupported (0A000) for a model that cannot be a table: decoupled, sequence, or with a tensor of too many
    dimensions.
    """
    signature.check_supported(model)
    own: list[Notice] = []
    names = _Names(model.name, own)
    columns: list[ColumnDefinition] = []
    for role in (INPUT, OUTPUT):
        for spec in model.tensors(role):
            columns.extend(_define_columns(model, role, spec, names))
    if len(columns) > MAX_COLUMNS:
        raise errors.Unsupported(f'model "{model.name}" needs {len(columns)} columns, and a table has {MAX_COLUMNS}')
    options = {"model": model.name}
    if 0 < model.max_batch_size < server.options.default_batch_size:
        options["batch_size"] = str(model.max_batch_size)
    name = shorten(model.name, MAX_NAME_BYTES)
    if name != model.name:
        own.append((f'model "{model.name}" is imported as foreign table "{name}"', None))
    notices.extend(own)
    return TableDefinition(name, tuple(columns), options)


def _define_columns(model: Model, role: str, spec: TensorSpec, names: _Names) -> list[ColumnDefinition]:
    """Define the columns of one tensor: one, or one per element of a vector of fixed length."""
    what = f'{signature.ROLE_NAMES[role]} tensor "{spec.name}" of model "{model.name}"'
    if spec.dtype not in signature.DTYPES:
        raise errors.Unsupported(f'dtype "{spec.dtype}" of {what} is not supported')
    row_shape = model.row_shape(spec)
    scalar = signature.is_scalar(row_shape)
    if len(row_shape) > signature.MAX_DIMENSIONS:
        raise errors.Unsupported(
            f"{what} has shape {signature.shape_text(row_shape)} per row, and an array has at most "
            f"{signature.MAX_DIMENSIONS} dimensions"
        )
    options = {
        signature.ROLE_NAMES[role]: spec.name,
        "dtype": spec.dtype,
        "shape": signature.shape_text(spec.shape),
    }
    if spec.optional:
        options["optional"] = "true"
    suffix = f"_{signature.ROLE_NAMES[role]}"
    expanded = not scalar and len(row_shape) == 1 and 0 < row_shape[0] <= MAX_INDEX
    type_ = signature.sql_type(spec.dtype, role, array=not scalar and not expanded)
    if not expanded:
        return [ColumnDefinition(names.take(spec.name, suffix), type_, options)]
    return [
        ColumnDefinition(names.take(name, suffix), type_, {**options, "index": str(number)})
        for number, name in enumerate(_element_names(model, spec, row_shape[0], names.notices), start=1)
    ]


def _element_names(model: Model, spec: TensorSpec, count: int, notices: list[Notice]) -> list[str]:
    """Name a vector's elements: by the model's parameter "columns.<tensor>", else <tensor>_1 and so on."""
    parameter = f"columns.{spec.name}"
    value = dict(model.parameters).get(parameter)
    if value is not None:
        names = [name.strip() for name in value.split(",")]
        if len(names) == count and all(names):
            return names
        notices.append(
            (
                f'parameter "{parameter}" of model "{model.name}" is ignored: it does not name {count} columns',
                "Correct the parameter in the model's configuration.",
            )
        )
    return [f"{spec.name}_{number}" for number in range(1, count + 1)]


def quote_identifier(name: str) -> str:
    """Quote an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """Quote an SQL string, right whatever standard_conforming_strings says."""
    quoted = "'" + text.replace("'", "''") + "'"
    return " E" + quoted.replace("\\", "\\\\") if "\\" in text else quoted


def _options_clause(options: dict[str, str]) -> str:
    return f"OPTIONS ({', '.join(f'{name} {quote_literal(value)}' for name, value in options.items())})"


def create_statement(table: TableDefinition, server_name: str) -> str:
    """Write the CREATE FOREIGN TABLE statement of a definition."""
    columns = ",\n".join(
        f"\t{quote_identifier(column.name)} {column.type} {_options_clause(column.options)}" for column in table.columns
    )
    return (
        f"CREATE FOREIGN TABLE {quote_identifier(table.name)} (\n{columns}\n) "
        f"SERVER {quote_identifier(server_name)} {_options_clause(table.options)}"
    )
