"""Every error that a user can meet: its SQLSTATE and its exact text, from a scan and from a join."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import psycopg
import pytest
from conftest import NATIVE, Database, server_like_triton, set_table_options
from fake_server import Behaviour, FakeServer

from dev.servers import make_readable
from fdw import errors

Connection = psycopg.Connection[Any]

PACKAGE = Path(__file__).parents[2] / "fdw"


class Report(NamedTuple):
    """What the user reads; endpoints are written ENDPOINT, however the ports fall."""

    sqlstate: str
    message: str
    detail: str | None = None
    hint: str | None = None


def normalised(text: str | None) -> str | None:
    return text and re.sub(r"\b127\.0\.0\.1:[0-9]+", "ENDPOINT", text)


def report_of(diag: psycopg.errors.Diagnostic) -> Report:
    return Report(
        diag.sqlstate or "",
        normalised(diag.message_primary) or "",
        normalised(diag.message_detail),
        normalised(diag.message_hint),
    )


def failure(connection: Connection, sql: str) -> Report:
    """Run a statement that must fail; what was done before it stands."""
    with pytest.raises(psycopg.Error) as caught, connection.transaction():
        connection.execute(sql.encode())
    return report_of(caught.value.diag)


def execute(connection: Connection, sql: str) -> list[tuple[Any, ...]]:
    cursor = connection.execute(sql.encode())
    return cursor.fetchall() if cursor.description else []


@pytest.fixture
def session(connection: Connection) -> Iterator[Connection]:
    """A session whose tables, servers and changed options go at the end of the test."""
    with connection.transaction(force_rollback=True):
        yield connection


def add_server(session: Connection, url: str, *more: str) -> None:
    """Define foreign server "other"."""
    execute(session, server_like_triton(session, "other", ", ".join([f"url '{url}'", *more])))


def add_table(
    session: Connection,
    model: str,
    *options: str,
    server: str = "triton",
    x: str = "float8",
    y: str = "float8",
) -> None:
    """Define foreign table "t" with columns x and y, as they stand in its statement."""
    clause = ", ".join([f"model '{model}'", *options])
    execute(session, f"CREATE FOREIGN TABLE t (x {x}, y {y}) SERVER {server} OPTIONS ({clause})")


# Columns that say everything: planning asks no server, so that the error comes from the execution.
DESCRIBED = {
    "x": "float8 OPTIONS (input 'x', dtype 'FP64', shape '[-1,1]')",
    "y": "float8 OPTIONS (output 'y', dtype 'FP64', shape '[-1,1]')",
}

QUERIES = {
    "scan": "SELECT y FROM t WHERE x = 1",
    "list": "SELECT y FROM t WHERE x IN (1, 2)",
    "join": "SELECT y FROM generate_series(1, 3) n JOIN t ON t.x = n",
    "left join": "SELECT y FROM generate_series(1, 3) n LEFT JOIN t ON t.x = n",
    "subquery": "SELECT (SELECT y FROM t WHERE t.x = n) FROM generate_series(1, 3) n",
    "count": "SELECT count(*) FROM generate_series(1, 3) n JOIN t ON t.x = n",
}

checked_by_ddl = pytest.mark.hosts(NATIVE, reason="Multicorn's validator does not look at options")
own_engine = pytest.mark.hosts(NATIVE, reason="Multicorn itself imports the engine, from where its Python looks for it")
own_import = pytest.mark.hosts(
    NATIVE, reason="Multicorn reports every error of IMPORT as XX000, without the server's name"
)

every_query = pytest.mark.parametrize("sql", QUERIES.values(), ids=QUERIES)
every_stage = pytest.mark.parametrize("columns", [{}, DESCRIBED], ids=["planning", "execution"])


# ---- the server ----


@every_query
@every_stage
def test_refused_connection(session: Connection, columns: dict[str, str], sql: str) -> None:
    with FakeServer("refuses") as server:
        add_server(session, server.url)
        add_table(session, "fake", server="other", **columns)
        assert failure(session, sql) == Report(
            "08001",
            'could not reach model server "ENDPOINT"',
            "The connection was refused. Attempts: 3.",
            'Check option "url" of server "other".',
        )


@pytest.mark.parametrize("sql", [QUERIES["scan"], QUERIES["join"]])
@every_stage
def test_silent_host(session: Connection, columns: dict[str, str], sql: str) -> None:
    """A host that accepts connections and never says a word costs connect_timeout_ms."""
    with FakeServer("accepts-and-hangs") as server:
        add_server(session, server.url, "connect_timeout_ms '300'")
        add_table(session, "fake", server="other", **columns)
        began_s = time.monotonic()
        assert failure(session, sql) == Report(
            "08001",
            'could not reach model server "ENDPOINT"',
            "The server did not answer in time. Attempts: 1.",
            'Check option "url" of server "other".',
        )
        assert 0.2 < time.monotonic() - began_s < 2


@pytest.mark.parametrize("sql", [QUERIES["scan"], QUERIES["join"]])
def test_unknown_host(session: Connection, sql: str) -> None:
    add_server(session, "grpc://nowhere.invalid:8001", "default_max_attempts '1'", "connect_timeout_ms '2000'")
    add_table(session, "fake", server="other")
    assert failure(session, sql) == Report(
        "08001",
        'could not reach model server "nowhere.invalid:8001"',
        "The host name could not be resolved. Attempts: 1.",
        'Check option "url" of server "other".',
    )


@own_import
def test_import_from_a_refused_connection(session: Connection) -> None:
    with FakeServer("refuses") as server:
        add_server(session, server.url)
        assert failure(session, "IMPORT FOREIGN SCHEMA models FROM SERVER other INTO scratch") == Report(
            "08001",
            'could not reach model server "ENDPOINT"',
            "The connection was refused. Attempts: 3.",
            'Check option "url" of server "other".',
        )


@pytest.mark.parametrize("sql", [QUERIES["scan"], QUERIES["join"]])
def test_broken_connection(session: Connection, sql: str) -> None:
    with FakeServer("resets") as server:
        add_server(session, server.url)
        add_table(session, "fake", "max_attempts '1'", server="other")
        found = failure(session, sql)
    assert found.detail in (
        "The server reset the connection. Attempts: 1.",
        "The server closed the connection. Attempts: 1.",
    )
    assert found._replace(detail=None) == Report(
        "08006",
        'connection to model server "ENDPOINT" was lost',
        None,
        "Run the statement again once the server is back.",
    )


# ---- the model ----


@every_query
@every_stage
def test_unknown_model(session: Connection, columns: dict[str, str], sql: str) -> None:
    add_table(session, "no such model", **columns)
    assert failure(session, sql) == Report(
        "HV00R",
        'model "no such model" does not exist on model server "ENDPOINT"',
        "The server said: Request for unknown model: 'no such model' is not found",
        'Check table option "model", or import the schema again.',
    )


@every_query
@every_stage
def test_unknown_version(session: Connection, columns: dict[str, str], sql: str) -> None:
    add_table(session, "slow", "version '7'", **columns)
    assert failure(session, sql) == Report(
        "HV00R",
        'model "slow" has no version "7" on model server "ENDPOINT"',
        "The server said: Request for unknown model: 'slow' version 7 is not found",
        'Check table option "version", or import the schema again.',
    )


@pytest.mark.parametrize("state", ["fresh", "used"])
@pytest.mark.parametrize("sql", [QUERIES["scan"], QUERIES["join"]])
@every_stage
def test_unloaded_model(database: Database, session: Connection, columns: dict[str, str], sql: str, state: str) -> None:
    add_table(session, "small_batch", **columns)
    if state == "used":
        assert execute(session, "SELECT y FROM t WHERE x = 4") == [(8,)]
    database.triton.unload("small_batch")
    try:
        assert failure(session, sql) == Report(
            "55000",
            'model "small_batch" on model server "ENDPOINT" is not ready',
            "The server said: Request for unknown model: 'small_batch' has no available versions",
            "Load the model on the server, or wait until it is loaded.",
        )
    finally:
        database.triton.load("small_batch")
    assert execute(session, "SELECT y FROM t WHERE x = 4") == [(8,)]


@own_import
def test_import_of_an_unloaded_model(database: Database, session: Connection) -> None:
    database.triton.unload("small_batch")
    try:
        sql = "IMPORT FOREIGN SCHEMA models LIMIT TO (small_batch) FROM SERVER triton INTO scratch"
        assert failure(session, sql) == Report(
            "55000",
            'model "small_batch" on model server "ENDPOINT" is not ready',
            "The server said: unloaded",
            "Load the model on the server, or wait until it is loaded.",
        )
    finally:
        database.triton.load("small_batch")


ERROR_HINT = "To get the answers of the other rows, add a text column with OPTIONS (error 'true')."
MODEL_FAILED = Report(
    "HV000",
    'model "broken" failed on model server "ENDPOINT": x must not be negative',
    'The request was made of input columns "x" of foreign table "broken".',
    ERROR_HINT,
)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT y FROM ml.broken WHERE x = -1",
        "SELECT y FROM ml.broken WHERE x IN (1, -1)",
        "SELECT count(*) FROM ml.broken WHERE x = -1",
        "SELECT y FROM generate_series(-1, 3) n JOIN ml.broken p ON p.x = n",
        "SELECT y FROM generate_series(-1, 3) n LEFT JOIN ml.broken p ON p.x = n",
        "SELECT (SELECT y FROM ml.broken p WHERE p.x = n) FROM generate_series(-1, 3) n",
        "SELECT n FROM generate_series(-1, 3) n WHERE EXISTS (SELECT FROM ml.broken p WHERE p.x = n)",
    ],
)
@pytest.mark.parametrize("node", ["on", "off"])
def test_failing_model(session: Connection, node: str, sql: str) -> None:
    execute(session, f"SET LOCAL model_fdw.enable_model_join = {node}")
    assert failure(session, sql) == MODEL_FAILED
    # A row that is not asked about fails nothing.
    assert execute(session, "SELECT y FROM generate_series(-1, 4) n JOIN ml.broken p ON p.x = n WHERE n > 3") == [(2,)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT y FROM ml.slow WHERE x = 1",
        "SELECT y FROM generate_series(1, 3) n JOIN ml.slow p ON p.x = n",
        "SELECT y FROM generate_series(1, 3) n LEFT JOIN ml.slow p ON p.x = n",
    ],
)
def test_request_timeout(session: Connection, sql: str) -> None:
    execute(session, "SELECT y FROM ml.slow WHERE x = 1")  # the deadline is the inference's, not the metadata's
    set_table_options(session, "ml.slow", timeout_ms=50)
    assert failure(session, sql) == Report(
        "HV00M",
        'model server "ENDPOINT" did not answer within 50 ms',
        'The request was for model "slow".',
        'Check whether the server answers at all; raise table option "timeout_ms" if the model needs longer.',
    )


UNSUPPORTED = {
    "decoupled": Report(
        "0A000",
        'model "decoupled" is decoupled, which is not supported',
        "A decoupled model answers any number of responses to a request, so its answers are no rows of the inputs.",
    ),
    "sequence": Report(
        "0A000",
        'model "sequence" is a sequence model, which is not supported',
        "A sequence model keeps state between requests, so its answers depend on more than the inputs.",
    ),
}


@every_query
@every_stage
@pytest.mark.parametrize("model", UNSUPPORTED)
def test_unsupported_model(session: Connection, columns: dict[str, str], model: str, sql: str) -> None:
    add_table(session, model, **columns)
    assert failure(session, sql) == UNSUPPORTED[model]


@own_import
@pytest.mark.parametrize("model", UNSUPPORTED)
def test_import_of_an_unsupported_model(session: Connection, model: str) -> None:
    sql = f"IMPORT FOREIGN SCHEMA models LIMIT TO (affine, {model}) FROM SERVER triton INTO scratch"
    assert failure(session, sql) == UNSUPPORTED[model]


def test_import_around_unsupported_models(session: Connection) -> None:
    notices: list[Report] = []

    def handler(diag: psycopg.errors.Diagnostic) -> None:
        notices.append(report_of(diag))

    session.add_notice_handler(handler)
    try:
        execute(session, "IMPORT FOREIGN SCHEMA models FROM SERVER triton INTO scratch")
        everything = notices[:]
        notices.clear()
        execute(session, "CREATE SCHEMA less")
        execute(
            session, "IMPORT FOREIGN SCHEMA models EXCEPT (clash, decoupled, sequence) FROM SERVER triton INTO less"
        )
    finally:
        session.remove_notice_handler(handler)
    assert everything == [
        Report("00000", 'column "value" of foreign table "clash" is imported as "value_output"'),
        Report("00000", 'skipped model "decoupled": model "decoupled" is decoupled, which is not supported'),
        Report("00000", 'skipped model "sequence": model "sequence" is a sequence model, which is not supported'),
    ]
    assert notices == []
    imported = "SELECT array_agg(relname ORDER BY relname) FROM pg_class WHERE relnamespace = '{}'::regnamespace"
    [(tables,)] = execute(session, imported.format("scratch"))
    assert "affine" in tables
    assert not {"decoupled", "sequence"}.intersection(tables)


@own_import
def test_import_from_an_unknown_schema(session: Connection) -> None:
    assert failure(session, "IMPORT FOREIGN SCHEMA model FROM SERVER triton INTO scratch") == Report(
        "HV00Q",
        'remote schema "model" does not exist on model server "ENDPOINT"',
        None,
        'Import from remote schema "models".',
    )


# ---- columns ----

CHECK_HINT = "\"SELECT * FROM model_fdw_check('scratch.t')\" shows what differs, and the statements that cure it."

WRONG_COLUMNS = {
    "no such input": (
        {"x": "float8 OPTIONS (input 'z')"},
        Report(
            "HV005",
            'model "slow" has no input tensor "z"',
            'Option "input" of column "x" names it.',
            'The model\'s input tensors are: "x".',
        ),
    ),
    "no such output": (
        {"y": "float8 OPTIONS (output 'x')"},
        Report(
            "HV005",
            'model "slow" has no output tensor "x"',
            'Option "output" of column "y" names it.',
            'The model\'s output tensors are: "y".',
        ),
    ),
    "no such input, described": (
        {**DESCRIBED, "x": "float8 OPTIONS (input 'z', dtype 'FP64', shape '[-1,1]')"},
        Report(
            "HV005",
            'model "slow" has no input tensor "z"',
            'Option "input" of column "x" names it.',
            'The model\'s input tensors are: "x".',
        ),
    ),
    "no tensor of the name": (
        {"y": "float8, note text"},
        Report(
            "HV005",
            'column "note" of foreign table "t" matches no tensor of model "slow"',
            'The model\'s input tensors are: "x"; its output tensors are: "y".',
            'Set column option "input" or "output" to a tensor\'s name.',
        ),
    ),
    "dtype": (
        {"x": "float8 OPTIONS (input 'x', dtype 'FP32')"},
        Report(
            "HV004",
            'column "x" of foreign table "t" does not match model "slow"',
            'The column declares dtype FP32; input tensor "x" has dtype FP64.',
            CHECK_HINT,
        ),
    ),
    "dtype, described": (
        {**DESCRIBED, "x": "float8 OPTIONS (input 'x', dtype 'FP32', shape '[-1,1]')"},
        Report(
            "HV004",
            'column "x" of foreign table "t" does not match model "slow"',
            'The column declares dtype FP32; input tensor "x" has dtype FP64.',
            CHECK_HINT,
        ),
    ),
    "dtype and shape": (
        {"y": "bigint[] OPTIONS (output 'y', dtype 'INT64', shape '[-1,2]')"},
        Report(
            "HV004",
            'column "y" of foreign table "t" does not match model "slow"',
            'The column declares dtype INT64 and shape [-1,2]; output tensor "y" has dtype FP64 and shape [-1,1].',
            CHECK_HINT,
        ),
    ),
    "index": (
        {"x": "float8 OPTIONS (input 'x', index '2')"},
        Report(
            "HV005",
            'option "index" of column "x" of foreign table "t" is out of range',
            'The input tensor "x" of model "slow" has shape [1] per row.',
            "Valid values are between 1 and 1.",
        ),
    ),
    "output type": (
        {"y": "point"},
        Report(
            "HV004",
            'output column "y" cannot have type point',
            "Type double precision has no assignment cast to type point.",
            "Use type double precision.",
        ),
    ),
}


@pytest.mark.parametrize("sql", [QUERIES["scan"], QUERIES["join"], QUERIES["left join"]])
@pytest.mark.parametrize("wrong", WRONG_COLUMNS)
def test_wrong_column(session: Connection, wrong: str, sql: str) -> None:
    columns, expected = WRONG_COLUMNS[wrong]
    add_table(session, "slow", **columns)
    assert failure(session, sql) == expected


@pytest.mark.parametrize(
    "sql",
    ["SELECT y FROM t WHERE x = '2026-01-01'", "SELECT y FROM (VALUES (date '2026-01-01')) v (d) JOIN t ON x = d"],
)
def test_wrong_type_of_an_input(session: Connection, sql: str) -> None:
    add_table(session, "slow", x="date")
    assert failure(session, sql) == Report(
        "HV004",
        'input column "x" cannot have type date',
        "Type date has no assignment cast to type double precision.",
        "Use type double precision.",
    )


@pytest.mark.parametrize(
    "sql", ["SELECT s FROM t WHERE a = 1", "SELECT s FROM generate_series(1, 3) n JOIN t ON t.a = n"]
)
def test_input_without_column(session: Connection, sql: str) -> None:
    execute(session, "CREATE FOREIGN TABLE t (a float8, s float8) SERVER triton OPTIONS (model 'affine')")
    assert failure(session, sql) == Report(
        "HV005",
        'foreign table "t" has no column for input tensor "b" of model "affine"',
        "The model requires it.",
        "Add a column with OPTIONS (input 'b').",
    )


@pytest.mark.parametrize(
    "sql",
    ["SELECT area FROM t WHERE a = 3 AND b = 4", "SELECT area FROM generate_series(3, 4) n JOIN t ON a = n AND b = n"],
)
def test_element_without_column(session: Connection, sql: str) -> None:
    execute(
        session,
        "CREATE FOREIGN TABLE t (a float8 OPTIONS (input 'sides', index '1'), "
        "b float8 OPTIONS (input 'sides', index '2'), area float8) SERVER triton OPTIONS (model 'triangle')",
    )
    assert failure(session, sql) == Report(
        "HV005",
        'foreign table "t" has no column for element 3 of input tensor "sides" of model "triangle"',
        "The tensor has shape [3] per row; all elements of a vector must be bound.",
        "Add a column with OPTIONS (input 'sides', index '3').",
    )


EQUALITY = Report(
    "0A000",
    'input column "text" of foreign table "words" cannot have type character',
    "Its equality ignores differences that the model would see.",
    "Use type text.",
)


@pytest.mark.parametrize("type_", ["char(20)", "bpchar"])
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT label FROM words WHERE text = 'good'",
        "SELECT label FROM (VALUES ('good'), ('bad')) v (t) JOIN words w ON w.text = v.t",
    ],
)
def test_padded_input(session: Connection, sql: str, type_: str) -> None:
    execute(
        session,
        f"CREATE FOREIGN TABLE words (text {type_}, label text) SERVER triton OPTIONS (model 'sentiment')",
    )
    assert failure(session, sql) == EQUALITY


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT label FROM words WHERE text = 'good'",
        "SELECT label FROM (VALUES ('good'), ('bad')) v (t) JOIN words w ON w.text = v.t",
    ],
)
def test_nondeterministic_collation(session: Connection, sql: str) -> None:
    try:
        with session.transaction():
            execute(session, "CREATE COLLATION loose (provider = icu, locale = 'und', deterministic = false)")
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this PostgreSQL is built without ICU")
    execute(
        session,
        "CREATE FOREIGN TABLE words (text text COLLATE loose, label text) SERVER triton OPTIONS (model 'sentiment')",
    )
    assert failure(session, sql) == Report(
        "0A000",
        'input column "text" of foreign table "words" cannot have a nondeterministic collation',
        None,
        'Use a deterministic collation, such as "C".',
    )


@pytest.mark.parametrize("source", ["ml.affine p WHERE", "generate_series(1, 3) n JOIN ml.affine p ON"])
@pytest.mark.parametrize("column", ["ctid", "xmin"])
def test_system_column(session: Connection, column: str, source: str) -> None:
    sql = f"SELECT p.{column} FROM {source} p.a = 1 AND p.b = 2"
    assert failure(session, sql) == Report(
        "0A000", f'cannot read system column "{column}" of a model table', "A model's rows are not stored."
    )


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT tableoid::regclass::text FROM ml.affine WHERE a = 1 AND b = 1",
        "SELECT p.tableoid::regclass::text FROM generate_series(1, 1) n JOIN ml.affine p ON p.a = n AND p.b = n",
    ],
)
def test_table_of_a_row(session: Connection, sql: str) -> None:
    assert execute(session, sql) == [("ml.affine",)]


# ---- values ----

# Everything that echo needs, and the column that a test replaces.
ECHO_VALUES = {
    "in_bool": "true",
    "in_int8": "1",
    "in_int16": "1",
    "in_int32": "1",
    "in_int64": "1",
    "in_uint8": "1",
    "in_uint16": "1",
    "in_uint32": "1",
    "in_uint64": "1",
    "in_fp16": "1",
    "in_fp32": "1",
    "in_fp64": "1",
    "in_bytes": "'a'",
}

OUT_OF_RANGE = {
    "smallint, 300": ("in_int8", "300::smallint", "INT8 takes -128 to 127."),
    "smallint, -129": ("in_int8", "(-129)::smallint", "INT8 takes -128 to 127."),
    "uint8, -1": ("in_uint8", "(-1)::smallint", "UINT8 takes 0 to 255."),
    "uint16, 65536": ("in_uint16", "65536", "UINT16 takes 0 to 65535."),
    "uint32, -1": ("in_uint32", "(-1)::bigint", "UINT32 takes 0 to 4294967295."),
    "fp16, 1e6": ("in_fp16", "1e6::float8", "FP16 takes -65504 to 65504."),
    "fp32, 1e300": ("in_fp32", "1e300::float8", "FP32 takes -3.4028235e+38 to 3.4028235e+38."),
}


def echo_queries(column: str, value: str) -> dict[str, str]:
    others = " AND ".join(f"p.{name} = {other}" for name, other in ECHO_VALUES.items() if name != column)
    values = f"(VALUES ({value})) v (value)"
    return {
        "scan": f"SELECT out_int64 FROM ml.echo p WHERE p.{column} = {value} AND {others}",
        "join": f"SELECT out_int64 FROM {values} JOIN ml.echo p ON p.{column} = v.value AND {others}",
        "left join": f"SELECT out_int64 FROM (SELECT * FROM {values} OFFSET 0) v LEFT JOIN ml.echo p "
        f"ON p.{column} = v.value AND {others}",
    }


@pytest.mark.parametrize("query", ["scan", "join", "left join"])
@pytest.mark.parametrize("case", OUT_OF_RANGE)
def test_value_out_of_range(session: Connection, case: str, query: str) -> None:
    column, value, limits = OUT_OF_RANGE[case]
    assert failure(session, echo_queries(column, value)[query]) == Report(
        "22003", f'value out of range for input column "{column}"', limits
    )


@pytest.mark.parametrize("query", ["scan", "join", "left join"])
@pytest.mark.parametrize("value", ["(-1)::numeric", "18446744073709551616::numeric"])
def test_unsigned_value_out_of_range(session: Connection, value: str, query: str) -> None:
    assert failure(session, echo_queries("in_uint64", value)[query]) == Report(
        "22003",
        'value out of range for input column "in_uint64"',
        "UINT64 takes 0 to 18446744073709551615.",
    )


@pytest.mark.parametrize("query", ["scan", "join", "left join"])
def test_value_beyond_the_column(session: Connection, query: str) -> None:
    """PostgreSQL's own assignment refuses what the column's type cannot hold; the context names the column."""
    with pytest.raises(psycopg.errors.NumericValueOutOfRange) as caught, session.transaction():
        execute(session, echo_queries("in_int8", "70000")[query])
    assert caught.value.diag.message_primary == "smallint out of range"
    assert caught.value.diag.context == 'input column "in_int8" of foreign table "echo"'


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT total FROM ml.sum10 WHERE f1 = 1e300 AND f2 = 0 AND f3 = 0 AND f4 = 0 AND f5 = 0 AND f6 = 0 "
        "AND f7 = 0 AND f8 = 0 AND f9 = 0 AND f10 = 0",
        "SELECT total FROM generate_series(1, 3) n JOIN ml.sum10 p ON f1 = 1e300 * n AND f2 = n AND f3 = n AND f4 = n "
        "AND f5 = n AND f6 = n AND f7 = n AND f8 = n AND f9 = n AND f10 = n",
    ],
)
def test_overflow_of_an_element(session: Connection, sql: str) -> None:
    assert failure(session, sql) == Report(
        "22003", 'value out of range for input column "f1"', "FP32 takes -3.4028235e+38 to 3.4028235e+38."
    )


@pytest.mark.parametrize("query", ["scan", "join", "left join"])
@pytest.mark.parametrize("column", ["in_int8", "in_uint64", "in_fp32", "in_bytes", "in_bool"])
def test_null_is_no_error(session: Connection, column: str, query: str) -> None:
    types = {"in_int8": "smallint", "in_uint64": "numeric", "in_fp32": "float8", "in_bytes": "text", "in_bool": "bool"}
    found = execute(session, echo_queries(column, f"NULL::{types[column]}")[query])
    assert found == ([(None,)] if query == "left join" else [])


# ---- arrays ----

ARRAYS = {
    "scan": "SELECT o FROM arrays WHERE i = {}",
    "join": "SELECT o FROM generate_series(1, 3) n JOIN arrays ON i = {}",
    "left join": "SELECT o FROM generate_series(1, 3) n LEFT JOIN arrays ON i = {}",
}
every_array_query = pytest.mark.parametrize("query", ARRAYS)


def add_arrays(session: Connection, tensor: str, type_: str) -> None:
    columns = f"i {type_} OPTIONS (input 'in_{tensor}'), o {type_} OPTIONS (output 'out_{tensor}')"
    execute(session, f"CREATE FOREIGN TABLE arrays ({columns}) SERVER triton OPTIONS (model 'tensors')")


@every_array_query
@pytest.mark.parametrize("type_", ["real[]", "double precision[]", "numeric[]"])
def test_array_of_the_wrong_length(session: Connection, type_: str, query: str) -> None:
    add_arrays(session, "fp32_triple", type_)
    assert failure(session, ARRAYS[query].format(f"'{{1,2}}'::{type_}")) == Report(
        "2202E",
        'array does not fit input column "i"',
        'The array has shape [2]; tensor "in_fp32_triple" takes [3].',
    )


@every_array_query
def test_array_of_the_wrong_dimensions(session: Connection, query: str) -> None:
    add_arrays(session, "int32_cube", "integer[]")
    assert failure(session, ARRAYS[query].format("'{{1,2},{3,4}}'")) == Report(
        "2202E",
        'array does not fit input column "i"',
        'The array has shape [2,2]; tensor "in_int32_cube" takes [2,-1,3].',
    )


@every_array_query
@pytest.mark.parametrize(
    ("tensor", "type_"),
    [("fp32_vector", "real[]"), ("bytes_vector", "text[]"), ("uint64_vector", "numeric[]"), ("fp32_vector", "int[]")],
)
def test_null_element(session: Connection, tensor: str, type_: str, query: str) -> None:
    add_arrays(session, tensor, type_)
    assert failure(session, ARRAYS[query].format(f"'{{1,NULL,3}}'::{type_}")) == Report(
        "22004",
        'array for input column "i" contains a NULL element',
        None,
        "Replace it, for instance with array_replace().",
    )


@every_array_query
@pytest.mark.parametrize(
    ("tensor", "type_", "value", "limits"),
    [
        ("int8_vector", "smallint[]", "{1,128}", "INT8 takes -128 to 127."),
        ("uint32_matrix", "bigint[]", "{{1},{-1}}", "UINT32 takes 0 to 4294967295."),
        ("uint64_triple", "numeric[]", "{1,2,-3}", "UINT64 takes 0 to 18446744073709551615."),
        ("fp16_vector", "real[]", "{1,70000}", "FP16 takes -65504 to 65504."),
        ("bf16_vector", "float8[]", "{1,1e39}", "BF16 takes -3.3895314e+38 to 3.3895314e+38."),
    ],
)
def test_element_out_of_range(
    session: Connection, tensor: str, type_: str, value: str, limits: str, query: str
) -> None:
    add_arrays(session, tensor, type_)
    assert failure(session, ARRAYS[query].format(f"'{value}'::{type_}")) == Report(
        "22003", 'value out of range for input column "i"', limits
    )


@pytest.mark.parametrize(
    ("tensor", "type_", "value", "report"),
    [
        (
            "fp32_vector",
            "real",
            "1",
            Report(
                "HV004",
                'input column "i" cannot have type real',
                "Type real has no assignment cast to type real[].",
                "Use type real[].",
            ),
        ),
        (
            "fp32_scalar",
            "date",
            "2020-01-01",
            Report(
                "HV004",
                'input column "i" cannot have type date',
                "Type date has no assignment cast to type double precision.",
                "Use type double precision.",
            ),
        ),
    ],
)
def test_type_that_does_not_fit(session: Connection, tensor: str, type_: str, value: str, report: Report) -> None:
    add_arrays(session, tensor, type_)
    assert failure(session, f"SELECT o FROM arrays WHERE i = '{value}'") == report


# ---- the port of the other protocol ----


@pytest.mark.parametrize(("scheme", "other", "protocol"), [("grpc", "http", "gRPC"), ("http", "grpc", "HTTP")])
def test_port_of_the_other_protocol(
    database: Database, session: Connection, scheme: str, other: str, protocol: str
) -> None:
    port = {"grpc": database.triton.grpc_port, "http": database.triton.http_port}[other]
    session.execute(server_like_triton(session, "wrong", f"url '{scheme}://127.0.0.1:{port}'").encode())
    report = failure(session, "IMPORT FOREIGN SCHEMA models FROM SERVER wrong INTO scratch")
    assert (report.message, report.hint) == ('could not reach model server "ENDPOINT"', errors.PORT_HINT)
    assert report.detail == f"The server does not speak {protocol}. Attempts: 3."


# ---- unbound inputs ----

UNBOUND_HINT = 'Give it a value with an equality, such as "WHERE b = ..." or "JOIN ... ON affine.b = ...".'
ALL_UNBOUND = Report(
    "HV00L",
    'input columns "a", "b" of foreign table "affine" are not bound',
    None,
    'Give each of them a value with an equality, such as "WHERE a = ... AND b = ..." or "JOIN ... USING (a, b)".',
)


def unbound(barrier: str | None = None, column: str = "b") -> Report:
    return Report(
        "HV00L",
        f'input column "{column}" of foreign table "affine" is not bound',
        barrier
        and "Conditions from outside do not reach the table: the view or subquery that reads it " + barrier + ".",
        UNBOUND_HINT.replace("WHERE b", f"WHERE {column}").replace("affine.b", f"affine.{column}"),
    )


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT s FROM ml.affine WHERE a = 1",
        "SELECT s FROM ml.affine WHERE a = 1 AND b > 2",
        "SELECT s FROM ml.affine WHERE a = 1 AND b + 0 = 2",
        "SELECT s FROM ml.affine WHERE a = 1 AND b <> ALL ('{1,2}')",
        "SELECT s FROM generate_series(1, 3) n JOIN ml.affine p ON p.a = n",
        "SELECT s FROM generate_series(1, 3) n LEFT JOIN ml.affine p ON p.a = n",
        "SELECT s FROM generate_series(1, 3) n JOIN ml.affine p ON p.a = n AND p.b > n",
        "SELECT p.s FROM ml.affine p JOIN ml.affine q ON p.a = 1 AND q.a = 1 AND p.b = q.b",
    ],
)
@pytest.mark.parametrize("node", ["on", "off"])
def test_unbound_input(session: Connection, node: str, sql: str) -> None:
    execute(session, f"SET LOCAL model_fdw.enable_model_join = {node}")
    assert failure(session, sql) == unbound()


def test_unbound_input_of_a_subquery(session: Connection) -> None:
    sql = "SELECT (SELECT s FROM ml.affine p WHERE p.a = n) FROM generate_series(1, 3) n"
    assert failure(session, sql) == unbound()


def test_all_unbound_inputs(session: Connection) -> None:
    assert failure(session, "SELECT s FROM ml.affine") == ALL_UNBOUND
    assert failure(session, "SELECT count(*) FROM ml.affine") == ALL_UNBOUND
    assert failure(session, "SELECT s FROM generate_series(1, 3) n, ml.affine") == ALL_UNBOUND
    assert failure(session, "SELECT s FROM ml.affine WHERE b = 1") == unbound(column="a")


OBSTACLES = {
    "a list of rows": (
        "SELECT s FROM ml.affine WHERE (a, b) IN ((1, 2), (3, 4))",
        '"a" does not bind it: it stands under OR, as it does in a list of rows.',
        'Join the values instead, as in "JOIN (VALUES (...), (...)) AS v (a, b) USING (a, b)".',
    ),
    "OR over two columns": (
        "SELECT s FROM ml.affine WHERE a = 1 AND (b = 2 OR s = 3)",
        '"b" does not bind it: it stands under OR, as it does in a list of rows.',
        'Join the values instead, as in "JOIN (VALUES (...), (...)) AS v (b) USING (b)".',
    ),
    "OR over values of a join": (
        "SELECT s FROM generate_series(1, 3) n JOIN ml.affine p ON p.a = 1 AND (p.b = n OR p.b = n + 1)",
        '"b" does not bind it: it consists of equalities under OR.',
        'Write "b IN (..., ...)" instead.',
    ),
    "IS NOT DISTINCT FROM": (
        "SELECT s FROM ml.affine WHERE a = 1 AND b IS NOT DISTINCT FROM (SELECT 2)",
        '"b" does not bind it: it is IS NOT DISTINCT FROM, true for two NULLs.',
        'Write "b = ..." instead.',
    ),
    "a column of its own": (
        "SELECT s FROM ml.affine WHERE a = 1 AND b = d",
        '"b" does not bind it: it takes the value from the table itself.',
        UNBOUND_HINT,
    ),
    "a FULL join": (
        "SELECT s FROM generate_series(1, 3) n FULL JOIN (SELECT * FROM ml.affine WHERE a = 1) p ON p.b = n",
        '"b" does not bind it: it is that of a FULL JOIN, which keeps all rows of the table.',
        "Use LEFT JOIN, with the model table on the right side.",
    ),
    "the kept side of a left join": (
        "SELECT s FROM ml.affine p LEFT JOIN generate_series(1, 3) n ON p.b = n WHERE p.a = 1",
        '"b" does not bind it: it is that of an outer join that keeps all rows of the table.',
        "Exchange the two sides, or use JOIN.",
    ),
}


@pytest.mark.parametrize(("sql", "detail", "hint"), OBSTACLES.values(), ids=OBSTACLES)
def test_condition_that_does_not_bind(session: Connection, sql: str, detail: str, hint: str) -> None:
    report = failure(session, sql)
    assert (report.detail, report.hint) == ("A condition on column " + detail, hint)


def test_values_under_or(session: Connection) -> None:
    """From PostgreSQL 18 on, the planner makes a list of them."""
    sql = "SELECT s FROM ml.affine WHERE a = 1 AND (b = 2 OR b = 3)"
    if session.info.server_version >= 180000:
        assert len(execute(session, sql)) == 2
    else:
        report = failure(session, sql)
        assert report.detail == 'A condition on column "b" does not bind it: it consists of equalities under OR.'
        assert report.hint == 'Write "b IN (..., ...)" instead.'


def test_more_relations_than_the_planner_reorders(session: Connection) -> None:
    execute(session, "SET LOCAL join_collapse_limit = 2")
    sql = (
        "SELECT p.s FROM ml.affine p CROSS JOIN generate_series(1, 2) m JOIN generate_series(1, 2) n ON m = n "
        "JOIN generate_series(1, 2) o ON o = n AND p.a = o AND p.b = m"
    )
    report = failure(session, sql)
    assert report.detail == (
        'The conditions are there, but the query joins more relations than "join_collapse_limit" or '
        '"from_collapse_limit" lets the planner reorder.'
    )
    assert report.hint == (
        'Write table "affine" after those that give its inputs, or raise "join_collapse_limit" and '
        '"from_collapse_limit".'
    )
    execute(session, "SET LOCAL join_collapse_limit = 8")
    assert len(execute(session, sql)) == 2


def test_explain_of_an_unbound_input(session: Connection) -> None:
    plan = [line for (line,) in execute(session, "EXPLAIN (COSTS OFF) SELECT s FROM ml.affine WHERE a = 1")]
    assert "  Unbound Inputs: b" in plan


BARRIERS = {
    "limit": ("SELECT * FROM ml.affine LIMIT 1000", "has LIMIT or OFFSET"),
    "offset": ("SELECT * FROM ml.affine OFFSET 0", "has LIMIT or OFFSET"),
    "distinct": ("SELECT DISTINCT ON (s) * FROM ml.affine", "has DISTINCT"),
    "group by": (
        "SELECT max(a) AS a, max(b) AS b, s FROM ml.affine GROUP BY s",
        "has GROUP BY or an aggregate",
    ),
    "aggregate": ("SELECT max(a) AS a, max(b) AS b, max(s) AS s FROM ml.affine", "has GROUP BY or an aggregate"),
    "window": ("SELECT *, row_number() OVER () FROM ml.affine", "has a window function"),
}


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT s FROM v WHERE a = 1 AND b = 2",
        "SELECT s FROM generate_series(1, 3) n JOIN v ON v.a = n AND v.b = n",
    ],
    ids=["scan", "join"],
)
@pytest.mark.parametrize("barrier", BARRIERS)
def test_unbound_input_of_a_view(session: Connection, barrier: str, sql: str) -> None:
    definition, reason = BARRIERS[barrier]
    execute(session, f"CREATE VIEW v AS {definition}")
    assert failure(session, sql) == ALL_UNBOUND._replace(detail=unbound(reason).detail)


@pytest.mark.parametrize(
    "definition", ["SELECT DISTINCT * FROM ml.affine", "SELECT a, b, max(s) AS s FROM ml.affine GROUP BY a, b"]
)
def test_bound_input_of_a_view(session: Connection, definition: str) -> None:
    """Constants reach the columns that a view groups by."""
    execute(session, f"CREATE VIEW v AS {definition}")
    assert execute(session, "SELECT s FROM v WHERE a = 1 AND b = 2") == [(8,)]


def test_unbound_input_behind_a_security_barrier(session: Connection) -> None:
    """Only constants pass a security barrier, and only by operators that are leakproof."""
    execute(session, "CREATE VIEW v WITH (security_barrier) AS SELECT * FROM ml.affine")
    assert execute(session, "SELECT s FROM v WHERE a = 1 AND b = 2") == [(8,)]
    sql = "SELECT s FROM generate_series(1, 3) n JOIN v ON v.a = n AND v.b = n"
    assert failure(session, sql) == ALL_UNBOUND._replace(detail=unbound("is a security barrier").detail)
    execute(session, "CREATE FOREIGN TABLE affine (a float8, b numeric, s float8) SERVER triton")
    execute(session, "CREATE VIEW w WITH (security_barrier) AS SELECT * FROM affine")
    assert failure(session, "SELECT s FROM w WHERE a = 1 AND b = 2") == unbound("is a security barrier")


def test_unbound_input_of_a_materialized_cte(session: Connection) -> None:
    sql = "WITH v AS MATERIALIZED (SELECT * FROM ml.affine) SELECT s FROM v WHERE a = 1 AND b = 2"
    assert failure(session, sql) == ALL_UNBOUND._replace(detail=unbound("is a materialized CTE").detail)


# ---- options ----

NO_URL = Report(
    "HV00J",
    'option "url" is required for a server',
    None,
    "Set it: where the model server listens: grpc://host:port or http://host:port, with TLS grpcs:// or https://, "
    "several of a kind separated by commas; port 8001 for gRPC, 8000 for http and 443 for https unless given.",
)
URL_HINT = "Write grpc://host:port or http://host:port, with TLS grpcs://host:port or https://host:port."


def server_with(options: str) -> str:
    return f"CREATE SERVER other FOREIGN DATA WRAPPER model_fdw OPTIONS ({options})"


def mapping_with(options: str) -> str:
    return f"CREATE USER MAPPING FOR PUBLIC SERVER triton OPTIONS ({options})"


def table_with(options: str) -> str:
    return f"CREATE FOREIGN TABLE t (x float8, y float8) SERVER triton OPTIONS ({options})"


def column_with(options: str) -> str:
    return f"CREATE FOREIGN TABLE t (x float8 OPTIONS ({options}), y float8) SERVER triton"


def unknown(name: str, hint: str) -> Report:
    return Report("HV00D", f'invalid option "{name}"', None, hint)


def out_of_bounds(name: str, value: str, low: str, high: str) -> Report:
    detail = f"Valid values are between {low} and {high}."
    return Report("22023", f'value {value} out of bounds for option "{name}"', detail)


def no_integer(name: str, value: str, low: str, high: str) -> Report:
    hint = f"Valid values are integers from {low} to {high}."
    return Report("22023", f'invalid value for integer option "{name}": {value}', None, hint)


OPTIONS = [
    # unknown names
    (server_with("url 'grpc://h', urll 'x'"), unknown("urll", 'Perhaps you meant the option "url".')),
    (
        server_with("url 'grpc://h', connect_timeout '9'"),
        unknown("connect_timeout", 'Perhaps you meant the option "connect_timeout_ms".'),
    ),
    (
        server_with("url 'grpc://h', batch_size '9'"),
        unknown("batch_size", 'Set option "batch_size" on a foreign table.'),
    ),
    (server_with("url 'grpc://h', token 'x'"), unknown("token", 'Set option "token" on a user mapping.')),
    (
        server_with("url 'grpc://h', zzz 'x'"),
        unknown(
            "zzz",
            "Valid options in this context are: url, protocol, descriptor_set, sslrootcert, tls_server_name, "
            "connect_timeout_ms, keepalive_ms, compression, max_message_bytes, "
            "default_batch_size, default_max_in_flight, default_timeout_ms, default_max_attempts, "
            "default_retry_budget.",
        ),
    ),
    (mapping_with("tokn 'x'"), unknown("tokn", 'Perhaps you meant the option "token".')),
    (
        mapping_with("\"user\" 'x'"),
        unknown("user", "Valid options in this context are: token, headers, sslcert, sslkey."),
    ),
    (mapping_with("url 'grpc://h'"), unknown("url", 'Set option "url" on a server.')),
    (table_with("modl 'slow'"), unknown("modl", 'Perhaps you meant the option "model".')),
    (table_with("batchsize '3'"), unknown("batchsize", 'Perhaps you meant the option "batch_size".')),
    (table_with("dtype 'FP64'"), unknown("dtype", 'Set option "dtype" on a column.')),
    (column_with("imput 'x'"), unknown("imput", 'Perhaps you meant the option "input".')),
    (column_with("model 'x'"), unknown("model", 'Set option "model" on a foreign table.')),
    (
        "ALTER FOREIGN DATA WRAPPER model_fdw OPTIONS (ADD bogus 'x')",
        unknown("bogus", "There are no valid options in this context."),
    ),
    (
        "IMPORT FOREIGN SCHEMA models FROM SERVER triton INTO scratch OPTIONS (bogus 'x')",
        unknown(
            "bogus", "Valid options in this context are: prefix, versions, expand, columns, float_arrays, lower_names."
        ),
    ),
    # values
    ("CREATE SERVER other FOREIGN DATA WRAPPER model_fdw", NO_URL),
    ("ALTER SERVER triton OPTIONS (DROP url)", NO_URL),
    (server_with("url 'grpc://'"), Report("22023", 'option "url" names no host', None, URL_HINT)),
    (server_with("url 'h:8001'"), Report("22023", 'option "url" has no valid scheme', None, URL_HINT)),
    (server_with("url 'grpc://h:99999'"), Report("22023", 'invalid host or port in option "url"', None, URL_HINT)),
    (server_with("url 'grpc://h:8001/v2'"), Report("22023", 'option "url" must end after the port', None, URL_HINT)),
    (
        server_with("url 'http://h:8000/v2'"),
        Report("22023", 'option "url" must end after the port', None, URL_HINT),
    ),
    (
        server_with("url 'http://h', protocol 'grpc'"),
        Report(
            "22023", 'protocol "grpc" needs a url of scheme grpc or grpcs', None, 'Correct option "url" or "protocol".'
        ),
    ),
    (
        server_with("url 'grpc://h', protocol 'rest'"),
        Report("22023", 'invalid value for option "protocol": rest', None, "Valid values are: triton, grpc."),
    ),
    (
        server_with("url 'grpc://h', descriptor_set '/f'"),
        Report(
            "22023",
            'option "descriptor_set" is for servers of protocol "grpc"',
            None,
            'Set option "protocol" to "grpc".',
        ),
    ),
    (
        server_with("url 'grpc://h', protocol 'grpc', descriptor_set 'f'"),
        Report(
            "22023",
            'option "descriptor_set" must be an absolute path',
            None,
            "The file is read on the database server.",
        ),
    ),
    (
        table_with("method 'score'"),
        Report(
            "22023",
            'invalid value for option "method": score',
            None,
            "Write package.Service/Method, as the .proto file does.",
        ),
    ),
    (
        table_with("method 'p.S/Score', version '1'"),
        Report(
            "22023",
            'options "method" and "model" or "version" cannot be set on the same foreign table',
            None,
            'Set option "method" for a server of protocol "grpc", the others for any other.',
        ),
    ),
    (
        server_with("url 'grpc://a:1,grpcs://b:1'"),
        Report("22023", 'option "url" mixes schemes', None, "Give all endpoints the same scheme."),
    ),
    (
        server_with("url 'grpc://a:1,grpc://a:1'"),
        Report("22023", 'option "url" names an endpoint twice', None, "Name each endpoint once."),
    ),
    (
        server_with("url 'grpc://me:hush@h:8001'"),
        Report(
            "22023",
            'option "url" must not hold a user name or password',
            None,
            'Set option "token" or "headers" of a user mapping.',
        ),
    ),
    (
        server_with("url 'grpc://h', connect_timeout_ms '99'"),
        out_of_bounds("connect_timeout_ms", "99", "100", "86400000"),
    ),
    (
        server_with("url 'grpc://h', keepalive_ms '9999'"),
        out_of_bounds("keepalive_ms", "9999", "10000", "86400000"),
    ),
    (
        server_with("url 'grpc://h', compression 'zip'"),
        Report("22023", 'invalid value for option "compression": zip', None, "Valid values are: none, gzip, deflate."),
    ),
    (
        server_with("url 'grpc://h', max_message_bytes '2147483648'"),
        out_of_bounds("max_message_bytes", "2147483648", "65536", "2147483647"),
    ),
    (table_with("batch_size '0'"), out_of_bounds("batch_size", "0", "1", "1048576")),
    (table_with("batch_size '1048577'"), out_of_bounds("batch_size", "1048577", "1", "1048576")),
    (table_with("batch_size 'many'"), no_integer("batch_size", "many", "1", "1048576")),
    (table_with("max_in_flight '65'"), out_of_bounds("max_in_flight", "65", "1", "64")),
    (table_with("timeout_ms '-1'"), out_of_bounds("timeout_ms", "-1", "1", "86400000")),
    (table_with("timeout_ms '1.5'"), no_integer("timeout_ms", "1.5", "1", "86400000")),
    (table_with("max_attempts '21'"), out_of_bounds("max_attempts", "21", "1", "20")),
    (table_with("retry_budget '-1'"), out_of_bounds("retry_budget", "-1", "0", "1000000")),
    (
        server_with("url 'grpcs://h', sslrootcert 'ca.crt'"),
        Report(
            "22023",
            'option "sslrootcert" must be an absolute path',
            None,
            "The file is read on the database server.",
        ),
    ),
    (
        server_with("url 'grpcs://h', tls_server_name 'a b'"),
        Report("22023", 'option "tls_server_name" names no host'),
    ),
    (mapping_with("sslcert '/c'"), Report("22023", 'options "sslcert" and "sslkey" must be set together')),
    (table_with("row_cost 'NaN'"), out_of_bounds("row_cost", "NaN", "0", "1000000000")),
    (
        table_with("row_cost 'much'"),
        Report(
            "22023",
            'invalid value for floating point option "row_cost": much',
            None,
            "Valid values are numbers from 0 to 1000000000.",
        ),
    ),
    (table_with("model ''"), Report("22023", 'option "model" must not be empty')),
    (column_with("input 'x', index '0'"), out_of_bounds("index", "0", "1", "1000000")),
    (
        column_with("input 'x', dtype 'FLOAT'"),
        Report(
            "22023",
            'invalid value for option "dtype": FLOAT',
            None,
            "Valid values are: BOOL, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, FP16, BF16, FP32, FP64, "
            "BYTES.",
        ),
    ),
    (
        column_with("input 'x', shape '3'"),
        Report(
            "22023",
            'invalid value for option "shape": 3',
            None,
            "Write the dimensions in brackets, -1 for a variable one, for instance [-1,30].",
        ),
    ),
    (
        column_with("input 'x', optional 'maybe'"),
        Report("22023", 'invalid value for boolean option "optional": maybe', None, "Valid values are true and false."),
    ),
    (
        column_with("input 'x', output 'x'"),
        Report(
            "22023",
            'options "input" and "output" cannot be set on the same column',
            None,
            "Declare one column for the input and one for the output.",
        ),
    ),
    (
        column_with("output 'x', error 'true'"),
        Report(
            "22023",
            'options "error" and "output" cannot be set on the same column',
            "A column for the server's message is tied to no tensor.",
            'Drop option "output".',
        ),
    ),
    (
        column_with("output 'x', optional 'true'"),
        Report("22023", 'option "optional" cannot be set on an output column', None, 'Drop option "optional".'),
    ),
]


@checked_by_ddl
@pytest.mark.parametrize(("sql", "expected"), OPTIONS, ids=[sql.partition(" ")[2] for sql, _ in OPTIONS])
def test_option(session: Connection, sql: str, expected: Report) -> None:
    assert failure(session, sql) == expected


# ---- secrets ----

SECRET = "hush-5uVw9Zq"

SECRET_OPTIONS = [
    (
        mapping_with(f"token '{SECRET} and more'"),
        Report(
            "22023",
            'invalid value for option "token"',
            "A token is one or more printable ASCII characters without spaces.",
        ),
    ),
    (
        mapping_with(f"headers 'x-key {SECRET}'"),
        Report(
            "22023",
            'invalid header in option "headers"',
            "The header at position 1 is not a valid name, a colon and a printable ASCII value.",
        ),
    ),
    (
        mapping_with(f"token '{SECRET}', headers 'authorization: {SECRET}'"),
        Report(
            "22023",
            'option "token" and a header "authorization" cannot be set together',
            None,
            'Set option "token", or the header.',
        ),
    ),
    (
        server_with(f"url 'grpc://me:{SECRET}@h:99999'"),
        Report("22023", 'invalid host or port in option "url"', None, URL_HINT),
    ),
]


@checked_by_ddl
@pytest.mark.parametrize(("sql", "expected"), SECRET_OPTIONS)
def test_secret_of_a_refused_option(session: Connection, sql: str, expected: Report) -> None:
    found = failure(session, sql)
    assert found == expected
    assert SECRET not in repr(found)


DENIALS = [
    Behaviour(status=grpc.StatusCode.UNAUTHENTICATED, status_text="who are you?", status_methods=frozenset({method}))
    for method in ("ModelMetadata", "ModelInfer")
]


@every_query
@pytest.mark.parametrize("behaviour", DENIALS, ids=["metadata", "inference"])
def test_refused_token(session: Connection, behaviour: Behaviour, sql: str) -> None:
    with FakeServer(behaviour) as server:
        add_server(session, server.url)
        execute(session, f"CREATE USER MAPPING FOR PUBLIC SERVER other OPTIONS (token '{SECRET}')")
        add_table(session, "fake", server="other")
        assert failure(session, sql) == Report(
            "28000",
            'access to model "fake" on model server "ENDPOINT" was denied',
            "The server said: who are you?",
            'Check options "token", "headers" and "sslcert" of the user mapping.',
        )
        assert server.headers["authorization"] == f"Bearer {SECRET}"


TROUBLES: list[str | Behaviour] = [
    "refuses",
    "accepts-and-hangs",
    "resets",
    "wrong-rows",
    "missing-output",
    "never-answers",
    *DENIALS,
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble if isinstance(trouble, str) else "denies")
def test_no_secret_is_told(database: Database, session: Connection, trouble: str | Behaviour) -> None:
    """Neither an error nor the server's log, however much it writes, holds a token or a header's value."""
    log = database.postgres.log
    execute(session, "SET LOCAL log_min_messages = debug1")
    with FakeServer(trouble) as server:
        add_server(session, server.url, "connect_timeout_ms '100'", "default_timeout_ms '300'")
        options = f"token '{SECRET}', headers 'x-key: {SECRET}'"
        execute(session, f"CREATE USER MAPPING FOR PUBLIC SERVER other OPTIONS ({options})")
        add_table(session, "fake", server="other")
        position = log.stat().st_size
        for sql in QUERIES.values():
            assert SECRET not in repr(failure(session, sql))
        with contextlib.suppress(psycopg.Error), session.transaction():
            execute(session, "IMPORT FOREIGN SCHEMA models FROM SERVER other INTO scratch")
    written = log.read_bytes()[position:].decode(errors="replace")
    assert "ERROR" in written
    assert SECRET not in written


# ---- Python packages ----


@pytest.fixture
def packages() -> Iterator[Path]:
    """An empty directory that the server's user can read."""
    directory = Path(tempfile.mkdtemp(prefix="model_fdw-test-", dir="/tmp"))
    try:
        make_readable(directory)
        yield directory
    finally:
        shutil.rmtree(directory)


