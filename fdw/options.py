"""The one table of options, and the only reader of option dicts.

Every option has one level: a foreign server, a user mapping, a foreign table, a column, or IMPORT FOREIGN SCHEMA. No
name is used at two levels, because Multicorn hands over one merged dict. Where a server-wide value makes sense the
server has its own ``default_...`` option.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Callable, Mapping, NoReturn, Sequence, cast
from urllib.parse import urlsplit

from fdw.errors import BadOption, MissingOption, PermissionDenied, UnknownOption

SERVER = "server"
USER_MAPPING = "user mapping"
TABLE = "table"
COLUMN = "column"
IMPORT = "import"
LEVELS = ("foreign-data wrapper", SERVER, USER_MAPPING, TABLE, COLUMN, IMPORT)

DTYPES = (
    "BOOL",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "FP16",
    "BF16",
    "FP32",
    "FP64",
    "BYTES",
)

# Triton's ports, and the usual one for what stands before it.
DEFAULT_PORTS = {"grpc": 8001, "grpcs": 8001, "http": 8000, "https": 443}


@dataclass(frozen=True)
class Endpoint:
    """Where a model server listens, as option "url" says."""

    scheme: str
    host: str
    port: int

    @property
    def address(self) -> str:
        """host:port, with brackets around an IPv6 address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True)
class Option:
    """One row of the option table.

    ``kind`` picks the parser. ``low`` and ``high`` bound integers and numbers, both inclusive; ``choices`` lists the
    values of a choice. ``default`` is the parsed value that stands when the option is absent; None: no value.
    A secret option's value is in no message.
    """

    name: str
    level: str
    kind: str
    default: object
    help: str
    low: float = 0
    high: float = 0
    choices: tuple[str, ...] = ()
    required: bool = False
    secret: bool = False


MAX_BATCH_SIZE = 1_048_576
MAX_IN_FLIGHT = 64
MAX_ATTEMPTS = 20
MAX_RETRY_BUDGET = 1_000_000
MAX_TIMEOUT_MS = 86_400_000
MAX_MESSAGE_BYTES = 2_147_483_647
MAX_INDEX = 1_000_000

