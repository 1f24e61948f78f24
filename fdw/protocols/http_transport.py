"""HTTP/1.1 requests that run beside the backend: on threads of a pool, with a deadline, cancellable.

The protocol itself is http.client's, which knows neither redirects nor a proxy in the environment; the sockets are
ours. They never block: whoever must wait polls in short slices, and only what passes inside a slice counts against the
deadline, because these threads stand still as long as the backend's own thread holds the interpreter. A request goes
out on an idle connection as far as the kernel takes it before call() returns, so that the server works meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import http.client
import io
import random
import select
import socket
import ssl
import threading
import time
import weakref
import zlib
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Deque, Generic, Iterator, Mapping, Sequence, TypeVar

from fdw import threads, tls
from fdw.codec import Buffer
from fdw.errors import ANSWER, PORT_HINT, REQUEST, Failure
from fdw.options import Endpoint, Server
from fdw.protocols.base import RequestFailed

T = TypeVar("T")

SLICE_S = 0.1
# Idle connections that a client keeps; more requests than this in flight make new ones.
MAX_IDLE = 16

# HTTP's "deflate" is zlib's format.
_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
LEAST_COMPRESSED_BYTES = 1024

# How much is read at once of an answer whose length is not known.
_PIECE_BYTES = 1 << 20

_DEFAULT_PORTS = {"http": 80, "https": 443}


class _Expired(Exception):
    """The time to wait is used up."""


class _Cancelled(Exception):
    """Nobody wants the answer any more."""


@dataclass(frozen=True)
class HttpRequest:
    """A request; ``body`` is the pieces of its body, sent one after the other."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Sequence[Buffer] = ()


