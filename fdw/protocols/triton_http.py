"""Triton, and other servers of the Open Inference Protocol, over HTTP.

Tensors travel as raw contents behind the JSON where the server lists the extension "binary_tensor_data", as JSON
where it does not.

Protocol: https://github.com/kserve/open-inference-protocol (inference_rest.md), and Triton's extensions of it for
binary data, model configuration, statistics and the repository's index, of
https://github.com/triton-inference-server/server (docs/protocol).
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Callable, Iterator, TypeVar
from urllib.parse import quote

import numpy as np

from fdw.codec import DTYPE_NUMPY, Tensor, unpack_strings
from fdw.errors import ANSWER, REQUEST, Failure, InvalidText, MalformedReply, Unsupported, ValueOutOfRange
from fdw.options import Endpoint, Server
from fdw.protocols.base import (
    Call,
    Config,
    IndexEntry,
    InferRequest,
    InputData,
    Metadata,
    RequestFailed,
    Statistics,
    says_not_ready,
)
from fdw.protocols.http_transport import Exchange, HttpClient, HttpRequest, HttpResponse
from fdw.signature import TensorSpec

T = TypeVar("T")

_BINARY = "binary_tensor_data"
_JSON_LENGTH = "Inference-Header-Content-Length"

# JSON is parsed in one go, which holds off a cancel, and what is made of it takes many times its size: 4 MiB of it,
# where a message may have 64, take some 50 ms.
JSON_SHARE = 16
# Of the body of an error, which may be a page.
MAX_ERROR_BYTES = 65_536

# What an HTTP status says, as the name of a grpc.StatusCode. Others: by their hundreds.
_STATUSES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "UNAVAILABLE",
}
_HUNDREDS = {3: "UNIMPLEMENTED", 4: "INVALID_ARGUMENT", 5: "INTERNAL"}

# Statuses of a server that has no such call.
_NO_SUCH_CALL = ("NOT_FOUND", "UNIMPLEMENTED")


def _failure(response: HttpResponse) -> Failure | None:
    """Turn the status of an answer into our own terms; None: it is a good one."""
    if 200 <= response.status < 300:
        return None
    status = _STATUSES.get(response.status) or _HUNDREDS.get(response.status // 100, "UNKNOWN")
    text = _error_text(response)
    if 300 <= response.status < 400:
        text = f"{text}; redirections are not followed"
    not_ready = status in ("UNAVAILABLE", "NOT_FOUND", "INVALID_ARGUMENT") and says_not_ready(text)
    return Failure(status, text, not_ready=not_ready, oversized=REQUEST if response.status == 413 else "")


def _error_text(response: HttpResponse) -> str:
    """Return the server's message, or the status where the body holds none."""
    plain = f"HTTP status {response.status} ({response.reason})"
    kind = response.headers.get("content-type", "")
    if "html" in kind or len(response.body) > MAX_ERROR_BYTES:
        return plain
    text = response.body.decode(errors="replace")
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return text.strip() or plain if "text/plain" in kind else plain
    if isinstance(answer, dict):
        for name in ("error", "detail", "message"):
            if isinstance(answer.get(name), str) and answer[name].strip():
                return str(answer[name])
    return plain


def _malformed(model: str, detail: str) -> MalformedReply:
    who = f'model "{model}"' if model else "model server"
    return MalformedReply(f"{who} sent a malformed reply", detail)


