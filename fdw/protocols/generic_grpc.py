"""Any unary gRPC method as a model, without generated code.

What a method takes is read from its descriptors: those of the file that server option "descriptor_set" names, else
those that the server's reflection gives. A method's fields are presented as tensors, so that the engine needs to know
nothing of it; rows of tensors become messages here, and messages rows of tensors.

Protocol: https://github.com/grpc/grpc/blob/master/doc/server-reflection.md (v1, and v1alpha of older servers).
"""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path
from typing import Any, Callable, Generator, Generic, Mapping, Sequence, TypeVar

import numpy as np
from google.protobuf import json_format
from google.protobuf.message import EncodeError

from fdw import errors
from fdw.codec import DTYPE_NUMPY, Tensor, unpack_strings
from fdw.errors import Failure
from fdw.options import Endpoint, Server, split_method
from fdw.protocols import descriptors, reflection, timestamps
from fdw.protocols.base import (
    Call,
    Config,
    Finished,
    IndexEntry,
    InferRequest,
    InputData,
    Metadata,
    RequestFailed,
    Statistics,
)
from fdw.protocols.channel import GrpcClient
from fdw.protocols.descriptors import COLUMNS, ENUM, ROWS, TEXT, TIMESTAMP, Leaf, Method, Side

T = TypeVar("T")

# Requests that a call makes one after the other: yields calls, is sent their values, returns the call's own.
Requests = Generator[Call[Any], Any, T]


class Chain(Generic[T]):
    """A call that makes requests one after the other, as fdw.protocols.base.Call says."""

    def __init__(self, requests: Requests[T]) -> None:
        self._requests = requests
        self.current: Call[Any] | None = None
        self._failure: Failure | None = None
        self._error: Exception | None = None
        self._value: T | None = None
        self._ended = False
        self._step(None, None)

    def _step(self, value: Any, failure: Failure | None) -> None:
        """Go on with a request's answer or failure, until the next request or the end."""
        try:
            if failure is None:
                self.current = self._requests.send(value)
            else:
                self.current = self._requests.throw(RequestFailed(failure))
        except StopIteration as stop:
            self._value, self._ended = stop.value, True
        except RequestFailed as failed:
            self._failure, self._ended = failed.failure, True
        except errors.ModelFdwError as error:
            self._error, self._ended = error.with_traceback(None), True

    def done(self) -> bool:
        """Tell whether the call has ended; make the next request where one has."""
        while not self._ended and self.current is not None and self.current.done():
            failure = self.current.failure()
            self._step(self.current.value() if failure is None else None, failure)
        return self._ended

    def failure(self) -> Failure | None:
        """Return how a request failed."""
        return self._failure

    def value(self) -> T:
        """Return the answer, or raise what is wrong with it."""
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]

    def cancel(self) -> None:
        """Give the call up."""
        self._requests.close()
        if self.current is not None:
            self.current.cancel()
        if not self._ended:
            self._failure, self._ended = Failure("CANCELLED", ""), True


