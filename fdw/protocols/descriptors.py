"""Which rows a gRPC method takes and gives, as its descriptors tell. No I/O.

A method is a table when each of its messages has rows in one of three layouts:

- "rows": one repeated message, a row each (``repeated Transaction transactions = 1``);
- "columns": repeated scalars, one element of each a row (``repeated double amounts = 1; repeated string ids = 2``);
- "single": the whole message is one row, and there is a request for every row.

Request and response need not have the same layout, but "single" goes with "single". A field is named by its path from
the row's message, with dots: "address.city". Fields of a response beside its rows belong to every row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable, Iterator, Mapping, Sequence

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.message import DecodeError

from fdw.errors import BadOption, MalformedReply, UnknownModel, Unsupported
from fdw.options import split_method
from fdw.signature import TensorSpec

ROWS = "rows"
COLUMNS = "columns"
SINGLE = "single"

# Files that every protobuf library has, and that descriptor sets may leave out.
_WELL_KNOWN: dict[str, bytes] = {
    module.DESCRIPTOR.name: module.DESCRIPTOR.serialized_pb
    for module in (any_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)
}

_Types = descriptor_pb2.FieldDescriptorProto

_DTYPES: dict[int, str] = {
    _Types.TYPE_DOUBLE: "FP64",
    _Types.TYPE_FLOAT: "FP32",
    _Types.TYPE_INT32: "INT32",
    _Types.TYPE_SINT32: "INT32",
    _Types.TYPE_SFIXED32: "INT32",
    _Types.TYPE_INT64: "INT64",
    _Types.TYPE_SINT64: "INT64",
    _Types.TYPE_SFIXED64: "INT64",
    _Types.TYPE_UINT32: "UINT32",
    _Types.TYPE_FIXED32: "UINT32",
    _Types.TYPE_UINT64: "UINT64",
    _Types.TYPE_FIXED64: "UINT64",
    _Types.TYPE_BOOL: "BOOL",
    _Types.TYPE_STRING: "BYTES",
    _Types.TYPE_BYTES: "BYTES",
    _Types.TYPE_ENUM: "BYTES",
}

_TIMESTAMP = "google.protobuf.Timestamp"
_WRAPPERS = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)

# What a field holds beyond a plain value of its dtype.
PLAIN = "plain"
TEXT = "text"
ENUM = "enum"
TIMESTAMP = "timestamp"


@dataclass(frozen=True)
class Leaf:
    """A field, in a row or beside the rows, that a column can be tied to.

    ``path``: field descriptors from the outermost message on. ``content`` says how values are written; ``wrapped``: in
    a message of google.protobuf.wrappers. ``can_miss``: a value can be told from none. ``dtype`` of what no column can
    hold is a description of it.
    """

    name: str
    path: tuple[Any, ...]
    dtype: str
    content: str = PLAIN
    repeated: bool = False
    wrapped: bool = False
    can_miss: bool = False

    @property
    def field(self) -> Any:
        """The descriptor of the field itself."""
        return self.path[-1]

    @property
    def is_supported(self) -> bool:
        """Tell whether a column can hold the field."""
        return self.dtype in _DTYPES.values()

    def spec(self) -> TensorSpec:
        """Describe the field as a tensor; the first dimension is that of the rows.

        A table need not have a column for it: protobuf has a value for every field that is not sent.
        """
        type_ = ""
        if self.content == TIMESTAMP and not self.repeated:
            type_ = "timestamp with time zone"
        elif self.content == PLAIN and self.dtype == "BYTES":
            type_ = "bytea[]" if self.repeated else "bytea"
        return TensorSpec(
            name=self.name,
            dtype=self.dtype,
            shape=(-1, -1) if self.repeated else (-1,),
            optional=self.can_miss,
            omittable=not self.field.is_required,
            column=self.name.replace(".", "_"),
            type=type_,
        )


@dataclass(frozen=True)
class Side:
    """A request's or a response's message: how its rows lie in it, and what they hold.

    ``rows``: the path of the repeated message of layout "rows". ``beside``: the fields outside the rows.
    """

    message: Any
    layout: str
    rows: tuple[Any, ...]
    leaves: tuple[Leaf, ...]
    beside: tuple[Leaf, ...] = ()

    def find(self, name: str) -> Leaf | None:
        """Find a field by its name, first among those of a row."""
        return next((leaf for leaf in (*self.leaves, *self.beside) if leaf.name == name), None)


@dataclass(frozen=True)
class Method:
    """A unary method that is a table."""

    name: str
    path: str
    request: Side
    response: Side
    request_class: Any
    response_class: Any
    idempotent: bool

    def inputs(self) -> tuple[TensorSpec, ...]:
        """Describe the fields of a request's row."""
        return tuple(leaf.spec() for leaf in self.request.leaves)

    def outputs(self) -> tuple[TensorSpec, ...]:
        """Describe what is answered for a row, what stands beside the rows included; first what a column can hold."""
        names = {leaf.name for leaf in self.response.leaves}
        beside = [leaf for leaf in self.response.beside if leaf.name not in names]
        leaves = sorted((*self.response.leaves, *beside), key=lambda leaf: not leaf.is_supported)
        return tuple(leaf.spec() for leaf in leaves)