class TritonHttp:
    """Requests to one endpoint, as fdw.protocols.base.Client says."""

    def __init__(self, server: Server, endpoint: Endpoint, notify: Callable[[], None]) -> None:
        self._http = HttpClient(server, endpoint, notify)
        self._binary: bool | None = None
        self._json_limit = server.options.max_message_bytes // JSON_SHARE

    def _ask(
        self,
        request: HttpRequest,
        model: str,
        timeout_ms: int,
        parse: Callable[[_Json], T],
        if_unknown: T | None = None,
    ) -> Call[T]:
        """Make a request for JSON; ``if_unknown`` is the answer of a server that has no such call."""

        def task(exchange: Exchange) -> T:
            response = exchange.fetch(request)
            failure = _failure(response)
            if failure is not None and failure.status in _NO_SUCH_CALL and if_unknown is not None:
                return if_unknown
            if failure is not None:
                raise RequestFailed(failure)
            return _read_json(model, response.body, parse, self._json_limit)

        return self._http.call(task, timeout_ms, request)

    def metadata(self, model: str, version: str, timeout_ms: int) -> Call[Metadata]:
        """Ask for a model's tensors."""
        return self._ask(HttpRequest("GET", _path(model, version)), model, timeout_ms, _parse_metadata)

    def config(self, model: str, version: str, timeout_ms: int) -> Call[Config]:
        """Ask for a model's configuration (Triton's extension); nothing known where it is missing."""
        request = HttpRequest("GET", f"{_path(model, version)}/config")
        return self._ask(request, model, timeout_ms, _parse_config, Config())

    def index(self, timeout_ms: int) -> Call[tuple[IndexEntry, ...]]:
        """Ask for the repository's models (Triton's extension); a server without this for its list (KServe's)."""
        request = HttpRequest("POST", "/v2/repository/index", {"Content-Type": "application/json"}, [b"{}"])

        def task(exchange: Exchange) -> tuple[IndexEntry, ...]:
            response = exchange.fetch(request)
            failure, parse = _failure(response), _parse_index
            if failure is not None and failure.status in _NO_SUCH_CALL:
                text = failure.text
                response = exchange.fetch(HttpRequest("GET", "/v2/models"))
                failure, parse = _failure(response), _parse_list
                if failure is not None and failure.status in _NO_SUCH_CALL:
                    raise RequestFailed(Failure("UNIMPLEMENTED", text))
            if failure is not None:
                raise RequestFailed(failure)
            return _read_json("", response.body, parse, self._json_limit)

        return self._http.call(task, timeout_ms, request)

    def statistics(self, model: str, version: str, timeout_ms: int) -> Call[Statistics]:
        """Ask for a model's cumulative times (Triton's extension), all versions together if ''."""
        request = HttpRequest("GET", f"{_path(model, version)}/stats")

        def task(exchange: Exchange) -> Statistics:
            response = exchange.fetch(request)
            if len(response.body) > self._json_limit:
                return Statistics()
            try:
                return _parse_statistics(json.loads(response.body))
            except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
                return Statistics()

        return self._http.call(task, timeout_ms, request)

    def infer(self, request: InferRequest, timeout_ms: int) -> Call[tuple[Tensor, ...]]:
        """Ask for an inference, with raw contents if the server takes them."""
        # What the server takes is known after the first request, and then this one is sent at once.
        early = _infer_message(request, True) if self._binary else None

        def task(exchange: Exchange) -> tuple[Tensor, ...]:
            message = early or _infer_message(request, self._learn_binary(exchange))
            response = exchange.fetch(message)
            failure = _failure(response)
            if failure is not None:
                raise RequestFailed(failure)
            return _parse_inference(request.model, response, self._json_limit)

        return self._http.call(task, timeout_ms, early)

    def _learn_binary(self, exchange: Exchange) -> bool:
        """Ask, once, whether the server takes raw contents."""
        if self._binary is None:
            response = exchange.fetch(HttpRequest("GET", "/v2"))
            failure = _failure(response)
            if failure is None:
                self._binary = _read_json("", response.body, _lists_binary, self._json_limit)
            elif failure.status in _NO_SUCH_CALL:
                self._binary = False
            else:
                raise RequestFailed(failure)
        return self._binary

    def renew(self, failed: Call[object]) -> None:
        """Drop the idle connections, unless another failed call already did."""
        self._http.renew(failed)
        self._binary = None  # it may be another server that comes back


def _path(model: str, version: str) -> str:
    path = f"/v2/models/{quote(model, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


# ---------------------------------------------------------------- requests


def _infer_message(request: InferRequest, binary: bool) -> HttpRequest:
    """Write an inference. Raises Unsupported, InvalidText or ValueOutOfRange for what JSON cannot hold."""
    inputs: list[dict[str, Any]] = []
    for tensor in request.inputs:
        contents = {"parameters": {"binary_data_size": len(tensor.raw)}} if binary else {"data": _to_json(tensor)}
        inputs.append({"name": tensor.name, "shape": tensor.shape, "datatype": tensor.dtype, **contents})
    outputs: list[dict[str, Any]] = [{"name": name} for name in request.outputs]
    if binary:
        for output in outputs:
            output["parameters"] = {"binary_data": True}
    beside = {"parameters": request.parameters} if request.parameters else {}
    text = json.dumps({**beside, "inputs": inputs, "outputs": outputs}, separators=(",", ":")).encode()
    path = f"{_path(request.model, request.version)}/infer"
    if not binary:
        return HttpRequest("POST", path, {"Content-Type": "application/json"}, [text])
    headers = {"Content-Type": "application/octet-stream", _JSON_LENGTH: str(len(text))}
    return HttpRequest("POST", path, headers, [text, *(tensor.raw for tensor in request.inputs)])


_HINT = 'Let server option "url" name the gRPC port of the model server.'


