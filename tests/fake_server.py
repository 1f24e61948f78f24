"""A scripted model server, for faults that a real one does not make on demand.

In a test:

    with FakeServer("wrong-rows") as server:
        ... server.url, server.calls["ModelInfer"]

As a program, for tests that need another process; it prints its port and runs until it is killed:

    python tests/fake_server.py --behaviour never-answers --port 0

It serves the Open Inference Protocol over gRPC. Its default model is "fake": input x FP64, outputs y FP64 (twice x) and
label BYTES ("x=" and x).
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import struct
import sys
import threading
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Callable

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

# Frames of HTTP/2 (RFC 9113): length, type, flags, stream; GOAWAY names the last stream and an error.
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
GOAWAY = b"\0\0\x08\7\0\0\0\0\0" + b"\0\0\0\0" + b"\0\0\0\2"

ALL_METHODS = frozenset({"ModelMetadata", "ModelConfig", "RepositoryIndex", "ModelInfer"})

NUMPY = {
    "BOOL": "?",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "FP16": "<f2",
    "BF16": "<u2",
    "FP32": "<f4",
    "FP64": "<f8",
}

TYPED_FIELDS = {
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

TensorDeclaration = tuple[str, str, tuple[int, ...]]
Arrays = dict[str, Any]


@dataclass
class Output:
    """An output tensor on its way out; a fault may change any part of it."""

    name: str
    dtype: str
    shape: list[int]
    raw: bytes
    items: list[Any]


@dataclass(frozen=True)
class Behaviour:
    """What goes wrong.

    ``hang``: methods that never answer; ``status``: what a method answers the first ``times`` times (-1: always);
    ``spoil``: what is done to each output; ``typed``: contents are typed, not raw; ``drop``: the outputs are left out;
    ``cut``: the connection is reset when the method is called; ``at_most``: only that many requests are answered at the
    same time, the others get ``status``; ``cut_reply``: the connection is reset in the middle of an inference's answer;
    ``drip``: that answer comes a byte at a time; ``unload_after``: so many inferences, and the models are gone;
    ``gibberish``: the answer is no message of the protocol; ``listen``: what listens, "grpc" for a server.
    """

    @property
    def relayed(self) -> bool:
        """Tell whether a relay stands before the server."""
        return self.cut or self.cut_reply or self.drip

    hang: frozenset[str] = frozenset()
    status: grpc.StatusCode | None = None
    status_text: str = "scripted failure"
    # Compresses every answer so, whatever the client takes.
    compression: grpc.Compression | None = None
    status_methods: frozenset[str] = frozenset({"ModelInfer"})
    times: int = -1
    spoil: Callable[[Output], None] | None = None
    typed: bool = False
    drop: bool = False
    cut: bool = False
    delay_s: float = 0.0
    at_most: int = -1
    cut_reply: bool = False
    drip: bool = False
    unload_after: int = -1
    gibberish: bool = False
    listen: str = "grpc"


def _wrong_rows(output: Output) -> None:
    output.shape[0] += 1
    output.raw += output.raw[-8:]
    output.items.append(output.items[-1])


def _wrong_dtype(output: Output) -> None:
    output.dtype = "INT64"


def _wrong_shape(output: Output) -> None:
    output.shape.append(2)
    output.raw *= 2
    output.items *= 2


def _truncate(output: Output) -> None:
    output.raw = output.raw[:-3]
    output.items = output.items[:-1]


def _surplus(output: Output) -> None:
    output.raw += b"\x00" * 5
    output.items.append(output.items[-1])


def _huge(output: Output) -> None:
    output.raw *= 10_000


def _not_a_number(output: Output) -> None:
    if output.dtype == "FP64":
        output.raw = np.full(len(output.raw) // 8, np.nan).tobytes()


BEHAVIOURS = {
    "ok": Behaviour(),
    "never-answers": Behaviour(hang=frozenset({"ModelInfer"})),
    "never-answers-metadata": Behaviour(hang=ALL_METHODS),
    "accepts-and-hangs": Behaviour(listen="hang"),
    "refuses": Behaviour(listen="refuse"),
    "swallows": Behaviour(listen="swallow"),
    "wrong-rows": Behaviour(spoil=_wrong_rows),
    "wrong-dtype": Behaviour(spoil=_wrong_dtype),
    "wrong-shape": Behaviour(spoil=_wrong_shape),
    "truncated": Behaviour(spoil=_truncate),
    "surplus": Behaviour(spoil=_surplus),
    "missing-output": Behaviour(drop=True),
    "typed": Behaviour(typed=True),
    "typed-truncated": Behaviour(typed=True, spoil=_truncate),
    "resets": Behaviour(cut=True),
    "resets-in-reply": Behaviour(cut_reply=True),
    "drips": Behaviour(drip=True),
    "late": Behaviour(delay_s=1.0),
    "huge": Behaviour(spoil=_huge),
    "nan": Behaviour(spoil=_not_a_number),
    "unloads": Behaviour(unload_after=1),
    "gibberish": Behaviour(gibberish=True),
    "garbage": Behaviour(listen="garbage"),
    "goaway": Behaviour(listen="goaway"),
    "status": Behaviour(status=grpc.StatusCode.UNAVAILABLE),
    "slow": Behaviour(delay_s=0.2),
}


@dataclass(frozen=True)
class FakeModel:
    """A model of the fake server; ``compute`` maps input arrays of shape [rows, ...] to output arrays.

    ``silent``: what its metadata leaves out, of "inputs" and "outputs"."""

    inputs: tuple[TensorDeclaration, ...]
    outputs: tuple[TensorDeclaration, ...]
    compute: Callable[[Arrays], Arrays]
    max_batch_size: int = 1_000_000
    decoupled: bool = False
    sequence: bool = False
    optional: frozenset[str] = frozenset()
    parameters: dict[str, str] = field(default_factory=dict)
    ready: bool = True
    silent: frozenset[str] = frozenset()

    def declared(self, role: str) -> tuple[TensorDeclaration, ...]:
        """Return what the metadata says of "inputs" or "outputs"."""
        return () if role in self.silent else self.inputs if role == "inputs" else self.outputs


def _compute_fake(inputs: Arrays) -> Arrays:
    x = inputs["x"]
    return {"y": 2 * x, "label": [b"x=%g" % value for value in x.reshape(-1)]}


FAKE = FakeModel((("x", "FP64", (-1, 1)),), (("y", "FP64", (-1, 1)), ("label", "BYTES", (-1, 1))), _compute_fake)


def _compute_pair(inputs: Arrays) -> Arrays:
    a, b = (inputs.get(name, 1.0) for name in ("a", "b"))
    rows = next((len(values) for values in inputs.values()), 1)
    return {"s": np.broadcast_to(a + 2 * b, (rows, 1)), "d": np.broadcast_to(a - b, (rows, 1))}


PAIR = FakeModel(
    (("a", "FP64", (-1, 1)), ("b", "FP64", (-1, 1))),
    (("s", "FP64", (-1, 1)), ("d", "FP64", (-1, 1))),
    _compute_pair,
    optional=frozenset({"a", "b"}),
)


def pack_strings(strings: list[bytes]) -> bytes:
    """Write strings as the contents of a BYTES tensor."""
    return b"".join(struct.pack("<I", len(string)) + string for string in strings)


def unpack_strings(raw: bytes) -> list[bytes]:
    """Read the contents of a BYTES tensor."""
    strings, position = [], 0
    while position < len(raw):
        (length,) = struct.unpack_from("<I", raw, position)
        strings.append(raw[position + 4 : position + 4 + length])
        position += 4 + length
    return strings


class _Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, server: FakeServer) -> None:
        self.server = server

    def _misbehave(self, method: str, context: Any) -> None:
        server, behaviour = self.server, self.server.behaviour
        with server.lock:
            server.calls[method] += 1
            number = server.calls[method]
            server.headers = dict(context.invocation_metadata())
        if method in behaviour.hang:
            ended = threading.Event()
            if context.add_callback(ended.set):  # False: it is cancelled already
                ended.wait()
        if behaviour.cut and method == "ModelInfer":
            server.cut_connections()
        if method == "ModelInfer":
            server.spoil_reply()
            if 0 <= behaviour.unload_after < number:
                server.models.clear()
        if (
            behaviour.status
            and method in behaviour.status_methods
            and (behaviour.times < 0 or number <= behaviour.times)
            and (behaviour.at_most < 0 or server.running > behaviour.at_most)
        ):
            context.abort(behaviour.status, behaviour.status_text)
        if behaviour.compression is not None:
            context.set_compression(behaviour.compression)
        if behaviour.delay_s and method == "ModelInfer":
            time.sleep(behaviour.delay_s)

    def _model(self, name: str, context: Any) -> FakeModel:
        model = self.server.models.get(name)
        if model is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{name}' is not found")
            raise AssertionError
        return model

    def ModelMetadata(self, request: Any, context: Any) -> Any:
        self._misbehave("ModelMetadata", context)
        model = self._model(request.name, context)
        response = service_pb2.ModelMetadataResponse(name=request.name, versions=["1"], platform="fake")
        for role in ("inputs", "outputs"):
            for name, dtype, shape in model.declared(role):
                getattr(response, role).add(name=name, datatype=dtype, shape=shape)
        return response

    def ModelConfig(self, request: Any, context: Any) -> Any:
        self._misbehave("ModelConfig", context)
        if not self.server.has_config:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such method")
        model = self._model(request.name, context)
        response = service_pb2.ModelConfigResponse()
        config = response.config
        config.name = request.name
        config.max_batch_size = model.max_batch_size
        config.model_transaction_policy.decoupled = model.decoupled
        if model.sequence:
            config.sequence_batching.max_sequence_idle_microseconds = 1
        for name, _, _ in model.inputs:
            config.input.add(name=name, optional=name in model.optional)
        for name, value in model.parameters.items():
            config.parameters[name].string_value = value
        return response

    def RepositoryIndex(self, request: Any, context: Any) -> Any:
        self._misbehave("RepositoryIndex", context)
        if not self.server.has_index:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        response = service_pb2.RepositoryIndexResponse()
        for name, model in self.server.models.items():
            if model.ready:
                response.models.add(name=name, version="1", state="READY")
            else:
                response.models.add(name=name, version="1", state="UNAVAILABLE", reason="no weights\nAt: line 1")
        return response

    def ModelInfer(self, request: Any, context: Any) -> Any:
        with self.server.lock:
            self.server.requests.append(request)
            self.server.running += 1
            self.server.most_running = max(self.server.most_running, self.server.running)
        try:
            self._misbehave("ModelInfer", context)
            return self._infer(request, context)
        finally:
            with self.server.lock:
                self.server.running -= 1

    def _infer(self, request: Any, context: Any) -> Any:
        model, behaviour = self._model(request.model_name, context), self.server.behaviour
        inputs: Arrays = {}
        for tensor, raw in zip(request.inputs, request.raw_input_contents):
            if tensor.datatype == "BYTES":
                inputs[tensor.name] = unpack_strings(raw)
            else:
                inputs[tensor.name] = np.frombuffer(raw, NUMPY[tensor.datatype]).reshape(tuple(tensor.shape))
        rows = [*(request.inputs[0].shape[:1] if request.inputs else [1])] if model.max_batch_size else []
        try:
            answers = model.compute(inputs)
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        for name, dtype, shape in model.outputs:
            if name not in [wanted.name for wanted in request.outputs] or behaviour.drop:
                continue
            answer = answers[name]
            if dtype == "BYTES":
                raw, items, full_shape = pack_strings(answer), list(answer), rows + list(shape[1:] if rows else shape)
            else:
                array = np.asarray(answer, NUMPY[dtype])
                raw, items, full_shape = array.tobytes(), array.reshape(-1).tolist(), list(array.shape)
            output = Output(name, dtype, full_shape, raw, items)
            if behaviour.spoil:
                behaviour.spoil(output)
            message = response.outputs.add(name=name, datatype=output.dtype, shape=output.shape)
            if behaviour.typed:
                getattr(message.contents, TYPED_FIELDS[dtype]).extend(output.items)
            else:
                response.raw_output_contents.append(output.raw)
        return response


class _Garbler(grpc.ServerInterceptor):  # type: ignore[misc]
    """Makes gibberish of inferences' answers, where the behaviour says so."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = continuation(details)
        if self.server.behaviour.gibberish and details.method.endswith("/ModelInfer"):
            return handler._replace(response_serializer=lambda _: b"\xff" * 9)
        return handler