OPTIONS: tuple[Option, ...] = (
    Option(
        "url",
        SERVER,
        "url",
        None,
        "where the model server listens: grpc://host:port or http://host:port, with TLS grpcs:// or https://, several "
        "of a kind separated by commas; port 8001 for gRPC, 8000 for http and 443 for https unless given",
        required=True,
    ),
    Option(
        "protocol",
        SERVER,
        "choice",
        "triton",
        'what the server speaks: "triton" is the Open Inference Protocol, "grpc" are methods of its own',
        choices=("triton", "grpc"),
    ),
    Option(
        "descriptor_set",
        SERVER,
        "file",
        None,
        'file on the database server that describes the services of protocol "grpc", as "protoc --descriptor_set_out" '
        "writes it; the server is asked by reflection unless given",
    ),
    Option(
        "sslrootcert",
        SERVER,
        "file",
        None,
        "file on the database server with the authorities to trust, PEM; the public ones unless given",
    ),
    Option(
        "tls_server_name",
        SERVER,
        "host",
        None,
        'host name that the server\'s certificate must have, if it is not the one in "url"',
    ),
    Option(
        "connect_timeout_ms",
        SERVER,
        "integer",
        5000,
        "how long making a connection may take, all attempts together",
        100,
        MAX_TIMEOUT_MS,
    ),
    Option(
        "keepalive_ms",
        SERVER,
        "integer",
        300_000,
        "how often an idle connection is probed while requests wait; servers may punish less than 300000",
        10_000,
        MAX_TIMEOUT_MS,
    ),
    Option(
        "compression",
        SERVER,
        "choice",
        "none",
        "compression of requests on the wire; it costs time and pays on slow networks only",
        choices=("none", "gzip", "deflate"),
    ),
    Option(
        "max_message_bytes",
        SERVER,
        "integer",
        67_108_864,
        "the largest request or reply, in bytes, decompressed",
        65_536,
        MAX_MESSAGE_BYTES,
    ),
    Option(
        "default_batch_size",
        SERVER,
        "integer",
        4096,
        'value of "batch_size" for tables that do not set it',
        1,
        MAX_BATCH_SIZE,
    ),
    Option(
        "default_max_in_flight",
        SERVER,
        "integer",
        4,
        'value of "max_in_flight" for tables that do not set it',
        1,
        MAX_IN_FLIGHT,
    ),
    Option(
        "default_timeout_ms",
        SERVER,
        "integer",
        30_000,
        'value of "timeout_ms" for tables that do not set it, and for requests about no table',
        1,
        MAX_TIMEOUT_MS,
    ),
    Option(
        "default_max_attempts",
        SERVER,
        "integer",
        3,
        'value of "max_attempts" for tables that do not set it',
        1,
        MAX_ATTEMPTS,
    ),
    Option(
        "default_retry_budget",
        SERVER,
        "integer",
        1000,
        'value of "retry_budget" for tables that do not set it, and for an import',
        0,
        MAX_RETRY_BUDGET,
    ),
    Option(
        "token",
        USER_MAPPING,
        "token",
        None,
        "bearer token, sent with every request as header authorization",
        secret=True,
    ),
    Option(
        "headers",
        USER_MAPPING,
        "headers",
        (),
        'further headers for every request, "name: value" each, separated by commas or newlines',
        secret=True,
    ),
    Option("sslcert", USER_MAPPING, "file", None, "file on the database server with the client certificate, PEM"),
    Option("sslkey", USER_MAPPING, "file", None, 'file with the key of "sslcert", PEM, without a password'),
    Option("model", TABLE, "name", None, "name of the model on the server; the table's own name unless given"),
    Option("version", TABLE, "name", "", "version of the model; the server's choice, usually the latest, unless given"),
    Option("method", TABLE, "method", None, 'method of protocol "grpc", as package.Service/Method'),
    Option(
        "rows",
        TABLE,
        "name",
        "",
        "what of the method's request is a row: a repeated message's name, \"columns\" for repeated scalars, or "
        '"single" for the whole; what seems right unless given',
    ),
    Option("answers", TABLE, "name", "", "the same of the response"),
    Option(
        "idempotent",
        TABLE,
        "boolean",
        False,
        "whether a request of the method may be made again when it is not known whether it was served; the method's "
        "own idempotency_level says so, too",
    ),
    Option(
        "parameters",
        TABLE,
        "parameters",
        "",
        "JSON object that each request carries beside its rows: parameters of the Open Inference Protocol, such as "
        '{"priority": 2}, or fields of the request of protocol "grpc"',
    ),
    Option(
        "batch_size",
        TABLE,
        "integer",
        None,
        "rows that are sent as one batch at most",
        1,
        MAX_BATCH_SIZE,
    ),
    Option(
        "max_in_flight",
        TABLE,
        "integer",
        None,
        "batches, and requests of one batch, that wait for the server at the same time at most",
        1,
        MAX_IN_FLIGHT,
    ),
    Option(
        "timeout_ms",
        TABLE,
        "integer",
        None,
        "how long a request may take, retries included",
        1,
        MAX_TIMEOUT_MS,
    ),
    Option(
        "max_attempts",
        TABLE,
        "integer",
        None,
        "how often a request is tried while the server is unavailable; each further endpoint is tried once more",
        1,
        MAX_ATTEMPTS,
    ),
    Option(
        "retry_budget",
        TABLE,
        "integer",
        None,
        "how many requests a scan may make in addition: retries, other endpoints and the parts of refused requests",
        0,
        MAX_RETRY_BUDGET,
    ),
    Option(
        "row_cost",
        TABLE,
        "number",
        0.1,
        "what the planner reckons for the inference of one row, in the units of cpu_tuple_cost",
        0,
        1e9,
    ),
    Option("input", COLUMN, "name", None, "name of the input tensor that the column feeds"),
    Option("output", COLUMN, "name", None, "name of the output tensor that the column shows"),
    Option(
        "index",
        COLUMN,
        "integer",
        None,
        "which element of a vector tensor the column is, counted from 1",
        1,
        MAX_INDEX,
    ),
    Option(
        "error",
        COLUMN,
        "boolean",
        False,
        "whether the column shows the server's message where it refuses a row, whose outputs are then NULL",
    ),
    Option(
        "dtype",
        COLUMN,
        "choice",
        None,
        "dtype of the tensor, written by IMPORT; with it planning needs no server",
        choices=DTYPES,
    ),
    Option(
        "shape",
        COLUMN,
        "shape",
        None,
        "shape of the tensor as the model declares it, written by IMPORT, for instance [-1,30]",
    ),
    Option(
        "optional",
        COLUMN,
        "boolean",
        False,
        "whether the model can do without this input, written by IMPORT; such a column may stay unbound",
    ),
    Option("prefix", IMPORT, "text", "", "what the names of the tables begin with, before the model's name"),
    Option(
        "versions",
        IMPORT,
        "versions",
        "latest",
        "latest: a table per model that shows the server's choice; all, or a list such as 1,3: a table per version, "
        "named churn_v1, churn_v3",
    ),
    Option(
        "expand",
        IMPORT,
        "choice",
        "named",
        "which vectors of fixed length become a column per element, and not an array: those whose elements have names, "
        "all, or none",
        choices=("named", "all", "none"),
    ),
    Option(
        "columns",
        IMPORT,
        "columns",
        (),
        "names for the elements of tensors, instead of the model's own: tensor: name, name, ...; tensors apart by "
        "semicolons, double quotes around what holds punctuation",
    ),
    Option(
        "float_arrays",
        IMPORT,
        "choice",
        "double precision",
        "elements of array columns for FP16, BF16 and FP32 inputs",
        choices=("double precision", "real"),
    ),
    Option(
        "lower_names",
        IMPORT,
        "boolean",
        False,
        "whether tables and columns get the names of models and tensors in lower case, for which SQL needs no quotes",
    ),
)

