"""Triton, and other servers of the Open Inference Protocol, over gRPC.

The message classes and the stub are those of the tritonclient package; the channel is our own, because a backend
cannot use that package's client: it has no default deadline, and its threads and channel options are not ours to set.

Protocol: service inference.GRPCInferenceService of https://github.com/kserve/open-inference-protocol, and Triton's
extensions of it (ModelConfig, RepositoryIndex) of https://github.com/triton-inference-server/common.
"""

from __future__ import annotations

from typing import Any, Callable, Generic, TypeVar

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from fdw.codec import Buffer, Tensor
from fdw.errors import Failure
from fdw.options import Endpoint, Server, ServerOptions
from fdw.protocols.base import Call, Config, IndexEntry, InferRequest, Metadata, Statistics, says_not_ready
from fdw.signature import TensorSpec

T = TypeVar("T")

KEEPALIVE_TIMEOUT_MS = 20_000
INITIAL_BACKOFF_MS = 100
MAX_BACKOFF_MS = 1000

_COMPRESSION = {
    "none": grpc.Compression.NoCompression,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}


def _channel_options(options: ServerOptions) -> list[tuple[str, int]]:
    return [
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


class _Link:
    """One channel and its stub. Requests hold it; gRPC closes the channel when nothing does any more."""

    def __init__(self, server: Server, endpoint: Endpoint) -> None:
        options = server.options
        arguments = (endpoint.address, _channel_options(options))
        compression = _COMPRESSION[options.compression]
        if endpoint.scheme == "grpcs":
            credentials = grpc.ssl_channel_credentials()
            channel = grpc.secure_channel(arguments[0], credentials, arguments[1], compression)
        else:
            channel = grpc.insecure_channel(*arguments, compression)
        self.stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        self.stub.ModelInfer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer", None, service_pb2.ModelInferResponse.FromString
        )


# What gRPC's own texts say became of a connection: (part of the text, whether a connection stood, the fact in a
# sentence). The first match counts. An UNAVAILABLE that matches none is taken for the server's own.
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
    ("Ssl handshake failed", False, "The TLS handshake failed."),
    ("SSL_ERROR", False, "The TLS handshake failed."),
    ("failed to connect to all addresses", False, "No connection could be made."),
    ("Connection reset", True, "The server reset the connection."),
    ("Socket closed", True, "The server closed the connection."),
    ("GOAWAY", True, "The server closed the connection."),
    ("Broken pipe", True, "The server closed the connection."),
    ("keepalive", True, "The server stopped answering keepalive probes."),
    ("ping timeout", True, "The server stopped answering keepalive probes."),
    ("Endpoint closing", True, "The server closed the connection."),
    ("Stream removed", True, "The server closed the connection."),
)

# Triton's statuses for models that are known and cannot run now.
_NOT_READY_CODES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND)

_OVERSIZED = ("larger than max", "larger than the limit", "exceeds maximum")


def _failure(code: grpc.StatusCode, text: str) -> Failure:
    """Tell the transport's failures from the server's own answers of the same status."""
    if code == grpc.StatusCode.UNAVAILABLE:
        for needle, connected, cause in _TRANSPORT_FAILURES:
            if needle in text:
                return Failure(code.name, text, cause, connected)
    return Failure(
        code.name,
        text,
        not_ready=code in _NOT_READY_CODES and says_not_ready(text),
        oversized=any(needle in text for needle in _OVERSIZED),
    )


class _GrpcCall(Generic[T]):
    """A unary call; ``parse`` turns the response message into our own terms."""

    def __init__(self, link: _Link, future: Any, parse: Callable[[Any], T], if_unimplemented: T | None) -> None:
        self.link = link
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
        return _failure(code, self._future.details() or "")

    def value(self) -> T:
        """Return the answer."""
        if self._if_unimplemented is not None and self._future.code() == grpc.StatusCode.UNIMPLEMENTED:
            return self._if_unimplemented
        return self._parse(self._future.result())

    def cancel(self) -> None:
        """Cancel the request on the wire."""
        self._future.cancel()


