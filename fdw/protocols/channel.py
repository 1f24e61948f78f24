"""gRPC channels, unary calls on them, and what became of those: shared by all protocols over gRPC."""

from __future__ import annotations

import ipaddress
import re
import zlib
from dataclasses import dataclass
from typing import Any, Callable, Generic, TypeVar

import grpc

from fdw import tls
from fdw.errors import ANSWER, MESSAGE, NO_GRPC, PORT_HINT, REQUEST, Failure
from fdw.options import Endpoint, Server, ServerOptions
from fdw.protocols.base import Call, Failed, says_not_ready

T = TypeVar("T")

KEEPALIVE_TIMEOUT_MS = 20_000
INITIAL_BACKOFF_MS = 100
MAX_BACKOFF_MS = 1000

_COMPRESSION = {
    "none": grpc.Compression.NoCompression,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}


def _channel_options(options: ServerOptions) -> list[tuple[str, int | str]]:
    name = options.tls_server_name
    return [
        *([("grpc.ssl_target_name_override", name), ("grpc.default_authority", name)] if name else []),
        ("grpc.max_send_message_length", options.max_message_bytes),
        ("grpc.max_receive_message_length", options.max_message_bytes),
        ("grpc.keepalive_time_ms", options.keepalive_ms),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        # An attempt to connect takes this long at most, in spite of the option's name.
        ("grpc.min_reconnect_backoff_ms", options.connect_timeout_ms),
        ("grpc.initial_reconnect_backoff_ms", INITIAL_BACKOFF_MS),
        ("grpc.max_reconnect_backoff_ms", MAX_BACKOFF_MS),
        # A new channel is a new connection, not a share in the one that just failed.
        ("grpc.use_local_subchannel_pool", 1),
        # Retries are the engine's: gRPC's own give up at 256 KiB and count apart.
        ("grpc.enable_retries", 0),
        # gRPC checks the size of an answer and then inflates it, to whatever it becomes: inflate() does that instead.
        ("grpc.per_message_decompression", 0),
        # A database server has no web proxy, whatever its environment says.
        ("grpc.enable_http_proxy", 0),
        # What is not asked for is not offered to the server either; bit 0 is "not compressed".
        *([("grpc.compression_enabled_algorithms_bitset", 1)] if options.compression == "none" else []),
    ]


def _is_name(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return True
    return False


def _target(endpoint: Endpoint) -> str:
    """Name an endpoint so that gRPC takes no host name (unix, xds, vsock) for the scheme of a URI of its own."""
    if _is_name(endpoint.host):
        return f"dns:///{endpoint.address}"
    return f"{'ipv6' if ':' in endpoint.host else 'ipv4'}:{endpoint.address}"


def _open(server: Server, endpoint: Endpoint) -> grpc.Channel:
    """Make a channel; it connects when it is first used."""
    options = server.options
    # The addresses of one name get requests in turn; those that cannot be reached are left out.
    policy = [("grpc.lb_policy_name", "round_robin")] if _is_name(endpoint.host) else []
    arguments = (_target(endpoint), [*_channel_options(options), *policy])
    compression = _COMPRESSION[options.compression]
    if endpoint.scheme == "grpcs":
        files = tls.read_files(server)
        credentials = grpc.ssl_channel_credentials(files.root, files.key, files.certificate)
        return grpc.secure_channel(arguments[0], credentials, arguments[1], compression)
    return grpc.insecure_channel(*arguments, compression)


# What gRPC's own texts say became of a connection: (part of the text, whether a connection stood, the fact in a
# sentence). The first match counts. Those without a connection count only where the channel has none: a server can
# answer any of these words, of its own or of another's.
_TRANSPORT_FAILURES: tuple[tuple[str, bool, str], ...] = (
    ("Failed parsing HTTP/2", False, NO_GRPC),
    ("Connection refused", False, "The connection was refused."),
    ("DNS resolution failed", False, "The host name could not be resolved."),
    ("errors resolving", False, "The host name could not be resolved."),
    # Two timers of gRPC's end at the same time, so that one and the same server gives either text.
    ("before receiving SETTINGS frame", False, "The server did not answer in time."),
    ("connect() timed out", False, "The server did not answer in time."),
    ("handshaker shutdown", False, "The server did not answer in time."),
    ("Timeout occurred", False, "The server did not answer in time."),
    ("No route to host", False, "There is no route to the host."),
    ("Network is unreachable", False, "The network is unreachable."),
    ("handshake failed", False, "The TLS handshake failed."),
    ("SSL_ERROR", False, "The TLS handshake failed."),
    ("security handshaker", False, "The certificate files cannot be used."),
    ("failed to connect to all addresses", False, "No connection could be made."),
    ("connections to all backends failing", False, "No connection could be made."),
    ("Connection reset", True, "The server reset the connection."),
    ("Socket closed", True, "The server closed the connection."),
    ("GOAWAY", True, "The server closed the connection."),
    ("Broken pipe", True, "The server closed the connection."),
    ("keepalive", True, "The server stopped answering keepalive probes."),
    ("ping timeout", True, "The server stopped answering keepalive probes."),
    ("Endpoint closing", True, "The server closed the connection."),
    ("Stream removed", True, "The server closed the connection."),
)

# What of these says no more than that the server hung up before the connection stood.
_MUTE = ("Socket closed", "Connection reset", "handshake failed")

# How gRPC translates the end of a stream that is not one of its own protocol.
_BROKEN_OFF = "Received RST_STREAM with error code"
_UNREADABLE = "Exception deserializing response!"

# What proxies such as nginx answer in the server's place: to a client whose certificate they refuse, and to a request
# that is too large.
_HTTP_400 = "Received http2 header with status: 400"
_HTTP_400_TEXT = "HTTP status 400, as proxies answer to a client certificate that is missing, expired or not trusted"
_HTTP_413 = "Received http2 header with status: 413"

# Triton's statuses for models that are known and cannot run now.
_NOT_READY_CODES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND)

