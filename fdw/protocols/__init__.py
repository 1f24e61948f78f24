"""The protocols, one module each, chosen by server option "protocol" and the scheme of "url".

A protocol's module is imported when a server first needs it: each brings libraries that take time to load.
"""

from __future__ import annotations

from importlib import import_module
from typing import Callable

from fdw import errors
from fdw.options import Endpoint, Server
from fdw.protocols.base import Client, ClientFactory

# Protocol and scheme of an endpoint, without the s of TLS -> module and class.
PROTOCOLS: dict[tuple[str, str], tuple[str, str]] = {
    ("triton", "grpc"): ("fdw.protocols.triton_grpc", "TritonGrpc"),
    ("triton", "http"): ("fdw.protocols.triton_http", "TritonHttp"),
    ("grpc", "grpc"): ("fdw.protocols.generic_grpc", "GenericGrpc"),
}


def _load(module: str, name: str) -> ClientFactory:
    try:
        factory: ClientFactory = getattr(import_module(module), name)
    except (ImportError, RuntimeError) as error:  # tritonclient turns one into the other
        raise errors.from_import_error(error) from None
    return factory


def load_all() -> None:
    """Import every protocol. Raises MissingPackage (58P01)."""
    for module, name in PROTOCOLS.values():
        _load(module, name)


def make_client(server: Server, endpoint: Endpoint, notify: Callable[[], None]) -> Client:
    """Make a client of an endpoint; nothing is sent. Raises MissingPackage (58P01)."""
    protocol = server.options.protocol, endpoint.scheme.rstrip("s")
    return _load(*PROTOCOLS[protocol])(server, endpoint, notify)
