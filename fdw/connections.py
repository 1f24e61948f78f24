"""What a backend keeps between statements: connections to model servers, and what it learned of their models.

Also the one way in which a request is tried, waited for and tried again.
"""

from __future__ import annotations

import time
import weakref
from dataclasses import dataclass, field, replace
from typing import Callable, TypeVar

from fdw import errors, threads, tls
from fdw.options import Server, ServerOptions, TableOptions, UserOptions
from fdw.protocols import load, make_client
from fdw.protocols.base import Call, Client, Config, IndexEntry, Metadata, Statistics
from fdw.replicas import Backoff, Effort, Replica, choose, is_elsewhere, is_overload
from fdw.signature import INPUT, OUTPUT, Model, is_batched
from fdw.tickets import Steps, gather, notifier

T = TypeVar("T")

# How long a backend believes what it learned of a model, in seconds. A change that no answer shows is noticed by then.
MODEL_AGE_S = 60.0

# Connections that a backend keeps at most; the one that was used least recently goes first.
MAX_CONNECTIONS = 16


@dataclass(frozen=True)
class KnownModel:
    """A model, and when (``time.monotonic()``) it was asked for."""

    model: Model
    asked_s: float


@dataclass(frozen=True)
class Connection:
    """The endpoints of a server, and the models that were asked for, by name and version."""

    server: Server
    replicas: tuple[Replica, ...]
    models: dict[tuple[str, str], KnownModel] = field(default_factory=dict)

    @property
    def endpoint(self) -> str:
        """host:port of the server; of several endpoints, separated by commas."""
        return self.server.options.address


_connections: dict[tuple[int, str, ServerOptions, UserOptions], Connection] = {}

# Also those of connections that were dropped, and are still used by a scan.
_replicas: weakref.WeakSet[Replica] = weakref.WeakSet()


def connect(server: Server) -> Steps[Connection]:
    """Return the connection for a server as its options and user mapping are now.

    A connection that was made from other options of the same server is dropped: its channel closes when the last
    session that uses it goes. Nothing is sent here.
    """
    yield from load(server)
    key = (server.oid, server.name, server.options, server.user)
    connection = _connections.pop(key, None)
    if connection is None:
        # Multicorn tells no oid: there, old connections go when there are too many.
        stale = [other for other in _connections if other[0] == server.oid != 0 and other[2] != server.options]
        for other in stale:
            del _connections[other]
        while len(_connections) >= MAX_CONNECTIONS:
            del _connections[next(iter(_connections))]
        replicas = tuple(
            Replica(endpoint, make_client(server, endpoint, notifier.notify)) for endpoint in server.options.url
        )
        _replicas.update(replicas)
        connection = Connection(server, replicas)
    _connections[key] = connection
    return connection


def rest() -> None:
    """Let the threads end when a statement does, unless others have requests in flight."""
    if not any(replica.load() for replica in _replicas):
        threads.rest()


def attempt(
    connection: Connection,
    start: Callable[[Client, int], Call[T]],
    request: errors.Request,
    effort: Effort,
    idempotent: bool = True,
) -> Steps[T]:
    """Make a request, and make it again where another attempt may succeed.

    ``start`` makes the call on a client, given its timeout in ms. An endpoint that cannot be reached, that lacks the
    model or has too much to do is followed at once by the others; when all were tried, a pause comes. All attempts
    share ``request.timeout_ms``, and as long as no connection can be made they share server option
    "connect_timeout_ms"; nothing is repeated after a deadline, nor, unless ``idempotent``, what a server may have
    received. Raises the error of the last attempt.
    """
    yield from effort.admit()
    began_s = time.monotonic()
    deadline_s = began_s + request.timeout_ms / 1000
    model = (request.model, request.version)
    tried: set[Replica] = set()
    backoff = Backoff()
    limit = effort.max_attempts + len(connection.replicas) - 1
    for number in range(1, limit + 1):
        replica = choose(connection.replicas, tried, model)
        tried.add(replica)
        call = start(replica.client, max(1, int((deadline_s - time.monotonic()) * 1000)))
        replica.add(call)
        effort.add(call)
        try:
            while not call.done():
                yield None
        finally:
            call.cancel()
            replica.drop(call)
            effort.drop(call)
        failure = call.failure()
        if failure is None:
            replica.welcome(model)
            effort.answered()
            return call.value()
        _note(replica, call, failure, effort, model)
        others = len(tried) < len(connection.replicas)
        wake_s = time.monotonic() + (0.0 if others else backoff.next())
        # While no connection can be made, the time to make one is what counts; another endpoint has its own.
        connecting = not failure.connected and not others
        limit_s = (
            min(deadline_s, began_s + connection.server.options.connect_timeout_ms / 1000) if connecting else deadline_s
        )
        repeatable = _repeatable(failure, others) and (idempotent or not failure.connected)
        last = not repeatable or number == limit or wake_s >= limit_s
        if last or not effort.spend():
            failure = yield from _explained(connection.server, replica, failure)
            error = errors.from_failure(failure, _asked_of(connection, replica, tried, failure, request, number))
            raise error if last else errors.over_budget(error, effort.budget)
        if not others:
            tried.clear()
        while time.monotonic() < wake_s:
            yield wake_s
        yield from effort.admit()
    raise AssertionError("unreachable")


def _note(replica: Replica, call: Call[T], failure: errors.Failure, effort: Effort, model: tuple[str, str]) -> None:
    """Draw the conclusions of a failure for the requests that follow."""
    if failure.cause is not None:
        replica.client.renew(call)
    if failure.cause is not None and failure.status == "UNAVAILABLE":
        replica.leave_out()
    elif is_elsewhere(failure):
        replica.leave_out(*model)
    elif is_overload(failure):
        effort.overloaded()