IMPORTING = {
    "scan": "SELECT s FROM ml.affine WHERE a = 1 AND b = 2",
    "join": "SELECT s FROM generate_series(1, 3) n JOIN ml.affine p ON p.a = n AND p.b = n",
    "import": "IMPORT FOREIGN SCHEMA models FROM SERVER triton INTO scratch",
}

NO_FDW = Report(
    "58P01",
    'could not import Python package "fdw"',
    None,
    'Install model_fdw with pip into a directory that setting "model_fdw.python_path" names.',
)


def no_fdw(packages: Path) -> Report:
    return NO_FDW._replace(detail=f'The directories of "model_fdw.python_path" are "{packages}".')


@own_engine
@pytest.mark.parametrize("sql", IMPORTING.values(), ids=IMPORTING)
def test_missing_package(database: Database, session: Connection, packages: Path, sql: str) -> None:
    shutil.copytree(PACKAGE, packages / "fdw", ignore=shutil.ignore_patterns("__pycache__", "native"))
    make_readable(packages)
    with database.connect(**{"model_fdw.python_path": packages}) as fresh:
        # What the engine itself needs is there: options can be checked.
        assert failure(fresh, table_with("modl 'x'")).hint == 'Perhaps you meant the option "model".'
        for _ in range(2):
            assert failure(fresh, sql) == Report(
                "58P01",
                'could not import Python package "numpy"',
                f'The directories of "model_fdw.python_path" are "{packages}".',
                'Install it with "pip install \'numpy\'", and let setting "model_fdw.python_path" name its directory.',
            )


