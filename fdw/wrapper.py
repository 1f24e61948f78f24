"""The Multicorn class: quals to columns, columns to rows.

Multicorn2 3.x (https://github.com/pgsql-io/multicorn2) calls these methods with its own objects: a Qual has
field_name, operator (a string, or a pair (operator, is ANY) for lists) and value; columns is a set of names. It
rechecks every qual, merges server, user mapping and table options into one dict, and tells a wrapper neither its
table's nor its server's name.
"""

from __future__ import annotations

import ctypes
import itertools
import math
from array import array
from collections import deque
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Iterator, Mapping, Sequence

from fdw import errors, options
from fdw.host import load_engine
from fdw.signature import ARRAY, INPUT, KIND_TYPES, MAX_DIMENSIONS, OUTPUT, Slot, kind_type, unbound
from fdw.tickets import Ticket, wait

if TYPE_CHECKING:
    from fdw import definitions
    from fdw.codec import InputColumn, OutputColumn
    from fdw.predictor import Columns


try:
    from multicorn import ColumnDefinition, ForeignDataWrapper, TableDefinition
    from multicorn.utils import log_to_postgres
except ImportError:
    # Multicorn is not installed: enough to import and test this module.
    class ForeignDataWrapper:  # type: ignore[no-redef]
        """Stand-in for Multicorn's base class."""

        def __init__(self, fdw_options: Mapping[str, str], fdw_columns: Mapping[str, Any]) -> None:
            pass

    TableDefinition = ColumnDefinition = log_to_postgres = None


# What the planner shall believe of a scan that lacks an input: it runs only to raise an error, so anything is cheaper.
UNBOUND_ROWS = 1_000_000_000
COLUMN_WIDTH = 100
FIRST_BATCH_SIZE = 64
BATCH_GROWTH = 4

Row = Dict[str, Any]


@cache
def _interrupt_flags() -> tuple[ctypes.c_int, ...]:
    """Find PostgreSQL's own flags for a pending cancel or terminate; none outside a server."""
    program = ctypes.CDLL(None)
    try:
        return tuple(ctypes.c_int.in_dll(program, name) for name in ("QueryCancelPending", "ProcDiePending"))
    except ValueError:
        return ()


def check_interrupts() -> None:
    """Raise if the statement shall end.

    Multicorn's own function would leave through Python's frames without unwinding them; an exception unwinds them, and
    PostgreSQL acts on its flags as soon as it is back.
    """
    if any(flag.value for flag in _interrupt_flags()):
        raise errors.Cancelled("canceling statement due to user request")


def _finish(ticket: Ticket[Any]) -> Any:
    return wait(ticket, check_interrupts)


# ---------------------------------------------------------------- values


def _to_boolean(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"t": True, "f": False, "true": True, "false": False}[str(value).lower()]


def _to_integer(value: object) -> int | None:
    """Return an integer; None for a number that is none, which no integer equals."""
    number = Decimal(str(value))
    return int(number) if number.is_finite() and number == number.to_integral_value() else None


def _to_float(value: object) -> float | None:
    return float(str(value))


def _to_text(value: object) -> bytes | None:
    return str(value).encode()


def _to_bytes(value: object) -> bytes | None:
    if isinstance(value, (bytes, memoryview, bytearray)):
        return bytes(value)
    text = str(value)
    if not text.startswith("\\x"):
        raise ValueError("not bytea's hex format")
    return bytes.fromhex(text[2:])


# Multicorn hands values over as int, float, str, bytes, date or datetime, by the constant's type; most come as text.
_FROM_PYTHON: dict[str, Callable[[object], object]] = {
    "?": _to_boolean,
    "h": _to_integer,
    "i": _to_integer,
    "q": _to_integer,
    "Q": _to_integer,
    "d": _to_float,
    "f": _to_float,
    "s": _to_text,
    "b": _to_bytes,
}

_INTEGER_RANGES = {
    "h": (-(2**15), 2**15 - 1),
    "i": (-(2**31), 2**31 - 1),
    "q": (-(2**63), 2**63 - 1),
    "Q": (0, 2**64 - 1),
}


@dataclass(frozen=True)
class _Array:
    """An array: its dimensions, and its elements one after the other."""

    dimensions: tuple[int, ...]
    elements: tuple[Any, ...]


def _convert_array(slot: Slot, value: object) -> _Array | None:
    """Turn nested lists into an array of the column's kind; None: nothing equals it."""
    if not isinstance(value, list):
        element = _convert(replace(slot, kind=slot.kind[1:]), value)
        if value is None:
            raise errors.NullElement(f'array for input column "{slot.column.name}" contains a NULL element')
        return None if element is None else _Array((), (element,))
    parts = [_convert_array(slot, item) for item in value]
    if any(part is None for part in parts):
        return None
    if not parts:
        return _Array((), ())
    return _Array(
        (len(parts), *parts[0].dimensions),  # type: ignore[union-attr]
        tuple(element for part in parts for element in part.elements),  # type: ignore[union-attr]
    )


