from __future__ import annotations

import subprocess
import sys

import pytest
from helpers import fails, table

from fdw import errors, host, options

MESSAGES = [
    # level, options, SQLSTATE, message, detail, hint
    (
        "foreign-data wrapper",
        {"url": "grpc://h"},
        "HV00D",
        'invalid option "url"',
        None,
        'Set option "url" on a server.',
    ),
    (
        "foreign-data wrapper",
        {"zzz": "1"},
        "HV00D",
        'invalid option "zzz"',
        None,
        "There are no valid options in this context.",
    ),
    (
        "import",
        {"zzz": "1"},
        "HV00D",
        'invalid option "zzz"',
        None,
        "Valid options in this context are: prefix, versions, expand, columns, float_arrays, lower_names.",
    ),
    *(
        (
            "table",
            {"parameters": value},
            "22023",
            'value of option "parameters" is no JSON object',
            None,
            'Write {"name": value, ...}, with double quotes.',
        )
        for value in ("", "x", "[]", "5", "{'a': 1}", '{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', "[" * 100_000)
    ),
    ("import", {"prefx": "1"}, "HV00D", 'invalid option "prefx"', None, 'Perhaps you meant the option "prefix".'),
    *(
        (
            "import",
            {"columns": value},
            "22023",
            'invalid value for option "columns"',
            None,
            'Write "tensor: name, name, ...", each tensor once, with semicolons between tensors.',
        )
        for value in (
            "x",
            "x:",
            "x: a,",
            "x: a b: c",
            ": a",
            "x: a,, b",
            'x: "a',
            'x: ""',
            "x: a; x: b",
            "x: a; y",
            "x, a",
        )
    ),
    *(
        (
            "import",
            {"versions": value},
            "22023",
            f'invalid value for option "versions": {value}',
            None,
            "Valid values are latest, all, and numbers separated by commas.",
        )
        for value in ("", "newest", "1,", "-1", "1;2")
    ),
    (
        "server",
        {"url": "grpc://h", "keepalive": "1"},
        "HV00D",
        'invalid option "keepalive"',
        None,
        'Perhaps you meant the option "keepalive_ms".',
    ),
    (
        "table",
        {"Batchsize": "1"},
        "HV00D",
        'invalid option "Batchsize"',
        None,
        'Perhaps you meant the option "batch_size".',
    ),
    ("table", {"token": "s3cret"}, "HV00D", 'invalid option "token"', None, 'Set option "token" on a user mapping.'),
    (
        "user mapping",
        {"zzz": "1"},
        "HV00D",
        'invalid option "zzz"',
        None,
        "Valid options in this context are: token, headers, sslcert, sslkey.",
    ),
    (
        "server",
        {},
        "HV00J",
        'option "url" is required for a server',
        None,
        "Set it: where the model server listens: grpc://host:port or http://host:port, with TLS grpcs:// or https://, "
        "several of a kind separated by commas; port 8001 for gRPC, 8000 for http and 443 for https unless given.",
    ),
    (
        "table",
        {"batch_size": "0"},
        "22023",
        'value 0 out of bounds for option "batch_size"',
        "Valid values are between 1 and 1048576.",
        None,
    ),
    (
        "table",
        {"batch_size": "1048577"},
        "22023",
        'value 1048577 out of bounds for option "batch_size"',
        "Valid values are between 1 and 1048576.",
        None,
    ),
    (
        "table",
        {"max_in_flight": "many"},
        "22023",
        'invalid value for integer option "max_in_flight": many',
        None,
        "Valid values are integers from 1 to 64.",
    ),
    (
        "table",
        {"row_cost": "NaN"},
        "22023",
        'value NaN out of bounds for option "row_cost"',
        "Valid values are between 0 and 1000000000.",
        None,
    ),
    (
        "table",
        {"row_cost": "cheap"},
        "22023",
        'invalid value for floating point option "row_cost": cheap',
        None,
        "Valid values are numbers from 0 to 1000000000.",
    ),
    ("table", {"model": ""}, "22023", 'option "model" must not be empty', None, None),
    (
        "server",
        {"url": "grpc://h", "compression": "zstd"},
        "22023",
        'invalid value for option "compression": zstd',
        None,
        "Valid values are: none, gzip, deflate.",
    ),
    (
        "column",
        {"input": "a", "output": "b"},
        "22023",
        'options "input" and "output" cannot be set on the same column',
        None,
        "Declare one column for the input and one for the output.",
    ),
    (
        "column",
        {"output": "a", "optional": "true"},
        "22023",
        'option "optional" cannot be set on an output column',
        None,
        'Drop option "optional".',
    ),
    (
        "column",
        {"optional": "maybe"},
        "22023",
        'invalid value for boolean option "optional": maybe',
        None,
        "Valid values are true and false.",
    ),
    (
        "column",
        {"index": "1000001"},
        "22023",
        'value 1000001 out of bounds for option "index"',
        "Valid values are between 1 and 1000000.",
        None,
    ),
    (
        "column",
        {"shape": "[2147483648,0]"},
        "22023",
        'invalid value for option "shape": [2147483648,0]',
        None,
        "A dimension is at most 2147483647.",
    ),
    (
        "column",
        {"shape": "[-2]"},
        "22023",
        'invalid value for option "shape": [-2]',
        None,
        "Write the dimensions in brackets, -1 for a variable one, for instance [-1,30].",
    ),
    (
        "column",
        {"dtype": "fp32"},
        "22023",
        'invalid value for option "dtype": fp32',
        None,
        f"Valid values are: {', '.join(options.DTYPES)}.",
    ),
    (
        "user mapping",
        {"token": "two words"},
        "22023",
        'invalid value for option "token"',
        "A token is one or more printable ASCII characters without spaces.",
        None,
    ),
    (
        "user mapping",
        {"headers": "x-a: 1, s3cret"},
        "22023",
        'invalid header in option "headers"',
        "The header at position 2 is not a valid name, a colon and a printable ASCII value.",
        None,
    ),
    (
        "user mapping",
        {"headers": "authorization: a", "token": "b"},
        "22023",
        'option "token" and a header "authorization" cannot be set together',
        None,
        'Set option "token", or the header.',
    ),
]


