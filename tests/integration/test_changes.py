"""Models that change under a table: never a wrong answer, an error that says so, and cures that cure.

The model "changing" is written into Triton's repository, and written again with another signature. Its outputs are all
the same number: the sum of its inputs' elements, each times its place in its tensor.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import psycopg
import pytest
from conftest import Database
from fake_server import FakeModel, FakeServer
from test_messages import Report, execute, failure, normalised, session

from dev.servers import make_readable

__all__ = ["session"]

pytestmark = pytest.mark.hosts("native", reason="the Multicorn database has no model_fdw_check")

Connection = psycopg.Connection[Any]

PROGRAM = """
import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.config = json.loads(args["model_config"])

    def execute(self, requests):
        return [pb_utils.InferenceResponse(list(self.answer(request))) for request in requests]

    def answer(self, request):
        total = 0.0
        for tensor in request.inputs():
            array = tensor.as_numpy()
            rows = len(array) if self.config["max_batch_size"] else 1
            flat = array.reshape(rows, -1)
            if flat.dtype.kind in "OS":
                flat = np.array([[float(value) for value in row] for row in flat])
            total = total + (flat.astype("f8") * np.arange(1, flat.shape[1] + 1)).sum(axis=1)
        for output in self.config["output"]:
            shape = ([rows] if self.config["max_batch_size"] else []) + [int(size) for size in output["dims"]]
            full = np.broadcast_to(total.reshape([rows] + [1] * len(output["dims"])) if len(shape) > len(output["dims"])
                                   else total, shape)
            dtype = pb_utils.triton_string_to_numpy(output["data_type"])
            value = full.astype(dtype) if dtype != np.object_ else np.array(
                [str(one).encode() for one in full.ravel()], np.object_).reshape(shape)
            yield pb_utils.Tensor(output["name"], value)
"""


class Tensor(NamedTuple):
    """A tensor of the model's configuration."""

    name: str
    dtype: str = "FP64"
    dims: str = "1"
    optional: bool = False

    def __str__(self) -> str:
        optional = ", optional: true" if self.optional else ""
        dtype = self.dtype.replace("BYTES", "STRING")
        return f'{{ name: "{self.name}", data_type: TYPE_{dtype}, dims: [ {self.dims} ]{optional} }}'


class Signature(NamedTuple):
    """What the model is at a time; ``names`` are those of the elements of tensor "v"."""

    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    max_batch_size: int = 64
    names: str = ""
    more: str = ""

    def __str__(self) -> str:
        names = f'{{ key: "columns.v", value: {{ string_value: "{self.names}" }} }}' if self.names else ""
        return f"""
            name: "changing" backend: "python" max_batch_size: {self.max_batch_size}
            input [ {", ".join(map(str, self.inputs))} ] output [ {", ".join(map(str, self.outputs))} ]
            instance_group [{{ kind: KIND_CPU, count: 1 }}] parameters [ {names} ] {self.more}
        """


class Changing:
    """The model in the repository of a running Triton."""

    def __init__(self, database: Database) -> None:
        self.triton = database.triton
        self.directory = self.triton.repository / "changing"

    def become(self, signature: Signature) -> None:
        """Write the model with this signature, and load it."""
        (self.directory / "1").mkdir(parents=True, exist_ok=True)
        (self.directory / "1" / "model.py").write_text(PROGRAM)
        (self.directory / "config.pbtxt").write_text(str(signature))
        make_readable(self.directory)
        self.triton.load("changing")


@pytest.fixture
def changing(database: Database) -> Iterator[Changing]:
    model = Changing(database)
    try:
        yield model
    finally:
        model.triton.unload("changing")
        shutil.rmtree(model.directory)


X, Y = Tensor("x"), Tensor("y")
V = Tensor("v", "FP32", "3")
PLAIN = Signature([X], [Y])
NAMED = Signature([V], [Y], names="a,b,c")