def _convert(slot: Slot, value: object) -> object:
    """Turn a qual's value into one of the column's kind; None: nothing equals it (NULL, 3.5 for an integer)."""
    if value is None:
        return None
    if slot.kind.startswith(ARRAY):
        if isinstance(value, list):
            return _convert_array(slot, value)
        raise errors.InvalidValue(
            f'invalid value for input column "{slot.column.name}"',
            f"The column takes values of type {kind_type(slot.kind)}.",
        )
    try:
        converted = _FROM_PYTHON[slot.kind](value)
    except (ValueError, KeyError, InvalidOperation):
        raise errors.InvalidValue(
            f'invalid value for input column "{slot.column.name}"',
            f"The column takes values of type {KIND_TYPES[slot.kind]}.",
        ) from None
    if slot.kind in _INTEGER_RANGES and converted is not None:
        low, high = _INTEGER_RANGES[slot.kind]
        if not low <= converted <= high:  # type: ignore[operator]
            raise errors.ValueOutOfRange(
                f'value out of range for input column "{slot.column.name}" ({KIND_TYPES[slot.kind]})'
            )
    return converted


@dataclass(frozen=True)
class _Value:
    """A bound value: as Multicorn gave it, for the row that comes back, and converted, for the model."""

    given: object
    converted: Any

    @property
    def key(self) -> object:
        """What makes two values equal in SQL, where NaN equals NaN."""
        return "NaN" if isinstance(self.converted, float) and math.isnan(self.converted) else self.converted


# The seam's kinds as type codes of module array.
_ARRAY_CODES = {"?": "B", "h": "h", "i": "i", "q": "q", "Q": "Q", "d": "d", "f": "f"}


def _pack(kind: str, values: Sequence[Any]) -> InputColumn:
    """Lay the values of one column out as the engine takes them."""
    if kind.startswith(ARRAY):
        starts = array("q", itertools.accumulate((len(value.elements) for value in values), initial=0))
        dimensions = array("i")
        for value in values:
            padding = [0] * (MAX_DIMENSIONS - len(value.dimensions))
            dimensions.extend([len(value.dimensions), *value.dimensions, *padding])
        elements = _pack(kind[1:], [element for value in values for element in value.elements])
        return elements, starts.tobytes(), dimensions.tobytes()
    if kind in _ARRAY_CODES:
        return array(_ARRAY_CODES[kind], values).tobytes()
    offsets = array("q", itertools.accumulate((len(value) for value in values), initial=0))
    return offsets.tobytes(), b"".join(values)


def _unpack(kind: str, column: OutputColumn) -> list[Any]:
    """Turn a result column into Python values that Multicorn can show."""
    values, offsets, nulls, starts, dimensions = column
    if starts is not None and dimensions is not None:
        elements = _unpack(kind[1:], column._replace(nulls=None, starts=None, dimensions=None))
        arrays = [_nest(elements, start, shape) for start, shape in zip(starts.tolist(), dimensions.tolist())]
        return arrays if nulls is None else [None if null else array for array, null in zip(arrays, nulls)]
    if offsets is None:
        unpacked: list[Any] = values.tolist()  # type: ignore[union-attr]
        if kind == "?":
            unpacked = [bool(value) for value in unpacked]
    else:
        bounds = offsets.tolist()
        unpacked = [bytes(values[start:end]) for start, end in zip(bounds, bounds[1:])]
        if kind == "s":
            unpacked = [value.decode() for value in unpacked]
    if nulls is None:
        return unpacked
    return [None if null else value for value, null in zip(unpacked, nulls)]


def _nest(elements: Sequence[Any], start: int, shape: Sequence[int]) -> list[Any]:
    """Take one array out of a column's elements, as nested lists."""
    if len(shape) == 1:
        return list(elements[start : start + shape[0]])
    step = math.prod(shape[1:])
    return [_nest(elements, start + number * step, shape[1:]) for number in range(shape[0])]


# ---------------------------------------------------------------- quals


def _equality(slot: Slot, qual: Any) -> list[object] | None:
    """Return the values with which a qual equates its column; None: it is no equality."""
    operator, value = qual.operator, qual.value
    if operator == "=":
        return [value]
    if isinstance(operator, tuple):
        is_any = operator[0] == "=" and bool(operator[1])
        return list(value or ()) if is_any else None
    if slot.kind == "?" and value is not None:
        # PostgreSQL turns "flag = false" into "NOT flag", which comes as "flag <> true".
        if operator == "<>":
            return [not _convert(slot, value)]
        if operator == "IS":
            return [value]
    return None


