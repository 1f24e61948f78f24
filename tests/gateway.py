"""Gateways before a model server, as sites run them: they end TLS and verify tokens. One of ours, and nginx."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import Authority, Pair, server_credentials

DOWNLOAD_S = 60


class Gateway(grpc.GenericRpcHandler):
    """Passes any unary call on to a server, if its bearer token is known and has not expired.

    ``tokens``: until when (time.time()) each is valid. A context manager.
    """

    def __init__(self, upstream: str, pair: Pair, clients: Authority, tokens: dict[str, float]) -> None:
        self.tokens = tokens
        size = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(upstream, size)
        self._server = grpc.server(ThreadPoolExecutor(16), options=size)
        self._server.add_generic_rpc_handlers((self,))
        self.port = self._server.add_secure_port("127.0.0.1:0", server_credentials(pair, clients))
        self.url = f"grpcs://127.0.0.1:{self.port}"

    def service(self, details: Any) -> Any:
        forward = self._channel.unary_unary(details.method)

        def handle(request: bytes, context: Any) -> Any:
            self._check(dict(context.invocation_metadata()).get("authorization", ""), context)
            try:
                return forward(request, timeout=context.time_remaining())
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())

        return grpc.unary_unary_rpc_method_handler(handle)

    def _check(self, authorization: str, context: Any) -> None:
        token = authorization.removeprefix("Bearer ")
        if token not in self.tokens:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is not known" if token else "a token is required")
        if self.tokens[token] < time.time():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token has expired")

    def __enter__(self) -> Gateway:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()
        self._channel.close()


NGINX = """
daemon off;
master_process off;
pid {directory}/pid;
error_log {directory}/error.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    {site}
}}
"""

SITE = """
map $http_authorization $known {{ default 0; "Bearer {token}" 1; }}
server {{
    listen 127.0.0.1:{port} ssl http2;
    ssl_certificate {pair.certificate};
    ssl_certificate_key {pair.key};
    ssl_client_certificate {clients.certificate};
    ssl_verify_client on;
    client_max_body_size 0;
    location / {{
        if ($known = 0) {{ return 401; }}
        grpc_pass grpc://{upstream};
    }}
}}
"""


def find_nginx(directory: Path) -> Path:
    """Find nginx on the machine, or unpack Debian's package, which needs no root; skip the test if there is neither."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if found:
        return Path(found)
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("nginx is not installed, and this is no Debian that could fetch it")
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(
            ["apt-get", "download", "nginx"], cwd=directory, capture_output=True, timeout=DOWNLOAD_S, check=False
        )
    packages = list(directory.glob("nginx_*.deb"))
    if not packages:
        pytest.skip('nginx is not installed, and "apt-get download nginx" does not fetch it')
    subprocess.run(["dpkg-deb", "-x", packages[0], directory / "package"], check=True)
    program = directory / "package" / "usr" / "sbin" / "nginx"
    if subprocess.run([program, "-v"], capture_output=True, check=False).returncode:
        pytest.skip("Debian's nginx does not run here: libraries of it are missing")
    return program


@contextlib.contextmanager
def nginx(upstream: str, pair: Pair, clients: Authority, token: str) -> Iterator[str]:
    """Run nginx before a server, mutual TLS and one token; give its url."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with run_nginx(SITE.format(token=token, port=port, pair=pair, clients=clients, upstream=upstream), port):
        yield f"grpcs://127.0.0.1:{port}"


@contextlib.contextmanager
def run_nginx(site: str, port: int) -> Iterator[None]:
    """Run nginx with a site that listens on a port of the loopback address."""
    with tempfile.TemporaryDirectory(prefix="nginx-") as name:
        directory = Path(name)
        program = find_nginx(directory)
        (directory / "nginx.conf").write_text(NGINX.format(directory=directory, site=site))
        with subprocess.Popen([program, "-c", directory / "nginx.conf", "-p", directory]) as process:
            try:
                await_port(port, process)
                yield
            finally:
                process.terminate()


def await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until something listens."""
    ends_s = time.monotonic() + 10
    while time.monotonic() < ends_s:
        assert process.poll() is None, "nginx has ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise AssertionError("nginx does not listen")