@dataclass(frozen=True)
class HttpResponse:
    """An answer of whatever status; header names in lower case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


# ---------------------------------------------------------------- waiting


class _Patience:
    """How long a request may still wait, in seconds."""

    def __init__(self, left_s: float) -> None:
        self.left_s = left_s
        self.cancelled = False
        self._wake: Callable[[], None] | None = None

    def spend(self, wait: Callable[[float], Any], wake: Callable[[], None]) -> None:
        """Call wait(seconds), slice after slice, until it returns something true; raises _Expired, _Cancelled.

        ``wake``, called from another thread, must make it return.
        """
        self._wake = wake
        try:
            self._spend(wait)
        finally:
            self._wake = None

    def interrupt(self) -> None:
        """End the wait, and each later one; from any thread."""
        self.cancelled = True
        wake = self._wake
        if wake is not None:
            wake()

    def _spend(self, wait: Callable[[float], Any]) -> None:
        while not self.cancelled:
            slice_s = max(0.0, min(SLICE_S, self.left_s))
            began_s = time.monotonic()
            happened = wait(slice_s)
            # What exceeds the slice was spent waiting for the interpreter, not for the server.
            self.left_s -= min(time.monotonic() - began_s, slice_s)
            if happened and not self.cancelled:
                return
            if self.left_s <= 0 or slice_s == 0:
                raise _Expired
        raise _Cancelled

    @contextlib.contextmanager
    def limited_to(self, limit_s: float) -> Iterator[None]:
        """Let what is done inside wait no longer than this."""
        left_s = self.left_s
        given_s = self.left_s = min(left_s, limit_s)
        try:
            yield
        finally:
            self.left_s += left_s - given_s


def _wait_for(handle: socket.socket, events: int, patience: _Patience) -> None:
    poller = select.poll()
    poller.register(handle, events)
    patience.spend(lambda slice_s: poller.poll(slice_s * 1000), lambda: _shut(handle))


def _shut(handle: socket.socket) -> None:
    """Wake whoever waits for a socket, connected or not yet; from any thread."""
    # Not SSLSocket's own method: it would make the other thread read without TLS.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(handle, socket.SHUT_RDWR)


# What a socket, TLS or not, says instead of blocking -> what to wait for.
_NOT_YET = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

_WANTED: dict[type[BaseException], int] = {
    ssl.SSLWantReadError: select.POLLIN,
    ssl.SSLWantWriteError: select.POLLOUT,
}


def _wait_after(error: BaseException, handle: socket.socket, otherwise: int, patience: _Patience) -> None:
    _wait_for(handle, _WANTED.get(type(error), otherwise), patience)


# ---------------------------------------------------------------- connections


class _Wire:
    """A connected socket with the three methods that http.client needs of one."""

    def __init__(self, handle: socket.socket, max_message_bytes: int) -> None:
        self.patience = _Patience(0)
        self.max_message_bytes = max_message_bytes
        self._handle = handle
        self._unsent: Deque[memoryview] = deque()
        self._readers = 0
        self._closing = False

    def sendall(self, data: Buffer) -> None:
        """Take data to send; push() and flush() send them."""
        self._unsent.append(memoryview(data))

    def push(self) -> None:
        """Send what can be sent without waiting. Raises OSError, and what _NOT_YET lists if something is left."""
        while self._unsent:
            sent = self._handle.send(self._unsent[0])
            self._unsent[0] = self._unsent[0][sent:]
            if not self._unsent[0]:
                self._unsent.popleft()

    def flush(self) -> None:
        """Send all."""
        while self._unsent:
            try:
                self.push()
            except _NOT_YET as error:
                _wait_after(error, self._handle, select.POLLOUT, self.patience)

    def receive_into(self, buffer: Any) -> int:
        """Read what is there, or wait for it; 0 at the end."""
        while True:
            try:
                return self._handle.recv_into(buffer)
            except _NOT_YET as error:
                _wait_after(error, self._handle, select.POLLIN, self.patience)
            except ssl.SSLEOFError:
                return 0

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return a reader, which keeps the socket open until it is closed itself."""
        self._readers += 1
        return io.BufferedReader(_Reader(self))

    def is_quiet(self) -> bool:
        """Tell whether an idle connection still stands: the server neither closed it nor sent what nobody asked."""
        poller = select.poll()
        poller.register(self._handle, select.POLLIN)
        return not poller.poll(0)

    def interrupt(self) -> None:
        """Wake whoever waits for the socket; from any thread."""
        _shut(self._handle)

    def close(self) -> None:
        """Close the connection, once its readers are closed."""
        self._closing = True
        if not self._readers:
            self._handle.close()

    def reader_closed(self) -> None:
        """Note that a reader was closed."""
        self._readers -= 1
        if self._closing:
            self.close()


class _Reader(io.RawIOBase):
    """Reads one answer, and no more of it than its body, its headers and the marks of its chunks may take."""

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire
        self._left = 2 * wire.max_message_bytes + _PIECE_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._wire.receive_into(buffer)
        self._left -= count
        if self._left < 0:
            raise _oversized(ANSWER, self._wire.max_message_bytes)
        return count

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._wire.reader_closed()


