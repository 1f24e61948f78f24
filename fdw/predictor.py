"""Batches in, results out: the sessions of scans.

A batch is packed into tensors at once, cut into requests no larger than the model takes, sent, waited for (by whoever
polls the ticket), verified and unpacked in the order of its rows. No row comes back that the server did not answer.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Sequence

import numpy as np

from fdw import codec, errors, signature
from fdw.connections import Connection, ask_statistics, attempt, connect, forget_model, load_model, table_effort
from fdw.options import Table
from fdw.protocols.base import InferRequest, InputData
from fdw.replicas import Effort
from fdw.tickets import Steps, Ticket, gather

Columns = Sequence[codec.OutputColumn]

STATISTICS_TIMEOUT_MS = 1000


@dataclass
class Traffic:
    """Bytes of tensors that a scan has sent and received, retries counted once."""

    sent: int = 0
    received: int = 0


@dataclass(frozen=True, eq=False)
class Session:
    """One scan of a model table: a connection, a plan, what it may try, and the batches in flight."""

    table: Table
    connection: Connection
    plan: signature.Plan
    effort: Effort
    tickets: weakref.WeakSet[Ticket[Columns]] = field(default_factory=weakref.WeakSet)
    traffic: Traffic = field(default_factory=Traffic)


def describe(table: Table) -> Steps[tuple[signature.Slot, ...]]:
    """Tie the columns to tensors; the server is asked only if the columns' options do not say everything."""
    if signature.is_self_described(table):
        return signature.describe(table, None)
    connection = connect(table.server)
    model = yield from load_model(connection, table.options, table_effort(table.options))
    try:
        return signature.describe(table, model)
    except errors.ModelFdwError:
        forget_model(connection, table.options)
        raise


def open_session(
    table: Table, bound: Sequence[int], wanted: Sequence[int], kinds: Sequence[str] = ()
) -> Steps[Session]:
    """Check the table against the live model and plan its requests (see fdw.signature.plan)."""
    connection = connect(table.server)
    effort = table_effort(table.options)
    model = yield from load_model(connection, table.options, effort)
    try:
        return Session(table, connection, signature.plan(table, model, bound, wanted, kinds), effort)
    except errors.ModelFdwError:
        forget_model(connection, table.options)
        raise


def submit(session: Session, rows: int, columns: Sequence[codec.InputColumn]) -> Ticket[Columns]:
    """Start the inference of a batch.

    ``columns``, ``rows`` values each, are read during this call only. The ticket's result is one column per wanted
    output. Raises ValueOutOfRange at once.
    """
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


def _predict(session: Session, rows: int, tensors: Sequence[codec.EncodedTensor]) -> Steps[Columns]:
    """Run a batch as one or more requests, at most max_in_flight of them at once."""
    groups = codec.group_rows(tensors) if session.plan.model.batched else None
    selections = cut_rows(session.plan.model, rows, groups)
    try:
        parts = yield from gather(
            (_request(session, tensors, selection) for selection in selections), session.table.options.max_in_flight
        )
    except errors.ModelFdwError:
        forget_model(session.connection, session.table.options)
        raise
    order = np.concatenate(groups) if groups else None
    return [
        codec.join_columns([part[position] for part in parts], order) for position in range(session.plan.wanted_count)
    ]


def cut_rows(model: signature.Model, rows: int, groups: Sequence[codec.Array] | None) -> Sequence[codec.Selection]:
    """Cut a batch into requests, no larger than the model takes and each of rows of one shape."""
    if groups is None:
        step = rows_per_request(model, rows)
        return [slice(first, min(first + step, rows)) for first in range(0, rows, step)]
    return [group[part] for group in groups for part in cut_rows(model, len(group), None)]


def rows_per_request(model: signature.Model, rows: int) -> int:
    """Return how many rows a request takes at most: one where the model has no batch dimension."""
    if not model.batched:
        return 1
    return min(rows, model.max_batch_size) if model.max_batch_size > 0 else rows


def _request(session: Session, tensors: Sequence[codec.EncodedTensor], selection: codec.Selection) -> Steps[Columns]:
    """Send the selected rows, and read the answer."""
    plan, options, connection = session.plan, session.table.options, session.connection
    rows = selection.stop - selection.start if isinstance(selection, slice) else len(selection)
    batch = (rows,) if plan.model.batched else ()
    message = InferRequest(
        options.model,
        options.version,
        [
            InputData(
                tensor.feed.tensor, tensor.feed.dtype, batch + tensor.row_shape(selection), tensor.rows(selection)
            )
            for tensor in tensors
        ],
        [fetch.tensor for fetch in plan.fetches],
    )
    request = errors.Request(
        connection.endpoint, connection.server.name, options.model, options.version, options.timeout_ms
    )
    session.traffic.sent += sum(len(data.raw) for data in message.inputs)
    reply = yield from attempt(
        connection, lambda client, timeout_ms: client.infer(message, timeout_ms), request, session.effort
    )
    session.traffic.received += sum(tensor.size for tensor in reply)
    return _read(plan, rows, reply)


def _read(plan: signature.Plan, rows: int, reply: Sequence[codec.Tensor]) -> Columns:
    by_name = {tensor.name: tensor for tensor in reply}
    columns: dict[int, codec.OutputColumn] = {}
    for fetch in plan.fetches:
        tensor = by_name.get(fetch.tensor)
        if tensor is None:
            raise codec.missing_output(fetch, plan.model.name)
        for pick, column in codec.decode(fetch, plan.model.name, rows, plan.model.batched, tensor):
            columns[pick.position] = column
    return [columns[position] for position in range(plan.wanted_count)]
