"""The protocols, one module each, chosen by the scheme of server option "url"."""

from __future__ import annotations

from fdw.protocols.base import ClientFactory
from fdw.protocols.triton_grpc import TritonGrpc

PROTOCOLS: dict[str, ClientFactory] = {
    "grpc": TritonGrpc,
    "grpcs": TritonGrpc,
}