# What the model was, what it is, and how many problems a table of the former has.
CHANGES: dict[str, tuple[Signature, Signature, int]] = {
    "output dtype": (PLAIN, Signature([X], [Tensor("y", "FP32")]), 1),
    "output dtype, text": (PLAIN, Signature([X], [Tensor("y", "BYTES")]), 1),
    "output dtype, boolean": (PLAIN, Signature([X], [Tensor("y", "BOOL")]), 1),
    "input dtype": (PLAIN, Signature([Tensor("x", "INT32")], [Y]), 1),
    "input dtype, text": (PLAIN, Signature([Tensor("x", "BYTES")], [Y]), 1),
    "input dtype, same type": (Signature([Tensor("x", "FP32")], [Y]), PLAIN, 1),
    "every dtype": (NAMED, Signature([Tensor("v", "INT64", "3")], [Tensor("y", "INT8")], names="a,b,c"), 2),
    "longer vector": (NAMED, Signature([Tensor("v", "FP32", "5")], [Y], names="a,b,c,d,e"), 2),
    "shorter vector": (NAMED, Signature([Tensor("v", "FP32", "2")], [Y], names="a,b"), 1),
    "elements in another order": (NAMED, Signature([V], [Y], names="c,a,b"), 1),
    "vector without names": (NAMED, Signature([V], [Y]), 0),
    "vector to matrix": (NAMED, Signature([Tensor("v", "FP32", "3, 2")], [Y]), 1),
    "vector to scalar": (NAMED, Signature([Tensor("v", "FP32", "1")], [Y]), 1),
    "matrix to vector": (Signature([Tensor("v", "FP32", "3, 2")], [Y]), NAMED, 1),
    "array to longer array": (Signature([V], [Y]), Signature([Tensor("v", "FP32", "4")], [Y]), 1),
    "array to scalar": (Signature([V], [Y]), Signature([Tensor("v", "FP32", "1")], [Y]), 1),
    "scalar to vector": (PLAIN, Signature([Tensor("x", "FP64", "4")], [Y]), 1),
    "output vector": (PLAIN, Signature([X], [Tensor("y", "FP64", "2")]), 1),
    "output matrix to scalar": (Signature([X], [Tensor("y", "FP32", "2, 2")]), PLAIN, 1),
    "input renamed": (PLAIN, Signature([Tensor("z")], [Y]), 1),
    "output renamed": (PLAIN, Signature([X], [Tensor("z")]), 1),
    "output renamed, another dtype": (PLAIN, Signature([X], [Tensor("z", "FP32")]), 2),
    "everything renamed": (NAMED, Signature([Tensor("p"), Tensor("q")], [Tensor("z", "INT64")]), 7),
    "one more input": (PLAIN, Signature([X, Tensor("z", "FP32", "3")], [Y]), 1),
    "one more output": (PLAIN, Signature([X], [Y, Tensor("z")]), 0),
    "one input less": (Signature([X, Tensor("z")], [Y]), PLAIN, 1),
    "one output less": (Signature([X], [Y, Tensor("z")]), PLAIN, 1),
    "sides swapped": (Signature([X], [Y]), Signature([Y], [X]), 2),
    "input becomes optional": (PLAIN, Signature([Tensor("x", optional=True)], [Y]), 1),
    "input becomes required": (Signature([X, Tensor("z", optional=True)], [Y]), Signature([X, Tensor("z")], [Y]), 1),
    "smaller batches": (PLAIN, Signature([X], [Y], max_batch_size=2), 1),
    "no batches": (PLAIN, Signature([X], [Y], max_batch_size=0), 1),
    "no batches, vector": (NAMED, Signature([V], [Tensor("y", "INT8")], max_batch_size=0, names="a,b,c"), 1),
    "batches": (Signature([X, V], [Y], max_batch_size=0), Signature([X, V], [Y]), 2),
}