class GenericGrpc:
    """Methods of one endpoint, as fdw.protocols.base.Client says; a model's name is as options.join_method() has it."""

    def __init__(self, server: Server, endpoint: Endpoint, notify: Callable[[], None]) -> None:
        self._endpoint = endpoint
        self._server = server
        self._grpc = GrpcClient(server, endpoint, notify)
        self._methods: dict[str, Method] = {}

    def metadata(self, model: str, version: str, timeout_ms: int) -> Call[Metadata]:
        """Ask what a method's rows hold, anew."""

        def requests() -> Requests[Metadata]:
            method = yield from self._load(model, reflection.Deadline(timeout_ms))
            single = method.request.layout == descriptors.SINGLE
            return Metadata(method.inputs(), method.outputs(), 1 if single else 0, method.idempotent)

        return Chain(requests())

    def config(self, model: str, version: str, timeout_ms: int) -> Call[Config]:
        """Return what is known without asking: nothing."""
        return Finished(Config())

    def statistics(self, model: str, version: str, timeout_ms: int) -> Call[Statistics]:
        """Return what is known without asking: nothing."""
        return Finished(Statistics())

    def index(self, timeout_ms: int) -> Call[tuple[IndexEntry, ...]]:
        """List the methods of all services."""

        def requests() -> Requests[tuple[IndexEntry, ...]]:
            if self._server.options.descriptor_set is not None:
                names = list(descriptors.list_methods(self._read_set()))
            else:
                names = yield from reflection.list_methods(
                    self._grpc, self._endpoint.address, reflection.Deadline(timeout_ms)
                )
            return tuple(IndexEntry(name, "", True, "") for name in names)

        return Chain(requests())

    def infer(self, request: InferRequest, timeout_ms: int) -> Call[tuple[Tensor, ...]]:
        """Call the method with the rows of the request's tensors."""
        deadline = reflection.Deadline(timeout_ms)

        def requests() -> Requests[tuple[Tensor, ...]]:
            method = self._methods.get(request.model)
            if method is None:  # metadata was asked of another endpoint
                method = yield from self._load(request.model, deadline)
            message = _write(method, request.inputs, request.rows, request.parameters)
            read = method.response_class.FromString
            response = yield self._grpc.call(method.path, message, read, deadline.left_ms(), _as_it_is)
            return _read(method, response, request.rows, request.outputs)

        return Chain(requests())

    def renew(self, failed: Call[object]) -> None:
        """Replace the channel, unless another failed call already did."""
        if isinstance(failed, Chain) and failed.current is not None:
            self._grpc.renew(failed.current)

    def _load(self, model: str, deadline: reflection.Deadline) -> Requests[Method]:
        """Get a method's descriptors; they are kept until metadata() is asked for again."""
        if self._server.options.descriptor_set is not None:
            files = self._read_set()
        else:
            service = split_method(model)[0].partition("/")[0]
            files = yield from reflection.files_of(self._grpc, self._endpoint.address, service, deadline)
        method = descriptors.find_method(descriptors.make_pool(files), model)
        self._methods[model] = method
        return method

    def _read_set(self) -> list[bytes]:
        """Read the descriptor set's files. Raises DescriptorFile (F0000)."""
        path = self._server.options.descriptor_set or ""
        try:
            files = descriptors.read_set(Path(path).read_bytes())
            descriptors.make_pool(files)
        except OSError as error:
            problem = f'could not read file "{path}" of option "descriptor_set": {error.strerror}'
            hint = "The file must be readable by the operating system user of the PostgreSQL server."
        except errors.MalformedReply:
            problem = f'file "{path}" of option "descriptor_set" is no complete set of descriptors'
            hint = 'Let "protoc --include_imports --descriptor_set_out=FILE" write it.'
        else:
            return files
        raise errors.DescriptorFile(problem, None, hint)


def _as_it_is(message: Any) -> Any:
    return message


# ---------------------------------------------------------------- rows to messages


def _write(method: Method, inputs: Sequence[InputData], rows: int, beside: Mapping[str, Any] | None = None) -> bytes:
    """Write the request message. Raises InvalidValue (22P02), Unsupported (0A000), WrongTensor (HV005) and the like."""
    side = method.request
    leaves = [side.find(tensor.name) for tensor in inputs]
    bound = [(leaf, _values(leaf, tensor, rows)) for leaf, tensor in zip(leaves, inputs) if leaf is not None]
    for first, second in descriptors.shared_oneofs(leaf for leaf, _ in bound):
        raise errors.Unsupported(
            f'fields "{first.name}" and "{second.name}" of method "{method.name}" cannot be sent together',
            "They belong to one oneof, which holds one of them at a time.",
            "Bind one of the two columns.",
        )
    if side.layout == COLUMNS:
        fields = {leaf.field.name: values for leaf, values in bound}
    else:
        messages = _nest([(tuple(field.name for field in leaf.path), values) for leaf, values in bound], rows)
        fields = messages[0] if side.layout != ROWS else _wrap(side, messages)
    message = method.request_class(**fields)
    if beside:
        message.MergeFrom(_beside(method, beside, [leaf for leaf, _ in bound]))
    return _serialize(method, message)


