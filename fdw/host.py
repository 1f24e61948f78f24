"""The functions that the C library calls; nothing else of this package is in its reach.

None of them ever waits for the network. Whatever may need it starts the work and returns a *ticket*; the C library
waits on the backend's latch and on an eventfd, interruptibly, and polls the ticket. The only exception that C expects
is ``errors.ModelFdwError`` (attributes ``sqlstate``, ``message``, ``detail``, ``hint``); any other one is a bug and is
reported as XX000.

**Table descriptions** are plain dicts, as the catalogs have them:

- ``oid``, ``schema``, ``name``, ``options`` (dict of strings) of the foreign table;
- ``server``: a dict of ``oid``, ``name``, ``options``;
- ``user_mapping``: the options of the user mapping that applies, empty where there is none;
- ``columns``: a list of dicts of ``attnum``, ``name``, ``type`` (as format_type writes it) and ``options``.

**Columns of values** cross as buffers, a *kind* (one character) says of what. The natural SQL type is in brackets:

- ``?`` uint8, 0 or 1 [boolean]; ``h`` int16 [smallint]; ``i`` int32 [integer]; ``q`` int64 [bigint];
  ``Q`` uint64 [numeric(20)]; ``f`` float32 [real]; ``d`` float64 [double precision]: one native value per row;
- ``s`` UTF-8 text [text]; ``b`` bytes [bytea]: int64 offsets, one more than there are rows, and the bytes;
- ``[`` and one of these: an array of that element. All rows' elements, one after the other, are a column of their own
  kind; beside it the rows' dimensions and where each row begins among the elements.

Importing this module, validate() and validate_table() import neither numpy nor gRPC.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, List, Mapping, Sequence, Tuple, TypeVar

from fdw import __version__, checks, definitions, errors, options
from fdw.tickets import Steps, Ticket, notifier

if TYPE_CHECKING:
    from fdw import codec, compare, predictor, signature

T = TypeVar("T")

# attnum, role, kind, optional
ColumnDescription = Tuple[int, str, str, bool]
# columns, batch_size, max_in_flight, row_cost, model, version, endpoint, whether a request takes several rows
Description = Tuple[List[ColumnDescription], int, int, float, str, str, str, bool]


# Read by libraries when they are loaded; what the server's own environment says wins.
_ENVIRONMENT = {
    # numpy's linear algebra, which is not used here, would start a thread per core in every backend.
    "OPENBLAS_NUM_THREADS": "1",
    # gRPC writes every failed connection to the server log; our errors say the same to the user.
    "GRPC_VERBOSITY": "NONE",
}


@dataclass(frozen=True)
class Engine:
    """The modules that need numpy."""

    predictor: ModuleType
    importer: ModuleType
    compare: ModuleType


# numpy first, whose import takes the longest; then the engine's own modules.
_ENGINE = ("numpy", "fdw.predictor", "fdw.importer", "fdw.compare")


@cache
def load_engine() -> Engine:
    """Import the modules that need numpy.

    For this package, not for C. Raises MissingPackage (58P01).
    """
    return Engine(*[_import(name) for name in _ENGINE][1:])


def _import(name: str) -> ModuleType:
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    try:
        return import_module(name)
    except (ImportError, RuntimeError) as error:  # tritonclient turns one into the other
        raise errors.from_import_error(error) from None


def _load_engine() -> Steps[Engine]:
    """Do the same in pieces; between them, whoever polls can find that nobody wants it any more."""
    for name in _ENGINE:
        if name not in sys.modules:
            _import(name)
            yield time.monotonic()
    return load_engine()


def preload() -> None:
    """Import everything in the postmaster, before it forks; no thread is made and nothing is connected.

    Raises MissingPackage (58P01).
    """
    load_engine()
    import_module("fdw.protocols").load_all()


def start(event_fd: int, version: str) -> None:
    """Take the eventfd of this backend, and the library's version; once, before anything else here is called.

    Whenever a ticket's state may have changed, 8 bytes (a native uint64, 1) are written to it, from any thread. No
    thread is made here. Raises MissingPackage (58P01) where this package is of another version than the library.
    """
    if version != __version__:
        raise errors.MissingPackage(
            f"Python package model_fdw has version {__version__}, the loaded library version {version}",
            f'The package is in "{Path(__file__).parent}".',
            "Connect again if there was an upgrade, else install both from the same release.",
        )
    notifier.use_event_fd(event_fd)


def validate(level: str, values: Mapping[str, str], may_read_files: bool = False) -> None:
    """Check the options of one level, as a validator must.

    ``level`` is 'foreign-data wrapper', 'server', 'user mapping', 'table', 'column' or 'import'. Raises UnknownOption
    (HV00D) with the closest match as hint, BadOption (22023) with the valid range, MissingOption (HV00J), or
    PermissionDenied (42501) for an option that names a file unless ``may_read_files``: whether the current user has the
    privileges of pg_read_server_files.
    """
    options.validate(level, values, may_read_files)


def validate_table(table: Mapping[str, Any]) -> tuple[list[int], list[list[ColumnDescription]]]:
    """Check a table as a whole when its DDL ends; no server is asked.

    The result is a tuple for the checks of types, which are C's: the attnums of the columns that are known to be
    inputs; and the columns that are fully described, in each way to read their shapes, the likeliest first, as
    describe() has them. In one of these all types must have casts. Raises as validate(), and InvalidTable (42P16),
    WrongTensor (HV005) and WrongDtype (HV004).
    """
    return checks.validate_table(table)


def poll(ticket: Ticket[Any]) -> int:
    """Do what can be done without waiting.

    Returns 0: finished, collect() may be called; n > 0: poll again after at most n ms, or earlier on the event; -1:
    poll again on the event.
    """
    return ticket.poll()


def collect(ticket: Ticket[T]) -> T:
    """Return a finished ticket's result, or raise its error; once, and only after poll() gave 0."""
    return ticket.collect()


