"""The service of protos/example.proto, with faults on demand.

    with ExampleServer() as server:
        ... server.url, server.calls["Appraise"]

``reflection`` is "v1alpha", "v1" or "" for none.
"""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

import example_pb2 as pb
import grpc
from grpc_reflection.v1alpha import reflection as grpc_reflection

SERVICE = "model_fdw.example.v1.Appraisal"
DESCRIPTOR_SET = Path(__file__).with_name("example.binpb")


def appraise(request: Any) -> Any:
    """Value each item by its weight; what is unset stays unset."""
    response = pb.AppraiseResponse(price_list="autumn")
    for item in request.items:
        value = response.values.add(name=item.name, condition=item.condition, seal=bytes(reversed(item.digest)))
        if item.weight >= 0:
            value.price = item.weight * 10
        value.offers.extend(item.sizes)
        value.remarks.extend([item.name, item.WhichOneof("register") or "unknown"][: len(item.sizes)])
        if item.HasField("made"):
            value.until.CopyFrom(item.made)
        if item.HasField("place"):
            value.market.CopyFrom(item.place)
        if item.HasField("edition"):
            value.compared.value = item.edition.value
    return response


def appraise_columns(request: Any) -> Any:
    prices = [weight * 10 for weight in request.weights]
    classes = [f"class {condition}" for condition in request.conditions]
    return pb.AppraiseColumnsResponse(prices=prices, classes=classes, total=sum(prices))


def appraise_mixed(request: Any) -> Any:
    return pb.AppraiseMixedResponse(rents=[len(place.town) for place in request.places])


def appraise_one(request: Any) -> Any:
    return pb.AppraiseOneResponse(price=request.weight * 10, sorted=sorted(request.sizes))


Answer = Callable[[Any], Any]

METHODS: dict[str, tuple[Any, Answer]] = {
    "Appraise": (pb.AppraiseRequest, appraise),
    "AppraiseColumns": (pb.AppraiseColumnsRequest, appraise_columns),
    "AppraiseMixed": (pb.AppraiseMixedRequest, appraise_mixed),
    "AppraiseOne": (pb.AppraiseOneRequest, appraise_one),
    "AppraiseAmong": (pb.AppraiseAmongRequest, appraise),
}


class ExampleServer:
    """The server on 127.0.0.1; a context manager. ``answers`` replaces what a method does."""

    def __init__(self, reflection: str = "v1alpha", **answers: Callable[[Any, Any], Any]) -> None:
        self.answers = answers
        self.calls: Counter[str] = Counter()
        self.requests: list[Any] = []
        self.lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(16))
        handlers = {name: self._handler(name, *method) for name, method in METHODS.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        if reflection:
            self._reflect(reflection)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self.url = f"grpc://127.0.0.1:{self.port}"

    def _handler(self, name: str, request_class: Any, answer: Answer) -> Any:
        def serve(request: Any, context: Any) -> Any:
            with self.lock:
                self.calls[name] += 1
                self.requests.append(request)
            own = self.answers.get(name)
            return own(request, context) if own else answer(request)

        return grpc.unary_unary_rpc_method_handler(serve, request_class.FromString, lambda r: r.SerializeToString())

    def _reflect(self, version: str) -> None:
        servicer: Any = grpc_reflection.ReflectionServicer([SERVICE, grpc_reflection.SERVICE_NAME])

        def serve(requests: Any, context: Any) -> Any:
            with self.lock:
                self.calls["reflection"] += 1
            return servicer.ServerReflectionInfo(requests, context)

        from grpc_reflection.v1alpha import reflection_pb2

        handler = grpc.stream_stream_rpc_method_handler(
            serve, reflection_pb2.ServerReflectionRequest.FromString, lambda r: r.SerializeToString()
        )
        name = f"grpc.reflection.{version}.ServerReflection"
        handlers = grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})
        self._server.add_generic_rpc_handlers((handlers,))

    def __enter__(self) -> ExampleServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()
