from __future__ import annotations

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from fdw.protocols import triton_grpc
from fdw.protocols.base import InferRequest, InputData


# The lengths at which the number that says them takes a byte more, and one that is of a batch's order.
@pytest.mark.parametrize("length", [0, 1, 127, 128, 16383, 16384, 300_000])
def test_serialised_request(length: int) -> None:
    """What is written by hand is what protobuf writes."""
    values = np.arange(length, dtype="u1")
    inputs = [
        InputData("x", "UINT8", (length, 1), values.data),
        InputData("text", "BYTES", (2, 1), b"\1\0\0\0a\0\0\0\0"),
    ]
    message = service_pb2.ModelInferRequest(model_name="m", model_version="3")
    for tensor in inputs:
        message.inputs.add(name=tensor.name, datatype=tensor.dtype, shape=tensor.shape)
        message.raw_input_contents.append(bytes(tensor.raw))
    for name in ("y", "z"):
        message.outputs.add(name=name)
    serialised = triton_grpc._serialize(InferRequest("m", "3", inputs, ["y", "z"]))
    assert service_pb2.ModelInferRequest.FromString(serialised) == message


def test_states_of_models_as_servers_write_them() -> None:
    response = service_pb2.RepositoryIndexResponse()
    for state in ("READY", "State.READY", "UNAVAILABLE", "State.LOADING", ""):
        response.models.add(name="m", state=state)
    assert [entry.ready for entry in triton_grpc._parse_index(response)] == [True, True, False, False, False]
