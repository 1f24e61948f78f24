"""The error tree: every error that leaves this package, with its SQLSTATE, message, detail and hint.

Texts follow PostgreSQL's style guide: the message is lower case without a full stop, the detail is facts in full
sentences, the hint is one action. No text ever holds a secret (token, header value) or a payload (a row's values).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Callable

# Control characters but for ends of lines, and those that reorder what a terminal shows; lone surrogates are no text.
_UNPRINTABLE = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Replace by question marks what could steer a terminal, or what no text of PostgreSQL's can hold."""
    return _UNPRINTABLE.sub("?", text)


class ModelFdwError(Exception):
    """Base of all errors of this package.

    ``sqlstate`` is five characters, fixed per class. ``_is_multicorn_exception`` and ``code`` (3 = ERROR) are what
    Multicorn looks for to report an exception as a plain PostgreSQL error instead of a traceback.
    """

    _is_multicorn_exception = True
    code = 3
    sqlstate = "XX000"

    def __init__(self, message: str, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = printable(message)
        self.detail = detail and printable(detail)
        self.hint = hint and printable(hint)


class ServerUnreachable(ModelFdwError):
    """No connection to the model server could be made."""

    sqlstate = "08001"  # sqlclient_unable_to_establish_sqlconnection


class ConnectionLost(ModelFdwError):
    """The connection broke while a request was in flight."""

    sqlstate = "08006"  # connection_failure


class RequestTimeout(ModelFdwError):
    """The model server did not answer in time."""

    sqlstate = "HV00M"  # fdw_unable_to_create_reply


class MalformedReply(ModelFdwError):
    """The model server's answer is not what its metadata promises."""

    sqlstate = "HV00M"  # fdw_unable_to_create_reply


class UnknownModel(ModelFdwError):
    """The model, or this version of it, is not on the server."""

    sqlstate = "HV00R"  # fdw_table_not_found


class UnknownSchema(ModelFdwError):
    """IMPORT FOREIGN SCHEMA names a remote schema that does not exist."""

    sqlstate = "HV00Q"  # fdw_schema_not_found


class ModelNotReady(ModelFdwError):
    """The server knows the model, but cannot run it now."""

    sqlstate = "55000"  # object_not_in_prerequisite_state


class InvalidTable(ModelFdwError):
    """A foreign table that can be no model's."""

    sqlstate = "42P16"  # invalid_table_definition


class WrongTensor(ModelFdwError):
    """A column does not fit the model's tensors by name, index or coverage."""

    sqlstate = "HV005"  # fdw_column_name_not_found


class WrongDtype(ModelFdwError):
    """A column's declared dtype or shape differs from the model's."""

    sqlstate = "HV004"  # fdw_invalid_data_type


class ValueOutOfRange(ModelFdwError):
    """An input value does not fit the tensor's dtype."""

    sqlstate = "22003"  # numeric_value_out_of_range


class WrongShape(ModelFdwError):
    """An input array has a shape that the tensor does not take."""

    sqlstate = "2202E"  # array_subscript_error


class NullElement(ModelFdwError):
    """An input array contains a NULL (only under Multicorn: the C library has the same error)."""

    sqlstate = "22004"  # null_value_not_allowed


class InvalidText(ModelFdwError):
    """The model answered bytes that are no UTF-8 text."""

    sqlstate = "22021"  # character_not_in_repertoire


class InvalidValue(ModelFdwError):
    """An input value cannot be read as the column's type (only under Multicorn, which hands over text)."""

    sqlstate = "22P02"  # invalid_text_representation


class UnboundInput(ModelFdwError):
    """A scan lacks an equality on an input column."""

    sqlstate = "HV00L"  # fdw_unable_to_create_execution


class Unsupported(ModelFdwError):
    """The model or table needs a feature that does not exist (yet)."""

    sqlstate = "0A000"  # feature_not_supported


class UnknownOption(ModelFdwError):
    """An option name is not known at this level."""

    sqlstate = "HV00D"  # fdw_invalid_option_name


class MissingOption(ModelFdwError):
    """A required option is absent."""

    sqlstate = "HV00J"  # fdw_option_name_not_found


class BadOption(ModelFdwError):
    """An option's value is outside its range, or options contradict each other."""

    sqlstate = "22023"  # invalid_parameter_value


class PermissionDenied(ModelFdwError):
    """The role lacks a privilege in this database."""

    sqlstate = "42501"  # insufficient_privilege


class CertificateFile(ModelFdwError):
    """A certificate or key file cannot be read or used."""

    sqlstate = "F0000"  # config_file_error


class AccessDenied(ModelFdwError):
    """The model server refuses the user mapping's credentials."""

    sqlstate = "28000"  # invalid_authorization_specification


class ModelFailed(ModelFdwError):
    """The model server answered a request with an error of its own."""

    sqlstate = "HV000"  # fdw_error


class ModelRefused(ModelFailed):
    """The model server answered that it cannot compute a request; fewer rows of it may succeed.

    ``said`` is the server's message, one line.
    """

    said = ""


class OutOfResources(ModelFdwError):
    """The model server is over a quota or out of memory."""

    sqlstate = "53000"  # insufficient_resources


# What was too large: see Failure.oversized.
REQUEST, ANSWER, MESSAGE = "request", "answer", "message"


class OversizedMessage(ModelFdwError):
    """A request or reply is larger than a message may be.

    ``what`` and ``limit_bytes`` are the failure's ``oversized`` and ``limit_bytes``.
    """

    sqlstate = "54000"  # program_limit_exceeded
    what = ""
    limit_bytes: int | None = None


class Cancelled(ModelFdwError):
    """The request was cancelled on our side."""

    sqlstate = "57014"  # query_canceled


class DescriptorFile(ModelFdwError):
    """A descriptor set cannot be read or used."""

    sqlstate = "F0000"  # config_file_error


class MissingPackage(ModelFdwError):
    """A Python package that the engine needs cannot be imported."""

    sqlstate = "58P01"  # undefined_file


@dataclass(frozen=True)
class Failure:
    """How one request ended when it did not end well.

    ``status`` is the name of a ``grpc.StatusCode``; ``text`` the message that came with it, which is the server's own
    unless ``cause`` is set. ``cause`` says that the transport failed and how: a full sentence for the DETAIL; ``hint``
    is then what helps. ``connected`` tells whether a connection stood when it failed; ``mute`` that the server closed
    it before, without a word. ``not_ready`` and ``oversized`` refine statuses that servers use for several things.

    ``oversized`` says which message was too large: REQUEST for one that was certainly refused unread, so that nothing
    of it was served, for being over ``limit_bytes`` if that was told; ANSWER for an answer over our own limit, whose
    request was served; MESSAGE where there is only the server's word for either.
    """

    status: str
    text: str
    cause: str | None = None
    connected: bool = True
    not_ready: bool = False
    oversized: str = ""
    limit_bytes: int | None = None
    hint: str | None = None
    mute: bool = False


@dataclass(frozen=True)
class Request:
    """What was asked of whom, for the texts of errors.

    ``endpoint`` is host:port, ``server`` the SQL name of the foreign server ('' where the host does not tell it),
    ``model`` is '' for requests about the whole server, ``version`` '' for the latest. ``timeout_ms`` is the deadline
    that was set and ``attempts`` how many were made. ``noun`` is what the server's models are called.
    """

    endpoint: str
    server: str
    model: str = ""
    version: str = ""
    timeout_ms: int = 0
    attempts: int = 1
    noun: str = "model"


NO_GRPC = "The server does not speak gRPC."
# What helps a client that speaks another protocol than the port's.
PORT_HINT = (
    'Check scheme and port in option "url" of the server: as a rule gRPC has port 8001, and HTTP port 8000 or 8080.'
)


def _option_of_server(name: str, request: Request) -> str:
    return f'option "{name}" of server "{request.server}"' if request.server else f'server option "{name}"'


def _said(failure: Failure) -> str:
    """Return the first line of the server's message: what follows is often a traceback of its own."""
    return printable(failure.text.strip().partition("\n")[0].strip())


def _server_said(failure: Failure) -> str | None:
    return f"The server said: {_said(failure)}" if _said(failure) else None


def _about(request: Request) -> str:
    """Name the model where there is one, else the server."""
    if not request.model:
        return f'model server "{request.endpoint}"'
    version = f' version "{request.version}"' if request.version else ""
    return f'{request.noun} "{request.model}"{version} on model server "{request.endpoint}"'


def _attempts(request: Request) -> str:
    return f" Attempts: {request.attempts}."


def _server_failed(failure: Failure, request: Request) -> ModelFdwError:
    text = _said(failure) or f"status {failure.status} without a message"
    if not request.model:
        return ModelFailed(f'model server "{request.endpoint}" refused a request: {text}')
    return ModelFailed(f'{request.noun} "{request.model}" failed on model server "{request.endpoint}": {text}')


def _refused(failure: Failure, request: Request) -> ModelFdwError:
    if not request.model:
        return _server_failed(failure, request)
    failed = _server_failed(failure, request)
    error = ModelRefused(failed.message)
    error.said = _said(failure) or failed.message
    return error


def _unavailable(failure: Failure, request: Request) -> ModelFdwError:
    if failure.cause is None:
        error = _server_failed(failure, request)
        error.detail = f"The server reports that it is unavailable.{_attempts(request)}"
        return error
    if failure.connected:
        return ConnectionLost(
            f'connection to model server "{request.endpoint}" was lost',
            failure.cause + _attempts(request),
            "Run the statement again once the server is back.",
        )
    return ServerUnreachable(
        f'could not reach model server "{request.endpoint}"',
        failure.cause + _attempts(request),
        failure.hint or f"Check {_option_of_server('url', request)}.",
    )


def model_not_ready(request: Request, said: str) -> ModelNotReady:
    """Build the error for a model that the server knows and cannot run now."""
    return ModelNotReady(
        f"{_about(request)} is not ready",
        f"The server said: {said}" if said else None,
        "Load the model on the server, or wait until it is loaded.",
    )


def _timed_out(failure: Failure, request: Request) -> ModelFdwError:
    option = 'table option "timeout_ms"' if request.model else _option_of_server("default_timeout_ms", request)
    return RequestTimeout(
        f'model server "{request.endpoint}" did not answer within {request.timeout_ms} ms',
        f'The request was for {request.noun} "{request.model}".' if request.model else None,
        f"Check whether the server answers at all; raise {option} if the model needs longer.",
    )


def _not_found(failure: Failure, request: Request) -> ModelFdwError:
    if not request.model:
        return _server_failed(failure, request)
    version = f' has no version "{request.version}"' if request.version else " does not exist"
    return UnknownModel(
        f'{request.noun} "{request.model}"{version} on model server "{request.endpoint}"',
        _server_said(failure),
        f'Check table option "{"version" if request.version else request.noun}", or import the schema again.',
    )


def _denied(failure: Failure, request: Request) -> ModelFdwError:
    return AccessDenied(
        f"access to {_about(request)} was denied",
        _server_said(failure),
        'Check options "token", "headers" and "sslcert" of the user mapping.',
    )


def _exhausted(failure: Failure, request: Request) -> ModelFdwError:
    if failure.oversized:
        error = OversizedMessage(
            f'message to or from model server "{request.endpoint}" is too large',
            f"gRPC said: {_said(failure)}",
            f"Raise {_option_of_server('max_message_bytes', request)}, or the limit of the server.",
        )
        error.what, error.limit_bytes = failure.oversized, failure.limit_bytes
        return error
    return OutOfResources(
        f'model server "{request.endpoint}" is out of resources: {_said(failure)}',
        _attempts(request).strip(),
        'Lower table option "max_in_flight" or "batch_size".',
    )


def _unimplemented(failure: Failure, request: Request) -> ModelFdwError:
    return Unsupported(
        f'model server "{request.endpoint}" does not support this request',
        _server_said(failure),
        f"Check scheme and port in {_option_of_server('url', request)}.",
    )


def _garbled(failure: Failure, request: Request) -> ModelFdwError:
    who = f'model "{request.model}"' if request.model else f'model server "{request.endpoint}"'
    return MalformedReply(f"{who} sent a malformed reply", _said(failure) or None)


def _cancelled(failure: Failure, request: Request) -> ModelFdwError:
    return Cancelled(f'request to model server "{request.endpoint}" was cancelled')


# One row for each grpc.StatusCode; a unit test holds this table against grpc's own list.
STATUS_ERRORS: dict[str, Callable[[Failure, Request], ModelFdwError]] = {
    "OK": _server_failed,  # an OK that carries a failure is the server's contradiction
    "CANCELLED": _cancelled,
    "UNKNOWN": _refused,
    "INVALID_ARGUMENT": _refused,
    "DEADLINE_EXCEEDED": _timed_out,
    "NOT_FOUND": _not_found,
    "ALREADY_EXISTS": _server_failed,
    "PERMISSION_DENIED": _denied,
    "UNAUTHENTICATED": _denied,
    "RESOURCE_EXHAUSTED": _exhausted,
    "FAILED_PRECONDITION": _refused,
    "ABORTED": _server_failed,
    "UNIMPLEMENTED": _unimplemented,
    "OUT_OF_RANGE": _refused,
    "INTERNAL": _refused,
    "UNAVAILABLE": _unavailable,
    "DATA_LOSS": _garbled,
}


def from_failure(failure: Failure, request: Request) -> ModelFdwError:
    """Build the error that tells a SQL user how a request failed."""
    if failure.oversized:
        return _exhausted(failure, request)
    if failure.cause is not None:
        return _unavailable(failure, request)
    if failure.not_ready:
        return model_not_ready(request, _said(failure))
    return STATUS_ERRORS.get(failure.status, _server_failed)(failure, request)


def over_budget(error: ModelFdwError, budget: int) -> ModelFdwError:
    """Say in an error that another attempt would have been made, had the scan not made so many already."""
    fact = f"The scan has made {budget} requests more than it has batches, and may make no more."
    error.detail = f"{error.detail} {fact}" if error.detail else fact
    error.hint = 'Raise table option "retry_budget", or find out why the server fails so often.'
    return error


# The module that Python reports as missing -> the name to give to pip.
_PIP_NAMES = {
    "google": "protobuf",
    "grpc": "grpcio",
    "numpy": "numpy",
    "tritonclient": "tritonclient[grpc]",
}


def from_import_error(error: BaseException) -> MissingPackage:
    """Build the error for a Python package that is missing or does not load.

    tritonclient hides the missing module behind a RuntimeError, so the chain of causes is searched for a name.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            package = cause.name.partition(".")[0]
            return MissingPackage(
                f'could not import Python package "{package}"',
                None,
                f"Install it with \"pip install '{_PIP_NAMES.get(package, package)}'\", and let setting "
                '"model_fdw.python_path" name its directory.',
            )
        cause = cause.__cause__ or cause.__context__
    return MissingPackage(
        "could not import the Python packages of model_fdw",
        f"Python said: {error}.",
        'Install the packages that model_fdw requires, and let setting "model_fdw.python_path" name their directory.',
    )