# ---------------------------------------------------------------- files and services


def make_pool(files: Iterable[bytes]) -> Any:
    """Make a pool, of nobody else's, of serialised FileDescriptorProtos and what they import.

    Raises MalformedReply (HV00M) for descriptors that make no sense.
    """
    pool = descriptor_pool.DescriptorPool()
    try:
        protos = {proto.name: proto for proto in map(descriptor_pb2.FileDescriptorProto.FromString, files)}
        added: set[str] = set()
        for name in protos:
            _add(pool, name, protos, added)
    except Exception as error:  # protobuf has several, by implementation
        raise _broken(error) from None
    return pool


def _broken(error: Exception) -> MalformedReply:
    return MalformedReply("descriptors of the gRPC services cannot be used", f"Protobuf said: {error}.")


def _add(pool: Any, name: str, protos: Mapping[str, Any], added: set[str]) -> None:
    if name in added:
        return
    added.add(name)
    proto = protos.get(name) or descriptor_pb2.FileDescriptorProto.FromString(_WELL_KNOWN[name])
    for imported in proto.dependency:
        _add(pool, imported, protos, added)
    pool.AddSerializedFile(proto.SerializeToString())


def missing_imports(files: Mapping[str, bytes]) -> list[str]:
    """List the imports, by name, that are neither among the files nor known everywhere. Raises MalformedReply."""
    wanted: set[str] = set()
    for file in files.values():
        wanted.update(_read_file(file).dependency)
    return sorted(wanted - files.keys() - _WELL_KNOWN.keys())


def file_name(file: bytes) -> str:
    """Return the name of a serialised FileDescriptorProto. Raises MalformedReply (HV00M)."""
    return str(_read_file(file).name)


def _read_file(file: bytes) -> Any:
    try:
        return descriptor_pb2.FileDescriptorProto.FromString(file)
    except DecodeError as error:
        raise _broken(error) from None


def read_set(contents: bytes) -> list[bytes]:
    """Cut a FileDescriptorSet, as protoc writes it, into its files. Raises MalformedReply (HV00M)."""
    try:
        return [file.SerializeToString() for file in descriptor_pb2.FileDescriptorSet.FromString(contents).file]
    except Exception as error:
        raise _broken(error) from None


def list_methods(files: Iterable[bytes], services: Sequence[str] | None = None) -> Iterator[str]:
    """List "package.Service/Method" of all services in files, or of some. Raises MalformedReply (HV00M)."""
    for file in files:
        proto = _read_file(file)
        for service in proto.service:
            full_name = f"{proto.package}.{service.name}" if proto.package else service.name
            if services is None or full_name in services:
                yield from (f"{full_name}/{method.name}" for method in service.method)


# ---------------------------------------------------------------- methods


def find_method(pool: Any, model: str) -> Method:
    """Find a method and its rows; ``model`` is as options.join_method() writes it.

    Raises UnknownModel (HV00R), Unsupported (0A000) for streaming methods and messages without rows, BadOption (22023)
    for options "rows" and "answers" that do not fit.
    """
    name, rows, answers = split_method(model)
    service_name, _, method_name = name.partition("/")
    try:
        method = pool.FindServiceByName(service_name).methods_by_name[method_name]
    except KeyError:
        raise UnknownModel(
            f'method "{name}" does not exist',
            "The descriptors of the gRPC services do not have it.",
            'Check table option "method", or import the schema again.',
        ) from None
    if method.client_streaming or method.server_streaming:
        raise Unsupported(
            f'method "{name}" is streaming, which is not supported',
            "The messages of a stream are no rows of the inputs.",
        )
    request, response = _sides(name, method.input_type, method.output_type, rows, answers)
    found = Method(
        name,
        f"/{name}",
        request,
        response,
        _message_class(method.input_type),
        _message_class(method.output_type),
        method.GetOptions().idempotency_level != descriptor_pb2.MethodOptions.IDEMPOTENCY_UNKNOWN,
    )
    if not any(leaf.is_supported for leaf in (*response.leaves, *response.beside)):
        raise Unsupported(f'method "{name}" answers nothing that a column can hold')
    return found


