"""A scripted model server that speaks the Open Inference Protocol over HTTP, for faults and habits of servers.

    with FakeHttp("hang") as server:
        ... server.url, server.calls["/v2/models/fake/infer"]

Its models are those of fake_server. It takes raw contents ("binary_tensor_data") unless told otherwise.
"""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import numpy as np
from fake_server import FAKE, NUMPY, Arrays, FakeModel, pack_strings, unpack_strings

JSON = "application/json"


@dataclass(frozen=True)
class Script:
    """What goes wrong at inference. ``status``, ``body``, ``kind``: the answer instead of the right one, the first
    ``times`` times (-1: always); ``hang``: none comes; ``drip``: one byte every 10 ms; ``cut``: the connection is reset
    in the middle of the answer; ``stop_after``: it is closed after so many bytes of it; ``raw``: bytes that are no
    HTTP; ``chunked``: the answer has no length; ``close``: the connection is closed after it."""

    status: int = 200
    body: bytes | None = None
    kind: str = JSON
    times: int = -1
    hang: bool = False
    drip: bool = False
    cut: bool = False
    stop_after: int = -1
    raw: bytes = b""
    chunked: bool = False
    close: bool = False
    delay_s: float = 0.0
    everywhere: bool = False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        fake: FakeHttp = self.server.fake
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        decompress = {"gzip": gzip.decompress, "deflate": zlib.decompress}.get(self.headers.get("Content-Encoding", ""))
        body = decompress(body) if decompress else body
        with fake.lock:
            fake.calls[self.path] += 1
            number = fake.calls[self.path]
            fake.headers = {name.lower(): value for name, value in self.headers.items()}
            fake.ports.add(self.client_address[1])
        infer = self.path.endswith("/infer")
        script = fake.script if infer or fake.script.everywhere else Script()
        time.sleep(script.delay_s)
        if script.hang:
            fake.released.wait()
        if script.raw:
            self.wfile.write(script.raw)
            self.close_connection = True
            return
        scripted = (script.body is not None or script.status != 200) and (script.times < 0 or number <= script.times)
        if scripted:
            self._send(script.status, script.kind, {}, script.body or b"", script)
            return
        status, kind, headers, answer = self._answer(fake, body)
        if fake.nulls and kind == JSON:
            answer = json.dumps(_with_nulls(json.loads(answer))).encode()
        self._send(status, kind, headers, answer, script)

    def _answer(  # noqa: PLR0911
        self, fake: FakeHttp, body: bytes
    ) -> tuple[int, str, dict[str, str], bytes]:
        parts = [unquote(part) for part in self.path.strip("/").split("/")]
        if parts == ["v2"]:
            extensions = ["binary_tensor_data"] if fake.binary else []
            return 200, JSON, {}, json.dumps({"name": "fake", "version": "1", "extensions": extensions}).encode()
        if parts == ["v2", "models"] and fake.lists_models:
            return 200, JSON, {}, json.dumps({"models": list(fake.models)}).encode()
        if parts == ["v2", "repository", "index"] and fake.has_extensions:
            entries = [{"name": name, "version": "1", "state": "READY"} for name in fake.models]
            return 200, JSON, {}, json.dumps(entries).encode()
        model = fake.models.get(parts[2]) if parts[:2] == ["v2", "models"] and len(parts) > 2 else None
        verb = parts[-1] if len(parts) > 3 else ""
        if model is None or (verb in ("config", "stats") and not fake.has_extensions):
            return 404, JSON, {}, b'{"error": "Model ' + parts[-1].encode() + b' not found"}'
        if verb == "config":
            return 200, JSON, {}, json.dumps(_config(model)).encode()
        if verb == "stats":
            times = {name: {"count": 1, "ns": 2000} for name in ("queue", "compute_input", "compute_infer")}
            times["compute_output"] = {"count": 1, "ns": 1000}
            return 200, JSON, {}, json.dumps({"model_stats": [{"inference_stats": times}]}).encode()
        if verb == "infer":
            return self._infer(fake, model, body)
        tensors = {
            role: [{"name": name, "datatype": dtype, "shape": shape} for name, dtype, shape in model.declared(role)]
            for role in ("inputs", "outputs")
        }
        return 200, JSON, {}, json.dumps({"name": parts[2], "platform": "fake", **tensors}).encode()

    def _infer(self, fake: FakeHttp, model: FakeModel, body: bytes) -> tuple[int, str, dict[str, str], bytes]:
        length = self.headers.get("Inference-Header-Content-Length")
        request = json.loads(body[: int(length)] if length else body)
        with fake.lock:
            fake.requests.append(request)
        position = int(length or 0)
        inputs: Arrays = {}
        for tensor in request["inputs"]:
            dtype, shape = tensor["datatype"], tensor["shape"]
            if "data" in tensor:
                data = [item.encode() for item in tensor["data"]] if dtype == "BYTES" else tensor["data"]
                inputs[tensor["name"]] = data if dtype == "BYTES" else np.array(data, NUMPY[dtype]).reshape(shape)
                continue
            size = tensor["parameters"]["binary_data_size"]
            raw, position = body[position : position + size], position + size
            unpacked = unpack_strings(raw) if dtype == "BYTES" else np.frombuffer(raw, NUMPY[dtype]).reshape(shape)
            inputs[tensor["name"]] = unpacked
        rows = request["inputs"][0]["shape"][0]
        return _encode(model, model.compute(inputs), [output["name"] for output in request["outputs"]], rows, length)

    def _send(self, status: int, kind: str, headers: dict[str, str], body: bytes, script: Script) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name, value)
        if script.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body)))
        if script.close:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if script.chunked:
            half = len(body) // 2
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:]) if part)
            body += b"0\r\n\r\n"
        if script.cut:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
        elif script.stop_after >= 0:
            self.wfile.write(body[: script.stop_after])
            self.close_connection = True
        elif script.drip:
            for at in range(len(body)):
                self.wfile.write(body[at : at + 1])
                time.sleep(0.01)
        else:
            self.wfile.write(body)

    def finish(self) -> None:
        try:
            super().finish()
        except OSError:
            pass


