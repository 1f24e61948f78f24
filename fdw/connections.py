"""What a backend keeps between statements: connections to model servers, and what it learned of their models.

Also the one way in which a request is tried, waited for and tried again.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field, replace
from typing import Callable, TypeVar

from fdw import errors
from fdw.options import Server, ServerOptions, TableOptions, UserOptions
from fdw.protocols import PROTOCOLS
from fdw.protocols.base import Call, Client, Config, IndexEntry, Metadata
from fdw.signature import Model, TensorSpec, is_batched
from fdw.tickets import Steps, gather, notifier

T = TypeVar("T")

# Pauses between attempts double from the first to the longest; each is shortened at random by up to a half, so that
# the backends of one database do not come back all at once.
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0

# Connections that a backend keeps at most; the one that was used least recently goes first.
MAX_CONNECTIONS = 16


@dataclass(frozen=True)
class Connection:
    """A client of a server, and the models that were asked for, by name and version."""

    server: Server
    client: Client
    models: dict[tuple[str, str], Model] = field(default_factory=dict)

    @property
    def endpoint(self) -> str:
        """host:port of the server."""
        return self.server.options.url.address


_connections: dict[tuple[int, str, ServerOptions, UserOptions], Connection] = {}


def connect(server: Server) -> Connection:
    """Return the connection for a server as its options and user mapping are now.

    A connection that was made from other options of the same server is dropped: its channel closes when the last
    session that uses it goes. Nothing is sent here.
    """
    key = (server.oid, server.name, server.options, server.user)
    connection = _connections.pop(key, None)
    if connection is None:
        # Multicorn tells no oid: there, old connections go when there are too many.
        stale = [other for other in _connections if other[0] == server.oid != 0 and other[2] != server.options]
        for other in stale:
            del _connections[other]
        while len(_connections) >= MAX_CONNECTIONS:
            del _connections[next(iter(_connections))]
        client = PROTOCOLS[server.options.url.scheme](server, notifier.notify)
        connection = Connection(server, client)
    _connections[key] = connection
    return connection


def attempt(
    connection: Connection, start: Callable[[int], Call[T]], request: errors.Request, max_attempts: int
) -> Steps[T]:
    """Make a request, and make it again while the server is unavailable.

    ``start`` makes the call, given its timeout in ms. All attempts share ``request.timeout_ms``, and as long as no
    connection can be made they share server option "connect_timeout_ms". Raises the error of the last attempt.
    """
    began_s = time.monotonic()
    deadline_s = began_s + request.timeout_ms / 1000
    connect_deadline_s = began_s + connection.server.options.connect_timeout_ms / 1000
    pause_s = FIRST_PAUSE_S
    for number in range(1, max_attempts + 1):
        call = start(max(1, int((deadline_s - time.monotonic()) * 1000)))
        try:
            while not call.done():
                yield None
        finally:
            call.cancel()
        failure = call.failure()
        if failure is None:
            return call.value()
        if failure.cause is not None:
            connection.client.renew(call)
        error = errors.from_failure(failure, replace(request, attempts=number))
        wake_s = time.monotonic() + pause_s * random.uniform(0.5, 1.0)
        limit_s = deadline_s if failure.connected else min(deadline_s, connect_deadline_s)
        if failure.status != "UNAVAILABLE" or failure.not_ready or number == max_attempts or wake_s >= limit_s:
            raise error
        while time.monotonic() < wake_s:
            yield wake_s
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
    raise AssertionError("unreachable")


def load_model(connection: Connection, options: TableOptions) -> Steps[Model]:
    """Ask the server for a model's metadata and configuration, once per connection, model and version."""
    key = (options.model, options.version)
    if key not in connection.models:
        request = errors.Request(
            connection.endpoint, connection.server.name, options.model, options.version, options.timeout_ms
        )
        connection.models[key] = yield from ask_model(connection, request, options.max_attempts)
    return connection.models[key]


def ask_model(connection: Connection, request: errors.Request, max_attempts: int) -> Steps[Model]:
    """Ask the server for a model's metadata and configuration, side by side."""
    client = connection.client
    name, version = request.model, request.version
    metadata_steps: Steps[Metadata | Config] = attempt(
        connection, lambda timeout_ms: client.metadata(name, version, timeout_ms), request, max_attempts
    )
    config_steps: Steps[Metadata | Config] = attempt(
        connection, lambda timeout_ms: client.config(name, version, timeout_ms), request, max_attempts
    )
    metadata, config = yield from gather([metadata_steps, config_steps], 2)
    assert isinstance(metadata, Metadata)
    assert isinstance(config, Config)
    return _model(name, version, metadata, config)


def _model(name: str, version: str, metadata: Metadata, config: Config) -> Model:
    inputs = tuple(
        TensorSpec(spec.name, spec.dtype, spec.shape, spec.name in config.optional_inputs) for spec in metadata.inputs
    )
    return Model(
        name=name,
        version=version,
        inputs=inputs,
        outputs=metadata.outputs,
        batched=is_batched(config.max_batch_size, inputs + metadata.outputs),
        max_batch_size=config.max_batch_size,
        decoupled=config.decoupled,
        sequence=config.sequence,
        parameters=config.parameters,
    )


def forget_model(connection: Connection, options: TableOptions) -> None:
    """Drop what is known of a model: after an error it may have changed."""
    connection.models.pop((options.model, options.version), None)


def ask_index(connection: Connection) -> Steps[tuple[IndexEntry, ...]]:
    """Ask the server for its models."""
    options = connection.server.options
    request = errors.Request(connection.endpoint, connection.server.name, timeout_ms=options.default_timeout_ms)
    return (yield from attempt(connection, connection.client.index, request, options.default_max_attempts))