@pytest.mark.parametrize(
    ("level", "values", "sqlstate", "message", "detail", "hint"), MESSAGES, ids=[f"{m[0]}-{m[3]}" for m in MESSAGES]
)
def test_wrong_options(
    level: str, values: dict[str, str], sqlstate: str, message: str, detail: str | None, hint: str | None
) -> None:
    with fails(sqlstate, message, detail, hint):
        host.validate(level, values)


URL_HINT = "Write grpc://host:port or http://host:port, with TLS grpcs://host:port or https://host:port."


@pytest.mark.parametrize(
    ("url", "sqlstate", "message", "hint"),
    [
        ("gpu-1:8001", "22023", 'option "url" has no valid scheme', URL_HINT),
        ("ftp://gpu-1", "22023", 'option "url" has no valid scheme', URL_HINT),
        (
            "grpc://a:1,grpcs://b:2",
            "22023",
            'option "url" mixes schemes',
            "Give all endpoints the same scheme.",
        ),
        (
            "grpc://a:8001,grpc://a",
            "22023",
            'option "url" names an endpoint twice',
            "Name each endpoint once.",
        ),
        (
            "grpc://me:pw@h:1",
            "22023",
            'option "url" must not hold a user name or password',
            'Set option "token" or "headers" of a user mapping.',
        ),
        ("grpc://h:99999", "22023", 'invalid host or port in option "url"', URL_HINT),
        ("grpc://h:0", "22023", 'invalid host or port in option "url"', URL_HINT),
        ("grpc://:8001", "22023", 'option "url" names no host', URL_HINT),
        ("http://a..b:80", "22023", 'option "url" names no host', URL_HINT),
        (f"http://{'x' * 64}.example:80", "22023", 'option "url" names no host', URL_HINT),
        ("grpc://h:8001/v2", "22023", 'option "url" must end after the port', URL_HINT),
        ("", "22023", 'option "url" has no valid scheme', URL_HINT),
    ],
)
def test_wrong_urls(url: str, sqlstate: str, message: str, hint: str) -> None:
    with fails(sqlstate, message, None, hint):
        host.validate("server", {"url": url})


