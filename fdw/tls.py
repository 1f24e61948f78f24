"""Certificates: the files that options name, and why a server closed a connection without a word.

gRPC tells little of a server that hangs up: a client certificate that is refused, and a server that expects TLS, look
the same. why_closed() makes one more connection of its own, in slices, and reads the alert that gRPC keeps to itself;
or, to a server that speaks no TLS either, a second one that asks in HTTP.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import re
import socket
import ssl
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Callable, Optional, Tuple, TypeVar

from fdw import threads
from fdw.errors import NO_GRPC, PORT_HINT, CertificateFile
from fdw.options import Endpoint, Server
from fdw.tickets import Steps

T = TypeVar("T")

# How long a handshake may take, and how long after it a server that refuses the client is waited for.
DIAGNOSIS_S = 1.0
REFUSAL_S = 0.3
SLICE_S = 0.005

# A full sentence for the DETAIL, and one action for the HINT.
Explanation = Tuple[str, str]

CLIENT_HINT = 'Check options "sslcert" and "sslkey" of the user mapping.'
PLAIN_HINT = 'Write a scheme with TLS in option "url": grpcs:// or https://.'
_ROOT_HINT = 'Check option "sslrootcert" of the server.'
_NAME_HINT = 'Name the host in option "url" as the certificate does, or set option "tls_server_name".'
_NAME_CAUSE = "The server's certificate is for another host name."

# What gRPC's and Python's texts say of a failed handshake. The first match counts.
_HANDSHAKES: tuple[tuple[str, str, str], ...] = (
    ("certificate has expired", "The server's certificate has expired.", "Renew it on the server."),
    ("certificate is not yet valid", "The server's certificate is not valid yet.", "Check the clocks."),
    ("Hostname", _NAME_CAUSE, _NAME_HINT),
    ("IP address mismatch", _NAME_CAUSE, _NAME_HINT),
    ("not in peer certificate", _NAME_CAUSE, _NAME_HINT),
    ("CERTIFICATE_VERIFY_FAILED", "No trusted authority has signed the server's certificate.", _ROOT_HINT),
    (
        "WRONG_VERSION_NUMBER",
        "The server does not speak TLS.",
        'Write a scheme without TLS in option "url", or enable TLS on the server.',
    ),
)


# What TLS libraries' alerts mean, whose reasons OpenSSL spells SSLV3_ALERT_... and TLSV13_ALERT_...
_ALERTS: tuple[tuple[str, str], ...] = (
    ("CERTIFICATE_REQUIRED", "The server demands a client certificate."),
    ("CERTIFICATE_EXPIRED", "The server refuses the client certificate: it has expired."),
    ("UNKNOWN_CA", "The server refuses the client certificate: it trusts no authority that signed it."),
    ("CERTIFICATE_REVOKED", "The server refuses the client certificate: it has been revoked."),
    ("CERTIFICATE", "The server refuses the client certificate."),
    ("DECRYPT_ERROR", "The server refuses the client certificate."),
    ("HANDSHAKE_FAILURE", "The server demands a client certificate, or ciphers that are not supported."),
    ("PROTOCOL_VERSION", "The server demands another version of TLS."),
)


def explain(text: str) -> Explanation | None:
    """Say what a library's text means about a handshake that failed here; None: it is about something else."""
    return next(((cause, hint) for needle, cause, hint in _HANDSHAKES if needle in text), None)


def explain_alert(reason: str) -> Explanation | None:
    """Say what an alert of the server's means, as OpenSSL spells its reason."""
    return next(((cause, CLIENT_HINT) for needle, cause in _ALERTS if needle in reason), None)


@dataclass(frozen=True)
class Files:
    """Contents of the certificate files, PEM; None: the option is not set. Kept out of every repr."""

    root: Optional[bytes]
    certificate: Optional[bytes]
    key: Optional[bytes]

    def __repr__(self) -> str:
        return "Files(...)"


