"""The Multicorn class: quals to columns, columns to rows.

Multicorn2 3.x (https://github.com/pgsql-io/multicorn2) calls these methods with its own objects: a Qual has
field_name, operator (a string, or a pair (operator, is ANY) for lists) and value; columns is a set of names. It
rechecks every qual, merges server, user mapping and table options into one dict, and tells a wrapper neither its
table's nor its server's name.

Where the C library is loaded it plans and runs these tables itself (fdw/native/multicorn.c), and of this class only
import_schema() is called.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import math
import signal
from array import array
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Iterator, Mapping, Sequence

from fdw import errors, options
from fdw.host import Engine, load_engine, rest
from fdw.signature import ARRAY, INPUT, KIND_TYPES, MAX_DIMENSIONS, OUTPUT, Slot, kind_type, unbound
from fdw.tickets import Ticket, wait

if TYPE_CHECKING:
    from fdw import definitions
    from fdw.codec import InputColumn, OutputColumn
    from fdw.predictor import Columns, Session


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


LOAD_HINT = "Load library model_fdw, for instance with session_preload_libraries."

# What the planner shall believe of a scan that lacks an input: it runs only to raise an error, so anything is cheaper.
UNBOUND_ROWS = 1_000_000_000
COLUMN_WIDTH = 100
FIRST_BATCH_SIZE = 64
BATCH_GROWTH = 4

# Up to PostgreSQL 15 a nested loop over one of Multicorn's parameterised paths leaves out every other condition of the
# join: Multicorn does not list these conditions as checked or unchecked. From 16 on such a list is required.
FIRST_SAFE_JOINS = 160000

# Decimal digits that survive in a float, as which Multicorn hands a numeric over.
EXACT_DIGITS = 15

Row = Dict[str, Any]


# ---------------------------------------------------------------- the server process around us


@cache
def server_version() -> int | None:
    """Return PostgreSQL's version as a number, such as 150004; None outside a server."""
    program = ctypes.PyDLL(None)
    if not hasattr(program, "GetConfigOption"):
        return None
    program.GetConfigOption.restype = ctypes.c_char_p
    program.GetConfigOption.argtypes = (ctypes.c_char_p, ctypes.c_bool, ctypes.c_bool)
    return int(program.GetConfigOption(b"server_version_num", True, False))


def _joins_are_safe() -> bool:
    version = server_version()
    return version is None or version >= FIRST_SAFE_JOINS


# PostgreSQL's own flags, by the message that it gives when it finds one set.
_INTERRUPTS = {
    "ProcDiePending": "terminating connection due to administrator command",
    "QueryCancelPending": "canceling statement due to user request or timeout",
}


@cache
def _interrupt_flags() -> dict[str, ctypes.c_int]:
    """Find PostgreSQL's flags by their messages; none outside a server."""
    program = ctypes.CDLL(None)
    try:
        return {message: ctypes.c_int.in_dll(program, name) for name, message in _INTERRUPTS.items()}
    except ValueError:
        return {}


def check_interrupts() -> None:
    """Raise if the statement shall end.

    Multicorn's own function would leave through Python's frames without unwinding them; an exception unwinds them, and
    PostgreSQL acts on its flags as soon as it is back.
    """
    for message, flag in _interrupt_flags().items():
        if flag.value:
            raise errors.Cancelled(message)


# Those that a thread raises by its own fault cannot be blocked usefully.
_BLOCKED = signal.valid_signals() - {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}