def bind(slot: Slot, quals: Iterable[Any]) -> list[_Value] | None:
    """Return the values to which the quals bind an input column, each once; None: it is not bound.

    Several equalities on one column leave the values that satisfy all of them.
    """
    bound: dict[object, _Value] | None = None
    for qual in quals:
        given = _equality(slot, qual) if qual.field_name == slot.column.name else None
        if given is None:
            continue
        distinct: dict[object, _Value] = {}
        for value in given:
            candidate = _Value(value, _convert(slot, value))
            if candidate.converted is not None:
                distinct.setdefault(candidate.key, candidate)
        bound = distinct if bound is None else {key: bound[key] for key in bound if key in distinct}
    return None if bound is None else list(bound.values())


def _must_be_bound(slot: Slot, wanted: set[str]) -> bool:
    """Tell whether a scan without a value for this input must fail.

    An optional input that the query reads counts: it may be read by a join condition, which Multicorn does not show,
    and which would find a NULL and drop every row in silence.
    """
    return not slot.optional or slot.column.name in wanted


def _is_equality(slot: Slot, qual: Any) -> bool:
    """Tell whether a qual binds a column, without looking at a value that EXPLAIN does not have."""
    if qual.field_name != slot.column.name:
        return False
    operators: tuple[object, ...] = ("=", "<>", "IS") if slot.kind == "?" else ("=",)
    return qual.operator in operators or (isinstance(qual.operator, tuple) and tuple(qual.operator) == ("=", True))


# ---------------------------------------------------------------- the class