def read_files(server: Server) -> Files:
    """Read the certificate files as the server's operating system user.

    Raises CertificateFile (F0000), which names the option and the file, never what is in it.
    """
    user = server.user
    files = Files(
        _read("sslrootcert", server.options.sslrootcert), _read("sslcert", user.sslcert), _read("sslkey", user.sslkey)
    )
    context(server, "h2")
    return files


def _read(option: str, path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CertificateFile(
            f'could not read file "{path}" of option "{option}": {error.strerror}',
            None,
            "The file must be readable by the operating system user of the PostgreSQL server.",
        ) from None


def context(server: Server, protocol: str) -> ssl.SSLContext:
    """Make a TLS context of the files that a server's and user mapping's options name; ``protocol`` is ALPN's name.

    Without option "sslrootcert" the public authorities are trusted. Raises CertificateFile (F0000) for files that
    are no certificates, or a key that is not the certificate's.
    """
    made = _using("sslrootcert", server.options.sslrootcert, lambda path: ssl.create_default_context(cafile=path))
    made.set_alpn_protocols([protocol])
    user = server.user
    if user.sslcert is not None:
        # The password keeps an encrypted key from asking a terminal for one.
        _using("sslcert", user.sslcert, lambda path: made.load_cert_chain(path or "", user.sslkey, lambda: ""))
    return made


def _using(option: str, path: str | None, use: Callable[[str | None], T]) -> T:
    try:
        return use(path)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or "the file is not in PEM form"
        other = ' or of option "sslkey"' if option == "sslcert" else ""
        raise CertificateFile(
            f'cannot use file "{path}" of option "{option}"',
            f"What is in it{other} is not valid: {reason.lower().replace('_', ' ')}.",
            "Certificates and keys are in PEM form, the key without a password.",
        ) from None


# How a handshake may end, beside the reason of an alert.
_OPEN, _CLOSED, _SILENT = "open", "closed", "silent"

_HTTP_BEGINS = b"HTTP/1."


def _address_in(text: str, endpoint: Endpoint) -> str | None:
    """Find an IP address of an endpoint in a text as gRPC's own are: ipv4:host:port; None: it names no such address."""
    found = re.search(rf"ipv[46]:(?:\[|%5B)?([0-9A-Fa-f.:]+?)(?:\]|%5D)?:{endpoint.port}(?!:?[0-9])", text)
    try:
        return str(ipaddress.ip_address(found[1])) if found else None
    except ValueError:
        return None


def _is_own(address: str, endpoint: Endpoint) -> Steps[bool]:
    """Tell whether an address is one of an endpoint's; a name is looked up, for DIAGNOSIS_S at most."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(endpoint.host.partition("%")[0]) == ipaddress.ip_address(address)
    answered, found = threads.look_up(endpoint.host, endpoint.port)
    ends_s = time.monotonic() + DIAGNOSIS_S
    while not answered.is_set() and time.monotonic() < ends_s:
        yield time.monotonic() + SLICE_S
    return address in {entry[4][0].partition("%")[0] for entry in found}


def why_closed(server: Server, endpoint: Endpoint, text: str) -> Steps[Explanation | None]:
    """Find out why a server closes connections to an endpoint before they stand; None: it does not tell.

    ``text`` holds the address as gRPC's own messages do: ipv4:host:port. Should the text be a server's, it leads to no
    other address than the endpoint's. Takes twice DIAGNOSIS_S at most, and once more to look a name up.
    """
    address = _address_in(text, endpoint)
    if address is None or not (yield from _is_own(address, endpoint)):
        return None
    with_tls = endpoint.scheme.endswith("s")
    trial = context(server, "h2") if with_tls else ssl.create_default_context()
    trial.check_hostname = False
    trial.verify_mode = ssl.CERT_NONE
    connection = _begin_connection(address, endpoint.port)
    if connection is None:
        return None
    with connection:
        alert = yield from _shake_hands(connection, trial)
    if not with_tls:
        if alert in (_OPEN, _CLOSED) or "ALERT" in alert:
            return "The server expects TLS.", PLAIN_HINT
        return (NO_GRPC, PORT_HINT) if (yield from _speaks_http(address, endpoint.port)) else None
    if alert == _CLOSED:
        # Servers that are built on gRPC's own library send no alert.
        return _client_fault(server.user.sslcert), CLIENT_HINT
    return explain_alert(alert)


def _begin_connection(address: str, port: int) -> socket.socket | None:
    """Begin to connect without waiting; None: it cannot be done."""
    try:
        connection = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    except OSError:  # no addresses of this family on this machine
        return None
    connection.setblocking(False)
    if connection.connect_ex((address, port)) in (0, errno.EINPROGRESS):
        return connection
    connection.close()
    return None


def _speaks_http(address: str, port: int) -> Steps[bool]:
    """Ask for nothing in HTTP/1, and tell whether the answer is HTTP/1, too."""
    connection = _begin_connection(address, port)
    if connection is None:
        return False
    ends_s = time.monotonic() + DIAGNOSIS_S
    sent, received = False, b""
    with connection:
        while time.monotonic() < ends_s and len(received) < len(_HTTP_BEGINS):
            try:
                if not sent:
                    connection.send(b"HEAD / HTTP/1.0\r\n\r\n")
                    sent = True
                piece = connection.recv(len(_HTTP_BEGINS) - len(received))
            except BlockingIOError:
                yield time.monotonic() + SLICE_S
            except OSError:
                break
            else:
                received += piece
                if not piece:
                    break
    return received == _HTTP_BEGINS


def _client_fault(path: str | None) -> str:
    """Say what is wrong with the client's certificate where the server takes the handshake and then hangs up."""
    contents = _read("sslcert", path)
    if contents is None:
        return "The server demands a client certificate."
    ends = expiry(contents)
    if ends is not None and ends < datetime.now(timezone.utc):
        return "The client certificate has expired."
    return "The server refuses the client certificate."


# The two times of a certificate's validity, as DER writes them: YYMMDDhhmmssZ or YYYYMMDDhhmmssZ.
_VALIDITY = re.compile(rb"(?:\x17\x0d([0-9]{12})|\x18\x0f([0-9]{14}))Z" * 2)


def expiry(pem: bytes) -> datetime | None:
    """Return when the first certificate of a PEM file expires; None if it does not say."""
    block = re.search(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", pem, re.DOTALL)
    found = _VALIDITY.search(ssl.PEM_cert_to_DER_cert(block[0].decode())) if block else None
    if found is None:
        return None
    short, long = found[3], found[4]
    # Two digits of a year count from 1950 to 2049 (RFC 5280, 4.1.2.5.1).
    text = long or ((b"19" if short[:2] >= b"50" else b"20") + short)
    return datetime.strptime(text.decode(), "%Y%m%d%H%M%S").replace(tzinfo=timezone.utc)


def _shake_hands(connection: socket.socket, trial: ssl.SSLContext) -> Steps[str]:
    """Run a TLS handshake and see what follows it: the reason of an alert, _OPEN, _CLOSED or _SILENT."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = trial.wrap_bio(incoming, outgoing)
    ends_s = time.monotonic() + DIAGNOSIS_S
    done, unsent = False, b""
    while time.monotonic() < ends_s:
        try:
            session.do_handshake()  # once done, it does nothing
            if not done:
                done, ends_s = True, time.monotonic() + REFUSAL_S
            session.read(1)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            return _CLOSED
        except ssl.SSLError as error:
            return error.reason or str(error)
        else:
            return _OPEN
        try:
            unsent += outgoing.read()
            while unsent:
                unsent = unsent[connection.send(unsent) :]
            received = connection.recv(65536)
            if not received:
                return _CLOSED if done else _SILENT
            incoming.write(received)
        except BlockingIOError:
            yield time.monotonic() + SLICE_S
        except OSError:
            return _CLOSED if done else _SILENT
    return _OPEN if done else _SILENT