_BY_LEVEL: dict[str, dict[str, Option]] = {
    level: {option.name: option for option in OPTIONS if option.level == level} for level in LEVELS
}
# What Multicorn's servers have besides: the class. Our own validator refuses it.
MULTICORN_OPTION = "wrapper"
MULTICORN_IS_SILENT = "Multicorn does not tell who has set it."

_BY_NAME: dict[str, Option] = {option.name: option for option in OPTIONS}

_LEVEL_NAMES = {
    SERVER: "a server",
    USER_MAPPING: "a user mapping",
    TABLE: "a foreign table",
    COLUMN: "a column",
    IMPORT: "IMPORT FOREIGN SCHEMA",
}


def _parse_integer(option: Option, text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()):
        raise BadOption(
            f'invalid value for integer option "{option.name}": {text}',
            None,
            f"Valid values are integers from {option.low:.0f} to {option.high:.0f}.",
        )
    return cast(int, _in_range(option, int(text), text.strip()))


def _parse_number(option: Option, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise BadOption(
            f'invalid value for floating point option "{option.name}": {text}',
            None,
            f"Valid values are numbers from {option.low:.0f} to {option.high:.0f}.",
        ) from None
    return _in_range(option, number, text.strip())


def _in_range(option: Option, number: float, text: str) -> float:
    if option.low <= number <= option.high:  # false for NaN
        return number
    raise BadOption(
        f'value {text} out of bounds for option "{option.name}"',
        f"Valid values are between {option.low:.0f} and {option.high:.0f}.",
    )


def _parse_choice(option: Option, text: str) -> str:
    if text in option.choices:
        return text
    raise BadOption(
        f'invalid value for option "{option.name}": {text}',
        None,
        f"Valid values are: {', '.join(option.choices)}.",
    )


# The spellings that PostgreSQL itself takes in full.
_BOOLEANS = {"true": True, "on": True, "yes": True, "1": True, "false": False, "off": False, "no": False, "0": False}


def _parse_boolean(option: Option, text: str) -> bool:
    value = _BOOLEANS.get(text.strip().lower())
    if value is None:
        raise BadOption(
            f'invalid value for boolean option "{option.name}": {text}', None, "Valid values are true and false."
        )
    return value


def _parse_name(option: Option, text: str) -> str:
    if text:
        return text
    raise BadOption(f'option "{option.name}" must not be empty')


def _parse_text(option: Option, text: str) -> str:
    return text


def _parse_versions(option: Option, text: str) -> str | tuple[str, ...]:
    """Read "latest", "all" or a list of versions."""
    if text.strip() in ("latest", "all"):
        return text.strip()
    versions = tuple(piece.strip() for piece in text.split(","))
    if all(re.fullmatch("[0-9]+", version) for version in versions):
        return versions
    raise BadOption(
        f'invalid value for option "{option.name}": {text}',
        None,
        "Valid values are latest, all, and numbers separated by commas.",
    )


# A name in double quotes, as in SQL; a name without; or what stands between names.
_COLUMNS_TOKEN = re.compile(r"""\s*(?:"((?:[^"]|"")+)"|([^\s":,;](?:[^":,;]*[^\s":,;])?)|([:,;]))\s*""")


def _parse_columns(option: Option, text: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Read "tensor: name, name; tensor: name": the names of each tensor's elements."""
    tensors: dict[str, tuple[str, ...]] = {}
    for entry in _entries(option, text):
        names, marks = entry[::2], entry[1::2]
        if len(names) < 2 or marks != [":", *[","] * (len(names) - 2)] or names[0] in tensors:
            raise _bad_columns(option)
        tensors[names[0]] = tuple(names[1:])
    return tuple(tensors.items())


def _bad_columns(option: Option) -> BadOption:
    return BadOption(
        f'invalid value for option "{option.name}"',
        None,
        'Write "tensor: name, name, ...", each tensor once, with semicolons between tensors.',
    )


def _entries(option: Option, text: str) -> list[list[str]]:
    """Cut the value of option "columns" at semicolons into entries of names and marks in turn."""
    entries: list[list[str]] = [[]]
    position = 0
    text = text.strip()
    while position < len(text):
        token = _COLUMNS_TOKEN.match(text, position)
        if token is None:
            raise _bad_columns(option)
        position = token.end()
        quoted, bare, mark = token.groups()
        if mark == ";":
            entries.append([])
        elif bool(mark) != bool(len(entries[-1]) % 2):
            raise _bad_columns(option)
        else:
            entries[-1].append(quoted.replace('""', '"') if quoted else bare or mark)
    return [entry for entry in entries if entry]


# Letters, digits and underscores in names that dots part, then the method's name.
_METHOD = re.compile(r"/?((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*/[A-Za-z_]\w*)", re.ASCII)


def _parse_method(option: Option, text: str) -> str:
    found = _METHOD.fullmatch(text.strip())
    if found:
        return found[1]
    raise BadOption(
        f'invalid value for option "{option.name}": {text}',
        None,
        "Write package.Service/Method, as the .proto file does.",
    )


def join_method(method: str, rows: str, answers: str) -> str:
    """Name a method and what options say of its rows in one: "package.Service/Method(rows -> answers)"."""
    return f"{method}({rows} -> {answers})" if rows or answers else method


def split_method(name: str) -> tuple[str, str, str]:
    """Undo join_method()."""
    method, _, rest = name.partition("(")
    rows, _, answers = rest.removesuffix(")").partition(" -> ")
    return method, rows, answers


def _parse_parameters(option: Option, text: str) -> str:
    """Read a JSON object; return it as text of one form."""
    try:
        parameters = json.loads(text)
        written = json.dumps(parameters, sort_keys=True, allow_nan=False, ensure_ascii=False).encode().decode()
    except (ValueError, RecursionError):
        parameters = None
    if not isinstance(parameters, dict):
        raise BadOption(
            f'value of option "{option.name}" is no JSON object',
            None,
            'Write {"name": value, ...}, with double quotes.',
        )
    return written


def _check_parameters(parameters: Mapping[str, Any]) -> None:
    """Refuse what a parameter of the Open Inference Protocol cannot be."""
    for name, value in parameters.items():
        if not isinstance(value, (bool, int, float, str)) or (isinstance(value, int) and not -(2**63) <= value < 2**63):
            raise BadOption(
                f'option "parameters" has an invalid value for "{name}"',
                "A parameter of the Open Inference Protocol is true or false, a number or text.",
                "Correct the value.",
            )


# The largest dimension of a tensor that an array can have.
MAX_DIMENSION = 2**31 - 1

_SHAPE = re.compile(r"\[\s*(?:(?:-1|[0-9]{1,18})\s*(?:,\s*(?:-1|[0-9]{1,18})\s*)*)?\]")


def _parse_shape(option: Option, text: str) -> tuple[int, ...]:
    if not _SHAPE.fullmatch(text.strip()):
        raise BadOption(
            f'invalid value for option "{option.name}": {text}',
            None,
            "Write the dimensions in brackets, -1 for a variable one, for instance [-1,30].",
        )
    shape = tuple(int(number) for number in re.findall(r"-?[0-9]+", text))
    if max(shape, default=0) > MAX_DIMENSION:
        raise BadOption(
            f'invalid value for option "{option.name}": {text}', None, f"A dimension is at most {MAX_DIMENSION}."
        )
    return shape


_URL_HINT = "Write grpc://host:port or http://host:port, with TLS grpcs://host:port or https://host:port."


def _parse_url(option: Option, text: str) -> Endpoint:
    """Read one endpoint. The text itself is in no message: a URL may carry a password."""
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        raise BadOption(f'invalid host or port in option "{option.name}"', None, _URL_HINT) from None
    if parts.scheme not in DEFAULT_PORTS:
        raise BadOption(f'option "{option.name}" has no valid scheme', None, _URL_HINT)
    if "@" in parts.netloc:
        raise BadOption(
            f'option "{option.name}" must not hold a user name or password',
            None,
            'Set option "token" or "headers" of a user mapping.',
        )
    if not parts.hostname or not re.fullmatch(r"[0-9A-Za-z_.:%-]+", parts.hostname) or not _is_name(parts.hostname):
        raise BadOption(f'option "{option.name}" names no host', None, _URL_HINT)
    if port == 0:
        raise BadOption(f'invalid host or port in option "{option.name}"', None, _URL_HINT)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise BadOption(f'option "{option.name}" must end after the port', None, _URL_HINT)
    return Endpoint(parts.scheme, parts.hostname, DEFAULT_PORTS[parts.scheme] if port is None else port)


def _parse_urls(option: Option, text: str) -> tuple[Endpoint, ...]:
    """Read endpoints, separated by commas: replicas of one server, each named once."""
    endpoints = tuple(_parse_url(option, piece) for piece in text.split(","))
    if len({endpoint.scheme for endpoint in endpoints}) > 1:
        raise BadOption(f'option "{option.name}" mixes schemes', None, "Give all endpoints the same scheme.")
    if len(set(endpoints)) < len(endpoints):
        raise BadOption(f'option "{option.name}" names an endpoint twice', None, "Name each endpoint once.")
    return endpoints


def _parse_file(option: Option, text: str) -> str:
    if text.startswith("/") and "\0" not in text:
        return text
    raise BadOption(
        f'option "{option.name}" must be an absolute path', None, "The file is read on the database server."
    )


def _parse_host(option: Option, text: str) -> str:
    if re.fullmatch(r"[0-9A-Za-z_.-]+", text) and _is_name(text):
        return text
    raise BadOption(f'option "{option.name}" names no host')


def _is_name(host: str) -> bool:
    """Tell whether a name has parts of a length that DNS can hold; an IPv6 address passes."""
    try:
        return ":" in host or bool(host.encode("idna"))
    except UnicodeError:
        return False


def _parse_token(option: Option, text: str) -> str:
    if re.fullmatch(r"[!-~]+", text):
        return text
    raise BadOption(
        f'invalid value for option "{option.name}"',
        "A token is one or more printable ASCII characters without spaces.",
    )


# gRPC's rules for metadata: lower-case names, printable values; "grpc-" names and "-bin" values are its own.
_HEADER_NAME = re.compile(r"(?!grpc-)[0-9a-z_.-]+(?<!-bin)")
_HEADER_VALUE = re.compile(r"[ -~]*")
_RESERVED_HEADERS = (
    "te",
    "content-type",
    "user-agent",
    "host",
    "connection",
    "accept-encoding",
    "content-encoding",
    "content-length",
    "transfer-encoding",
    "inference-header-content-length",
)


def _parse_headers(option: Option, text: str) -> tuple[tuple[str, str], ...]:
    """Read "name: value" pairs; a value that holds a comma needs the newline form."""
    headers = []
    pieces = text.split("\n") if "\n" in text else text.split(",")
    for position, piece in enumerate((p for p in pieces if p.strip()), start=1):
        name, colon, value = piece.partition(":")
        name, value = name.strip().lower(), value.strip()
        valid = colon and _HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value)
        if not valid or name in _RESERVED_HEADERS:
            raise BadOption(
                f'invalid header in option "{option.name}"',
                f"The header at position {position} is not a valid name, a colon and a printable ASCII value.",
            )
        headers.append((name, value))
    if headers:
        return tuple(headers)
    raise BadOption(f'option "{option.name}" must not be empty')


_PARSERS: dict[str, Callable[[Option, str], object]] = {
    "boolean": _parse_boolean,
    "integer": _parse_integer,
    "number": _parse_number,
    "choice": _parse_choice,
    "name": _parse_name,
    "text": _parse_text,
    "versions": _parse_versions,
    "columns": _parse_columns,
    "method": _parse_method,
    "parameters": _parse_parameters,
    "shape": _parse_shape,
    "url": _parse_urls,
    "file": _parse_file,
    "host": _parse_host,
    "token": _parse_token,
    "headers": _parse_headers,
}


def _unknown(level: str, name: str) -> NoReturn:
    known = _BY_LEVEL[level]
    message = f'invalid option "{name}"'
    elsewhere = _BY_NAME.get(name)
    if elsewhere is not None:
        raise UnknownOption(message, None, f'Set option "{name}" on {_LEVEL_NAMES[elsewhere.level]}.')
    closest = difflib.get_close_matches(name.lower(), known, n=1)
    if closest:
        raise UnknownOption(message, None, f'Perhaps you meant the option "{closest[0]}".')
    if not known:
        raise UnknownOption(message, None, "There are no valid options in this context.")
    raise UnknownOption(message, None, f"Valid options in this context are: {', '.join(known)}.")


def _is_on(name: str, names: Mapping[str, str]) -> bool:
    return name in names and _parse_boolean(_BY_NAME[name], names[name])


def _check_together(level: str, names: Mapping[str, str]) -> None:
    if level == COLUMN and "input" in names and "output" in names:
        raise BadOption(
            'options "input" and "output" cannot be set on the same column',
            None,
            "Declare one column for the input and one for the output.",
        )
    if level == COLUMN and _is_on("error", names):
        others = [name for name in ("input", "output", "index", "dtype", "shape", "optional") if name in names]
        if others:
            raise BadOption(
                f'options "error" and "{others[0]}" cannot be set on the same column',
                "A column for the server's message is tied to no tensor.",
                f'Drop option "{others[0]}".',
            )
    if level == SERVER:
        _check_protocol(names)
    if level == TABLE and "method" in names and ("model" in names or "version" in names):
        raise BadOption(
            'options "method" and "model" or "version" cannot be set on the same foreign table',
            None,
            'Set option "method" for a server of protocol "grpc", the others for any other.',
        )
    if level == COLUMN and "output" in names and "optional" in names:
        raise BadOption('option "optional" cannot be set on an output column', None, 'Drop option "optional".')
    if level == USER_MAPPING and ("sslcert" in names) != ("sslkey" in names):
        raise BadOption('options "sslcert" and "sslkey" must be set together')
    if level == USER_MAPPING and "token" in names and "headers" in names:
        headers = _parse_headers(_BY_NAME["headers"], names["headers"])
        if any(name == "authorization" for name, _ in headers):
            raise BadOption(
                'option "token" and a header "authorization" cannot be set together',
                None,
                'Set option "token", or the header.',
            )


def _check_protocol(names: Mapping[str, str]) -> None:
    if names.get("protocol") == "grpc":
        if names.get("url", "").lstrip().startswith("http"):
            raise BadOption(
                'protocol "grpc" needs a url of scheme grpc or grpcs', None, 'Correct option "url" or "protocol".'
            )
    elif "descriptor_set" in names:
        raise BadOption(
            'option "descriptor_set" is for servers of protocol "grpc"', None, 'Set option "protocol" to "grpc".'
        )


def read(level: str, options: Mapping[str, str]) -> dict[str, Any]:
    """Parse the options of one level.

    Returns the parsed value or the default of every option of this level, by name. Raises UnknownOption (HV00D),
    BadOption (22023) or MissingOption (HV00J).
    """
    table = _BY_LEVEL[level]
    for name in options:
        if name not in table:
            _unknown(level, name)
    _check_together(level, options)
    for option in table.values():
        if option.required and option.name not in options:
            raise MissingOption(
                f'option "{option.name}" is required for {_LEVEL_NAMES[level]}', None, f"Set it: {option.help}."
            )
    return {
        name: _PARSERS[option.kind](option, options[name]) if name in options else option.default
        for name, option in table.items()
    }


def split_levels(merged: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Split Multicorn's merged dict of server, user mapping and table options by level.

    Raises UnknownOption for a name of no level, or of a column, and PermissionDenied for an option that names a file.
    """
    levels: dict[str, dict[str, str]] = {SERVER: {}, USER_MAPPING: {}, TABLE: {}}
    for name, value in merged.items():
        option = _BY_NAME.get(name)
        if option is None or option.level not in levels:
            _unknown(TABLE, name)
        levels[option.level][name] = value
    _refuse_files(merged, MULTICORN_IS_SILENT)
    return levels


@dataclass(frozen=True)
class ServerOptions:
    """Options of a foreign server, parsed."""

    url: tuple[Endpoint, ...]
    protocol: str
    descriptor_set: str | None
    sslrootcert: str | None
    tls_server_name: str | None
    connect_timeout_ms: int
    keepalive_ms: int
    compression: str
    max_message_bytes: int
    default_batch_size: int
    default_max_in_flight: int
    default_timeout_ms: int
    default_max_attempts: int
    default_retry_budget: int

    @property
    def address(self) -> str:
        """host:port of the server's endpoints, separated by commas."""
        return ", ".join(endpoint.address for endpoint in self.url)

    @property
    def noun(self) -> str:
        """What the server's models are called: "method" or "model", which is also the table's option that names one."""
        return "method" if self.protocol == "grpc" else "model"


@dataclass(frozen=True)
class UserOptions:
    """Options of a user mapping, parsed; kept out of every repr."""

    token: str | None
    headers: tuple[tuple[str, str], ...]
    sslcert: str | None
    sslkey: str | None

    def __repr__(self) -> str:
        return "UserOptions(...)"


@dataclass(frozen=True)
class TableOptions:
    """Options of a foreign table, parsed, the server's defaults put in; ``parameters`` is a JSON object or ''."""

    model: str
    version: str
    idempotent: bool
    parameters: str
    batch_size: int
    max_in_flight: int
    timeout_ms: int
    max_attempts: int
    retry_budget: int
    row_cost: float

    def shows(self, model: str, version: str) -> bool:
        """Tell whether this version of this model is what the table shows."""
        return (self.model, self.version) == (model, version)


@dataclass(frozen=True)
class ColumnOptions:
    """Options of a column, parsed; None where absent. ``index`` counts from 1; ``given`` are the names in its DDL."""

    input: str | None
    output: str | None
    index: int | None
    error: bool
    dtype: str | None
    shape: tuple[int, ...] | None
    optional: bool
    given: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ImportOptions:
    """Options of IMPORT FOREIGN SCHEMA, parsed; ``columns`` are pairs of a tensor and the names of its elements."""

    prefix: str = ""
    versions: str | tuple[str, ...] = "latest"
    expand: str = "named"
    columns: tuple[tuple[str, tuple[str, ...]], ...] = ()
    float_arrays: str = "double precision"
    lower_names: bool = False

    def imports_version(self, version: str) -> bool:
        """Tell whether a version gets a table of its own."""
        return self.versions == "all" or version in self.versions

    def name(self, name: str) -> str:
        """Write a model's or a tensor's name as SQL has it; only ASCII changes, as in PostgreSQL's own folding."""
        folded = re.sub("[A-Z]+", lambda found: found[0].lower(), name)
        return folded if self.lower_names else name


@dataclass(frozen=True)
class Server:
    """A foreign server with the user mapping that applies: what a connection is made from."""

    oid: int
    name: str
    options: ServerOptions
    user: UserOptions


@dataclass(frozen=True)
class Column:
    """A column of a foreign table; ``type`` as PostgreSQL's format_type writes it."""

    attnum: int
    name: str
    type: str
    options: ColumnOptions


@dataclass(frozen=True)
class Table:
    """A foreign table with everything that its catalogs say; ``given`` are the names of its own options."""

    oid: int
    schema: str
    name: str
    server: Server
    options: TableOptions
    columns: tuple[Column, ...]
    given: frozenset[str] = frozenset()


def read_server(oid: int, name: str, server: Mapping[str, str], user: Mapping[str, str]) -> Server:
    """Parse a foreign server's and a user mapping's options.

    Of Multicorn's servers the class is left out, and files are refused: nobody has checked who set them.
    """
    if MULTICORN_OPTION in server:
        _refuse_files({**server, **user}, MULTICORN_IS_SILENT)
    ours = {name: value for name, value in server.items() if name != MULTICORN_OPTION}
    return Server(oid, name, ServerOptions(**read(SERVER, ours)), UserOptions(**read(USER_MAPPING, user)))


def _read_table_options(table: Mapping[str, str], name: str, server: ServerOptions) -> TableOptions:
    values = read(TABLE, table)
    method, rows, answers = values.pop("method"), values.pop("rows"), values.pop("answers")
    if server.protocol == "grpc":
        if method is None:
            raise MissingOption(
                f'foreign table "{name}" does not say which method of the server it is',
                None,
                'Set table option "method".',
            )
        values["model"] = join_method(method, rows, answers)
    elif method is not None:
        raise BadOption(
            f'foreign table "{name}" has option "method", and its server is not of protocol "grpc"',
            None,
            'Set server option "protocol" to "grpc", or use table option "model".',
        )
    elif values["model"] is None:
        values["model"] = name
    if values["parameters"] and server.protocol != "grpc":
        _check_parameters(json.loads(values["parameters"]))
    for option in ("batch_size", "max_in_flight", "timeout_ms", "max_attempts", "retry_budget"):
        if values[option] is None:
            values[option] = getattr(server, f"default_{option}")
    return TableOptions(**values)


def read_table(description: Mapping[str, Any]) -> Table:
    """Parse a table description as the C library hands it over (its form: see fdw.host)."""
    server_part = description["server"]
    server = read_server(server_part["oid"], server_part["name"], server_part["options"], description["user_mapping"])
    columns: Sequence[Mapping[str, Any]] = description["columns"]
    return Table(
        oid=description["oid"],
        schema=description["schema"],
        name=description["name"],
        server=server,
        options=_read_table_options(description["options"], description["name"], server.options),
        columns=tuple(read_column(column) for column in columns),
        given=frozenset(description["options"]),
    )


def read_column(description: Mapping[str, Any]) -> Column:
    """Parse a column's description (its form: see fdw.host)."""
    parsed = _read_column_options(tuple(description["options"].items()))
    return Column(description["attnum"], description["name"], description["type"], parsed)


@lru_cache(maxsize=4096)
def _read_column_options(given: tuple[tuple[str, str], ...]) -> ColumnOptions:
    """Parse a column's options; a wide table's are read for each statement."""
    return ColumnOptions(**read(COLUMN, dict(given)), given=frozenset(name for name, _ in given))


def read_import(options: Mapping[str, str]) -> ImportOptions:
    """Parse the options of IMPORT FOREIGN SCHEMA."""
    return ImportOptions(**read(IMPORT, options))


def _refuse_files(options: Mapping[str, str], detail: str) -> None:
    for name in options:
        if name in _BY_NAME and _BY_NAME[name].kind == "file":
            raise PermissionDenied(f'permission denied to set option "{name}"', detail)


def validate(level: str, options: Mapping[str, str], may_read_files: bool = False) -> None:
    """Check the options of one level as CREATE and ALTER do; raises as read().

    Raises PermissionDenied (42501) for an option that names a file on the database server, unless ``may_read_files``:
    whoever sets it lets others make the server read that file.
    """
    read(level, options)
    if not may_read_files:
        _refuse_files(options, 'Only roles with privileges of the "pg_read_server_files" role may set it.')