class _Relay:
    """Passes connections on to a port, resets them on demand, and spoils answers.

    ``mischief``: what happens to what comes from the server from now on: nothing, "cut" or "drip".
    """

    def __init__(self, port: int, target_port: int) -> None:
        self.mischief = ""
        self.listener = socket.create_server(("127.0.0.1", port))
        self.port = self.listener.getsockname()[1]
        self.target_port = target_port
        self.pairs: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                upstream = socket.create_connection(("127.0.0.1", self.target_port))
            except ConnectionRefusedError:  # the server ends
                client.close()
                continue
            self.pairs += [client, upstream]
            for source, sink in ((client, upstream), (upstream, client)):
                threading.Thread(target=self._pump, args=(source, sink, source is upstream), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        try:
            while data := source.recv(65536):
                if answers and self.mischief == "cut":
                    self.mischief = ""
                    sink.sendall(data[: len(data) // 2])
                    self.cut()
                elif answers and self.mischief == "drip":
                    for byte in data:
                        sink.sendall(bytes([byte]))
                        time.sleep(0.05)
                else:
                    sink.sendall(data)
        except OSError:
            pass

    def cut(self) -> None:
        """Reset every connection: no farewell, as when a machine dies."""
        pairs, self.pairs = self.pairs, []
        for end in pairs:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # The pump may be inside recv(), which keeps the socket alive past close().
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()

    def close(self) -> None:
        # accept() in another thread keeps a closed listener alive; shutting it down wakes the thread.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut()


class FakeServer:
    """A fake model server on 127.0.0.1; a context manager. ``calls`` counts requests by method."""

    def __init__(
        self,
        behaviour: str | Behaviour = "ok",
        models: dict[str, FakeModel] | None = None,
        port: int = 0,
        has_config: bool = True,
        credentials: grpc.ServerCredentials | None = None,
        max_request_bytes: int = -1,
    ) -> None:
        self.behaviour = BEHAVIOURS[behaviour] if isinstance(behaviour, str) else behaviour
        self.models = {"fake": FAKE} if models is None else models
        self.has_config = has_config
        self.has_index = True
        self.credentials = credentials
        self.max_request_bytes = max_request_bytes
        self.lock = threading.Lock()
        self.calls: Counter[str] = Counter()
        self.requests: list[Any] | deque[Any] = []
        self.headers: dict[str, Any] = {}
        self.running = self.most_running = 0
        self._grpc: Any = None
        self._relay: _Relay | None = None
        self._sockets: list[socket.socket] = []
        self.port = {
            "grpc": self._listen,
            "hang": self._listen_and_hang,
            "refuse": self._refuse,
            "swallow": self._swallow,
            "garbage": lambda port: self._babble(port, b"\x00\xff\x13\x37 no HTTP at all\r\n" * 50),
            "goaway": lambda port: self._babble(port, SETTINGS + GOAWAY),
        }[self.behaviour.listen](port)
        self.url = f"{'grpcs' if credentials else 'grpc'}://127.0.0.1:{self.port}"

    def _listen(self, port: int) -> int:
        options = [
            ("grpc.max_receive_message_length", self.max_request_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ]
        self._grpc = grpc.server(ThreadPoolExecutor(64), interceptors=(_Garbler(self),), options=options)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_Servicer(self), self._grpc)
        address = f"127.0.0.1:{0 if self.behaviour.relayed else port}"
        if self.credentials:
            inner = self._grpc.add_secure_port(address, self.credentials)
        else:
            inner = self._grpc.add_insecure_port(address)
        self._grpc.start()
        if self.behaviour.relayed:
            self._relay = _Relay(port, inner)
            return self._relay.port
        return int(inner)

    def _listen_and_hang(self, port: int) -> int:
        """Take connections (the kernel does) and never say a word."""
        self._sockets.append(socket.create_server(("127.0.0.1", port)))
        return int(self._sockets[0].getsockname()[1])

    def _babble(self, port: int, words: bytes) -> int:
        """Say the same to whoever connects, and read on until they leave."""
        listener = socket.create_server(("127.0.0.1", port))
        self._sockets.append(listener)

        def talk(client: socket.socket) -> None:
            with client, contextlib.suppress(OSError):
                client.sendall(words)
                while client.recv(65536):
                    pass

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=talk, args=[listener.accept()[0]], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return int(listener.getsockname()[1])

    def _refuse(self, port: int) -> int:
        """Hold a port that nobody listens on."""
        bound = socket.socket()
        bound.bind(("127.0.0.1", port))
        self._sockets.append(bound)
        return int(bound.getsockname()[1])

    def _swallow(self, port: int) -> int:
        """Fill the queue of connections, so that the kernel drops the packets of further ones."""
        listener = socket.socket()
        listener.bind(("127.0.0.1", port))
        listener.listen(0)
        self._sockets.append(listener)
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            self._sockets.append(filler)
        return int(listener.getsockname()[1])

    def cut_connections(self) -> None:
        """Reset all connections."""
        if self._relay:
            self._relay.cut()

    def spoil_reply(self) -> None:
        """Let the relay do to the coming answer what the behaviour says."""
        if self._relay:
            self._relay.mischief = "cut" if self.behaviour.cut_reply else "drip" if self.behaviour.drip else ""

    def stop(self) -> None:
        """Stop serving; requests in flight end."""
        if self._grpc:
            self._grpc.stop(0).wait()
        if self._relay:
            self._relay.close()
        for held in self._sockets:
            # accept() in another thread keeps a closed listener alive.
            with contextlib.suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)
            held.close()

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def main() -> None:
    """Serve one behaviour until killed."""
    parser = argparse.ArgumentParser(description="a scripted model server for tests")
    parser.add_argument("--behaviour", choices=sorted(BEHAVIOURS), default="ok")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--status", default="UNAVAILABLE", help='gRPC status of behaviour "status"')
    parser.add_argument("--times", type=int, default=-1, help='how often behaviour "status" fails; -1: always')
    arguments = parser.parse_args()
    behaviour = BEHAVIOURS[arguments.behaviour]
    if behaviour.status:
        behaviour = replace(behaviour, status=grpc.StatusCode[arguments.status], times=arguments.times)
    with FakeServer(behaviour, {"fake": FAKE, "pair": PAIR}, arguments.port) as server:
        server.requests = deque(maxlen=0)  # nobody reads them
        print(server.port)
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()