def columns(connection: Connection, role: str) -> dict[str, str]:
    """Return the table's inputs or outputs, and their types, in the order of the table."""
    rows = execute(
        connection,
        "SELECT attname, format_type(atttypid, atttypmod), attfdwoptions FROM pg_attribute "
        "WHERE attrelid = 'changing'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
    )
    return {name: type_ for name, type_, options in rows if any(option.startswith(f"{role}=") for option in options)}


def query(connection: Connection, signature: Signature) -> str:
    """Ask for all outputs, with every element of every input equal to its place among the columns."""
    dims = {tensor.name: [int(size) for size in tensor.dims.split(",")] for tensor in signature.inputs}
    conditions = []
    for number, (name, type_) in enumerate(columns(connection, "input").items(), start=1):
        value = f"'{number}'"
        if type_.endswith("[]"):
            *outer, inner = dims[name]
            value = f"array_fill({value}::{type_[:-2]}, ARRAY{[*outer, inner]})"
        conditions.append(f'"{name}" = {value}')
    outputs = ", ".join(f'"{name}"' for name in columns(connection, "output"))
    return f"SELECT {outputs} FROM changing WHERE {' AND '.join(conditions)}"


def expected(connection: Connection, signature: Signature) -> float:
    """Compute what the model answers to query()."""
    total = 0.0
    numbers = {name: number for number, name in enumerate(columns(connection, "input"), start=1)}
    rows = execute(
        connection,
        "SELECT attname, attfdwoptions FROM pg_attribute WHERE attrelid = 'changing'::regclass "
        "AND attnum > 0 AND NOT attisdropped",
    )
    elements = {}
    for name, options in rows:
        said = dict(option.split("=", 1) for option in options)
        if "input" in said:
            elements[said["input"], int(said.get("index", 0))] = numbers[name]
    for tensor in signature.inputs:
        size = 1
        for dimension in tensor.dims.split(","):
            size *= int(dimension)
        for place in range(1, size + 1):
            number = elements.get((tensor.name, place), elements.get((tensor.name, 0)))
            total += place * (number if number is not None else float("nan"))
    return total


def flat(value: Any) -> list[float]:
    """Return the numbers in an answer."""
    if isinstance(value, list):
        return [number for part in value for number in flat(part)]
    return [float(value)]


def assert_right(connection: Connection, signature: Signature, sql: str) -> None:
    right = expected(connection, signature)
    booleans = [tensor for tensor in signature.outputs if tensor.dtype == "BOOL"]
    for row in execute(connection, sql):
        for value in row:
            assert set(flat(value)) == {1.0 if booleans else right}


def all_columns(connection: Connection) -> list[str]:
    rows = execute(
        connection,
        "SELECT attname FROM pg_attribute WHERE attrelid = 'changing'::regclass AND attnum > 0 AND NOT attisdropped",
    )
    return [name for (name,) in rows]


ONLY_DROPPING = "Only a statement that drops columns cures this: "


def by_hand(found: Sequence[tuple[Any, ...]]) -> list[str]:
    """Return the statements that details have where there is no cure."""
    return [detail.partition(ONLY_DROPPING)[2] for _, _, _, detail, cure in found if cure is None]


def problems(connection: Connection) -> list[tuple[Any, ...]]:
    return execute(connection, "SELECT * FROM model_fdw_check('changing')")


