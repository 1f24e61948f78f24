"""Batches in, results out: the sessions of scans.

A batch is packed into tensors at once, cut into requests no larger than the model takes, sent, waited for (by whoever
polls the ticket), verified and unpacked in the order of its rows. No row comes back that the server did not answer.
"""

from __future__ import annotations

import json
import weakref
from dataclasses import dataclass, field
from typing import Sequence

import numpy as np

from fdw import codec, errors, signature
from fdw.compare import ERROR, compare
from fdw.connections import (
    Connection,
    ask_statistics,
    attempt,
    connect,
    forget_model,
    load_model,
    table_effort,
    with_model,
)
from fdw.options import MAX_BATCH_SIZE, Table
from fdw.protocols.base import InferRequest, InputData
from fdw.replicas import Effort
from fdw.tickets import Steps, Ticket, gather, notifier

Columns = Sequence[codec.OutputColumn]

STATISTICS_TIMEOUT_MS = 1000

# No server's limit of requests is less than this, so that nothing which one says cuts all batches to single rows.
LEAST_LIMIT_BYTES = 65_536

# What a string in an answer costs beside its bytes, here and in PostgreSQL's arrays: a reply of as many empty strings
# as fit would take many times its size.
BYTES_PER_STRING = 32

# Input columns that the error of a refused request names at most.
NAMED_INPUTS = 10


@dataclass
class Traffic:
    """Bytes of tensors that a scan has sent and received, retries counted once."""

    sent: int = 0
    received: int = 0


