"""The protocols, one module each, chosen by server option "protocol" and the scheme of "url".

A protocol's module is imported when a server first needs it: each brings libraries that take time to load.
"""

from __future__ import annotations

import sys
import time
from importlib import import_module
from typing import Any, Callable

from fdw import errors
from fdw.options import Endpoint, Server
from fdw.protocols.base import Client, ClientFactory
from fdw.tickets import Steps

# Protocol and scheme of an endpoint, without the s of TLS -> module and class.
PROTOCOLS: dict[tuple[str, str], tuple[str, str]] = {
    ("triton", "grpc"): ("fdw.protocols.triton_grpc", "TritonGrpc"),
    ("triton", "http"): ("fdw.protocols.triton_http", "TritonHttp"),
    ("grpc", "grpc"): ("fdw.protocols.generic_grpc", "GenericGrpc"),
}


def _protocol(server: Server, endpoint: Endpoint) -> tuple[str, str]:
    return PROTOCOLS[server.options.protocol, endpoint.scheme.rstrip("s")]


# What a module imports that takes its time, in the order in which one brings the other.
_PIECES: dict[str, tuple[str, ...]] = {
    "fdw.protocols.triton_grpc": ("asyncio", "grpc", "tritonclient.grpc.service_pb2"),
    "fdw.protocols.generic_grpc": ("asyncio", "grpc"),
}


def _import(module: str) -> Any:
    try:
        return import_module(module)
    except (ImportError, RuntimeError) as error:  # tritonclient turns one into the other
        raise errors.from_import_error(error) from None


def _load(module: str, name: str) -> ClientFactory:
    factory: ClientFactory = getattr(_import(module), name)
    return factory


def load(server: Server) -> Steps[None]:
    """Import a server's protocol in pieces; between them, whoever polls can find that nobody wants it any more.

    Raises MissingPackage (58P01).
    """
    module, _ = _protocol(server, server.options.url[0])
    for piece in (*_PIECES.get(module, ()), module):
        if piece not in sys.modules:
            _import(piece)
            yield time.monotonic()


def load_all() -> None:
    """Import every protocol. Raises MissingPackage (58P01)."""
    for module, name in PROTOCOLS.values():
        _load(module, name)


def make_client(server: Server, endpoint: Endpoint, notify: Callable[[], None]) -> Client:
    """Make a client of an endpoint; nothing is sent. Raises MissingPackage (58P01)."""
    return _load(*_protocol(server, endpoint))(server, endpoint, notify)