def _beside(method: Method, parameters: Mapping[str, Any], bound: Sequence[Leaf]) -> Any:
    """Read option "parameters" as fields of the request that columns do not give. Raises BadOption (22023)."""
    try:
        message = json_format.ParseDict(parameters, method.request_class())
    except json_format.ParseError as error:
        raise errors.BadOption(
            f'option "parameters" does not fit the request of method "{method.name}"',
            f"protobuf said: {error}",
            "Correct the option.",
        ) from None
    side = method.request
    given = [side.rows] if side.layout == ROWS else [leaf.path for leaf in bound]
    if side.layout == COLUMNS:
        given += [leaf.path for leaf in side.leaves]
    for path in given:
        holder = message
        for field in path[:-1]:
            holder = getattr(holder, field.name)
        if any(field.name == path[-1].name for field, _ in holder.ListFields()):
            raise errors.BadOption(
                f'option "parameters" sets field "{path[-1].name}" of method "{method.name}", which holds the rows',
                None,
                "Leave the field out.",
            )
    return message


def _serialize(method: Method, message: Any) -> bytes:
    try:
        serialized: bytes = message.SerializeToString()
    except EncodeError:
        missing = ", ".join(f'"{field}"' for field in message.FindInitializationErrors())
        raise errors.WrongTensor(
            f'requests of method "{method.name}" cannot be written without required fields',
            f"They are: {missing}." if missing else None,
            "Give the table input columns for them, or for fields inside of them.",
        ) from None
    return serialized