# How gRPC's libraries refuse a message; with its size and the limit in C and Go, C's with the side that refused it.
_OVERSIZED = re.compile(r"(?:message|frame) (?:is )?(?:larger than|exceeds) (?:the )?(?:max|limit|configured)")
_SIZES = re.compile(r"(?:CLIENT: |SERVER: |grpc: )?[Rr]eceived message larger than max \(([0-9]+) vs\. ([0-9]+)\)")


def _oversized(code: grpc.StatusCode, text: str, request_bytes: int, our_limit: int) -> tuple[str, int | None]:
    """Tell which message was too large, and the limit if that is known; '' if none was.

    Whether a request was read is told by the size that the refusal names: a server that passes on what another said of
    its answer cannot name this one, but by chance.
    """
    if code == grpc.StatusCode.UNKNOWN and text == _HTTP_413:
        return MESSAGE, None
    if code != grpc.StatusCode.RESOURCE_EXHAUSTED or not _OVERSIZED.search(text):
        return "", None
    sizes = _SIZES.fullmatch(text)
    if sizes is None:
        return MESSAGE, None
    size, limit = int(sizes[1]), int(sizes[2])
    if size == request_bytes and limit < size:
        return REQUEST, limit
    if limit == our_limit < size:
        return ANSWER, limit
    return MESSAGE, None


@dataclass(frozen=True)
class Rejected:
    """What stands in the place of an answer that is not looked into."""

    failure: Failure


def inflate(data: bytes, options: ServerOptions) -> bytes | Rejected:
    """Decompress a message if it is compressed, to no more bytes than a message may have.

    Whether it is, gRPC keeps to itself. The first byte of gzip (RFC 1952), 0x1f, is none that a protobuf message can
    begin with: there is no wire type 7. That of zlib (RFC 1950) may be one, but a message that bears zlib's checksums
    is compressed.
    """
    gzipped = data[:2] == b"\x1f\x8b"
    if options.compression == "none":
        return Rejected(Failure("DATA_LOSS", "The reply is compressed, which was not asked for.")) if gzipped else data
    if not gzipped and (len(data) < 2 or data[0] & 0x0F != 8 or int.from_bytes(data[:2], "big") % 31 != 0):
        return data
    limit = options.max_message_bytes
    machine = zlib.decompressobj(wbits=31 if gzipped else 15)
    try:
        plain = machine.decompress(data, limit + 1)
    except zlib.error:
        return data
    if len(plain) > limit:
        text = f"the decompressed answer is larger than {limit} bytes"
        return Rejected(Failure("RESOURCE_EXHAUSTED", text, oversized=ANSWER, limit_bytes=limit))
    return plain if machine.eof else data


def failure_of(
    code: grpc.StatusCode, text: str, connected: bool, request_bytes: int = 0, our_limit: int = 0
) -> Failure:
    """Tell the transport's failures from the server's answers of the same status.

    ``connected``: whether the channel has, or had, a connection on which the request may have travelled; it is asked of
    the channel, because a server can answer any text.
    """
    if code == grpc.StatusCode.UNAVAILABLE:
        known = None if connected else tls.explain(text)
        if known is not None:
            return Failure(code.name, text, known[0], connected=False, hint=known[1])
        for needle, stood, cause in _TRANSPORT_FAILURES:
            if needle in text and (stood or not connected):
                mute = not connected and any(needle in text for needle in _MUTE)
                hint = PORT_HINT if cause == NO_GRPC else None
                return Failure(code.name, text, cause, connected, hint=hint, mute=mute)
    if code != grpc.StatusCode.OK and text.startswith(_BROKEN_OFF):
        return Failure("UNAVAILABLE", text, "The server broke the request off.", connected=True)
    if code == grpc.StatusCode.INTERNAL and text == _UNREADABLE:
        return Failure("DATA_LOSS", "The reply is not what the protocol says.")
    if code == grpc.StatusCode.INTERNAL and text == _HTTP_400:
        return Failure("UNAUTHENTICATED", _HTTP_400_TEXT)
    oversized, limit_bytes = _oversized(code, text, request_bytes, our_limit)
    return Failure(
        code.name,
        text,
        not_ready=code in _NOT_READY_CODES and says_not_ready(text),
        oversized=oversized,
        limit_bytes=limit_bytes,
    )