def _to_json(tensor: InputData) -> list[Any]:
    """Write raw contents as a flat list."""
    if tensor.dtype == "BYTES":
        try:
            return [item.decode() for item in unpack_strings(tensor.raw)]
        except UnicodeDecodeError:
            raise InvalidText(
                f'input tensor "{tensor.name}" holds bytes that are not UTF-8, which JSON cannot carry',
                "The model server takes tensors as JSON only.",
                _HINT,
            ) from None
    if tensor.dtype in ("FP16", "BF16"):
        raise Unsupported(
            f'input tensor "{tensor.name}" has dtype {tensor.dtype}, which JSON cannot carry',
            "The model server takes tensors as JSON only.",
            _HINT,
        )
    elements = np.frombuffer(tensor.raw, DTYPE_NUMPY[tensor.dtype])
    if tensor.dtype == "BOOL":
        elements = elements != 0
    elif elements.dtype.kind == "f" and not np.isfinite(elements).all():
        raise ValueOutOfRange(
            f'input tensor "{tensor.name}" holds NaN or infinity, which JSON cannot carry',
            "The model server takes tensors as JSON only.",
            _HINT,
        )
    items: list[Any] = elements.tolist()
    return items


# ---------------------------------------------------------------- answers


def _read_json(model: str, body: bytes, parse: Callable[[_Json], T], limit: int) -> T:
    """Parse an answer; whatever is not as the protocol says is malformed.

    Nothing interrupts the parsing, and what it makes is many times larger: so ``limit`` is less than a message's.
    """
    if len(body) > limit:
        text = f"the JSON of the answer is larger than {limit} bytes"
        raise RequestFailed(Failure("RESOURCE_EXHAUSTED", text, oversized=ANSWER))
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise _malformed(model, "The answer is not JSON.") from None
    try:
        return parse(_Json(answer))
    except _Wrong as wrong:
        raise _malformed(model, str(wrong)) from None
    except RecursionError:
        raise _malformed(model, "The answer is nested too deeply.") from None


class _Wrong(Exception):
    """Something in an answer is not as the protocol says; the text says what, as a sentence."""


_KINDS: dict[type[Any], str] = {dict: "no object", list: "no list", str: "no text"}


@dataclass(frozen=True)
class _Json:
    """A value of an answer and the way to it, for messages. A member that is null counts as one that is not there."""

    value: Any
    path: str = ""

    def wrong(self, what: str) -> _Wrong:
        """Build the error for this value."""
        return _Wrong(f'Member "{self.path}" of the answer {what}.' if self.path else f"The answer {what}.")

    def member(self, name: str) -> _Json:
        """Return a member of an object; its value is None where there is none."""
        members = self.read(dict)
        return _Json(members.get(name), f"{self.path}.{name}" if self.path else name)

    def read(self, kind: type[T], default: T | None = None) -> T:
        """Return the value, of this type; ``default`` where there is none."""
        if self.value is None and default is not None:
            return default
        if isinstance(self.value, kind):
            return self.value
        raise self.wrong("is missing" if self.value is None and self.path else f"is {_KINDS[kind]}")

    def items(self, default: list[Any] | None = None) -> list[_Json]:
        """Return the elements of a list; ``default`` where there is none."""
        return [_Json(item, f"{self.path}[{number}]") for number, item in enumerate(self.read(list, default))]

    def integer(self, default: int | None = None) -> int:
        """Return an integer of 64 bits, which some write as text; ``default`` where there is none."""
        if self.value is None and default is not None:
            return default
        try:
            return _int64(self.value)
        except (TypeError, ValueError, OverflowError):
            raise self.wrong("is missing" if self.value is None else "is no integer of 64 bits") from None

    def shape(self) -> tuple[int, ...]:
        """Return a list of dimensions."""
        return tuple(size.integer() for size in self.items())


def _lists_binary(answer: _Json) -> bool:
    return _BINARY in answer.member("extensions").read(list, [])


def _parse_tensors(tensors: _Json) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(tensor.member("name").read(str), tensor.member("datatype").read(str), tensor.member("shape").shape())
        for tensor in tensors.items([])
    )


def _parse_metadata(answer: _Json) -> Metadata:
    return Metadata(_parse_tensors(answer.member("inputs")), _parse_tensors(answer.member("outputs")))


def _parse_config(answer: _Json) -> Config:
    parameters = answer.member("parameters")
    return Config(
        max_batch_size=answer.member("max_batch_size").integer(0),
        decoupled=bool(_Json(answer.member("model_transaction_policy").read(dict, {})).member("decoupled").value),
        sequence=answer.member("sequence_batching").value is not None,
        optional_inputs=frozenset(
            tensor.member("name").read(str)
            for tensor in answer.member("input").items([])
            if tensor.member("optional").value
        ),
        parameters=tuple(
            (name, parameters.member(name).read(dict, {}).get("string_value") or "")
            for name in sorted(parameters.read(dict, {}))
        ),
    )