def _repeatable(failure: errors.Failure, others: bool) -> bool:
    if is_elsewhere(failure):
        return others
    return failure.status == "UNAVAILABLE" or is_overload(failure)


def _explained(server: Server, replica: Replica, failure: errors.Failure) -> Steps[errors.Failure]:
    """Find out why a server closed the connection before it stood, where it did so without a word."""
    if not failure.mute:
        return failure
    found = yield from tls.why_closed(server, replica.endpoint, failure.text)
    return failure if found is None else replace(failure, cause=found[0], hint=found[1], connected=False)


def _asked_of(
    connection: Connection,
    replica: Replica,
    tried: set[Replica],
    failure: errors.Failure,
    request: errors.Request,
    number: int,
) -> errors.Request:
    """Say who failed: the endpoint, or all of them where none could be reached."""
    alone = failure.connected or len(tried) < len(connection.replicas)
    endpoint = replica.endpoint.address if alone else connection.endpoint
    return replace(request, endpoint=endpoint, attempts=number, noun=connection.server.options.noun)


def table_effort(options: TableOptions) -> Effort:
    """Return the effort that a table's options allow for one scan."""
    return Effort(options.max_attempts, options.retry_budget)


def server_effort(options: ServerOptions) -> Effort:
    """Return the effort that a server's options allow for requests about no table."""
    return Effort(options.default_max_attempts, options.default_retry_budget)


def load_model(
    connection: Connection, options: TableOptions, effort: Effort, since_s: float | None = None
) -> Steps[Model]:
    """Return a model as the server describes it, asked at ``since_s`` or later; by default, MODEL_AGE_S ago or later.

    What is known already is taken, else the server is asked for metadata and configuration.
    """
    now_s = time.monotonic()
    key = (options.model, options.version)
    known = connection.models.get(key)
    if known is None or known.asked_s < (now_s - MODEL_AGE_S if since_s is None else since_s):
        request = errors.Request(
            connection.endpoint, connection.server.name, options.model, options.version, options.timeout_ms
        )
        known = KnownModel((yield from ask_model(connection, request, effort)), now_s)
        connection.models[key] = known
    return known.model


def with_model(connection: Connection, options: TableOptions, effort: Effort, build: Callable[[Model], T]) -> Steps[T]:
    """Build something from a model; where what is known of the model does not do, ask the server anew and try again."""
    began_s = time.monotonic()
    model = yield from load_model(connection, options, effort)
    try:
        return build(model)
    except errors.ModelFdwError:
        return build((yield from load_model(connection, options, effort, began_s)))


def ask_model(connection: Connection, request: errors.Request, effort: Effort) -> Steps[Model]:
    """Ask the server for a model's metadata and configuration, side by side."""
    name, version = request.model, request.version
    metadata_steps: Steps[Metadata | Config] = attempt(
        connection, lambda client, timeout_ms: client.metadata(name, version, timeout_ms), request, effort
    )
    config_steps: Steps[Metadata | Config] = attempt(
        connection, lambda client, timeout_ms: client.config(name, version, timeout_ms), request, effort
    )
    metadata, config = yield from gather([metadata_steps, config_steps], 2)
    assert isinstance(metadata, Metadata)
    assert isinstance(config, Config)
    # A method of protocol "grpc" that takes nothing, or answers nothing, says so; a model never does.
    tells = connection.server.options.protocol == "grpc"
    return _model(name, version, metadata, config, tells)


def _model(name: str, version: str, metadata: Metadata, config: Config, tells: bool) -> Model:
    inputs = tuple(
        replace(spec, optional=spec.optional or spec.name in config.optional_inputs) for spec in metadata.inputs
    )
    max_batch_size = config.max_batch_size or metadata.max_batch_size
    declared = ((INPUT, inputs), (OUTPUT, metadata.outputs))
    return Model(
        name=name,
        version=version,
        inputs=inputs,
        outputs=metadata.outputs,
        batched=is_batched(max_batch_size, inputs + metadata.outputs),
        max_batch_size=max_batch_size,
        decoupled=config.decoupled,
        sequence=config.sequence,
        parameters=config.parameters,
        idempotent=metadata.idempotent,
        silent=frozenset(role for role, specs in declared if not specs and not tells),
    )


def forget_model(connection: Connection, options: TableOptions) -> None:
    """Drop what is known of a model: after an error it may have changed."""
    connection.models.pop((options.model, options.version), None)


def ask_index(connection: Connection) -> Steps[tuple[IndexEntry, ...]]:
    """Ask the server for its models. One of several endpoints answers for all."""
    options = connection.server.options
    request = errors.Request(connection.endpoint, connection.server.name, timeout_ms=options.default_timeout_ms)
    return (
        yield from attempt(
            connection, lambda client, timeout_ms: client.index(timeout_ms), request, server_effort(options)
        )
    )


def ask_statistics(connection: Connection, options: TableOptions, timeout_ms: int) -> Steps[Statistics]:
    """Add up what the endpoints counted of a model; those that do not answer in time are left out."""
    calls = [replica.client.statistics(options.model, options.version, timeout_ms) for replica in connection.replicas]
    try:
        while not all(call.done() for call in calls):
            yield None
    finally:
        for call in calls:
            call.cancel()
    counted = [call.value() for call in calls if call.failure() is None]
    queues = [times.queue_ns for times in counted if times.queue_ns is not None]
    computes = [times.compute_ns for times in counted if times.compute_ns is not None]
    return Statistics(sum(queues) if queues else None, sum(computes) if computes else None)