def _resolve(host: str, port: int, patience: _Patience) -> list[Any]:
    """Look a host name up, unless it is an address."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        pass
    answered, answers = threads.look_up(host, port)
    patience.spend(answered.wait, answered.set)
    if not answers:
        raise socket.gaierror(socket.EAI_NONAME, "name not known")
    return answers


def _connect(endpoint: Endpoint, patience: _Patience, keepalive_ms: int) -> socket.socket:
    """Connect to the first address that answers; each gets its share of the time."""
    last_error: OSError = socket.gaierror(socket.EAI_NONAME, "no address")
    addresses = _in_turn(_resolve(endpoint.host, endpoint.port, patience))
    for number, (family, kind, protocol, _, address) in enumerate(addresses, start=1):
        try:
            with patience.limited_to(patience.left_s / (len(addresses) - number + 1)):
                return _connect_to(socket.socket(family, kind, protocol), address, patience, keepalive_ms)
        except OSError as error:
            last_error = error
        except _Expired:
            if number == len(addresses):
                raise
    raise last_error


def _in_turn(addresses: list[Any]) -> list[Any]:
    """Shuffle the addresses of the kind that the system puts first, so that each gets its share of connections."""
    first = [entry for entry in addresses if entry[0] == addresses[0][0]]
    random.shuffle(first)
    return first + [entry for entry in addresses if entry[0] != addresses[0][0]]


def _connect_to(handle: socket.socket, address: Any, patience: _Patience, keepalive_ms: int) -> socket.socket:
    try:
        handle.setblocking(False)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, min(keepalive_ms // 1000, 32767))
        state = handle.connect_ex(address)
        if state == errno.EINPROGRESS:
            _wait_for(handle, select.POLLOUT, patience)
            state = handle.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    except BaseException:
        handle.close()
        raise
    if state == 0:
        return handle
    handle.close()
    raise OSError(state, "connect")  # the subclass that fits the number


def _secure(handle: socket.socket, context: ssl.SSLContext, host: str, patience: _Patience) -> ssl.SSLSocket:
    try:
        secured = context.wrap_socket(handle, server_hostname=host, do_handshake_on_connect=False)
    except ValueError:  # no host has such a name
        handle.close()
        raise OSError(errno.EINVAL, "server name") from None
    except BaseException:
        handle.close()
        raise
    try:
        while True:
            try:
                secured.do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
                _wait_after(error, secured, select.POLLIN, patience)
            else:
                return secured
    except BaseException:
        secured.close()
        raise


# ---------------------------------------------------------------- failures


_CAUSES: dict[int, str] = {
    errno.ECONNREFUSED: "The connection was refused.",
    errno.EHOSTUNREACH: "There is no route to the host.",
    errno.ENETUNREACH: "The network is unreachable.",
    errno.ETIMEDOUT: "The server did not answer in time.",
}
TIMED_OUT = "The server did not answer in time."


def _unconnected(cause: str, hint: str | None = None) -> Failure:
    return Failure("UNAVAILABLE", cause, cause, connected=False, hint=hint)


def _lost(cause: str) -> Failure:
    return Failure("UNAVAILABLE", cause, cause, connected=True)


def _connect_failure(error: OSError) -> Failure:
    """Say why no connection came about."""
    if isinstance(error, ssl.SSLError):
        return _unconnected(*(tls.explain(str(error)) or _alert(error) or ("The TLS handshake failed.", None)))
    if isinstance(error, socket.gaierror):
        return _unconnected("The host name could not be resolved.")
    return _unconnected(_CAUSES.get(error.errno or 0, "No connection could be made."))


def _alert(error: ssl.SSLError) -> tuple[str, str] | None:
    return tls.explain_alert(error.reason or "")


def _exchange_failure(error: BaseException) -> Failure:
    """Say what became of a connection that stood, or that the server refused after the handshake."""
    alert = _alert(error) if isinstance(error, ssl.SSLError) else None
    if alert is not None:
        return _unconnected(*alert)
    if isinstance(error, (http.client.RemoteDisconnected, http.client.IncompleteRead, BrokenPipeError)):
        return _lost("The server closed the connection.")
    if isinstance(error, (http.client.HTTPException, ValueError)):
        return _unconnected("The server does not speak HTTP.", PORT_HINT)
    if isinstance(error, ConnectionResetError):
        return _lost("The server reset the connection.")
    return _lost("The connection broke.")


def _oversized(what: str, limit: int) -> RequestFailed:
    text = f"the {what} is larger than {limit} bytes"
    return RequestFailed(Failure("RESOURCE_EXHAUSTED", text, oversized=what, limit_bytes=limit))


# ---------------------------------------------------------------- the client


class Exchange:
    """The connection of one call, for the requests that it makes one after the other."""

    def __init__(self, client: HttpClient, timeout_ms: int) -> None:
        self.epoch = client.epoch
        self._client = client
        self._patience = _Patience(timeout_ms / 1000)
        self._connection: http.client.HTTPConnection | None = None
        self._wire: _Wire | None = None
        self._begun: HttpRequest | None = None

    def send_early(self, request: HttpRequest) -> None:
        """Send a request as far as that needs no waiting; fetch() does the rest."""
        connection = self._client.take_idle()
        if connection is None:
            return
        self._use(connection)
        try:
            self._begin(connection, request)
        except OSError:
            self.close()  # fetch() makes a new connection
        else:
            self._begun = request

    def _use(self, connection: http.client.HTTPConnection) -> None:
        wire: Any = connection.sock
        wire.patience = self._patience
        self._connection, self._wire = connection, wire

    def _begin(self, connection: http.client.HTTPConnection, request: HttpRequest) -> None:
        """Hand a request to the connection; not all of it need be sent already."""
        headers = {**self._client.headers, **request.headers}
        body = request.body
        compression = self._client.compression
        if compression in _COMPRESSORS and sum(map(len, body)) >= LEAST_COMPRESSED_BYTES:
            headers["Content-Encoding"] = compression
            body = [_COMPRESSORS[compression](b"".join(body))]
        if request.method != "GET":
            headers["Content-Length"] = str(sum(map(len, body)))
        connection.request(request.method, request.path, iter(body) if body else None, headers)
        wire: Any = connection.sock
        with contextlib.suppress(*_NOT_YET):
            wire.push()

    def fetch(self, request: HttpRequest) -> HttpResponse:
        """Send a request and read the answer, waiting for both. Raises RequestFailed."""
        limit = self._client.max_message_bytes
        if sum(map(len, request.body)) > limit:
            raise _oversized(REQUEST, limit)
        if self._connection is None:
            self._use(self._client.open(self._patience))
        assert self._connection is not None
        try:
            self._send(self._connection, request)
            with self._connection.getresponse() as response:
                body = _read_body(response, limit)
        except (OSError, http.client.HTTPException, ValueError) as error:  # a ValueError: the size of a chunk
            if self._patience.cancelled:
                raise _Cancelled from None
            raise RequestFailed(self._client.unexplained(_exchange_failure(error))) from None
        if response.will_close:
            self.close()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return HttpResponse(response.status, response.reason, headers, body)

    def _send(self, connection: http.client.HTTPConnection, request: HttpRequest) -> None:
        begun, self._begun = self._begun, None
        # A server that closed the connection may have said why before.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if begun is not request:
                self._begin(connection, request)
            if self._wire is not None:
                self._wire.flush()

    def interrupt(self) -> None:
        """Give up whatever is waited for; from any thread."""
        self._patience.interrupt()
        wire = self._wire
        if wire is not None:
            wire.interrupt()

    def keep(self) -> None:
        """Leave the connection to later requests."""
        connection, self._connection, self._wire = self._connection, None, None
        if connection is not None:
            self._client.give_back(connection, self.epoch)

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection, self._wire = self._connection, None, None
        if connection is not None:
            connection.close()


def _read_body(response: http.client.HTTPResponse, limit: int) -> bytes:
    if response.length is not None:
        if response.length > limit:
            raise _oversized(ANSWER, limit)
        return response.read()
    pieces: list[bytes] = []
    size = 0
    while piece := response.read(_PIECE_BYTES):
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise _oversized(ANSWER, limit)
    return b"".join(pieces)


class HttpCall(Generic[T]):
    """One call, as fdw.protocols.base.Call says."""

    def __init__(self, exchange: Exchange, task: Callable[[Exchange], T], notify: Callable[[], None]) -> None:
        self.exchange = exchange
        self._task = task
        self._notify = notify
        self._ended = False
        self._result: T | None = None
        self._error: Exception | None = None

    def run(self) -> None:
        """Do the work, on a thread of the pool."""
        try:
            self._result = self._task(self.exchange)
            self.exchange.keep()
        except Exception as error:
            # Its frames hold this call and its connection.
            self._error, error.__context__ = error.with_traceback(None), None
            self.exchange.close()
        self._ended = True
        self._notify()

    def done(self) -> bool:
        """Tell whether the call has ended."""
        return self._ended

    def failure(self) -> Failure | None:
        """Return how a request of the call failed."""
        if isinstance(self._error, RequestFailed):
            return self._error.failure
        if isinstance(self._error, _Expired):
            return Failure("DEADLINE_EXCEEDED", "")
        if isinstance(self._error, _Cancelled):
            return Failure("CANCELLED", "")
        return None

    def value(self) -> T:
        """Return the answer; raises what the task raised about it."""
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]

    def cancel(self) -> None:
        """Give the call up."""
        if not self._ended:
            self.exchange.interrupt()


class HttpClient:
    """Connections to one endpoint, kept for reuse. Nothing here is made before a request needs it."""

    def __init__(self, server: Server, endpoint: Endpoint, notify: Callable[[], None]) -> None:
        options, user = server.options, server.user
        self._endpoint = endpoint
        self._connect_timeout_s = options.connect_timeout_ms / 1000
        self._keepalive_ms = options.keepalive_ms
        self._notify = notify
        self._context = tls.context(server, "http/1.1") if endpoint.scheme == "https" else None
        self._peer = ""
        self._tls_name = options.tls_server_name or endpoint.host
        self._idle: list[http.client.HTTPConnection] = []
        # A client is dropped when the server's options change; its idle connections go with it.
        weakref.finalize(self, _close_all, self._idle).atexit = False
        self._lock = threading.Lock()
        self.compression = options.compression
        self.max_message_bytes = options.max_message_bytes
        self.epoch = 0
        token = {"Authorization": f"Bearer {user.token}"} if user.token else {}
        self.headers = {**token, **dict(user.headers)}

    def call(self, task: Callable[[Exchange], T], timeout_ms: int, early: HttpRequest | None = None) -> HttpCall[T]:
        """Run a task on a thread; ``early`` is the request that it begins with, if that is known."""
        exchange = Exchange(self, timeout_ms)
        if early is not None:
            exchange.send_early(early)
        call = HttpCall(exchange, task, self._notify)
        threads.pool.run(call.run)
        return call

    def take_idle(self) -> http.client.HTTPConnection | None:
        """Take a connection that stands, if there is one."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            wire: Any = connection.sock
            if wire.is_quiet():
                return connection
            connection.close()

    def open(self, patience: _Patience) -> http.client.HTTPConnection:
        """Take an idle connection or make one. Raises RequestFailed."""
        connection = self.take_idle()
        if connection is not None:
            return connection
        try:
            with patience.limited_to(self._connect_timeout_s):
                handle = self._make(patience)
        except _Expired:
            if patience.left_s > 0:
                raise RequestFailed(_unconnected(TIMED_OUT)) from None
            raise
        except OSError as error:
            raise RequestFailed(_connect_failure(error)) from None
        connection = http.client.HTTPConnection(self._endpoint.host, self._endpoint.port)
        wire: Any = _Wire(handle, self.max_message_bytes)
        connection.sock = wire
        return connection

    def _make(self, patience: _Patience) -> socket.socket:
        handle = _connect(self._endpoint, patience, self._keepalive_ms)
        if self._context is None:
            return handle
        with contextlib.suppress(OSError):  # the server is gone already
            address = handle.getpeername()
            self._peer = f"ipv{'6' if handle.family == socket.AF_INET6 else '4'}:{address[0]}:{address[1]}"
        return _secure(handle, self._context, self._tls_name, patience)

    def unexplained(self, failure: Failure) -> Failure:
        """Mark a failure that may be an alert of TLS which a reset overtook; see fdw.tls.why_closed."""
        if self._context is None or not failure.connected:
            return failure
        return replace(failure, text=self._peer, mute=True)

    def give_back(self, connection: http.client.HTTPConnection, epoch: int) -> None:
        """Keep a connection for later, unless renew() was called since its exchange began."""
        with self._lock:
            if connection.sock is not None and epoch == self.epoch and len(self._idle) < MAX_IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def renew(self, failed: object) -> None:
        """Keep no connection of the time before the failed call ended."""
        if not isinstance(failed, HttpCall) or failed.exchange.epoch != self.epoch:
            return
        with self._lock:
            self.epoch += 1
            _close_all(self._idle)


def _close_all(connections: list[http.client.HTTPConnection]) -> None:
    while connections:
        connections.pop().close()