@pytest.mark.parametrize(
    ("url", "scheme", "address"),
    [
        ("grpc://gpu-1:9000", "grpc", "gpu-1:9000"),
        ("grpcs://gpu-1", "grpcs", "gpu-1:8001"),
        ("http://gpu-1", "http", "gpu-1:8000"),
        ("https://gpu-1", "https", "gpu-1:443"),
        ("grpc://[::1]:8001/", "grpc", "[::1]:8001"),
        (" GRPC://10.0.0.1:1 ", "grpc", "10.0.0.1:1"),
    ],
)
def test_urls(url: str, scheme: str, address: str) -> None:
    (endpoint,) = options.read("server", {"url": url})["url"]
    assert (endpoint.scheme, endpoint.address) == (scheme, address)


@pytest.mark.parametrize(
    ("level", "values"),
    [("server", {"url": "grpcs://h", "sslrootcert": "/ca"}), ("user mapping", {"sslcert": "/c", "sslkey": "/k"})],
)
def test_files_are_for_those_who_may_read_them(level: str, values: dict[str, str]) -> None:
    host.validate(level, values, True)
    name = next(name for name in values if name.startswith("ssl"))
    detail = 'Only roles with privileges of the "pg_read_server_files" role may set it.'
    with fails("42501", f'permission denied to set option "{name}"', detail):
        host.validate(level, values, False)


def test_multicorn_does_not_tell_who_has_set_a_file() -> None:
    message = 'permission denied to set option "sslcert"'
    with fails("42501", message, "Multicorn does not tell who has set it."):
        options.split_levels({"url": "grpcs://h", "sslcert": "/c", "sslkey": "/k"})


@pytest.mark.parametrize(
    ("level", "values", "message"),
    [
        ("user mapping", {"sslcert": "/c"}, 'options "sslcert" and "sslkey" must be set together'),
        *(
            ("server", {"url": "grpc://h", "tls_server_name": name}, 'option "tls_server_name" names no host')
            for name in ("a b", ".foo", "a..b", "x" * 64)
        ),
    ],
)
def test_wrong_tls_options(level: str, values: dict[str, str], message: str) -> None:
    with fails("22023", message):
        host.validate(level, values, True)


def test_paths_are_absolute() -> None:
    message = 'option "sslrootcert" must be an absolute path'
    with fails("22023", message, None, "The file is read on the database server."):
        host.validate("server", {"url": "grpc://h", "sslrootcert": "ca.crt"}, True)


def test_several_urls() -> None:
    server = options.read_server(1, "s", {"url": "grpc://a, grpc://[::1]:2,grpc://c:3"}, {})
    assert server.options.address == "a:8001, [::1]:2, c:3"


def test_names_are_unique_and_defaults_are_valid() -> None:
    names = [option.name for option in options.OPTIONS]
    assert len(names) == len(set(names))
    for option in options.OPTIONS:
        assert option.level in options.LEVELS
        if option.kind in ("integer", "number") and option.default is not None:
            assert isinstance(option.default, (int, float))
            assert option.low <= option.default <= option.high
        if option.kind == "choice" and option.default is not None:
            assert option.default in option.choices


def test_defaults_of_the_server_reach_the_table() -> None:
    parsed = options.read_table(table(server={"default_batch_size": "7", "default_timeout_ms": "9"}, timeout_ms="11"))
    settings = parsed.options
    assert (settings.model, settings.version) == ("t", "")
    assert (settings.batch_size, settings.max_in_flight, settings.timeout_ms, settings.max_attempts) == (7, 4, 11, 3)
    assert settings.row_cost == 0.1


