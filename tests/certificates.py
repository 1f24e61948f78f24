"""Certificates for tests, made with the openssl program: an authority, a stranger, servers and clients."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

# "openssl ca" is the one command that takes dates in the past.
CONFIG = """
[ca]
default_ca = own
[own]
database = {directory}/index.txt
serial = {directory}/serial
new_certs_dir = {directory}
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
"""

PAST = ("20200101000000Z", "20210101000000Z")
PRESENT = ("20200101000000Z", "20991231235959Z")


def openssl(*arguments: str | Path) -> None:
    """Run openssl; its complaint is the failure's text."""
    result = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """Signs certificates; ``certificate`` is the file to trust."""

    directory: Path

    @property
    def certificate(self) -> Path:
        """Name the file with the authority's own certificate."""
        return self.directory / "ca.crt"

    def sign(self, name: str, alternative: str, valid: tuple[str, str] = PRESENT) -> Pair:
        """Make a key and a certificate for it; ``alternative`` as openssl writes it: DNS:host,IP:address."""
        key, request, certificate = (self.directory / f"{name}.{ending}" for ending in ("key", "csr", "crt"))
        openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key),
            *("-out", request, "-subj", f"/CN={name}", "-addext", f"subjectAltName={alternative}"),
        )
        openssl(
            *("ca", "-batch", "-notext", "-config", self.directory / "ca.cnf", "-cert", self.certificate),
            *("-keyfile", self.directory / "ca.key", "-in", request, "-out", certificate),
            *("-startdate", valid[0], "-enddate", valid[1]),
        )
        for path in (key, certificate):
            path.chmod(0o644)
        return Pair(certificate, key)


def make_authority(directory: Path) -> Authority:
    """Make an authority in a new directory that everybody can read."""
    if shutil.which("openssl") is None:
        pytest.skip("program openssl is not installed")
    directory.mkdir()
    directory.chmod(0o755)
    (directory / "index.txt").touch()
    (directory / "serial").write_text("01\n")
    (directory / "ca.cnf").write_text(CONFIG.format(directory=directory))
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3"),
        *("-keyout", directory / "ca.key", "-out", directory / "ca.crt", "-subj", f"/CN={directory.name}"),
    )
    (directory / "ca.crt").chmod(0o644)
    return Authority(directory)


@dataclass(frozen=True)
class Certificates:
    """Everything that the tests of TLS need."""

    authority: Authority
    stranger: Authority
    server: Pair
    elsewhere: Pair
    expired_server: Pair
    client: Pair
    unknown_client: Pair
    expired_client: Pair


@contextlib.contextmanager
def make_directory() -> Iterator[Path]:
    """Make a directory that everybody can read, whose path does not lead through a private one."""
    with tempfile.TemporaryDirectory(prefix="certificates-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def make_certificates(directory: Path) -> Certificates:
    """Make them in a directory that everybody can read."""
    authority, stranger = make_authority(directory / "authority"), make_authority(directory / "stranger")
    here = "DNS:localhost,IP:127.0.0.1"
    return Certificates(
        authority,
        stranger,
        server=authority.sign("server", here),
        elsewhere=authority.sign("elsewhere", "DNS:models.example.com"),
        expired_server=authority.sign("expired_server", here, PAST),
        client=authority.sign("client", "DNS:client"),
        unknown_client=stranger.sign("unknown_client", "DNS:client"),
        expired_client=authority.sign("expired_client", "DNS:client", PAST),
    )


def server_credentials(pair: Pair, clients: Authority | None = None) -> grpc.ServerCredentials:
    """Give what a gRPC server needs; with ``clients``, each client must have a certificate of that authority."""
    return grpc.ssl_server_credentials(
        [(pair.key.read_bytes(), pair.certificate.read_bytes())],
        clients.certificate.read_bytes() if clients else None,
        clients is not None,
    )