@contextmanager
def working() -> Iterator[None]:
    """Block all signals: threads that gRPC makes meanwhile inherit this, and PostgreSQL's handlers run in none."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _engine() -> Engine:
    with working():
        return load_engine()


def _finish(start: Callable[[], Ticket[Any]]) -> Any:
    """Start a piece of work and wait for it."""
    with working():
        ticket = start()
    return wait(ticket, check_interrupts, working)


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


def _has_lost_digits(slot: Slot, value: float) -> bool:
    """Tell whether a float may stand for a numeric of more digits, which PostgreSQL would not find equal to it."""
    if not math.isfinite(value) or (slot.kind not in _INTEGER_RANGES and slot.column.type != "numeric"):
        return False
    return len(Decimal(repr(value)).normalize().as_tuple().digits) > EXACT_DIGITS


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
    if isinstance(value, float) and _has_lost_digits(slot, value):
        raise errors.Unsupported(
            f'cannot read the value of input column "{slot.column.name}"',
            f"Multicorn hands a numeric over as double precision, which is exact to {EXACT_DIGITS} digits only.",
            LOAD_HINT,
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


# Types to which PostgreSQL casts a float otherwise than by way of its text, which is all that Multicorn passes on.
_INTEGER_TYPES = ("smallint", "integer", "bigint")
_FLOAT_DIGITS = {"f": 6, "d": 15}


def _as_type(slot: Slot, values: list[Any]) -> list[Any]:
    """Cast floats as PostgreSQL does: to the nearest integer, the even one of two, or to a numeric's certain digits."""
    digits, type_ = _FLOAT_DIGITS.get(slot.kind), slot.column.type
    if digits is not None and type_ in _INTEGER_TYPES:
        return [round(value) if value is not None and math.isfinite(value) else value for value in values]
    if digits is not None and type_ == "numeric":
        return [None if value is None else f"{value:.{digits}g}" for value in values]
    return values


# ---------------------------------------------------------------- quals


def _equality(slot: Slot, qual: Any) -> list[object] | None:
    """Return the values with which a qual equates its column; None: it is no equality."""
    operator, value = qual.operator, qual.value
    if operator == "=":
        return [value]
    if isinstance(operator, tuple):
        if operator[0] != "=" or not operator[1]:
            return None
        if value is not None and not isinstance(value, list):
            # Multicorn takes the elements' type for that of an array which is computed.
            raise errors.Unsupported(
                f'cannot read the list for input column "{slot.column.name}"',
                "Multicorn hands over only lists that are a constant, a parameter or a subquery's.",
                LOAD_HINT,
            )
        return value or []
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