@own_engine
@pytest.mark.parametrize("sql", [*IMPORTING.values(), table_with("model 'x'")], ids=[*IMPORTING, "validator"])
def test_missing_engine(database: Database, session: Connection, packages: Path, sql: str) -> None:
    with database.connect(**{"model_fdw.python_path": packages}) as fresh:
        for _ in range(2):
            assert failure(fresh, sql) == no_fdw(packages)


OUT_OF_MEMORY = """
import json
def loads(text):
    raise MemoryError
json.loads = loads
"""


@own_engine
def test_out_of_memory(database: Database, session: Connection, packages: Path) -> None:
    """Where Python's memory does not suffice, the error has PostgreSQL's SQLSTATE."""
    (packages / "forgetful.pth").write_text(f"import sys; exec({OUT_OF_MEMORY!r})\n")
    make_readable(packages)
    [(path,)] = execute(session, "SHOW model_fdw.python_path")
    with database.connect(**{"model_fdw.python_path": f"{path}:{packages}"}) as fresh:
        for _ in range(2):
            assert failure(fresh, IMPORTING["scan"]) == Report(
                "53200", "out of memory", "Failed in the model engine, in Python."
            )


@own_engine
def test_package_that_appears(database: Database, session: Connection, packages: Path) -> None:
    """A failed import is tried again: a package that has been installed meanwhile is found."""
    with database.connect(**{"model_fdw.python_path": packages}) as fresh:
        assert failure(fresh, IMPORTING["scan"]) == no_fdw(packages)
        [(path,)] = execute(session, "SHOW model_fdw.python_path")
        execute(fresh, f"SET model_fdw.python_path = '{path}'")
        assert execute(fresh, IMPORTING["scan"]) == [(8,)]
