"""TLS and mutual TLS: what works, and that every failure says which one it is."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates, Pair, make_certificates, server_credentials
from fake_http import FakeHttp
from fake_server import FakeServer
from helpers import LABEL, X, Y, fails, finish, score, table

from fdw import connections, host, options, tls


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


def secure_table(url: str, root: Path | None, client: Pair | None = None, **server: str) -> dict[str, Any]:
    """Describe a table of a server that is asked but once."""
    if root:
        server["sslrootcert"] = str(root)
    user = {"sslcert": str(client.certificate), "sslkey": str(client.key)} if client else {}
    return table(X, Y, LABEL, url=url, server=server, user=user, model="fake", max_attempts="1")


def works(description: dict[str, Any]) -> bool:
    connections._connections.clear()
    return bool(score(description, [1.0], [2])[0][0].tolist() == [2.0])


def refused(server: FakeServer | FakeHttp, description: dict[str, Any], cause: str, hint: str) -> None:
    """Expect that no connection is made, for that cause."""
    connections._connections.clear()
    message = f'could not reach model server "127.0.0.1:{server.port}"'
    with fails("08001", message, f"{cause} Attempts: 1.", hint):
        finish(host.describe(description))


def test_tls(certificates: Certificates) -> None:
    root = certificates.authority.certificate
    with FakeServer(credentials=server_credentials(certificates.server)) as server:
        assert server.url.startswith("grpcs:")
        assert works(secure_table(server.url, root))


def test_mutual_tls(certificates: Certificates) -> None:
    root = certificates.authority.certificate
    credentials = server_credentials(certificates.server, certificates.authority)
    with FakeServer(credentials=credentials) as server:
        assert works(secure_table(server.url, root, certificates.client))


def test_a_name_that_is_not_the_address(certificates: Certificates) -> None:
    root = certificates.authority.certificate
    with FakeServer(credentials=server_credentials(certificates.elsewhere)) as server:
        refused(
            server,
            secure_table(server.url, root),
            "The server's certificate is for another host name.",
            'Name the host in option "url" as the certificate does, or set option "tls_server_name".',
        )
        assert works(secure_table(server.url, root, tls_server_name="models.example.com"))


def test_an_authority_that_is_not_trusted(certificates: Certificates) -> None:
    with FakeServer(credentials=server_credentials(certificates.server)) as server:
        for root in (None, certificates.stranger.certificate):
            refused(
                server,
                secure_table(server.url, root),
                "No trusted authority has signed the server's certificate.",
                'Check option "sslrootcert" of the server.',
            )


def test_a_server_certificate_that_has_expired(certificates: Certificates) -> None:
    root = certificates.authority.certificate
    with FakeServer(credentials=server_credentials(certificates.expired_server)) as server:
        refused(
            server,
            secure_table(server.url, root),
            "The server's certificate has expired.",
            "Renew it on the server.",
        )


def test_tls_where_the_server_has_none(certificates: Certificates) -> None:
    with FakeServer() as server:
        refused(
            server,
            secure_table(server.url.replace("grpc:", "grpcs:"), certificates.authority.certificate),
            "The server does not speak TLS.",
            'Write a scheme without TLS in option "url", or enable TLS on the server.',
        )


@pytest.mark.parametrize("mutual", [False, True])
def test_no_tls_where_the_server_has_it(certificates: Certificates, mutual: bool) -> None:
    credentials = server_credentials(certificates.server, certificates.authority if mutual else None)
    with FakeServer(credentials=credentials) as server:
        refused(
            server,
            secure_table(server.url.replace("grpcs:", "grpc:"), None),
            "The server expects TLS.",
            'Write a scheme with TLS in option "url": grpcs:// or https://.',
        )


@pytest.mark.parametrize(
    ("client", "cause"),
    [
        (None, "The server demands a client certificate."),
        ("unknown_client", "The server refuses the client certificate."),
        ("expired_client", "The client certificate has expired."),
    ],
)
def test_a_client_certificate_that_is_refused(certificates: Certificates, client: str | None, cause: str) -> None:
    pair = getattr(certificates, client) if client else None
    credentials = server_credentials(certificates.server, certificates.authority)
    with FakeServer(credentials=credentials) as server:
        refused(
            server,
            secure_table(server.url, certificates.authority.certificate, pair),
            cause,
            'Check options "sslcert" and "sslkey" of the user mapping.',
        )


@pytest.mark.parametrize(
    "text",
    [
        "handshake failed ipv4:127.0.0.1:70000",
        "handshake failed ipv4:bad.cafe:{port}",
        "handshake failed ipv4:127.0.0.1:{other}",
        "handshake failed ipv6:::{other}:{port}:1",
        "handshake failed ipv4:127.0.0.9:{port}",
        "handshake failed",
    ],
)
def test_a_text_leads_to_no_other_address(text: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        other = listener.getsockname()[1]
        server = options.read_server(1, "s", {"url": f"grpc://127.0.0.1:{other % 60000 + 1}"}, {})
        (end,) = server.options.url
        assert list(tls.why_closed(server, end, text.format(port=end.port, other=other))) == []
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


FORM_HINT = "Certificates and keys are in PEM form, the key without a password."


def test_files_that_are_no_certificates(certificates: Certificates, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("sesame")
    description = secure_table("grpcs://127.0.0.1:1", nonsense)
    with fails(
        "F0000",
        f'cannot use file "{nonsense}" of option "sslrootcert"',
        "What is in it is not valid: no certificate or crl found.",
        FORM_HINT,
    ):
        finish(host.describe(description))
    client = certificates.client
    with fails(
        "F0000",
        f'cannot use file "{client.certificate}" of option "sslcert"',
        'What is in it or of option "sslkey" is not valid: key values mismatch.',
        FORM_HINT,
    ):
        root = certificates.authority.certificate
        finish(
            host.describe(secure_table("grpcs://127.0.0.1:1", root, Pair(client.certificate, certificates.server.key)))
        )


def test_files_that_are_not_there(certificates: Certificates, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with fails(
        "F0000",
        f'could not read file "{missing}" of option "sslrootcert": No such file or directory',
        None,
        "The file must be readable by the operating system user of the PostgreSQL server.",
    ):
        finish(host.describe(secure_table("grpcs://127.0.0.1:1", missing)))


# ------------------------------------------------------------ over HTTP


def https_context(pair: Pair, clients: Path | None = None) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(pair.certificate, pair.key)
    if clients:
        made.verify_mode = ssl.CERT_REQUIRED
        made.load_verify_locations(clients)
    return made


def test_https(certificates: Certificates) -> None:
    root = certificates.authority.certificate
    with FakeHttp(context=https_context(certificates.server)) as server:
        assert works(secure_table(server.url, root))
    with FakeHttp(context=https_context(certificates.server, root)) as server:
        assert works(secure_table(server.url, root, certificates.client))
    with FakeHttp(context=https_context(certificates.elsewhere)) as server:
        assert works(secure_table(server.url, root, tls_server_name="models.example.com"))


@pytest.mark.parametrize(
    ("pair", "trusted", "cause", "hint"),
    [
        (
            "elsewhere",
            "authority",
            "The server's certificate is for another host name.",
            'Name the host in option "url" as the certificate does, or set option "tls_server_name".',
        ),
        (
            "server",
            "stranger",
            "No trusted authority has signed the server's certificate.",
            'Check option "sslrootcert" of the server.',
        ),
        ("expired_server", "authority", "The server's certificate has expired.", "Renew it on the server."),
    ],
)
def test_https_refused(certificates: Certificates, pair: str, trusted: str, cause: str, hint: str) -> None:
    root = getattr(certificates, trusted).certificate
    with FakeHttp(context=https_context(getattr(certificates, pair))) as server:
        refused(server, secure_table(server.url, root), cause, hint)


@pytest.mark.parametrize(
    ("client", "cause"),
    [
        (None, "The server demands a client certificate."),
        ("unknown_client", "The server refuses the client certificate: it trusts no authority that signed it."),
        ("expired_client", "The server refuses the client certificate: it has expired."),
    ],
)
def test_https_client_refused(certificates: Certificates, client: str | None, cause: str) -> None:
    root = certificates.authority.certificate
    pair = getattr(certificates, client) if client else None
    with FakeHttp(context=https_context(certificates.server, root)) as server:
        hint = 'Check options "sslcert" and "sslkey" of the user mapping.'
        refused(server, secure_table(server.url, root, pair), cause, hint)