@dataclass
class Limits:
    """What a scan has learned of how much one request may hold, and its answer."""

    request_bytes: int
    rows: int = MAX_BATCH_SIZE

    def learn_bytes(self, error: errors.OversizedMessage) -> None:
        """Note the limit of requests, where it is certain that one was refused unread for being over it."""
        if error.what == errors.REQUEST and error.limit_bytes is not None:
            self.request_bytes = min(self.request_bytes, max(error.limit_bytes, LEAST_LIMIT_BYTES))

    def learn_rows(self, error: errors.OversizedMessage, size: int, rows: int) -> None:
        """Note that so many rows, which were reckoned as so many bytes, were too many, and half of them were not.

        The size of an answer is not known before, so fewer rows have to do. What only the server says counts for no
        other batch.
        """
        reckoned = error.limit_bytes is not None and error.limit_bytes < size
        if error.what == errors.ANSWER or (error.what == errors.REQUEST and not reckoned):
            self.rows = max(1, min(self.rows, rows // 2))


@dataclass(frozen=True, eq=False)
class Session:
    """One scan of a model table: a connection, a plan, what it may try, its limits, and the batches in flight."""

    table: Table
    connection: Connection
    plan: signature.Plan
    effort: Effort
    limits: Limits
    tickets: weakref.WeakSet[Ticket[Columns]] = field(default_factory=weakref.WeakSet)
    traffic: Traffic = field(default_factory=Traffic)


def describe(table: Table) -> Steps[tuple[signature.Slot, ...]]:
    """Tie the columns to tensors; the server is asked only if the columns' options do not say everything."""
    if signature.is_self_described(table):
        return signature.describe(table, None)
    connection = yield from connect(table.server)
    effort = table_effort(table.options)
    return (yield from with_model(connection, table.options, effort, lambda model: signature.describe(table, model)))


def open_session(
    table: Table, bound: Sequence[int], wanted: Sequence[int], kinds: Sequence[str] = ()
) -> Steps[Session]:
    """Check the table against the live model and plan its requests (see fdw.signature.plan)."""
    connection = yield from connect(table.server)
    effort = table_effort(table.options)
    plan = yield from with_model(
        connection, table.options, effort, lambda model: signature.plan(table, model, bound, wanted, kinds)
    )
    return Session(table, connection, plan, effort, Limits(table.server.options.max_message_bytes))


def submit(session: Session, rows: int, columns: Sequence[codec.InputColumn]) -> Ticket[Columns]:
    """Start the inference of a batch.

    ``columns``, ``rows`` values each, are read during this call only. The ticket's result is one column per wanted
    output. Raises ValueOutOfRange at once.
    """
    with notifier.sending():
        tensors = [codec.encode(feed, rows, columns) for feed in session.plan.feeds]
        ticket = Ticket(_predict(session, rows, tensors))
    session.tickets.add(ticket)
    return ticket


def close(session: Session) -> None:
    """Cancel whatever is in flight."""
    for ticket in list(session.tickets):
        ticket.cancel()


def statistics(session: Session) -> Steps[tuple[int, int] | None]:
    """Ask the server how long the model's requests have waited and been computed, in microseconds.

    The counters are the server's, for all clients since the model was loaded. Nothing depends on them: the result is
    None where the server does not count or does not answer within STATISTICS_TIMEOUT_MS.
    """
    times = yield from ask_statistics(session.connection, session.table.options, STATISTICS_TIMEOUT_MS)
    if times.queue_ns is None or times.compute_ns is None:
        return None
    return times.queue_ns // 1000, times.compute_ns // 1000


@dataclass(frozen=True)
class Part:
    """Some rows of a batch and their answers; None: the server refused them, for the reason ``said``."""

    selection: codec.Selection
    columns: Columns | None
    said: str = ""


def _predict(session: Session, rows: int, tensors: Sequence[codec.EncodedTensor]) -> Steps[Columns]:
    """Run a batch as one or more requests, at most max_in_flight of them at once."""
    groups = codec.group_rows(tensors) if session.plan.model.batched else None
    selections = cut_rows(session.plan.model, rows, groups, session.limits.rows)
    try:
        answers = yield from gather(
            (_answer(session, tensors, selection) for selection in selections), session.table.options.max_in_flight
        )
    except (errors.ModelFailed, errors.MalformedReply) as error:
        changed = yield from _find_change(session, error.message)
        if changed is None and isinstance(error, errors.MalformedReply) and session.plan.model.silent:
            error.hint = f'Correct what the columns of foreign table "{session.table.name}" declare of the tensor.'
        raise changed or error from None
    except errors.ModelFdwError:
        forget_model(session.connection, session.table.options)
        raise
    parts = [part for several in answers for part in several]
    refused = next((part for part in parts if part.columns is None), None)
    changed = (yield from _find_change(session, refused.said)) if refused else None
    if changed:
        raise changed
    return _join(session.plan, rows, parts, groups is not None)


def _find_change(session: Session, said: str) -> Steps[errors.ModelFdwError | None]:
    """Return an error if the model has changed since it was asked for; ``said``: what makes one suspect that."""
    table, connection = session.table, session.connection
    forget_model(connection, table.options)
    try:
        model = yield from load_model(connection, table.options, table_effort(table.options))
        model = signature.complete(table, model)
    except errors.ModelFdwError:
        return None
    if model == session.plan.model:
        return None
    cures = any(problem.severity == ERROR for problem in compare(table, model).problems)
    return errors.WrongDtype(
        f'model "{model.name}" on model server "{connection.endpoint}" has changed',
        f"{signature.difference(session.plan.model, model)} A request for what it was failed: {said}.",
        signature.check_hint(table) if cures else "Run the statement again.",
    )


def _join(plan: signature.Plan, rows: int, parts: Sequence[Part], scattered: bool) -> Columns:
    """Put the answers of a batch together in the order of its rows; ``scattered``: the parts are not in that order."""
    good = [part for part in parts if part.columns is not None]
    refused = [part for part in parts if part.columns is None]
    places = _places(good, rows) if scattered or refused else None
    bad = _places(refused, rows)
    joined: list[codec.OutputColumn] = []
    for position, kind in enumerate(plan.kinds):
        if position in plan.messages:
            said = codec.text_column([refused[number].said for number in np.argsort(bad)])
            joined.append(codec.spread(said, np.sort(bad), rows))
            continue
        pieces = [part.columns[position] for part in good if part.columns is not None]
        column = codec.join_columns(pieces, places if scattered else None) if pieces else codec.no_values(kind)
        joined.append(codec.spread(column, np.sort(places), rows) if refused and places is not None else column)
    return joined


def _places(parts: Sequence[Part], rows: int) -> codec.Array:
    """Return the rows of parts, in their order."""
    every = np.arange(rows)
    return np.concatenate([every[:0], *(every[part.selection] for part in parts)])


def _answer(session: Session, tensors: Sequence[codec.EncodedTensor], selection: codec.Selection) -> Steps[list[Part]]:
    """Get the answers of some rows: as one request, else as two halves, and so on.

    A request that is too large is halved before it is sent, where the limit is known; one that the server refuses, if
    the table has a column for the server's message. Requests in addition are taken from the scan's budget. Rows of a
    method that is not idempotent are sent again only if it is certain that they were not served.
    """
    rows = _count(selection)
    message = _message(session, tensors, selection)
    if rows > 1 and message.size > session.limits.request_bytes:
        return (yield from _answer_halves(session, tensors, selection))
    try:
        columns = yield from _request(session, message, rows)
    except errors.OversizedMessage as error:
        if error.what != errors.REQUEST and not _is_idempotent(session):
            raise
        session.limits.learn_bytes(error)
        problem: errors.ModelFdwError = error
    except errors.ModelRefused as error:
        if not signature.has_error_column(session.table) or not _is_idempotent(session):
            raise _about_inputs(session, error) from None
        if rows == 1:
            return [Part(selection, None, error.said)]
        problem = error
    else:
        return [Part(selection, columns)]
    if rows == 1:
        raise problem
    if not session.effort.spend(2):
        raise errors.over_budget(problem, session.effort.budget)
    halves = yield from _answer_halves(session, tensors, selection)
    if isinstance(problem, errors.OversizedMessage):
        session.limits.learn_rows(problem, message.size, rows)
    return halves


def _is_idempotent(session: Session) -> bool:
    """Tell whether rows that a server may have seen can be sent once more."""
    return session.plan.model.idempotent or session.table.options.idempotent


def _answer_halves(
    session: Session, tensors: Sequence[codec.EncodedTensor], selection: codec.Selection
) -> Steps[list[Part]]:
    """Get the answers of both halves, one after the other: _predict() counts them as one request in flight."""
    halves = yield from gather((_answer(session, tensors, half) for half in _halve(selection)), 1)
    return halves[0] + halves[1]


def _count(selection: codec.Selection) -> int:
    return selection.stop - selection.start if isinstance(selection, slice) else len(selection)


def _halve(selection: codec.Selection) -> tuple[codec.Selection, codec.Selection]:
    half = _count(selection) // 2
    if isinstance(selection, slice):
        middle = selection.start + half
        return slice(selection.start, middle), slice(middle, selection.stop)
    return selection[:half], selection[half:]


def _about_inputs(session: Session, error: errors.ModelRefused) -> errors.ModelRefused:
    """Say which columns the rows came from, if any, never what was in them."""
    names = [name for feed in session.plan.feeds for name in feed.names]
    listed = ", ".join(f'"{name}"' for name in names[:NAMED_INPUTS])
    more = f" and {len(names) - NAMED_INPUTS} more" if len(names) > NAMED_INPUTS else ""
    if names:
        error.detail = f'The request was made of input columns {listed}{more} of foreign table "{session.table.name}".'
    error.hint = "To get the answers of the other rows, add a text column with OPTIONS (error 'true')."
    if signature.has_error_column(session.table):
        error.hint = 'Set table option "idempotent" to "true" if rows of a refused request can be sent once more.'
    return error


def cut_rows(
    model: signature.Model, rows: int, groups: Sequence[codec.Array] | None, most_rows: int
) -> Sequence[codec.Selection]:
    """Cut a batch into requests, no larger than the model and ``most_rows`` say and each of rows of one shape."""
    if groups is None:
        step = min(rows_per_request(model, rows), most_rows)
        return [slice(first, min(first + step, rows)) for first in range(0, rows, step)]
    return [group[part] for group in groups for part in cut_rows(model, len(group), None, most_rows)]


def rows_per_request(model: signature.Model, rows: int) -> int:
    """Return how many rows a request takes at most: one where the model has no batch dimension."""
    if not model.batched:
        return 1
    return min(rows, model.max_batch_size) if model.max_batch_size > 0 else rows


def _message(session: Session, tensors: Sequence[codec.EncodedTensor], selection: codec.Selection) -> InferRequest:
    """Make the request for the selected rows."""
    plan, options = session.plan, session.table.options
    batch = (_count(selection),) if plan.model.batched else ()
    return InferRequest(
        options.model,
        options.version,
        [
            InputData(
                tensor.feed.tensor, tensor.feed.dtype, batch + tensor.row_shape(selection), tensor.rows(selection)
            )
            for tensor in tensors
        ],
        [fetch.tensor for fetch in plan.fetches],
        _count(selection),
        json.loads(options.parameters or "{}"),
    )


def _request(session: Session, message: InferRequest, rows: int) -> Steps[Columns]:
    """Send a request, and read the answer."""
    options, connection = session.table.options, session.connection
    request = errors.Request(
        connection.endpoint, connection.server.name, options.model, options.version, options.timeout_ms
    )
    session.traffic.sent += sum(len(data.raw) for data in message.inputs)
    reply = yield from attempt(
        connection,
        lambda client, timeout_ms: client.infer(message, timeout_ms),
        request,
        session.effort,
        _is_idempotent(session),
    )
    session.traffic.received += sum(tensor.size for tensor in reply)
    return (yield from _read(session, rows, reply))


def _read(session: Session, rows: int, reply: Sequence[codec.Tensor]) -> Steps[Columns]:
    plan = session.plan
    most_strings = session.table.server.options.max_message_bytes // BYTES_PER_STRING
    by_name = {tensor.name: tensor for tensor in reply}
    columns: dict[int, codec.OutputColumn] = {}
    for fetch in plan.fetches:
        tensor = by_name.get(fetch.tensor)
        if tensor is None:
            raise codec.missing_output(fetch, plan.model.name)
        decoded = yield from codec.decode(fetch, plan.model.name, rows, plan.model.batched, tensor, most_strings)
        for pick, column in decoded:
            columns[pick.position] = column
    # Where the server's messages go, a row with an answer has none.
    columns.update((position, codec.text_column([])) for position in plan.messages)
    return [columns[position] for position in range(plan.wanted_count)]