# What objects of the protocol may leave out.
OPTIONAL_MEMBERS = ("parameters", "version", "reason", "max_batch_size", "optional", "error", "extensions", "id")
OPTIONAL_MEMBERS += ("model_transaction_policy", "sequence_batching", "model_version", "string_value", "platform")


def _with_nulls(answer: Any) -> Any:
    if isinstance(answer, list):
        return [_with_nulls(item) for item in answer]
    if not isinstance(answer, dict):
        return answer
    return dict.fromkeys(OPTIONAL_MEMBERS) | {
        name: None if value == {} else _with_nulls(value) for name, value in answer.items()
    }


def _config(model: FakeModel) -> dict[str, Any]:
    config: dict[str, Any] = {
        "max_batch_size": model.max_batch_size,
        "input": [{"name": name, "optional": name in model.optional} for name, _, _ in model.inputs],
        "parameters": {name: {"string_value": value} for name, value in model.parameters.items()},
    }
    if model.decoupled:
        config["model_transaction_policy"] = {"decoupled": True}
    if model.sequence:
        config["sequence_batching"] = {}
    return config


def _encode(
    model: FakeModel, answers: Arrays, wanted: list[str], rows: int, length: str | None
) -> tuple[int, str, dict[str, str], bytes]:
    outputs, raws = [], []
    for name, dtype, shape in model.outputs:
        if name not in wanted:
            continue
        full = [rows, *shape[1:]]
        output: dict[str, Any] = {"name": name, "datatype": dtype, "shape": full}
        answer = answers[name]
        if length is None:
            array = answer if dtype == "BYTES" else np.asarray(answer).reshape(-1).tolist()
            output["data"] = [item.decode() for item in array] if dtype == "BYTES" else array
        else:
            raw = pack_strings(answer) if dtype == "BYTES" else np.asarray(answer, NUMPY[dtype]).tobytes()
            output["parameters"] = {"binary_data_size": len(raw)}
            raws.append(raw)
        outputs.append(output)
    text = json.dumps({"model_name": "fake", "outputs": outputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))} if raws else {}
    return 200, "application/octet-stream" if raws else JSON, headers, text + b"".join(raws)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)  # no farewell, so that a reset is one

    def handle_error(self, *_: Any) -> None:
        pass


class FakeHttp:
    """A fake model server on 127.0.0.1; a context manager. ``calls`` counts requests by path.

    ``nulls``: it writes null for what others leave out; ``lists_models``: it answers GET /v2/models; both as KServe."""

    def __init__(
        self,
        script: Script | None = None,
        models: dict[str, FakeModel] | None = None,
        binary: bool = True,
        has_extensions: bool = True,
        context: Any = None,
        nulls: bool = False,
        lists_models: bool = False,
    ) -> None:
        self.script = script or Script()
        self.models = {"fake": FAKE} if models is None else models
        self.binary, self.has_extensions, self.nulls = binary, has_extensions, nulls
        self.lists_models = lists_models
        self.lock = threading.Lock()
        self.released = threading.Event()
        self.calls: Counter[str] = Counter()
        self.requests: list[Any] = []
        self.headers: dict[str, str] = {}
        self.ports: set[int] = set()
        self._server: Any = _Server(("127.0.0.1", 0), _Handler)
        self._server.fake = self
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def inferences(self) -> int:
        return sum(count for path, count in self.calls.items() if path.endswith("/infer"))

    def __enter__(self) -> FakeHttp:
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