def test_headers_by_comma_or_by_newline() -> None:
    assert options.read("user mapping", {"headers": "X-A: 1, x-b:2"})["headers"] == (("x-a", "1"), ("x-b", "2"))
    assert options.read("user mapping", {"headers": "x-a: 1,2\nx-b: 3"})["headers"] == (("x-a", "1,2"), ("x-b", "3"))


@pytest.mark.parametrize("name", ["grpc-timeout", "te", "x-bin", "has space", "content-type", ""])
def test_headers_that_grpc_keeps_for_itself(name: str) -> None:
    with pytest.raises(errors.BadOption):
        host.validate("user mapping", {"headers": f"{name}: 1"})


def test_secrets_are_in_no_message_and_no_repr() -> None:
    secret = "hush hush"
    for name in ("token", "headers"):
        with pytest.raises(errors.BadOption) as caught:
            host.validate("user mapping", {name: secret})
        assert "hush" not in str(vars(caught.value)) + str(caught.value)
    with pytest.raises(errors.ModelFdwError) as caught:
        host.validate("server", {"url": "grpc://me:hush@h:1"})
    assert "hush" not in str(vars(caught.value)) + str(caught.value)
    server = options.read_server(1, "s", {"url": "grpc://h:1"}, {"token": "hush"})
    assert "hush" not in repr(server)


def test_merged_options_are_split_by_level() -> None:
    merged = {"url": "grpc://h", "token": "x", "model": "m", "batch_size": "3"}
    assert options.split_levels(merged) == {
        "server": {"url": "grpc://h"},
        "user mapping": {"token": "x"},
        "table": {"model": "m", "batch_size": "3"},
    }
    with fails("HV00D", 'invalid option "modle"', None, 'Perhaps you meant the option "model".'):
        options.split_levels({"modle": "m"})


def test_validating_imports_neither_numpy_nor_grpc() -> None:
    program = (
        "import sys, fdw, fdw.host\n"
        "fdw.host.validate('server', {'url': 'grpc://h:1'})\n"
        "loaded = {'numpy', 'grpc', 'google', 'tritonclient'} & set(sys.modules)\n"
        "sys.exit(f'imported {loaded}' if loaded else 0)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("x: a", (("x", ("a",)),)),
        (" x :a,  b c ,d;y: e ", (("x", ("a", "b c", "d")), ("y", ("e",)))),
        ("\nx: a,\n  b;\ny: b\n", (("x", ("a", "b")), ("y", ("b",)))),
        ("x: a;;", (("x", ("a",)),)),
        ('"in: put": "a, b", "say ""hi""" , é%\\', (("in: put", ("a, b", 'say "hi"', "é%\\")),)),
    ],
)
def test_names_of_elements(text: str, expected: object) -> None:
    assert options.read_import({"columns": text}).columns == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("latest", "latest"), ("all", "all"), ("3", ("3",)), (" 1, 3 ", ("1", "3"))]
)
def test_versions(text: str, expected: object) -> None:
    assert options.read_import({"versions": text}).versions == expected


@pytest.mark.parametrize(
    ("server", "user", "name"),
    [({"sslrootcert": "/etc/ca.pem"}, {}, "sslrootcert"), ({}, {"sslkey": "/etc/key.pem"}, "sslkey")],
)
def test_files_of_a_multicorn_server_are_refused(server: dict[str, str], user: dict[str, str], name: str) -> None:
    """Its validator has not asked who sets them, also where the library reads the catalogs itself."""
    merged = {"url": "grpcs://h", "wrapper": "fdw.ModelFdw", **server}
    with fails("42501", f'permission denied to set option "{name}"', "Multicorn does not tell who has set it."):
        options.read_server(1, "s", merged, user)


def test_the_class_of_a_multicorn_server_is_no_option_of_ours() -> None:
    assert options.read_server(1, "s", {"url": "grpc://h", "wrapper": "fdw.ModelFdw"}, {}).name == "s"
    with pytest.raises(errors.UnknownOption, match='invalid option "wrapper"'):
        options.validate("server", {"url": "grpc://h", "wrapper": "fdw.ModelFdw"})
