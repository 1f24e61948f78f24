"""Triton, and other servers of the Open Inference Protocol, over gRPC.

The message classes are those of the tritonclient package; the channel is our own, because a backend cannot use that
package's client: it has no default deadline, and its threads and channel options are not ours to set.

Protocol: service inference.GRPCInferenceService of https://github.com/kserve/open-inference-protocol, and Triton's
extensions of it (ModelConfig, RepositoryIndex) of https://github.com/triton-inference-server/common.
"""

from __future__ import annotations

from typing import Any, Callable, TypeVar

from tritonclient.grpc import service_pb2

from fdw.codec import Buffer, Tensor
from fdw.options import Endpoint, Server
from fdw.protocols.base import Call, Config, IndexEntry, InferRequest, Metadata, Statistics
from fdw.protocols.channel import GrpcClient
from fdw.signature import TensorSpec

T = TypeVar("T")


class TritonGrpc:
    """A connection to one endpoint, as fdw.protocols.base.Client says."""

    def __init__(self, server: Server, endpoint: Endpoint, notify: Callable[[], None]) -> None:
        self._grpc = GrpcClient(server, endpoint, notify)

    def _call(
        self, method: str, message: bytes, timeout_ms: int, parse: Callable[[Any], T], if_unimplemented: T | None = None
    ) -> Call[T]:
        read = getattr(service_pb2, f"{method}Response").FromString
        path = f"/inference.GRPCInferenceService/{method}"
        return self._grpc.call(path, message, read, timeout_ms, parse, if_unimplemented)

    def metadata(self, model: str, version: str, timeout_ms: int) -> Call[Metadata]:
        """Ask for a model's tensors (ModelMetadata)."""
        message = service_pb2.ModelMetadataRequest(name=model, version=version)
        return self._call("ModelMetadata", message.SerializeToString(), timeout_ms, _parse_metadata)

    def config(self, model: str, version: str, timeout_ms: int) -> Call[Config]:
        """Ask for a model's configuration (ModelConfig, Triton's extension); nothing known where it is missing."""
        message = service_pb2.ModelConfigRequest(name=model, version=version)
        return self._call("ModelConfig", message.SerializeToString(), timeout_ms, _parse_config, Config())

    def index(self, timeout_ms: int) -> Call[tuple[IndexEntry, ...]]:
        """Ask for the repository's models (RepositoryIndex, Triton's extension)."""
        return self._call("RepositoryIndex", b"", timeout_ms, _parse_index)

    def statistics(self, model: str, version: str, timeout_ms: int) -> Call[Statistics]:
        """Ask for a model's cumulative times (ModelStatistics, Triton's extension), all versions together if ''."""
        message = service_pb2.ModelStatisticsRequest(name=model, version=version)
        return self._call("ModelStatistics", message.SerializeToString(), timeout_ms, _parse_statistics, Statistics())

    def infer(self, request: InferRequest, timeout_ms: int) -> Call[tuple[Tensor, ...]]:
        """Ask for an inference (ModelInfer, raw contents)."""
        return self._call("ModelInfer", _serialize(request), timeout_ms, _parse_inference)

    def renew(self, failed: Call[object]) -> None:
        """Replace the channel, unless another failed call already did."""
        self._grpc.renew(failed)


# Which field of InferParameter holds a value.
_PARAMETER_FIELDS = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}

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
    for name, value in request.parameters.items():
        setattr(message.parameters[name], _PARAMETER_FIELDS[type(value)], value)
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
    # MLServer writes its enum's name before the state: State.READY.
    return tuple(
        IndexEntry(
            entry.name,
            entry.version,
            entry.state.rpartition(".")[2] == "READY",
            entry.reason.strip().partition("\n")[0],
        )
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