def _message_class(message: Any) -> Any:
    try:
        return message_factory.GetMessageClass(message)
    except RecursionError:
        raise Unsupported(f'message "{message.full_name}" is nested too deeply') from None


def _sides(name: str, request: Any, response: Any, rows: str, answers: str) -> tuple[Side, Side]:
    """Decide on the layouts, by the options or by what there is."""
    lists = list(_lists(request)), list(_lists(response))
    asked = _side_by_option(name, "rows", request, rows) if rows else _guess_request(name, request, response, *lists)
    if answers:
        answered = _side_by_option(name, "answers", response, answers)
    elif asked.layout == SINGLE:
        answered = _single(response)
    else:
        answered = _guess_response(name, response, lists[1])
    if (asked.layout == SINGLE) != (answered.layout == SINGLE):
        raise Unsupported(
            f'method "{name}" has rows on one side only',
            f"The layout of its request is {asked.layout}, that of its response is {answered.layout}.",
            'Set table options "rows" and "answers".',
        )
    return asked, answered


def _guess_request(name: str, request: Any, response: Any, lists: list[Any], answer_lists: list[Any]) -> Side:
    """One repeated message is rows; nothing but repeated scalars on both sides is columns; else one row."""
    if lists and not answer_lists and not _has_repeated_scalar(response):
        return _single(request)
    if len(lists) > 1:
        raise _ambiguous(name, "rows", lists)
    if lists:
        return _in_rows(request, lists[0])
    all_repeated = bool(request.fields) and all(_is_repeated_scalar(field) for field in request.fields)
    if all_repeated and (answer_lists or _has_repeated_scalar(response)):
        return _in_columns(request)
    return _single(request)


def _guess_response(name: str, response: Any, lists: list[Any]) -> Side:
    if len(lists) > 1:
        raise _ambiguous(name, "answers", lists)
    if lists:
        return _in_rows(response, lists[0])
    if _has_repeated_scalar(response):
        return _in_columns(response)
    return _single(response)


def _ambiguous(name: str, option: str, lists: list[Any]) -> Unsupported:
    names = ", ".join(f'"{_dotted(path)}"' for path in lists)
    return Unsupported(
        f'method "{name}" has several repeated messages, and it is not said which one holds the rows',
        f"They are: {names}.",
        f'Set table option "{option}" to one of them.',
    )


def _side_by_option(name: str, option: str, message: Any, value: str) -> Side:
    for path in _lists(message):
        if _dotted(path) == value:
            return _in_rows(message, path)
    makers = {COLUMNS: _in_columns, SINGLE: _single}
    if value in makers:
        return makers[value](message)
    names = ", ".join(f'"{_dotted(path)}"' for path in _lists(message))
    raise BadOption(
        f'option "{option}" names no repeated message of method "{name}": {value}',
        f"The repeated messages are: {names or 'none'}.",
        f'Name one of them, or write "{COLUMNS}" or "{SINGLE}".',
    )


def _in_rows(message: Any, path: tuple[Any, ...]) -> Side:
    beside = tuple(leaf for leaf in _leaves(message) if leaf.path != path and not leaf.repeated)
    return Side(message, ROWS, path, tuple(_leaves(path[-1].message_type)), beside)


def _in_columns(message: Any) -> Side:
    """Take each top-level repeated scalar for a column; what it holds is no array any more."""
    leaves = tuple(
        Leaf(leaf.name, leaf.path, leaf.dtype, leaf.content, wrapped=leaf.wrapped)
        for leaf in _leaves(message)
        if leaf.repeated and leaf.is_supported and len(leaf.path) == 1
    )
    return Side(message, COLUMNS, (), leaves, tuple(leaf for leaf in _leaves(message) if not leaf.repeated))


def _single(message: Any) -> Side:
    return Side(message, SINGLE, (), tuple(_leaves(message)))