def _unbound(table: str, column: str) -> errors.UnboundInput:
    """Build the error of a scan that lacks a value, with the reason why a join could not give it."""
    error = unbound(table, column)
    if not _joins_are_safe():
        error.detail = (
            "Other tables give it a value only where library model_fdw is loaded: before PostgreSQL 16, Multicorn by "
            "itself would lose the other conditions of such a join."
        )
    return error


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

        # Inputs that constants give their values in every scan that is being planned; None: no scan is.
        self._given: frozenset[str] | None = None
        # What is in flight, with the depth of the subtransaction that began it.
        self._open: dict[Session, int] = {}
        self._depth = 0

    def _slots(self) -> tuple[Slot, ...]:
        engine = _engine()
        slots: tuple[Slot, ...] = _finish(lambda: Ticket(engine.predictor.describe(self._table)))
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
        given, complete = set(), True
        for slot in self._inputs():
            bound = bind(slot, quals)
            if bound is not None:
                given.add(slot.column.name)
                rows *= max(1, len(bound))
            elif _must_be_bound(slot, wanted):
                complete = False
        self._given = frozenset(given) if self._given is None else self._given & given
        return min(rows, UNBOUND_ROWS) if complete else UNBOUND_ROWS, width

    def get_path_keys(self) -> list[tuple[tuple[str, ...], int]]:
        """Offer lookups by all inputs, one row each; where some are optional, by the required ones, too.

        The planner takes a lookup only where a join or an equivalence gives each of its columns a value. A list is
        neither, so the inputs that constants and lists give their values are left out in further lookups. Which scan is
        asked about is not known here: only inputs count that are given in each of those being planned.
        """
        if not _joins_are_safe():
            return []
        inputs = self._inputs()
        given = self._given or frozenset()
        every = tuple(slot.column.name for slot in inputs)
        required = tuple(slot.column.name for slot in inputs if not slot.optional)
        if given.issuperset(every):
            return []
        keys = {every: 1}
        keys.setdefault(required, 2)
        for columns, rows in list(keys.items()):
            keys.setdefault(tuple(name for name in columns if name not in given), rows)
        keys.pop((), None)
        return list(keys.items())

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
        self._given = None
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
        lines.append("Requests: one per outer row; for batches load library model_fdw")
        return lines

    def execute(
        self,
        quals: Sequence[Any],
        columns: Iterable[str],
        sortkeys: Sequence[Any] | None = None,
        limit: int | None = None,
        offset: int | None = None,
    ) -> Iterator[Row]:
        """Yield one dict per combination of bound input values, of the columns' names and values."""
        self._given = None
        wanted = set(columns)
        slots = self._slots()
        inputs, values = [], []
        for slot in slots:
            if slot.role != INPUT:
                continue
            bound = bind(slot, quals)
            if bound is None and _must_be_bound(slot, wanted):
                raise _unbound(self._table.name, slot.column.name)
            if bound is not None:
                inputs.append(slot)
                values.append(bound)
        if all(values):
            # All outputs, wanted or not: where a whole row is read, Multicorn does not say so.
            outputs = [slot for slot in slots if slot.role == OUTPUT]
            yield from self._predict(inputs, itertools.product(*values), outputs)

    def _predict(
        self,
        inputs: Sequence[Slot],
        rows: Iterator[tuple[_Value, ...]],
        outputs: Sequence[Slot],
    ) -> Iterator[Row]:
        """Send the rows in batches, several in flight, and yield the answers in order."""
        engine = _engine()
        bound, asked = [slot.attnum for slot in inputs], [slot.attnum for slot in outputs]
        session = _finish(lambda: Ticket(engine.predictor.open_session(self._table, bound, asked)))
        self._open[session] = self._depth
        flight: deque[tuple[list[tuple[_Value, ...]], Ticket[Columns]]] = deque()
        try:
            for batch in self._batches(rows):
                columns = [
                    _pack(slot.kind, [row[position].converted for row in batch]) for position, slot in enumerate(inputs)
                ]
                with working():
                    flight.append((batch, engine.predictor.submit(session, len(batch), columns)))
                if len(flight) == self._table.options.max_in_flight:
                    yield from _rows(inputs, outputs, *flight.popleft())
            while flight:
                yield from _rows(inputs, outputs, *flight.popleft())
        finally:
            self._close(session)

    def _close(self, session: Session) -> None:
        self._open.pop(session, None)
        with working():
            _engine().predictor.close(session)

    def begin(self, serializable: bool) -> None:
        """Note that a transaction begins."""
        self._given, self._depth = None, 1

    def sub_begin(self, level: int) -> None:
        """Note that a subtransaction begins, at this depth."""
        self._depth = level

    def sub_commit(self, level: int) -> None:
        """Hand what a subtransaction began to the one around it."""
        self._depth = level - 1
        self._open = {session: min(depth, self._depth) for session, depth in self._open.items()}

    def sub_rollback(self, level: int) -> None:
        """End what a subtransaction began: after an error Multicorn forgets its scans without closing them."""
        self._given, self._depth = None, level - 1
        for session in [session for session, depth in self._open.items() if depth >= level]:
            self._close(session)

    def commit(self) -> None:
        """Let the threads end with the transaction."""
        with working(), contextlib.suppress(Exception):  # Multicorn has committed already
            rest()

    def rollback(self) -> None:
        """End everything, likewise."""
        self.sub_rollback(0)
        self.commit()

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
        engine = _engine()
        restriction = engine.importer.Restriction(kind, frozenset(restricts))
        try:
            tables, notices = _finish(
                lambda: Ticket(engine.importer.import_tables(server, schema, restriction, settings, {}))
            )
        finally:
            with working():
                rest()
        return _to_multicorn(tables, notices)


def _rows(
    inputs: Sequence[Slot],
    outputs: Sequence[Slot],
    batch: Sequence[tuple[_Value, ...]],
    ticket: Ticket[Columns],
) -> Iterator[Row]:
    columns = _finish(lambda: ticket)
    answers = [_as_type(slot, _unpack(slot.kind, column)) for slot, column in zip(outputs, columns)]
    for number, row in enumerate(batch):
        shown = {slot.column.name: value.given for slot, value in zip(inputs, row)}
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