class TritonGrpc:
    """A connection to one endpoint, as fdw.protocols.base.Client says."""

    def __init__(self, server: Server, endpoint: Endpoint, notify: Callable[[], None]) -> None:
        self._server = server
        self._endpoint = endpoint
        self._notify = notify
        self._link = _Link(server, endpoint)
        user = server.user
        token = (("authorization", f"Bearer {user.token}"),) if user.token else ()
        self._headers = token + user.headers

    def _call(
        self, method: str, message: Any, timeout_ms: int, parse: Callable[[Any], T], if_unimplemented: T | None = None
    ) -> _GrpcCall[T]:
        link = self._link
        future = getattr(link.stub, method).future(message, timeout=timeout_ms / 1000, metadata=self._headers)
        notify = self._notify
        future.add_done_callback(lambda _: notify())
        return _GrpcCall(link, future, parse, if_unimplemented)

    def metadata(self, model: str, version: str, timeout_ms: int) -> Call[Metadata]:
        """Ask for a model's tensors (ModelMetadata)."""
        message = service_pb2.ModelMetadataRequest(name=model, version=version)
        return self._call("ModelMetadata", message, timeout_ms, _parse_metadata)

    def config(self, model: str, version: str, timeout_ms: int) -> Call[Config]:
        """Ask for a model's configuration (ModelConfig, Triton's extension); nothing known where it is missing."""
        message = service_pb2.ModelConfigRequest(name=model, version=version)
        return self._call("ModelConfig", message, timeout_ms, _parse_config, Config())

    def index(self, timeout_ms: int) -> Call[tuple[IndexEntry, ...]]:
        """Ask for the repository's models (RepositoryIndex, Triton's extension)."""
        return self._call("RepositoryIndex", service_pb2.RepositoryIndexRequest(), timeout_ms, _parse_index)

    def statistics(self, model: str, version: str, timeout_ms: int) -> Call[Statistics]:
        """Ask for a model's cumulative times (ModelStatistics, Triton's extension), all versions together if ''."""
        message = service_pb2.ModelStatisticsRequest(name=model, version=version)
        return self._call("ModelStatistics", message, timeout_ms, _parse_statistics, Statistics())

    def infer(self, request: InferRequest, timeout_ms: int) -> Call[tuple[Tensor, ...]]:
        """Ask for an inference (ModelInfer, raw contents)."""
        return self._call("ModelInfer", _serialize(request), timeout_ms, _parse_inference)

    def renew(self, failed: Call[object]) -> None:
        """Replace the channel, unless another failed call already did."""
        if isinstance(failed, _GrpcCall) and failed.link is self._link:
            self._link = _Link(self._server, self._endpoint)


# The key of ModelInferRequest.raw_input_contents on the wire: field 7, length-delimited.
_RAW_KEY = bytes([7 << 3 | 2])


def _serialize(request: InferRequest) -> bytes:
    """Write a ModelInferRequest.

    The message without its tensors, then the tensors, which is what serialising the whole message gives; but
    they are copied once, not three times.
    """
    message = service_pb2.ModelInferRequest(model_name=request.model, model_version=request.version)
    for tensor in request.inputs:
        message.inputs.add(name=tensor.name, datatype=tensor.dtype, shape=tensor.shape)
    for name in request.outputs:
        message.outputs.add(name=name)
    parts: list[Buffer] = [message.SerializeToString()]
    for tensor in request.inputs:
        parts += [_RAW_KEY, _varint(len(tensor.raw)), tensor.raw]
    return b"".join(parts)


def _varint(value: int) -> bytes:
    """Write a number as protobuf does: 7 bits a byte, the lowest first, the high bit says that more follow."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def _parse_tensors(tensors: Any) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in tensors)


def _parse_metadata(response: Any) -> Metadata:
    return Metadata(_parse_tensors(response.inputs), _parse_tensors(response.outputs))


def _parse_config(response: Any) -> Config:
    config = response.config
    return Config(
        max_batch_size=config.max_batch_size,
        decoupled=config.model_transaction_policy.decoupled,
        sequence=config.HasField("sequence_batching"),
        optional_inputs=frozenset(tensor.name for tensor in config.input if tensor.optional),
        parameters=tuple((name, value.string_value) for name, value in sorted(config.parameters.items())),
    )


def _parse_statistics(response: Any) -> Statistics:
    """Add up a model's versions; computing includes the copies of inputs and outputs."""
    counted = [model.inference_stats for model in response.model_stats]
    return Statistics(
        sum(times.queue.ns for times in counted),
        sum(times.compute_input.ns + times.compute_infer.ns + times.compute_output.ns for times in counted),
    )


def _parse_index(response: Any) -> tuple[IndexEntry, ...]:
    return tuple(
        IndexEntry(entry.name, entry.version, entry.state == "READY", entry.reason.strip().partition("\n")[0])
        for entry in response.models
    )


# Which field of InferTensorContents holds the elements of a dtype. FP16 and BF16 have none: they are raw only.
_TYPED_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def _parse_inference(response: Any) -> tuple[Tensor, ...]:
    """Read the outputs of a reply. Raw contents come in the order of the outputs, for all of them or for none."""
    raws = response.raw_output_contents
    tensors = []
    for number, output in enumerate(response.outputs):
        raw, items = None, None
        if raws:
            raw = raws[number] if number < len(raws) else b""
        else:
            field = _TYPED_FIELDS.get(output.datatype)
            items = getattr(output.contents, field) if field else ()
        tensors.append(Tensor(output.name, output.datatype, tuple(output.shape), raw, items))
    return tuple(tensors)