def cancel(ticket: Ticket[Any]) -> None:
    """Cancel what is in flight; safe at any time, twice, and after the end."""
    ticket.cancel()


def describe(table: Mapping[str, Any]) -> Ticket[Description]:
    """Say which column is which slot of the model, for the planner.

    The result is a tuple: the columns in the order given, each (attnum, 'i' for input or 'o' for output, kind, whether
    the model can do without it); batch_size and max_in_flight in rows and batches; row_cost; the model's name; its
    version ('' = the server's choice); the endpoint as host:port; whether the model has a dimension for rows, without
    which each row is a request.

    A column is tied to a tensor by option "input" or "output", else by its own name; "index" picks one element of a
    vector. Where every column says input or output, dtype and shape, no server is asked and the ticket is finished at
    once. Raises as open().
    """
    return Ticket(_describe(options.read_table(table)))


def _describe(table: options.Table) -> Steps[Description]:
    engine = yield from _load_engine()
    slots: tuple[signature.Slot, ...] = yield from engine.predictor.describe(table)
    settings = table.options
    return (
        [(slot.attnum, slot.role, slot.kind, slot.optional) for slot in slots],
        settings.batch_size,
        settings.max_in_flight,
        settings.row_cost,
        settings.model,
        settings.version,
        table.server.options.address,
        all(slot.batched for slot in slots),
    )


def open(
    table: Mapping[str, Any], bound: Sequence[int], wanted: Sequence[int], kinds: Sequence[str] = ()
) -> Ticket[predictor.Session]:
    """Begin a scan; the result is a session, which is opaque to C.

    ``bound``: attnums of the bound input columns, in the order of submit's columns; ``wanted``: attnums of the output
    columns, in the order of its results. With none wanted the smallest output is requested all the same, because a row
    exists only if the server answered. ``kinds``: what describe() said of these columns, in the same order; it is an
    error if the live model gives them others.

    Metadata and configuration are asked for once a minute per backend, connection, model and version, anew where they
    do not fit the table, and dropped after any error of that model. Raises UnknownModel (HV00R), ModelNotReady (55000),
    WrongTensor (HV005), WrongDtype (HV004), UnboundInput (HV00L), Unsupported (0A000: decoupled, sequence) and the
    transport's errors.
    """
    parsed = options.read_table(table)
    engine = load_engine()
    return Ticket(engine.predictor.open_session(parsed, bound, wanted, kinds))