@pytest.mark.parametrize("change", CHANGES)
def test_change(database: Database, changing: Changing, connection: Connection, change: str) -> None:
    earlier, after, count = CHANGES[change]
    changing.become(earlier)
    execute(connection, "IMPORT FOREIGN SCHEMA models LIMIT TO (changing) FROM SERVER triton INTO scratch")
    assert problems(connection) == []
    sql = query(connection, earlier)
    assert_right(connection, earlier, sql)
    execute(connection, f"PREPARE asked AS {sql}")
    assert_right(connection, earlier, "EXECUTE asked")

    changing.become(after)
    found = problems(connection)
    assert len(found) == count, found
    # What this session knew is out of date; a new session has asked nobody yet.
    with database.connect(search_path="scratch") as fresh:
        for asking, statement in ((fresh, sql), (connection, sql), (connection, "EXECUTE asked")):
            # what has become required may have been bound all along
            if any(severity == "error" for severity, *_ in found) and change != "input becomes required":
                report = failure(asking, statement)
                assert report.sqlstate in ("HV004", "HV005"), report
                assert "changing" in f"{report.message} {report.detail}"
                if report.sqlstate == "HV004":
                    assert report.hint == CHECK_HINT
            else:
                assert_right(connection, after, statement)
    before = set(all_columns(connection))
    for _, _, _, _, cure in found:
        if cure:
            execute(connection, cure)
    assert before <= set(all_columns(connection)), "no cure drops a column"
    for statement in by_hand(found):
        execute(connection, statement)
    assert problems(connection) == []
    again = query(connection, after)
    assert_right(connection, after, again)
    with database.connect(search_path="scratch") as fresh:
        assert_right(fresh, after, again)
    execute(connection, "DEALLOCATE asked")


CHECK_HINT = (
    "\"SELECT * FROM model_fdw_check('scratch.changing')\" shows what differs, and the statements that cure it."
)


def test_change_that_only_an_answer_shows(changing: Changing, connection: Connection) -> None:
    """A described table is planned without the server, and a session believes for a while what it was told."""
    changing.become(PLAIN)
    execute(connection, "IMPORT FOREIGN SCHEMA models LIMIT TO (changing) FROM SERVER triton INTO scratch")
    sql = "SELECT y FROM changing WHERE x = 3"
    assert execute(connection, sql) == [(3,)]
    changing.become(Signature([X], [Tensor("y", "FP32")]))
    found = failure(connection, sql)
    assert found == Report(
        "HV004",
        'model "changing" on model server "ENDPOINT" has changed',
        'Its output tensor "y" was FP64[-1,1], and is FP32[-1,1] now. A request for what it was failed: '
        + (found.detail or "").partition("failed: ")[2],
        CHECK_HINT,
    )
    assert failure(connection, sql) == Report(
        "HV004",
        'column "y" of foreign table "changing" does not match model "changing"',
        'The column declares dtype FP64; output tensor "y" has dtype FP32.',
        CHECK_HINT,
    )


def test_change_in_the_midst_of_a_query(changing: Changing, connection: Connection) -> None:
    changing.become(PLAIN)
    execute(connection, "IMPORT FOREIGN SCHEMA models LIMIT TO (changing) FROM SERVER triton INTO scratch")
    with connection.transaction(force_rollback=True), connection.cursor("rows") as cursor:
        cursor.itersize = 10
        cursor.execute("SELECT n, y FROM generate_series(1, 100000) n JOIN changing ON x = n")
        assert all(n == y for n, y in cursor.fetchmany(10))
        changing.become(Signature([Tensor("x", "FP32")], [Tensor("y", "INT64")]))
        with pytest.raises(psycopg.Error) as caught:
            for n, y in cursor:
                assert n == y
    assert caught.value.diag.sqlstate == "HV004"
    assert normalised(caught.value.diag.message_primary) == 'model "changing" on model server "ENDPOINT" has changed'


# ---- model_fdw_check ----


def checked(connection: Connection, table: str) -> list[tuple[Any, ...]]:
    rows = execute(connection, f"SELECT * FROM model_fdw_check('{table}')")
    return [
        (severity, column, normalised(problem), normalised(detail), cure)
        for severity, column, problem, detail, cure in rows
    ]