def _parse_statistics(answer: Any) -> Statistics:
    """Add up a model's versions; computing includes the copies of inputs and outputs."""
    counted = [model["inference_stats"] for model in answer["model_stats"]]
    computing = ("compute_input", "compute_infer", "compute_output")
    return Statistics(
        sum(_int64(times["queue"]["ns"]) for times in counted),
        sum(_int64(times[part]["ns"]) for times in counted for part in computing),
    )


def _parse_index(answer: _Json) -> tuple[IndexEntry, ...]:
    return tuple(
        IndexEntry(
            entry.member("name").read(str),
            str(entry.member("version").value or ""),
            entry.member("state").value == "READY",
            entry.member("reason").read(str, "").strip().partition("\n")[0],
        )
        for entry in answer.items()
    )


def _parse_list(answer: _Json) -> tuple[IndexEntry, ...]:
    """Read the answer to GET /v2/models of KServe, which tells neither versions nor who is ready."""
    return tuple(IndexEntry(name.read(str), "", True, "") for name in answer.member("models").items())


def _parse_inference(model: str, response: HttpResponse, json_limit: int) -> tuple[Tensor, ...]:
    """Read the outputs: raw contents behind the JSON in the order of the outputs, or JSON data."""
    body = response.body
    length = response.headers.get(_JSON_LENGTH.lower())
    if length is not None and not (re.fullmatch(r"[0-9]{1,18}", length) and int(length) <= len(body)):
        raise _malformed(model, f"Header {_JSON_LENGTH} does not fit an answer of {len(body)} bytes.")
    end = len(body) if length is None else int(length)

    def parse(answer: _Json) -> tuple[Tensor, ...]:
        error = answer.member("error")
        if error.value is not None:
            raise RequestFailed(Failure("UNKNOWN", str(error.value)))
        position = end
        tensors = []
        for output in answer.member("outputs").items():
            name, dtype = output.member("name").read(str), output.member("datatype").read(str)
            parameters = output.member("parameters")
            size = None if parameters.value is None else parameters.member("binary_data_size")
            raw, items = None, None
            if size is None or size.value is None:
                items = _Items(model, name, dtype, output.member("data").read(list)).read()
            else:
                raw = body[position : position + size.integer()]
                position += size.integer()
            tensors.append(Tensor(name, dtype, output.member("shape").shape(), raw, items))
        if position != len(body):
            raise _malformed(model, f"The answer has {len(body)} bytes instead of {position}.")
        return tuple(tensors)

    return _read_json(model, body[:end], parse, json_limit)


def _int64(number: Any) -> int:
    """Read an integer of 64 bits. Raises OverflowError, ValueError, TypeError."""
    integer = int(number)
    if not -(2**63) <= integer < 2**63:
        raise OverflowError
    return integer


@dataclass(frozen=True)
class _Items:
    """The JSON data of one output tensor, nested or flat."""

    model: str
    name: str
    dtype: str
    data: list[Any]

    def read(self) -> list[Any]:
        """Return the elements in order, of the one type that the dtype has in JSON."""
        items = list(_flatten(self.data)) if any(isinstance(item, list) for item in self.data) else self.data
        read = _READERS.get(self.dtype)
        if read is None:
            raise self._malformed(f"has dtype {self.dtype} as JSON data")
        try:
            return [read(item) for item in items]
        except (TypeError, ValueError, OverflowError):
            raise self._malformed(f"holds an element that is no {self.dtype}") from None

    def _malformed(self, what: str) -> MalformedReply:
        return _malformed(self.model, f'Output tensor "{self.name}" {what}.')


def _flatten(data: Any) -> Iterator[Any]:
    if isinstance(data, list):
        for item in data:
            yield from _flatten(item)
    else:
        yield data


def _read_bool(item: Any) -> bool:
    if isinstance(item, bool) or (isinstance(item, int) and item in (0, 1)):
        return bool(item)
    raise TypeError


def _read_integer(item: Any) -> int:
    if isinstance(item, int) and not isinstance(item, bool):
        return item
    raise TypeError


def _read_float(item: Any) -> float:
    if isinstance(item, (int, float)) and not isinstance(item, bool):
        return float(item)
    raise TypeError


def _read_single(item: Any) -> float:
    number = _read_float(item)
    if math.isfinite(number) and abs(number) >= 3.4028235677973366e38:  # what rounds to infinity
        raise OverflowError
    return number


def _read_string(item: Any) -> bytes:
    if isinstance(item, str):
        return item.encode()
    raise TypeError


# FP16 and BF16 have no form in JSON.
_READERS: dict[str, Callable[[Any], Any]] = {
    "BOOL": _read_bool,
    **dict.fromkeys(("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"), _read_integer),
    "FP32": _read_single,
    "FP64": _read_float,
    "BYTES": _read_string,
}
