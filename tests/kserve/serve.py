"""Serve KServe's custom models on 127.0.0.1: one that declares its tensors, and one that declares nothing, the default.

python serve.py --http_port PORT --grpc_port PORT
"""

from __future__ import annotations

import argparse
from typing import Any

import grpc
import numpy as np
import uvicorn
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer, model_server
from kserve.utils.utils import generate_uuid

HOST = "127.0.0.1"


def bind_to_loopback() -> None:
    """Let KServe listen on 127.0.0.1: it has no option for that, and listens on all addresses."""
    configure = uvicorn.Config.__init__

    def configured(self: uvicorn.Config, *arguments: Any, **named: Any) -> None:
        configure(self, *arguments, **{**named, "host": HOST})

    listen = grpc.aio._server.Server.add_insecure_port

    def listening(self: grpc.aio.Server, address: str) -> int:
        return int(listen(self, f"{HOST}:{address.rpartition(':')[2]}"))

    uvicorn.Config.__init__ = configured  # type: ignore[method-assign]
    grpc.aio._server.Server.add_insecure_port = listening  # type: ignore[method-assign]


class Mute(Model):
    """A custom model as KServe's documentation has it: score = tenure / 2 - spend, of FP32; nothing is declared."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ready = True

    def predict(self, payload: InferRequest, *_: Any) -> InferResponse:
        """Answer a batch."""
        tenure, spend = (payload.get_input_by_name(name).as_numpy() for name in ("tenure", "spend"))
        score = InferOutput("score", list(tenure.shape), "FP32")
        score.set_data_from_numpy((tenure / 2 - spend).astype(np.float32), binary_data=False)
        return InferResponse(generate_uuid(), self.name, [score])


class Telling(Mute):
    """The same model, which says what it takes and answers."""

    def get_input_types(self) -> list[dict[str, Any]]:
        """Declare the inputs."""
        return [{"name": name, "datatype": "FP32", "shape": [-1, 1]} for name in ("tenure", "spend")]

    def get_output_types(self) -> list[dict[str, Any]]:
        """Declare the output."""
        return [{"name": "score", "datatype": "FP32", "shape": [-1, 1]}]


if __name__ == "__main__":
    bind_to_loopback()
    options = argparse.ArgumentParser(parents=[model_server.parser]).parse_args()
    server = ModelServer(http_port=options.http_port, grpc_port=options.grpc_port)
    server.start([Mute("mute"), Telling("telling")])