def test_check_of_models_that_are_not_there(database: Database, session: Connection) -> None:
    execute(session, "CREATE FOREIGN TABLE t (x float8) SERVER triton OPTIONS (model 'nowhere')")
    assert checked(session, "t") == [
        (
            "error",
            None,
            'model "nowhere" does not exist on model server "ENDPOINT"',
            "The server said: Request for unknown model: 'nowhere' is not found. "
            'Check table option "model", or import the schema again.',
            None,
        )
    ]
    database.triton.unload("small_batch")
    try:
        [(severity, _, problem, _, cure)] = checked(session, "ml.small_batch")
        assert (severity, problem, cure) == (
            "error",
            'model "small_batch" on model server "ENDPOINT" is not ready',
            None,
        )
    finally:
        database.triton.load("small_batch")
    assert checked(session, "ml.small_batch") == []
    execute(session, "CREATE SERVER away FOREIGN DATA WRAPPER model_fdw OPTIONS (url 'grpc://127.0.0.1:1')")
    execute(session, "CREATE FOREIGN TABLE u (x float8) SERVER away")
    assert checked(session, "u") == [
        (
            "error",
            None,
            'could not reach model server "ENDPOINT"',
            'The connection was refused. Attempts: 3. Check option "url" of server "away".',
            None,
        )
    ]
    execute(session, "CREATE FOREIGN TABLE v (x float8) SERVER triton OPTIONS (model 'decoupled')")
    assert [(row[2], row[4]) for row in checked(session, "v")] == [
        ('model "decoupled" is decoupled, which is not supported', None)
    ]


def test_check_of_types(session: Connection) -> None:
    """Types of one's own are not judged before a model is asked for; the check judges all."""
    execute(session, "CREATE TYPE e AS ENUM ('one')")
    execute(
        session, "CREATE FOREIGN TABLE t (a e, b char(3), s point, d float8) SERVER triton OPTIONS (model 'affine')"
    )
    rows = checked(session, "t")
    assert [row[1:] for row in rows] == [
        (
            "a",
            'input column "a" cannot have type e',
            "Type e has no assignment cast to type double precision.",
            "ALTER FOREIGN TABLE scratch.t ALTER COLUMN a TYPE double precision",
        ),
        (
            "b",
            'input column "b" of foreign table "t" cannot have type character',
            "Its equality ignores differences that the model would see.",
            "ALTER FOREIGN TABLE scratch.t ALTER COLUMN b TYPE text",
        ),
        (
            "s",
            'output column "s" cannot have type point',
            "Type double precision has no assignment cast to type point.",
            "ALTER FOREIGN TABLE scratch.t ALTER COLUMN s TYPE double precision",
        ),
    ]
    while rows:
        execute(session, rows[0][4])
        rows = checked(session, "t")


def test_who_may_check(session: Connection) -> None:
    execute(session, "CREATE TABLE plain (x int); CREATE ROLE someone; GRANT USAGE ON SCHEMA scratch, ml TO someone")
    assert failure(session, "SELECT model_fdw_check('plain')") == Report(
        "42809", '"plain" is not a model table', None, "Name a foreign table of a model server."
    )
    execute(session, "SET LOCAL ROLE someone")
    assert failure(session, "SELECT model_fdw_check('ml.affine')") == Report(
        "42501", "permission denied for foreign table affine"
    )
    execute(session, "RESET ROLE; GRANT SELECT ON ml.affine TO someone; SET LOCAL ROLE someone")
    assert checked(session, "ml.affine") == []
    assert execute(session, "SELECT * FROM model_fdw_check(NULL)") == []


def test_who_may_not_check_does_not_wait(database: Database, connection: Connection) -> None:
    """Nor is a table locked, however shortly, by somebody who may not read it."""
    connection.execute("CREATE FOREIGN TABLE t (a float8, b float8) SERVER triton OPTIONS (model 'affine')")
    connection.execute("CREATE ROLE someone; GRANT USAGE ON SCHEMA scratch TO someone")
    try:
        with connection.transaction(), database.connect(search_path="scratch,public", lock_timeout="2s") as other:
            connection.execute("ALTER FOREIGN TABLE t ADD COLUMN s float8")
            other.execute("SET ROLE someone")
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for foreign table t"):
                other.execute("SELECT model_fdw_check('t')")
    finally:
        connection.execute("DROP OWNED BY someone; DROP ROLE someone")