def _wrap(side: Side, messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Put the rows where the request has them."""
    value: Any = messages
    for field in reversed(side.rows):
        value = {field.name: value}
    fields: dict[str, Any] = value
    return fields


def _nest(columns: Sequence[tuple[tuple[str, ...], list[Any]]], rows: int) -> list[dict[str, Any]]:
    """Make a dict of each row, and dicts in it of what lies deeper."""
    deeper: dict[str, list[tuple[tuple[str, ...], list[Any]]]] = {}
    here: dict[str, list[Any]] = {}
    for path, values in columns:
        if len(path) == 1:
            here[path[0]] = values
        else:
            deeper.setdefault(path[0], []).append((path[1:], values))
    for name, inner in deeper.items():
        here[name] = _nest(inner, rows)
    if not here:
        return [{} for _ in range(rows)]
    return [dict(zip(here, row)) for row in zip(*here.values())]


def _values(leaf: Leaf, tensor: InputData, rows: int) -> list[Any]:
    """Return a Python value, or a list of them, for each row."""
    elements = _elements(leaf, tensor)
    if leaf.wrapped:
        elements = [{"value": element} for element in elements]
    if not leaf.repeated:
        return elements
    width = tensor.shape[1]
    return [elements[at : at + width] for at in range(0, rows * width, width)] if width else [[] for _ in range(rows)]


def _elements(leaf: Leaf, tensor: InputData) -> list[Any]:
    if leaf.dtype != "BYTES":
        numbers = np.frombuffer(tensor.raw, DTYPE_NUMPY[leaf.dtype])
        items: list[Any] = (numbers != 0 if leaf.dtype == "BOOL" else numbers).tolist()
        return items
    strings = unpack_strings(tensor.raw)
    if leaf.content == TEXT:
        try:
            return [string.decode() for string in strings]
        except UnicodeDecodeError:
            raise errors.InvalidText(f'text field "{leaf.name}" cannot hold bytes that are not UTF-8') from None
    if leaf.content == ENUM:
        return _numbers_of(leaf, strings)
    if leaf.content == TIMESTAMP:
        return [timestamps.parse(leaf.name, string) for string in strings]
    return list(strings)


def _numbers_of(leaf: Leaf, names: Sequence[bytes]) -> list[int]:
    numbers = {name.encode(): value.number for name, value in leaf.field.enum_type.values_by_name.items()}
    try:
        return [numbers[name] for name in names]
    except KeyError:
        known = ", ".join(leaf.field.enum_type.values_by_name)
        raise errors.InvalidValue(f'invalid value for enum field "{leaf.name}"', f"Its values are: {known}.") from None


# ---------------------------------------------------------------- messages to rows


def _read(method: Method, response: Any, rows: int, wanted: Sequence[str]) -> tuple[Tensor, ...]:
    """Read the wanted fields of a response. Raises MalformedReply (HV00M) unless there are as many rows as asked."""
    side = method.response
    found = [leaf for name in wanted if (leaf := side.find(name)) is not None]
    if side.layout == COLUMNS:
        return tuple(_read_column(method, leaf, response, rows) for leaf in found)
    messages = _messages(side, response)
    _check_count(method, len(messages), rows)
    return tuple(
        _read_leaf(leaf, messages) if leaf in side.leaves else _read_leaf(leaf, [response], rows) for leaf in found
    )


def _messages(side: Side, response: Any) -> Sequence[Any]:
    if side.layout != ROWS:
        return [response]
    rows: Sequence[Any] = attrgetter(".".join(field.name for field in side.rows))(response)
    return rows


def _check_count(method: Method, count: int, rows: int) -> None:
    if count != rows:
        raise errors.MalformedReply(
            f'method "{method.name}" sent a malformed reply', f"The reply has {count} rows for {rows}."
        )


def _read_column(method: Method, leaf: Leaf, response: Any, rows: int) -> Tensor:
    if leaf not in method.response.leaves:
        for column in method.response.leaves:
            _check_count(method, len(getattr(response, column.field.name)), rows)
        return _read_leaf(leaf, [response], rows)
    values = getattr(response, leaf.field.name)
    _check_count(method, len(values), rows)
    return Tensor(leaf.name, leaf.dtype, (rows,), None, [_show(leaf, value) for value in values])


def _read_leaf(leaf: Leaf, messages: Sequence[Any], copies: int = 1) -> Tensor:
    """Read a field of each message; NULL where it, or a message around it, is not set."""
    missing: list[bool] | None = None
    for field in leaf.path[:-1]:
        missing = _missing(field, messages, missing)
        messages = [getattr(message, field.name) for message in messages]
    if leaf.can_miss:
        missing = _missing(leaf.field, messages, missing)
    name = leaf.field.name
    if leaf.repeated:
        rows = [[_show(leaf, value) for value in getattr(message, name)] for message in messages] * copies
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        items = [item for row in rows for item in row]
        return Tensor(leaf.name, leaf.dtype, (len(rows), -1), None, items, _nulls(missing, copies), lengths)
    items = [_show(leaf, getattr(message, name)) for message in messages] * copies
    return Tensor(leaf.name, leaf.dtype, (len(items),), None, items, _nulls(missing, copies))


def _missing(field: Any, messages: Sequence[Any], before: list[bool] | None) -> list[bool]:
    here = [not message.HasField(field.name) for message in messages]
    return here if before is None else [a or b for a, b in zip(before, here)]


def _nulls(missing: list[bool] | None, copies: int) -> Any:
    return np.array(missing * copies, np.uint8) if missing and any(missing) else None


def _show(leaf: Leaf, value: Any) -> Any:
    """Turn a field's value into a tensor's element."""
    if leaf.wrapped:
        value = value.value
    if leaf.content == TEXT:
        return value.encode()
    if leaf.content == ENUM:
        known = leaf.field.enum_type.values_by_number.get(value)
        return (known.name if known else str(value)).encode()
    if leaf.content == TIMESTAMP:
        return timestamps.show(leaf.name, value)
    return value
