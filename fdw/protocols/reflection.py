"""Server reflection: a server's services and their descriptors.

The protocol is a stream of requests and answers. One request and its answer look on the wire like a unary call, and so
they are made here: such a call needs no thread to wait for it.

The messages are declared here rather than taken from package grpcio-reflection, of which nothing else is needed; v1 and
v1alpha differ in nothing but the service's name.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Generator, Mapping, TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from fdw import errors
from fdw.errors import Failure
from fdw.protocols import descriptors
from fdw.protocols.base import Call, RequestFailed
from fdw.protocols.channel import GrpcClient

T = TypeVar("T")
Requests = Generator[Call[Any], Any, T]

SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
# Services about the server itself.
_OWN_PREFIX = "grpc."

_Types = descriptor_pb2.FieldDescriptorProto
_TEXT, _BYTES, _NUMBER, _MESSAGE = _Types.TYPE_STRING, _Types.TYPE_BYTES, _Types.TYPE_INT32, _Types.TYPE_MESSAGE

# Message -> field: number, type, whether repeated, type's name. Only what is used here; an unset string is not sent.
_MESSAGES: Mapping[str, Mapping[str, tuple[int, int, bool, str]]] = {
    "Request": {
        "file_by_filename": (3, _TEXT, False, ""),
        "file_containing_symbol": (4, _TEXT, False, ""),
        "list_services": (7, _TEXT, False, ""),
    },
    "Files": {"file_descriptor_proto": (1, _BYTES, True, "")},
    "Service": {"name": (1, _TEXT, False, "")},
    "Services": {"service": (1, _MESSAGE, True, "Service")},
    "Error": {"error_code": (1, _NUMBER, False, ""), "error_message": (2, _TEXT, False, "")},
    "Response": {
        "file_descriptor_response": (4, _MESSAGE, False, "Files"),
        "list_services_response": (6, _MESSAGE, False, "Services"),
        "error_response": (7, _MESSAGE, False, "Error"),
    },
}


def _make_classes() -> Mapping[str, Any]:
    package = "model_fdw.reflection"
    file = descriptor_pb2.FileDescriptorProto(name="model_fdw/reflection.proto", package=package, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, type_, repeated, type_name) in fields.items():
            label = _Types.LABEL_REPEATED if repeated else _Types.LABEL_OPTIONAL
            full_name = f".{package}.{type_name}" if type_name else None
            message.field.add(name=field, number=number, type=type_, label=label, type_name=full_name)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in _MESSAGES
    }


_CLASSES = _make_classes()

# What servers put into error_response, as the name of a grpc.StatusCode.
_CODES = {5: "NOT_FOUND", 7: "PERMISSION_DENIED", 12: "UNIMPLEMENTED", 14: "UNAVAILABLE", 16: "UNAUTHENTICATED"}


# More files than a server's own API has.
MAX_FILES = 1000


class Deadline:
    """The time that requests made one after the other have together."""

    def __init__(self, timeout_ms: int) -> None:
        self._ends_s = time.monotonic() + timeout_ms / 1000

    def left_ms(self) -> int:
        """Return what is left of it, at least 1. Raises RequestFailed."""
        left_ms = round((self._ends_s - time.monotonic()) * 1000)
        if left_ms <= 0:
            raise RequestFailed(Failure("DEADLINE_EXCEEDED", ""))
        return left_ms


def _ask(client: GrpcClient, address: str, deadline: Deadline, **request: str) -> Requests[Any]:
    """Make one request of the newest version that the server has."""
    message = _CLASSES["Request"](**request).SerializeToString()
    read: Callable[[bytes], Any] = _CLASSES["Response"].FromString
    for service in SERVICES:
        try:
            response = yield client.call(
                f"/{service}/ServerReflectionInfo", message, read, deadline.left_ms(), _as_it_is
            )
        except RequestFailed as failed:
            if failed.failure.status != "UNIMPLEMENTED":
                raise
        else:
            if response.HasField("error_response"):
                error = response.error_response
                raise RequestFailed(Failure(_CODES.get(error.error_code, "UNKNOWN"), error.error_message))
            return response
    raise errors.Unsupported(
        f'model server "{address}" does not offer reflection',
        None,
        'Set server option "descriptor_set", or let the server offer reflection.',
    )


def _as_it_is(message: Any) -> Any:
    return message


def files_of(client: GrpcClient, address: str, service: str, deadline: Deadline) -> Requests[list[bytes]]:
    """Ask for the file that declares a service, and for all that it imports."""
    response = yield from _ask(client, address, deadline, file_containing_symbol=service)
    files = {descriptors.file_name(file): file for file in response.file_descriptor_response.file_descriptor_proto}
    while missing := descriptors.missing_imports(files):
        if len(files) >= MAX_FILES:
            raise errors.Unsupported(
                f'service "{service}" of model server "{address}" imports more than {MAX_FILES} files',
                None,
                'Set server option "descriptor_set".',
            )
        response = yield from _ask(client, address, deadline, file_by_filename=missing[0])
        sent = {descriptors.file_name(file): file for file in response.file_descriptor_response.file_descriptor_proto}
        files.update(sent)
        if missing[0] not in files:
            raise RequestFailed(Failure("NOT_FOUND", f"the server does not give file {missing[0]}"))
    return list(files.values())


def list_methods(client: GrpcClient, address: str, deadline: Deadline) -> Requests[list[str]]:
    """List "package.Service/Method" of the server's services, but for those of gRPC itself."""
    response = yield from _ask(client, address, deadline, list_services="*")
    names = [service.name for service in response.list_services_response.service]
    methods: list[str] = []
    for service in sorted(name for name in names if not name.startswith(_OWN_PREFIX)):
        files = yield from files_of(client, address, service, deadline)
        methods.extend(descriptors.list_methods(files, [service]))
    return methods