class ModelFdw(ForeignDataWrapper):  # type: ignore[misc]
    """A model as a Multicorn foreign table."""

    def __init__(self, fdw_options: Mapping[str, str], fdw_columns: Mapping[str, Any]) -> None:
        """Parse the merged options and the columns' definitions (Multicorn's ColumnDefinition, by name)."""
        super().__init__(fdw_options, fdw_columns)
        levels = options.split_levels(fdw_options)
        model = levels[options.TABLE].get("model")
        if model is None:
            raise errors.MissingOption(
                'option "model" is required for a foreign table of Multicorn',
                "Multicorn does not tell the name of the table.",
                'Set option "model".',
            )
        self._table = options.read_table(
            {
                "oid": 0,
                "schema": "",
                "name": model,
                "options": levels[options.TABLE],
                "server": {"oid": 0, "name": "", "options": levels[options.SERVER]},
                "user_mapping": levels[options.USER_MAPPING],
                "columns": [
                    {"attnum": number, "name": name, "type": column.base_type_name, "options": column.options}
                    for number, (name, column) in enumerate(fdw_columns.items(), start=1)
                ],
            }
        )

    def _slots(self) -> tuple[Slot, ...]:
        engine = load_engine()
        slots: tuple[Slot, ...] = _finish(Ticket(engine.predictor.describe(self._table)))
        return slots

    def _inputs(self) -> list[Slot]:
        return [slot for slot in self._slots() if slot.role == INPUT]

    def get_rel_size(self, quals: Sequence[Any], columns: Iterable[str]) -> tuple[int, int]:
        """Estimate rows and their width in bytes; a scan that lacks an input is estimated beyond all reason.

        Multicorn reckons rows times width as the cost, so that the width is not the true one.
        """
        wanted = set(columns)
        width = COLUMN_WIDTH * max(1, len(wanted))
        rows = 1
        for slot in self._inputs():
            bound = bind(slot, quals)
            if bound is not None:
                rows *= max(1, len(bound))
            elif _must_be_bound(slot, wanted):
                return UNBOUND_ROWS, width
        return min(rows, UNBOUND_ROWS), width

    def get_path_keys(self) -> list[tuple[tuple[str, ...], int]]:
        """Offer lookups by all inputs, one row each; where some are optional, by the required ones, too."""
        inputs = self._inputs()
        every = tuple(slot.column.name for slot in inputs)
        required = tuple(slot.column.name for slot in inputs if not slot.optional)
        keys = [(every, 1)]
        if required and required != every:
            keys.append((required, 2))
        return keys if every else []

    def explain(
        self,
        quals: Sequence[Any],
        columns: Iterable[str],
        sortkeys: Sequence[Any] | None = None,
        verbose: bool = False,
        limit: int | None = None,
        offset: int | None = None,
    ) -> list[str]:
        """Describe the scan for EXPLAIN; the values of parameters are not known then, and are not looked at."""
        inputs = self._inputs()
        missing = [
            slot.column.name
            for slot in inputs
            if not slot.optional and not any(_is_equality(slot, qual) for qual in quals)
        ]
        lines = [
            f"Model: {self._table.options.model}",
            f"Server: {self._table.server.options.address}",
        ]
        if missing:
            lines.append(f"Unbound Inputs: {', '.join(missing)}")
        if verbose:
            lines.append(f"Batch Size: {self._table.options.batch_size}")
            lines.append(f"In Flight: {self._table.options.max_in_flight}")
        lines.append("Joins: one request per outer row, unless library model_fdw is loaded")
        return lines

    def execute(
        self,
        quals: Sequence[Any],
        columns: Iterable[str],
        sortkeys: Sequence[Any] | None = None,
        limit: int | None = None,
        offset: int | None = None,
    ) -> Iterator[Row]:
        """Yield one dict per combination of bound input values, of the wanted columns' names and values."""
        wanted = set(columns)
        slots = self._slots()
        inputs, values = [], []
        for slot in slots:
            if slot.role != INPUT:
                continue
            bound = bind(slot, quals)
            if bound is None and _must_be_bound(slot, wanted):
                raise unbound(self._table.name, slot.column.name)
            if bound is not None:
                inputs.append(slot)
                values.append(bound)
        outputs = [slot for slot in slots if slot.role == OUTPUT and slot.column.name in wanted]
        if all(values):
            yield from self._predict(inputs, itertools.product(*values), outputs, wanted)

    def _predict(
        self,
        inputs: Sequence[Slot],
        rows: Iterator[tuple[_Value, ...]],
        outputs: Sequence[Slot],
        wanted: set[str],
    ) -> Iterator[Row]:
        """Send the rows in batches, several in flight, and yield the answers in order."""
        engine = load_engine()
        bound, asked = [slot.attnum for slot in inputs], [slot.attnum for slot in outputs]
        session = _finish(Ticket(engine.predictor.open_session(self._table, bound, asked)))
        flight: deque[tuple[list[tuple[_Value, ...]], Ticket[Columns]]] = deque()
        try:
            for batch in self._batches(rows):
                columns = [
                    _pack(slot.kind, [row[position].converted for row in batch]) for position, slot in enumerate(inputs)
                ]
                flight.append((batch, engine.predictor.submit(session, len(batch), columns)))
                if len(flight) == self._table.options.max_in_flight:
                    yield from _rows(inputs, outputs, wanted, *flight.popleft())
            while flight:
                yield from _rows(inputs, outputs, wanted, *flight.popleft())
        finally:
            engine.predictor.close(session)

    def _batches(self, rows: Iterator[tuple[_Value, ...]]) -> Iterator[list[tuple[_Value, ...]]]:
        """Cut the rows into batches that start small, so that LIMIT costs little, and grow."""
        size = FIRST_BATCH_SIZE
        while batch := list(itertools.islice(rows, min(size, self._table.options.batch_size))):
            yield batch
            size *= BATCH_GROWTH

    @classmethod
    def import_schema(
        cls,
        schema: str,
        srv_options: Mapping[str, str],
        options_: Mapping[str, str],
        restriction_type: str | None,
        restricts: Sequence[str],
    ) -> list[Any]:
        """Define the tables of IMPORT FOREIGN SCHEMA, as Multicorn's TableDefinition where that is installed."""
        settings = options.read_import(options_)
        levels = options.split_levels(srv_options)
        server = options.read_server(0, "", levels[options.SERVER], levels[options.USER_MAPPING])
        kind = {None: "all", "limit": "limit to", "except": "except"}[restriction_type]
        engine = load_engine()
        restriction = engine.importer.Restriction(kind, frozenset(restricts))
        tables, notices = _finish(Ticket(engine.importer.import_tables(server, schema, restriction, settings, {})))
        return _to_multicorn(tables, notices)


def _rows(
    inputs: Sequence[Slot],
    outputs: Sequence[Slot],
    wanted: set[str],
    batch: Sequence[tuple[_Value, ...]],
    ticket: Ticket[Columns],
) -> Iterator[Row]:
    answers = [_unpack(slot.kind, column) for slot, column in zip(outputs, _finish(ticket))]
    for number, row in enumerate(batch):
        shown = {slot.column.name: value.given for slot, value in zip(inputs, row) if slot.column.name in wanted}
        shown.update((slot.column.name, answer[number]) for slot, answer in zip(outputs, answers))
        yield shown


def _to_multicorn(tables: Sequence[definitions.TableDefinition], notices: Sequence[definitions.Notice]) -> list[Any]:
    """Turn our definitions into Multicorn's, and show the notices."""
    if TableDefinition is None:
        return list(tables)
    for notice in notices:
        log_to_postgres(notice.message, detail=notice.detail, hint=notice.hint)
    return [
        TableDefinition(
            table.name,
            columns=[
                ColumnDefinition(column.name, type_name=column.type, options=column.options) for column in table.columns
            ],
            options=table.options,
        )
        for table in tables
    ]