def _dotted(path: Sequence[Any]) -> str:
    return ".".join(field.name for field in path)


# ---------------------------------------------------------------- fields


def _is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _is_value(field: Any) -> bool:
    """Tell whether a field holds one value rather than a message with fields of interest."""
    return field.message_type is None or field.message_type.full_name in (_TIMESTAMP, *_WRAPPERS)


def _is_repeated_scalar(field: Any) -> bool:
    return bool(field.is_repeated) and _is_value(field)


def _has_repeated_scalar(message: Any) -> bool:
    return any(_is_repeated_scalar(field) for field in message.fields)


def _is_recursive(path: Sequence[Any]) -> bool:
    return path[-1].message_type.full_name in (field.containing_type.full_name for field in path)


# How deep messages are looked into for columns, and how many fields are. Protobuf itself reads no more than 100 levels.
MAX_DEPTH = 64
MAX_FIELDS = 10_000


def _has_own_columns(path: Sequence[Any]) -> bool:
    """Tell whether a field is a message whose fields belong to the row themselves."""
    field = path[-1]
    if _is_value(field) or field.is_repeated or _is_recursive(path):  # a map is repeated
        return False
    return len(path) < MAX_DEPTH


def _walk(message: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Give the paths of all fields, of messages inside messages as well."""
    for field in message.fields:
        path = (*before, field)
        yield path
        if _has_own_columns(path):
            yield from _walk(field.message_type, path)


def _paths(message: Any) -> Iterator[tuple[Any, ...]]:
    """Give the paths of all fields. Raises Unsupported (0A000) for a message of too many."""
    for number, path in enumerate(_walk(message)):
        if number == MAX_FIELDS:
            raise Unsupported(f'message "{message.full_name}" has more than {MAX_FIELDS} fields')
        yield path


def _lists(message: Any) -> Iterator[tuple[Any, ...]]:
    """Find the repeated messages, by path, that are not themselves inside one."""
    for path in _paths(message):
        if path[-1].is_repeated and not _is_value(path[-1]) and not _is_map(path[-1]):
            yield path


def _leaves(message: Any) -> Iterator[Leaf]:
    """Find the fields that hold values, in messages inside messages as well."""
    for path in _paths(message):
        if not _has_own_columns(path):
            yield _leaf(_dotted(path), path)


def _leaf(name: str, path: tuple[Any, ...]) -> Leaf:
    field = path[-1]
    if _is_map(field):
        return Leaf(name, path, "map", can_miss=True)
    if _is_value(field):
        return _value_leaf(name, path)
    if field.is_repeated:
        return Leaf(name, path, f"repeated {field.message_type.full_name}", repeated=True, can_miss=True)
    kind = "recursive" if _is_recursive(path) else "deeply nested"
    return Leaf(name, path, f"{kind} {field.message_type.full_name}", can_miss=True)


def _value_leaf(name: str, path: tuple[Any, ...]) -> Leaf:
    field = path[-1]
    repeated, can_miss = bool(field.is_repeated), bool(field.has_presence and not field.is_required)
    if field.message_type is None:
        content = {_Types.TYPE_STRING: TEXT, _Types.TYPE_ENUM: ENUM}.get(field.type, PLAIN)
        return Leaf(name, path, _DTYPES[field.type], content, repeated, False, can_miss)
    if field.message_type.full_name == _TIMESTAMP:
        return Leaf(name, path, "BYTES", TIMESTAMP, repeated, False, can_miss)
    inner = field.message_type.fields_by_name["value"]
    content = TEXT if inner.type == _Types.TYPE_STRING else PLAIN
    return Leaf(name, path, _DTYPES[inner.type], content, repeated, True, can_miss)


def shared_oneofs(leaves: Iterable[Leaf]) -> Iterator[tuple[Leaf, Leaf]]:
    """Find pairs of fields of which a message can hold only one."""
    members: dict[tuple[tuple[str, ...], str], tuple[Leaf, Any]] = {}
    for leaf in leaves:
        for depth, field in enumerate(leaf.path):
            oneof = field.containing_oneof
            if oneof is None or len(oneof.fields) < 2:
                continue
            key = (tuple(part.name for part in leaf.path[:depth]), oneof.name)
            first = members.setdefault(key, (leaf, field))
            if first[1] is not field and first[1].name != field.name:
                yield first[0], leaf
