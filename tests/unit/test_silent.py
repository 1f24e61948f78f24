"""Servers that declare no tensors, over gRPC and over HTTP: what a table's columns declare counts."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fake_http import FakeHttp
from fake_server import FAKE, FakeModel, FakeServer
from helpers import doubles, fails, finish, score, strings, table

from fdw import errors, host

Serve = Callable[[FakeModel], Any]


@pytest.fixture(params=["grpc", "http"])
def serve(request: pytest.FixtureRequest) -> Iterator[Serve]:
    """Start a server of a model "fake" without configuration or index."""
    with contextlib.ExitStack() as stack:

        def start(model: FakeModel) -> Any:
            if request.param == "http":
                server: Any = FakeHttp(models={"fake": model}, binary=False, has_extensions=False, nulls=True)
            else:
                server = FakeServer(models={"fake": model})
                server.has_config = server.has_index = False
            return stack.enter_context(server)

        yield start


def silent(*roles: str, **changes: Any) -> FakeModel:
    return dataclasses.replace(FAKE, silent=frozenset(roles), **changes)


EVERYTHING = silent("inputs", "outputs")
X = ("x", "double precision", {"input": "x", "dtype": "FP64", "shape": "[-1,1]"})
Y = ("y", "double precision", {"output": "y", "dtype": "FP64", "shape": "[-1,1]"})
LABEL = ("label", "text", {"output": "label", "dtype": "BYTES", "shape": "[-1,1]"})


def columns(*described: Any, url: str) -> dict[str, Any]:
    return table(*described, url=url, model="fake")


@pytest.mark.parametrize("model", [EVERYTHING, silent("inputs"), silent("outputs")], ids=["all", "inputs", "outputs"])
def test_what_the_columns_declare(serve: Serve, model: FakeModel) -> None:
    server = serve(model)
    y, label = score(columns(X, Y, LABEL, url=server.url), [1.0, -2.5])
    assert y[0].tolist() == [2.0, -5.0]
    assert strings(label) == [b"x=1", b"x=-2.5"]
    assert server.inferences == 1 if isinstance(server, FakeHttp) else server.calls["ModelInfer"] == 1
    assert finish(host.check(columns(X, Y, LABEL, url=server.url)))[0] == []


def test_a_vector(serve: Serve) -> None:
    """One column of a tensor that says it all is enough."""
    model = FakeModel(
        (("v", "FP32", (-1, 2)),),
        (("s", "FP64", (-1,)),),
        lambda inputs: {"s": inputs["v"].sum(axis=1)},
        silent=frozenset({"inputs", "outputs"}),
    )
    server = serve(model)
    described = columns(
        ("a", "double precision", {"input": "v", "index": "1", "dtype": "FP32", "shape": "[-1,2]"}),
        ("b", "double precision", {"input": "v", "index": "2"}),
        ("s", "double precision", {"output": "s", "dtype": "FP64", "shape": "[-1]"}),
        url=server.url,
    )
    session = finish(host.open(described, [1, 2], [3]))
    answer = finish(host.submit(session, 3, [doubles(1, 2, 3), doubles(10, 20, 30)]))
    assert answer[0][0].tolist() == [11, 22, 33]


def test_nothing_wanted(serve: Serve) -> None:
    server = serve(EVERYTHING)
    assert score(columns(X, Y, url=server.url), [1.0], []) == []
    assert score(columns(X, url=server.url), [1.0], []) == []


@pytest.mark.parametrize(
    ("options", "lacking"),
    [
        ({}, '"input" or "output"'),
        ({"output": "y"}, '"dtype" and "shape"'),
        ({"output": "y", "dtype": "FP64"}, '"shape"'),
        ({"output": "y", "shape": "[-1,1]"}, '"dtype"'),
    ],
)
def test_columns_that_say_too_little(serve: Serve, options: dict[str, str], lacking: str) -> None:
    server = serve(EVERYTHING)
    with fails(
        "HV005",
        f'column "y" of foreign table "t" lacks option {lacking}, and model "fake" declares no tensors',
        "What the columns declare counts where the model server is silent.",
        f"Set {lacking}.",
    ):
        finish(host.describe(columns(X, ("y", "double precision", options), url=server.url)))


@pytest.mark.parametrize(
    ("declared", "detail"),
    [
        ({"dtype": "FP32"}, 'Output tensor "y" has dtype FP64 instead of FP32.'),
        ({"shape": "[-1,3]"}, 'Output tensor "y" has shape [1] per row instead of [3].'),
    ],
)
def test_a_declaration_that_the_answer_contradicts(serve: Serve, declared: dict[str, str], detail: str) -> None:
    server = serve(EVERYTHING)
    wrong = ("y", Y[1], {**Y[2], **declared, "index": "1"})
    with fails(
        "HV00M",
        'model "fake" sent a malformed reply',
        detail,
        'Correct what the columns of foreign table "t" declare of the tensor.',
    ):
        score(columns(X, wrong, url=server.url), [1.0], [2])


def import_from(server: Any, restriction: str = "all", names: tuple[str, ...] = (), **settings: str) -> Any:
    described = {"oid": 5, "name": "s", "options": {"url": server.url}}
    return finish(host.import_schema(described, {}, "models", restriction, list(names), settings))


HINT = 'Create its foreign table by hand, with options "input" or "output", "dtype" and "shape" on each column.'


@pytest.mark.parametrize(
    ("model", "what"),
    [(EVERYTHING, "tensors"), (silent("inputs"), "input tensors"), (silent("outputs"), "output tensors")],
)
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_an_import_skips_it(protocol: str, model: FakeModel, what: str) -> None:
    models = {"mute": model, "fine": FAKE}
    with FakeServer(models=models) if protocol == "grpc" else FakeHttp(models=models) as server:
        statements, notices = import_from(server)
        assert [statement.split('"')[1] for statement in statements] == ["fine"]
        assert notices == [(f'skipped model "mute": model "mute" declares no {what}', None, HINT)]
        with fails("0A000", f'model "mute" declares no {what}', None, HINT):
            import_from(server, "limit to", ("mute",))


def test_an_import_without_a_repository_index(serve: Serve) -> None:
    """LIMIT TO names the models, whose metadata are asked for at once."""
    server = serve(FAKE)
    with pytest.raises(errors.Unsupported) as caught:
        import_from(server)
    assert caught.value.message == f'model server "{server.url.partition("//")[2]}" has no repository index'
    assert caught.value.hint == "Name the models with LIMIT TO."
    statements, notices = import_from(server, "limit to", ("fake",), prefix="m_")
    assert [statement.split('"')[1] for statement in statements] == ["m_fake"]
    assert notices == []
    statements, _ = import_from(server, "limit to", ("fake",), versions="1,3")
    assert [statement.split('"')[1] for statement in statements] == ["fake_v1", "fake_v3"]
    with pytest.raises(errors.UnknownModel):
        import_from(server, "limit to", ("fake", "nope"))
