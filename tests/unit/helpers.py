"""What several unit tests need: table descriptions, a waiting host, error comparison."""

from __future__ import annotations

import contextlib
from array import array
from typing import Any, Iterator

import pytest

from fdw import errors, host
from fdw.tickets import wait

ColumnText = tuple[str, str, dict[str, str]]


def table(
    *columns: ColumnText,
    url: str = "grpc://127.0.0.1:1",
    name: str = "t",
    oid: int = 1,
    server: dict[str, str] | None = None,
    user: dict[str, str] | None = None,
    **options: str,
) -> dict[str, Any]:
    """Describe a foreign table as C does; columns are (name, type, options), numbered from 1."""
    return {
        "oid": oid,
        "schema": "public",
        "name": name,
        "options": options,
        "server": {"oid": 7, "name": "triton", "options": {"url": url, **(server or {})}},
        "user_mapping": user or {},
        "columns": [
            {"attnum": number, "name": column, "type": type_, "options": column_options}
            for number, (column, type_, column_options) in enumerate(columns, start=1)
        ],
    }


X = ("x", "double precision", {"input": "x"})
Y = ("y", "double precision", {"output": "y"})
LABEL = ("label", "text", {"output": "label"})


def fake_table(url: str, **options: Any) -> dict[str, Any]:
    """Describe a table over the fake server's default model: x in; y and label out."""
    return table(X, Y, LABEL, url=url, **{"model": "fake", **options})


def no_interrupts() -> None:
    pass


def finish(ticket: Any) -> Any:
    """Wait for a ticket and return its result."""
    return wait(ticket, no_interrupts)


def doubles(*values: float) -> bytes:
    return array("d", values).tobytes()


def score(description: dict[str, Any], values: list[float], wanted: list[int] | None = None) -> Any:
    """Open, submit one batch of column x, collect, close."""
    session = finish(host.open(description, [1], [2, 3] if wanted is None else wanted))
    try:
        return finish(host.submit(session, len(values), [doubles(*values)]))
    finally:
        host.close(session)


def strings(column: Any) -> list[bytes]:
    """Cut an 's' or 'b' result column into its values."""
    data, offsets, nulls = column[:3]
    assert nulls is None
    return [bytes(data[start:end]) for start, end in zip(offsets, offsets[1:])]


@contextlib.contextmanager
def fails(
    sqlstate: str, message: str, detail: str | None = None, hint: str | None = None
) -> Iterator[pytest.ExceptionInfo[errors.ModelFdwError]]:
    """Expect exactly this error, word for word."""
    with pytest.raises(errors.ModelFdwError) as caught:
        yield caught
    error = caught.value
    assert (error.sqlstate, error.message, error.detail, error.hint) == (sqlstate, message, detail, hint)
