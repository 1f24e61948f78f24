from __future__ import annotations

import re

import grpc
import pytest

from fdw import errors
from fdw.errors import MESSAGE, Failure, Request

REQUEST = Request("gpu-1:8001", "triton", "churn", "", 30000, 3)


def every_class(base: type[errors.ModelFdwError] = errors.ModelFdwError) -> list[type[errors.ModelFdwError]]:
    return [base] + [each for child in base.__subclasses__() for each in every_class(child)]


def test_every_grpc_status_has_a_row() -> None:
    assert set(errors.STATUS_ERRORS) == {code.name for code in grpc.StatusCode}


@pytest.mark.parametrize("error", every_class(), ids=lambda error: error.__name__)
def test_every_class_has_a_sqlstate_and_is_an_error_to_multicorn(error: type[errors.ModelFdwError]) -> None:
    assert re.fullmatch("[0-9A-Z]{5}", error.sqlstate)
    instance = error("message", "Detail.", "Hint.")
    assert (instance._is_multicorn_exception, instance.code) == (True, 3)
    assert (instance.message, instance.detail, instance.hint) == ("message", "Detail.", "Hint.")


CASES = [
    (
        Failure("UNAVAILABLE", "gRPC's words", "The connection was refused.", connected=False),
        "08001",
        'could not reach model server "gpu-1:8001"',
        "The connection was refused. Attempts: 3.",
        'Check option "url" of server "triton".',
    ),
    (
        Failure("UNAVAILABLE", "gRPC's words", "The server reset the connection."),
        "08006",
        'connection to model server "gpu-1:8001" was lost',
        "The server reset the connection. Attempts: 3.",
        "Run the statement again once the server is back.",
    ),
    (
        Failure("UNAVAILABLE", "queue is full"),
        "HV000",
        'model "churn" failed on model server "gpu-1:8001": queue is full',
        "The server reports that it is unavailable. Attempts: 3.",
        None,
    ),
    (
        Failure("NOT_FOUND", "'churn' has no available versions", not_ready=True),
        "55000",
        'model "churn" on model server "gpu-1:8001" is not ready',
        "The server said: 'churn' has no available versions",
        "Load the model on the server, or wait until it is loaded.",
    ),
    (
        Failure("NOT_FOUND", "unknown model: 'churn'"),
        "HV00R",
        'model "churn" does not exist on model server "gpu-1:8001"',
        "The server said: unknown model: 'churn'",
        'Check table option "model", or import the schema again.',
    ),
    (
        Failure("DEADLINE_EXCEEDED", "Deadline Exceeded"),
        "HV00M",
        'model server "gpu-1:8001" did not answer within 30000 ms',
        'The request was for model "churn".',
        'Check whether the server answers at all; raise table option "timeout_ms" if the model needs longer.',
    ),
    (
        Failure("UNAUTHENTICATED", ""),
        "28000",
        'access to model "churn" on model server "gpu-1:8001" was denied',
        None,
        'Check options "token", "headers" and "sslcert" of the user mapping.',
    ),
    (
        Failure("PERMISSION_DENIED", "no"),
        "28000",
        'access to model "churn" on model server "gpu-1:8001" was denied',
        "The server said: no",
        'Check options "token", "headers" and "sslcert" of the user mapping.',
    ),
    (
        Failure("RESOURCE_EXHAUSTED", "CLIENT: Sent message larger than max (9 vs. 8)", oversized=MESSAGE),
        "54000",
        'message to or from model server "gpu-1:8001" is too large',
        "gRPC said: CLIENT: Sent message larger than max (9 vs. 8)",
        'Raise option "max_message_bytes" of server "triton", or the limit of the server.',
    ),
    (
        Failure("RESOURCE_EXHAUSTED", "out of memory"),
        "53000",
        'model server "gpu-1:8001" is out of resources: out of memory',
        "Attempts: 3.",
        'Lower table option "max_in_flight" or "batch_size".',
    ),
    (
        Failure("INVALID_ARGUMENT", "unexpected shape\nAt:\n  model.py(3): execute"),
        "HV000",
        'model "churn" failed on model server "gpu-1:8001": unexpected shape',
        None,
        None,
    ),
    (
        Failure("INTERNAL", " "),
        "HV000",
        'model "churn" failed on model server "gpu-1:8001": status INTERNAL without a message',
        None,
        None,
    ),
    (
        Failure("UNIMPLEMENTED", "no such method"),
        "0A000",
        'model server "gpu-1:8001" does not support this request',
        "The server said: no such method",
        'Check scheme and port in option "url" of server "triton".',
    ),
    (
        Failure("DATA_LOSS", "The reply is not what the protocol says."),
        "HV00M",
        'model "churn" sent a malformed reply',
        "The reply is not what the protocol says.",
        None,
    ),
    (
        Failure("CANCELLED", "Locally cancelled"),
        "57014",
        'request to model server "gpu-1:8001" was cancelled',
        None,
        None,
    ),
]


@pytest.mark.parametrize(
    ("failure", "sqlstate", "message", "detail", "hint"), CASES, ids=[f"{case[0].status}-{case[1]}" for case in CASES]
)
def test_texts_of_failures(failure: Failure, sqlstate: str, message: str, detail: str | None, hint: str | None) -> None:
    error = errors.from_failure(failure, REQUEST)
    assert (error.sqlstate, error.message, error.detail, error.hint) == (sqlstate, message, detail, hint)


def test_an_unknown_version_is_named() -> None:
    error = errors.from_failure(Failure("NOT_FOUND", "not found"), Request("h:1", "triton", "churn", "9"))
    assert error.message == 'model "churn" has no version "9" on model server "h:1"'
    assert error.hint == 'Check table option "version", or import the schema again.'


def test_a_request_about_no_model_blames_the_server() -> None:
    request = Request("h:1", "", timeout_ms=5)
    error = errors.from_failure(Failure("INTERNAL", "boom"), request)
    assert error.message == 'model server "h:1" refused a request: boom'
    error = errors.from_failure(Failure("DEADLINE_EXCEEDED", ""), request)
    assert (error.message, error.detail) == ('model server "h:1" did not answer within 5 ms', None)
    assert error.hint == (
        'Check whether the server answers at all; raise server option "default_timeout_ms" if the model needs longer.'
    )


@pytest.mark.parametrize(("module", "pip"), [("grpc", "grpcio"), ("google.protobuf", "protobuf"), ("numpy", "numpy")])
def test_a_missing_package_is_named_even_behind_another_error(module: str, pip: str) -> None:
    caught = RuntimeError("The installation does not include grpc support.")
    caught.__cause__ = ModuleNotFoundError(f"No module named {module!r}", name=module)
    error = errors.from_import_error(caught)
    assert error.sqlstate == "58P01"
    assert error.message == f'could not import Python package "{module.partition(".")[0]}"'
    assert error.hint == (
        f'Install it with "pip install \'{pip}\'", and let setting "model_fdw.python_path" name its directory.'
    )


def test_a_package_that_does_not_load_tells_why() -> None:
    error = errors.from_import_error(RuntimeError("grpcio is too old"))
    assert (error.sqlstate, error.detail) == ("58P01", "Python said: grpcio is too old.")