def test_check_of_every_model(connection: Connection) -> None:
    """What an import has made has no problem."""
    found = execute(
        connection,
        "SELECT ftrelid::regclass::text, problem FROM pg_foreign_table, model_fdw_check(ftrelid::regclass)",
    )
    assert found == []


# ---- names that need quoting ----

NASTY = [
    "it's",
    'say "so"',
    "back\\slash",
    "new\nline",
    "tab\t",
    "100%s%n",
    "ünïcödé 表",
    "a b;--",
    "$1 $$",
    "select",
    "{},:",
]


def test_import_of_any_name(session: Connection) -> None:
    """Whatever models and tensors are called: the tables are made, asked and checked, and cures name them right."""
    models = {
        name: FakeModel(((name, "FP64", (-1, 1)),), ((f"{name}!", "FP64", (-1, 1)),), partial(twice, name))
        for name in NASTY
    }
    vector = FakeModel(
        (("v", "FP64", (-1, len(NASTY) - 1)),),
        (("y", "FP64", (-1, 1)),),
        lambda inputs: {"y": inputs["v"].sum(axis=1, keepdims=True)},
        # commas separate the names
        parameters={"columns.v": ",".join(name.strip() for name in NASTY if "," not in name)},
    )
    with FakeServer(models={**models, "vector": vector}) as server:
        execute(session, f"CREATE SERVER other FOREIGN DATA WRAPPER model_fdw OPTIONS (url '{server.url}')")
        for standard in ("on", "off"):
            execute(
                session, f"SET LOCAL standard_conforming_strings = {standard}; SET LOCAL escape_string_warning = off"
            )
            execute(session, "IMPORT FOREIGN SCHEMA models FROM SERVER other INTO scratch OPTIONS (prefix '%s ''\"')")
            tables = execute(
                session,
                "SELECT ftrelid::regclass::text, relname FROM pg_foreign_table JOIN pg_class c ON c.oid = ftrelid "
                "WHERE relnamespace = 'scratch'::regnamespace ORDER BY ftrelid",
            )
            assert sorted(name for _, name in tables) == sorted(f"%s '\"{name}" for name in (*NASTY, "vector"))
            for table, name in tables:
                assert problems_of(session, table) == []
                tensor = name.removeprefix("%s '\"")
                if tensor != "vector":
                    ask = f"SELECT {quoted(f'{tensor}!')} FROM {table} WHERE {quoted(tensor)} = 21"
                    assert execute(session, ask) == [(42,)]
                execute(session, f"DROP FOREIGN TABLE {table}")
        execute(session, "IMPORT FOREIGN SCHEMA models FROM SERVER other INTO scratch")
        for name, model in models.items():
            server.models[name] = replace(model, outputs=((f"{name}!", "INT64", (-1, 1)),))
            [(_, column, _, _, cure)] = problems_of(session, quoted(name))
            assert column == f"{name}!"
            execute(session, cure)
            assert problems_of(session, quoted(name)) == []


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def problems_of(connection: Connection, table: str) -> list[tuple[Any, ...]]:
    escaped = table.replace("\\", "\\\\").replace("'", "\\'")
    return execute(connection, f"SELECT * FROM model_fdw_check(E'{escaped}')")


def twice(name: str, inputs: dict[str, Any]) -> dict[str, Any]:
    return {f"{name}!": inputs[name] * 2}


# ---- interrupts ----


def test_a_check_can_be_cancelled(session: Connection) -> None:
    with FakeServer("never-answers-metadata") as server:
        execute(session, f"CREATE SERVER other FOREIGN DATA WRAPPER model_fdw OPTIONS (url '{server.url}')")
        execute(session, "CREATE FOREIGN TABLE t (x float8) SERVER other")
        execute(session, "SET LOCAL statement_timeout = 300")
        began_s = time.monotonic()
        found = failure(session, "SELECT * FROM model_fdw_check('t')")
        assert found == Report("57014", "canceling statement due to statement timeout")
        assert time.monotonic() - began_s < 2