def submit(session: predictor.Session, nrows: int, columns: Sequence[codec.InputColumn]) -> Ticket[predictor.Columns]:
    """Start the inference of a batch of ``nrows`` rows, 1 to batch_size.

    ``columns``, one per bound input and without NULLs: for fixed-width kinds a buffer of nrows values; for 's' and 'b'
    a tuple (offsets, data); for arrays a tuple (elements, starts, dimensions): a column of elements in one of these
    forms, nrows + 1 of int64, and 7 of int32 per row, which are the number of dimensions and then each of them. They
    are read during this call only. A batch is split by the model's max_batch_size, and rows of different shapes
    travel apart; a model without a batch dimension gets one request per row.

    The result is a list, one tuple (values, offsets, nulls, starts, dimensions) per wanted column, of buffers or None.
    Fixed-width kinds: nrows values. 's' and 'b': the bytes and nrows + 1 int64 offsets. Arrays: values and offsets of
    all elements; starts, nrows of int64, say which element a row begins with, in no certain order; dimensions, int32,
    are equally many for every row. nulls is None or nrows of uint8, 1 = NULL. Every output is verified: dtype, shape,
    rows, length. Raises ValueOutOfRange (22003) and WrongShape (2202E) at once, MalformedReply (HV00M) and the
    server's errors from collect().
    """
    engine = load_engine()
    ticket: Ticket[predictor.Columns] = engine.predictor.submit(session, nrows, columns)
    return ticket


def traffic(session: predictor.Session) -> tuple[int, int]:
    """Return the bytes of tensors that the scan has sent and received so far."""
    return session.traffic.sent, session.traffic.received


def statistics(session: predictor.Session) -> Ticket[tuple[int, int] | None]:
    """Ask the server for the time that the model's requests waited and took, of all clients since it was loaded.

    The result is (queue, compute) in microseconds, or None where the server does not tell. Raises nothing.
    """
    return Ticket(load_engine().predictor.statistics(session))


def close(work: predictor.Session | Ticket[Any]) -> None:
    """End a scan, or a ticket that belongs to none: cancel what is in flight, let threads end; safe twice.

    With the last one that has something in flight it waits, a few ms at most, for threads to end.
    """
    if isinstance(work, Ticket):
        work.cancel()
    else:
        load_engine().predictor.close(work)
    rest()


def rest() -> None:
    """Let threads end unless a request is in flight. For this package, not for C."""
    connections = sys.modules.get("fdw.connections")
    if connections is not None:  # else no work has needed a thread yet
        connections.rest()


def import_schema(
    server: Mapping[str, Any],
    user_mapping: Mapping[str, str],
    remote_schema: str,
    restriction: str,
    names: Sequence[str],
    values: Mapping[str, str],
    existing: Sequence[Mapping[str, Any]] = (),
) -> Ticket[tuple[list[str], list[definitions.Notice]]]:
    """Make foreign tables of a server's models (IMPORT FOREIGN SCHEMA).

    ``server`` is a dict of oid, name, options; ``restriction`` 'all', 'limit to' or 'except', with ``names`` of models
    or tables; ``values`` the statement's options; ``existing`` the descriptions of the server's tables in the local
    schema, which are not made again. The result is a list of CREATE FOREIGN TABLE statements, everything quoted,
    without a schema for the table, and a list of notices, each (message, detail or None, hint or None). Raises
    UnknownSchema (HV00Q) unless the remote schema is "models", Unsupported (0A000) if LIMIT TO names a model that
    cannot be a table, and what validate() raises.
    """
    settings = options.read_import(values)
    parsed = options.read_server(server["oid"], server["name"], server["options"], user_mapping)
    tables = {table["name"]: options.read_table(table) for table in existing}
    return Ticket(_import_schema(parsed, remote_schema, restriction, names, settings, tables))


def _import_schema(
    server: options.Server,
    remote_schema: str,
    restriction: str,
    names: Sequence[str],
    settings: options.ImportOptions,
    existing: Mapping[str, options.Table],
) -> Steps[tuple[list[str], list[definitions.Notice]]]:
    engine = yield from _load_engine()
    restricted = engine.importer.Restriction(restriction, frozenset(names))
    tables, notices = yield from engine.importer.import_tables(server, remote_schema, restricted, settings, existing)
    return [definitions.create_statement(table, server.name) for table in tables], notices


def check(table: Mapping[str, Any]) -> Ticket[tuple[list[compare.Problem], list[ColumnDescription]]]:
    """Compare a table with the live model, for model_fdw_check().

    The result is a list of problems, each (severity, column or None, problem, detail or None, cure or None), and the
    columns without any of these, as describe() has them: C adds those whose types do not fit. A server that cannot be
    reached, a model that is unknown or not ready are problems, no errors.
    """
    return Ticket(_check(options.read_table(table)))


def _check(table: options.Table) -> Steps[tuple[list[compare.Problem], list[ColumnDescription]]]:
    engine = yield from _load_engine()
    found: compare.Comparison = yield from engine.compare.check(table)
    return found.problems, [(slot.attnum, slot.role, slot.kind, slot.optional) for slot in found.slots]
