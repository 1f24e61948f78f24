"""gRPC channels, unary calls on them, and what became of those: shared by all protocols over gRPC."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Callable, Generic, TypeVar

import grpc

from fdw import tls
from fdw.errors import Failure
from fdw.options import Endpoint, Server, ServerOptions
from fdw.protocols.base import Call, says_not_ready

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
        # A database server has no web proxy, whatever its environment says.
        ("grpc.enable_http_proxy", 0),
    ]


def _is_name(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return True
    return False


def _open(server: Server, endpoint: Endpoint) -> grpc.Channel:
    """Make a channel; it connects when it is first used."""
    options = server.options
    # The addresses of one name get requests in turn; those that cannot be reached are left out.
    policy = [("grpc.lb_policy_name", "round_robin")] if _is_name(endpoint.host) else []
    arguments = (endpoint.address, [*_channel_options(options), *policy])
    compression = _COMPRESSION[options.compression]
    if endpoint.scheme == "grpcs":
        files = tls.read_files(server)
        credentials = grpc.ssl_channel_credentials(files.root, files.key, files.certificate)
        return grpc.secure_channel(arguments[0], credentials, arguments[1], compression)
    return grpc.insecure_channel(*arguments, compression)


# How gRPC's own texts begin where no connection stood, so that no server has seen the request.
_NOT_CONNECTED = (
    "failed to connect to all addresses",
    "connections to all backends failing",
    "DNS resolution failed",
    "errors resolving",
)

# What gRPC's own texts say became of a connection: (part of the text, whether a connection stood, the fact in a
# sentence). The first match counts; those without a connection count only in a text that _never_connected() believes.
# An UNAVAILABLE that matches none is taken for the server's own.
_TRANSPORT_FAILURES: tuple[tuple[str, bool, str], ...] = (
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

# What proxies such as nginx answer in the server's place to a client whose certificate they refuse.
_HTTP_400 = "Received http2 header with status: 400"
_HTTP_400_TEXT = "HTTP status 400, as proxies answer to a client certificate that is missing, expired or not trusted"

# Triton's statuses for models that are known and cannot run now.
_NOT_READY_CODES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND)

_OVERSIZED = ("larger than max", "larger than the limit", "exceeds maximum", "header with status: 413")


def _never_connected(text: str, port: int) -> bool:
    """Tell whether a text is gRPC's own about no connection to a port, and not what a server passes on of another."""
    ports = re.findall(r":([0-9]{1,5})(?![0-9A-Za-z])", text)
    return text.startswith(_NOT_CONNECTED) and (not ports or str(port) in ports)


def failure_of(code: grpc.StatusCode, text: str, port: int) -> Failure:
    """Tell the transport's failures from the answers of the same status of the server at ``port``."""
    if code == grpc.StatusCode.UNAVAILABLE:
        unconnected = _never_connected(text, port)
        known = tls.explain(text) if unconnected else None
        if known is not None:
            return Failure(code.name, text, known[0], connected=False, hint=known[1])
        for needle, connected, cause in _TRANSPORT_FAILURES:
            if needle in text and (connected or unconnected):
                mute = not connected and any(needle in text for needle in _MUTE)
                return Failure(code.name, text, cause, connected, mute=mute)
    if "RST_STREAM" in text:
        return Failure("UNAVAILABLE", text, "The server broke the request off.", connected=True)
    if "deserializing response" in text:
        return Failure("DATA_LOSS", "The reply is not what the protocol says.")
    if _HTTP_400 in text:
        return Failure("UNAUTHENTICATED", _HTTP_400_TEXT)
    return Failure(
        code.name,
        text,
        not_ready=code in _NOT_READY_CODES and says_not_ready(text),
        oversized=any(needle in text for needle in _OVERSIZED),
    )


class GrpcCall(Generic[T]):
    """A unary call to a port; ``parse`` turns the response message into our own terms."""

    def __init__(
        self, channel: grpc.Channel, port: int, future: Any, parse: Callable[[Any], T], if_unimplemented: T | None
    ) -> None:
        self.channel = channel
        self._port = port
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
            return None
        if code == grpc.StatusCode.UNIMPLEMENTED and self._if_unimplemented is not None:
            return None
        return failure_of(code, self._future.details() or "", self._port)

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
        self._channel = _open(server, endpoint)
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
    ) -> GrpcCall[T]:
        """Send a message to method ``path`` ("/package.Service/Method").

        ``read`` makes a message of the answer's bytes, on another thread; ``parse`` turns it into our own terms when
        value() asks. ``if_unimplemented`` is the value where the server has no such method; None: that is a failure.
        """
        method: Any = self._channel.unary_unary(path, None, read)
        future = method.future(message, timeout=timeout_ms / 1000, metadata=self._headers)
        notify = self._notify
        future.add_done_callback(lambda _: notify())
        return GrpcCall(self._channel, self._endpoint.port, future, parse, if_unimplemented)

    def renew(self, failed: Call[object]) -> None:
        """Replace the channel, unless another failed call already did."""
        if isinstance(failed, GrpcCall) and failed.channel is self._channel:
            self._channel = _open(self._server, self._endpoint)