class _Line:
    """A channel, and whether it has ever had a connection."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.stood = False

    def state(self) -> grpc.ChannelConnectivity:
        """Return what the channel is doing now; it is not made to connect.

        grpc's public way to ask is a thread that asks this five times a second.
        """
        inner: Any = self.channel
        state: grpc.ChannelConnectivity = _STATES[inner._channel.check_connectivity_state(False)]
        self.stood = self.stood or state == grpc.ChannelConnectivity.READY
        return state

    def watch_end(self) -> None:
        """Take note of a call's end: a channel that is not failing to connect has had a connection for it.

        One that was connected and is not any more goes idle, or connects anew. Where that has failed already, a call
        is taken for one that may have been served, for stood says so.
        """
        if self.state() != grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            self.stood = True


# How calls end here, whether there is a connection or not.
_OUR_ENDS = (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)

# gRPC's own numbers of the states.
_STATES: dict[int, grpc.ChannelConnectivity] = {state.value[0]: state for state in grpc.ChannelConnectivity}


class GrpcCall(Generic[T]):
    """A unary call; ``parse`` turns the response message into our own terms."""

    def __init__(
        self, line: _Line, future: Any, sizes: tuple[int, int], parse: Callable[[Any], T], if_unimplemented: T | None
    ) -> None:
        self.line = line
        self._sizes = sizes
        self._future = future
        self._parse = parse
        self._if_unimplemented = if_unimplemented

    def done(self) -> bool:
        """Tell whether the request has ended."""
        return bool(self._future.done())

    def failure(self) -> Failure | None:
        """Return how the request failed, in our own terms."""
        code = self._future.code()
        if code == grpc.StatusCode.OK:
            answer = self._future.result()
            return answer.failure if isinstance(answer, Rejected) else None
        if code == grpc.StatusCode.UNIMPLEMENTED and self._if_unimplemented is not None:
            return None
        return failure_of(code, self._future.details() or "", self.line.stood, *self._sizes)

    def value(self) -> T:
        """Return the answer."""
        if self._if_unimplemented is not None and self._future.code() == grpc.StatusCode.UNIMPLEMENTED:
            return self._if_unimplemented
        return self._parse(self._future.result())

    def cancel(self) -> None:
        """Cancel the request on the wire."""
        self._future.cancel()


class GrpcClient:
    """Unary calls to one endpoint.

    Calls hold their channel; gRPC closes a channel when nothing does any more.
    """

    def __init__(self, server: Server, endpoint: Endpoint, notify: Callable[[], None]) -> None:
        self._server = server
        self._endpoint = endpoint
        self._notify = notify
        self._max_bytes = server.options.max_message_bytes
        self._line = _Line(_open(server, endpoint))
        user = server.user
        token = (("authorization", f"Bearer {user.token}"),) if user.token else ()
        self._headers = token + user.headers

    def call(
        self,
        path: str,
        message: bytes,
        read: Callable[[bytes], Any],
        timeout_ms: int,
        parse: Callable[[Any], T],
        if_unimplemented: T | None = None,
    ) -> Call[T]:
        """Send a message to method ``path`` ("/package.Service/Method").

        ``read`` makes a message of the answer's bytes, on another thread; ``parse`` turns it into our own terms when
        value() asks. ``if_unimplemented`` is the value where the server has no such method; None: that is a failure.
        """
        if len(message) > self._max_bytes:
            text = f"the request is larger than {self._max_bytes} bytes"
            return Failed(Failure("RESOURCE_EXHAUSTED", text, oversized=REQUEST, limit_bytes=self._max_bytes))
        line = self._line
        # A channel whose connection is gone would not tell what was sent on it from what was not; a new one does.
        if line.state() != grpc.ChannelConnectivity.READY and line.stood:
            line = self._line = _Line(_open(self._server, self._endpoint))
        options = self._server.options

        def read_inflated(data: bytes) -> Any:
            plain = inflate(data, options)
            return plain if isinstance(plain, Rejected) else read(plain)

        method: Any = line.channel.unary_unary(path, None, read_inflated)
        future = method.future(message, timeout=timeout_ms / 1000, metadata=self._headers)
        notify = self._notify

        def end(ended: Any) -> None:
            if ended.code() not in _OUR_ENDS:
                line.watch_end()
            notify()

        future.add_done_callback(end)
        return GrpcCall(line, future, (len(message), self._max_bytes), parse, if_unimplemented)

    def renew(self, failed: Call[object]) -> None:
        """Replace the channel, unless another failed call already did."""
        if isinstance(failed, GrpcCall) and failed.line is self._line:
            self._line = _Line(_open(self._server, self._endpoint))
