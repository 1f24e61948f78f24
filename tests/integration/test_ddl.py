"""Wrong DDL, each statement with its SQLSTATE and exact text; and right DDL, which the checks must not disturb."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import DATABASE, MULTICORN, Database, make_scratch, run_client
from test_messages import OPTIONS, Report, execute, failure, session

from dev.servers import Postgres

__all__ = ["session"]

pytestmark = pytest.mark.hosts("native", reason="Multicorn's DDL is checked by the tests here that have both hosts")

Connection = psycopg.Connection[Any]

X = "x float8 OPTIONS (input 'x', dtype 'FP64', shape '[-1,1]')"
Y = "y float8 OPTIONS (output 'y', dtype 'FP64', shape '[-1,1]')"


def table(*columns: str, more: str = "") -> str:
    """Define foreign table "t" with these columns."""
    return f"CREATE FOREIGN TABLE t ({', '.join(columns)}) {more} SERVER triton OPTIONS (model 'slow')"


def element(name: str, index: int, shape: str = "[-1,3]", type_: str = "float8", role: str = "input") -> str:
    """Define a column that is an element of tensor "v"."""
    return f"{name} {type_} OPTIONS ({role} 'v', index '{index}', dtype 'FP32', shape '{shape}')"


def same_input(detail: str, one: str = "a", other: str = "b") -> Report:
    return Report(
        "HV005",
        f'columns "{one}" and "{other}" of foreign table "t" feed the same input',
        detail,
        'Correct option "input" or "index" of one of them.',
    )


def different(option: str, detail: str) -> Report:
    return Report(
        "HV004",
        f'columns "a" and "b" of foreign table "t" declare different {option}s',
        detail,
        f'Correct option "{option}" of one of them.',
    )


def out_of_range(column: str, shape: str, width: int) -> Report:
    return Report(
        "HV005",
        f'option "index" of column "{column}" of foreign table "t" is out of range',
        f'Option "shape" says {shape}.',
        f"Valid values are between 1 and {width}.",
    )


def no_vector(shape: str) -> Report:
    return Report(
        "0A000",
        'option "index" of column "a" of foreign table "t" picks from a tensor that is no vector',
        f'Option "shape" says {shape}.',
        'Drop option "index".',
    )


def no_cast(role: str, column: str, type_: str, natural: str) -> Report:
    left, right = (type_, natural) if role == "input" else (natural, type_)
    return Report(
        "HV004",
        f'{role} column "{column}" cannot have type {type_}',
        f"Type {left} has no assignment cast to type {right}.",
        f"Use type {natural}.",
    )


def padded(column: str = "x") -> Report:
    return Report(
        "0A000",
        f'input column "{column}" of foreign table "t" cannot have type character',
        "Its equality ignores differences that the model would see.",
        "Use type text.",
    )


NO_COLUMNS = Report("42P16", 'foreign table "t" has no columns', None, "Add a column for each input of the model.")

# What a whole table shows, and a validator, which sees one column's options, does not.
TABLES: list[tuple[str, Report]] = [
    (table(), NO_COLUMNS),
    # overlaps
    (table(element("a", 1), element("b", 1)), same_input('Both are element 1 of input tensor "v".')),
    (
        table("a float8 OPTIONS (input 'v')", "b float8 OPTIONS (input 'v')"),
        same_input('Both are the whole of input tensor "v".'),
    ),
    (
        table("a float8 OPTIONS (input 'v')", "b float8 OPTIONS (input 'v', index '2')"),
        same_input('Column "a" is the whole of input tensor "v".'),
    ),
    (
        table("a float8 OPTIONS (input 'v', index '2')", "c float8", "b float8 OPTIONS (input 'v')"),
        same_input('Column "b" is the whole of input tensor "v".'),
    ),
    (
        table(element("a", 1), element("c", 2), element("d", 3), element("b", 3)),
        same_input('Both are element 3 of input tensor "v".', "d", "b"),
    ),
    # columns that disagree about their tensor
    (
        table(
            "a float8 OPTIONS (input 'v', index '1', dtype 'FP32')",
            "b float8 OPTIONS (input 'v', index '2', dtype 'FP64')",
        ),
        different("dtype", 'Column "a" says FP32 and column "b" FP64; both are tied to input tensor "v".'),
    ),
    (
        table(
            "a real OPTIONS (output 'v', index '1', dtype 'FP32')",
            "b real OPTIONS (output 'v', index '1', dtype 'FP16')",
        ),
        different("dtype", 'Column "a" says FP32 and column "b" FP16; both are tied to output tensor "v".'),
    ),
    (
        table(element("a", 1), element("b", 2, "[-1,2]")),
        different("shape", 'Column "a" says [-1,3] and column "b" [-1,2]; both are tied to input tensor "v".'),
    ),
    (
        table(element("a", 1, "[3]", "real", "output"), element("b", 1, "[-1,3]", "real", "output")),
        different("shape", 'Column "a" says [3] and column "b" [-1,3]; both are tied to output tensor "v".'),
    ),
    # elements that the shape does not have
    (table(element("a", 4)), out_of_range("a", "[-1,3]", 3)),
    (table(element("a", 4, "[3]")), out_of_range("a", "[3]", 3)),
    (table(element("a", 2, "[1]")), out_of_range("a", "[1]", 1)),
    (table(element("a", 2, "[]")), out_of_range("a", "[]", 1)),
    (table(element("a", 4, "[-1,3]", "real", "output")), out_of_range("a", "[-1,3]", 3)),
    (table(element("a", 1, "[-1,2,3]")), no_vector("[-1,2,3]")),
    (table(element("a", 1, "[2,3]")), no_vector("[2,3]")),
    # the other tensor has no dimension for rows, so this one has none
    (table(element("a", 2, "[-1,3]"), "y float8 OPTIONS (output 'y', dtype 'FP64', shape '[1]')"), no_vector("[-1,3]")),
    # types that cannot carry the dtype
    (
        table("x date OPTIONS (input 'x', dtype 'FP64', shape '[-1,1]')"),
        no_cast("input", "x", "date", "double precision"),
    ),
    (
        table("x bool OPTIONS (input 'x', dtype 'FP64', shape '[-1,1]')"),
        no_cast("input", "x", "boolean", "double precision"),
    ),
    (table("x int OPTIONS (input 'x', dtype 'BOOL', shape '[-1,1]')"), no_cast("input", "x", "integer", "boolean")),
    (table("x text OPTIONS (input 'x', dtype 'INT64', shape '[-1,1]')"), no_cast("input", "x", "text", "bigint")),
    (table("x bytea OPTIONS (input 'x', dtype 'UINT64', shape '[-1,1]')"), no_cast("input", "x", "bytea", "numeric")),
    (
        table("y point OPTIONS (output 'y', dtype 'FP64', shape '[-1,1]')"),
        no_cast("output", "y", "point", "double precision"),
    ),
    (
        table("y timestamptz OPTIONS (output 'y', dtype 'INT64', shape '[-1,1]')"),
        no_cast("output", "y", "timestamp with time zone", "bigint"),
    ),
    (table("y bool OPTIONS (output 'y', dtype 'FP32', shape '[-1,1]')"), no_cast("output", "y", "boolean", "real")),
    (table(element("a", 1, "[-1,3]", "date")), no_cast("input", "a", "date", "double precision")),
    (table("a uuid OPTIONS (input 'v', index '1', dtype 'FP32')"), no_cast("input", "a", "uuid", "double precision")),
    # types whose equality is too coarse
    (table("x char(5) OPTIONS (input 'x', dtype 'BYTES', shape '[-1,1]')"), padded()),
    (table("x bpchar OPTIONS (input 'x')"), padded()),
    # the same by ALTER
    (f"{table(X)}; ALTER FOREIGN TABLE t DROP COLUMN x", NO_COLUMNS),
    (f"{table(X)}; ALTER TABLE t DROP COLUMN x", NO_COLUMNS),
    (f"{table(X, Y)}; ALTER FOREIGN TABLE t DROP COLUMN x, DROP COLUMN y", NO_COLUMNS),
    (
        f"{table(element('a', 1))}; ALTER FOREIGN TABLE t ADD COLUMN {element('b', 1)}",
        same_input('Both are element 1 of input tensor "v".'),
    ),
    (
        f"{table(element('a', 1), element('b', 2))}; ALTER FOREIGN TABLE t ALTER b OPTIONS (SET index '1')",
        same_input('Both are element 1 of input tensor "v".'),
    ),
    (
        f"{table(element('a', 1), element('b', 2))}; ALTER FOREIGN TABLE t ALTER b OPTIONS (SET shape '[-1,2]')",
        different("shape", 'Column "a" says [-1,3] and column "b" [-1,2]; both are tied to input tensor "v".'),
    ),
    (
        f"{table(element('a', 1))}; ALTER FOREIGN TABLE t ALTER a OPTIONS (SET index '9')",
        out_of_range("a", "[-1,3]", 3),
    ),
    (f"{table(X)}; ALTER FOREIGN TABLE t ALTER x TYPE date", no_cast("input", "x", "date", "double precision")),
    (f"{table(X)}; ALTER TABLE t ALTER x TYPE date", no_cast("input", "x", "date", "double precision")),
    (f"{table('x text', Y)}; ALTER FOREIGN TABLE t ALTER x OPTIONS (ADD input 'x'), ALTER x TYPE char(3)", padded()),
    (
        f"{table('v float8', element('a', 2))}; ALTER FOREIGN TABLE t ALTER v OPTIONS (ADD input 'v')",
        same_input('Column "v" is the whole of input tensor "v".', "v", "a"),
    ),
    # by a table that it belongs to
    (
        "CREATE TABLE p (k int, x char(3)) PARTITION BY LIST (k); "
        "CREATE FOREIGN TABLE t PARTITION OF p DEFAULT SERVER triton OPTIONS (model 'slow'); "
        "ALTER FOREIGN TABLE t ALTER x OPTIONS (ADD input 'x')",
        padded(),
    ),
    (
        "CREATE TABLE p (k int, x float8) PARTITION BY LIST (k); "
        "CREATE FOREIGN TABLE t PARTITION OF p DEFAULT SERVER triton OPTIONS (model 'slow'); "
        "ALTER FOREIGN TABLE t ALTER x OPTIONS (ADD input 'x', dtype 'FP64', shape '[-1,1]'); "
        "ALTER TABLE p ALTER x TYPE text",
        no_cast("input", "x", "text", "double precision"),
    ),
    ("CREATE TABLE p (x char(3)); " + table("x char(3) OPTIONS (input 'x')", more="INHERITS (p)"), padded()),
    (
        f"CREATE TABLE p (x float8); {table(X, more='INHERITS (p)')}; ALTER TABLE p ALTER x TYPE text",
        no_cast("input", "x", "text", "double precision"),
    ),
    (
        f"CREATE TABLE p (x float8); CREATE TABLE q () INHERITS (p); {table(X, more='INHERITS (q)')}; "
        "ALTER TABLE p ALTER x TYPE char(3)",
        padded(),
    ),
    ("CREATE TABLE p (); CREATE FOREIGN TABLE t () INHERITS (p) SERVER triton", NO_COLUMNS),
]


@pytest.mark.parametrize(("sql", "expected"), TABLES, ids=[sql for sql, _ in TABLES])
def test_wrong_table(session: Connection, sql: str, expected: Report) -> None:
    *before, last = sql.split("; ")
    for statement in before:
        execute(session, statement)
    assert failure(session, last) == expected
    if last.startswith("CREATE"):
        assert execute(session, "SELECT to_regclass('t')") == [(None,)]


@pytest.mark.parametrize(
    "sql",
    [
        # gaps are filled one by one, in any order
        f"{table(element('b', 2))}; ALTER FOREIGN TABLE t ADD COLUMN {element('c', 3)}, ADD COLUMN {element('a', 1)}",
        # outputs may be shown twice, an element of a vector as well
        table("a real OPTIONS (output 'v', index '1')", "b text OPTIONS (output 'v', index '1')"),
        # the same name on both sides is two tensors
        table("a float8 OPTIONS (input 'v', dtype 'FP64')", "b bigint OPTIONS (output 'v', dtype 'INT64')"),
        # nothing is known of columns without options
        table("x date", "y point", "z char(3)", "v float8", element("w", 1)),
        # [-1] is one value a row, or a row of any length
        table("a float8 OPTIONS (input 'v', index '7', dtype 'FP64', shape '[-1]')"),
        table(
            "a float8[] OPTIONS (input 'v', dtype 'FP64', shape '[-1]')", "b float8 OPTIONS (output 'w', shape '[1]')"
        ),
        # vectors and matrices are arrays
        table("a real[] OPTIONS (input 'v', dtype 'FP32', shape '[-1,-1]')"),
        table("a numeric[] OPTIONS (input 'v', dtype 'FP32', shape '[-1,2,2]')"),
        # any type with a cast
        table("x numeric(9,2) OPTIONS (input 'x', dtype 'FP64', shape '[-1,1]')"),
        table("y jsonb OPTIONS (output 'y', dtype 'BYTES', shape '[-1,1]')"),
        # casts of other types than PostgreSQL's own may come later
        "CREATE TYPE e AS ENUM (); " + table("x e OPTIONS (input 'x', dtype 'FP64', shape '[-1,1]')"),
        "CREATE DOMAIN d AS float8 CHECK (value > 0); "
        + table("x d OPTIONS (input 'x', dtype 'FP64', shape '[-1,1]')"),
        f"{table(X, Y)}; ALTER FOREIGN TABLE t RENAME x TO z; ALTER FOREIGN TABLE t DROP COLUMN z; "
        "ALTER TABLE t RENAME TO u; ALTER TABLE u SET SCHEMA public; DROP FOREIGN TABLE public.u",
        f"{table(X)}; ALTER FOREIGN TABLE t ADD COLUMN y float8, DROP COLUMN x",
    ],
)
def test_right_table(session: Connection, sql: str) -> None:
    for statement in sql.split("; "):
        execute(session, statement)


@pytest.fixture(scope="module")
def both_hosts(multicorn_postgres: Postgres, database: Database) -> Database:
    """A database whose foreign server "triton" is Multicorn's, with the extension beside it."""
    made = Database(multicorn_postgres, database.triton, MULTICORN, "both_hosts")
    made.prepare()
    with made.connect() as connection:
        execute(connection, "CREATE EXTENSION model_fdw")
    return made


def test_wrong_tables_of_multicorn(both_hosts: Database, capsys: pytest.CaptureFixture[str]) -> None:
    """Multicorn checks nothing of a table; the event trigger checks its tables like our own."""
    # its options are checked there, too, which the validator does for our own
    options = [(sql, expected) for sql, expected in OPTIONS if sql.startswith("CREATE FOREIGN TABLE")]
    with both_hosts.connect() as connection, capsys.disabled():
        for sql, expected in TABLES + options:
            make_scratch(connection)
            *before, last = sql.split("; ")
            for statement in before:
                execute(connection, statement)
            assert failure(connection, last) == expected, sql
        print(f"\nof these, for tables of Multicorn: {len(TABLES) + len(options)}")


def test_right_tables_of_multicorn(both_hosts: Database) -> None:
    check = "SELECT ftrelid::regclass::text, problem FROM pg_foreign_table, model_fdw_check(ftrelid::regclass)"
    with both_hosts.session() as connection:
        assert execute(connection, check) == []
        execute(connection, table(X, Y))
        execute(connection, "ALTER FOREIGN TABLE t ALTER y TYPE float4, ALTER y OPTIONS (SET dtype 'FP32')")
        [(severity, column, *_, cure)] = execute(connection, "SELECT * FROM model_fdw_check('t')")
        assert (severity, column) == ("error", "y")
        execute(connection, cure)
        assert execute(connection, "SELECT * FROM model_fdw_check('t')") == []
        assert execute(connection, "SELECT y FROM t WHERE x = 2") == [(4,)]


def test_the_list_is_long_enough(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\nwrong DDL statements with their exact errors: {len(TABLES) + len(OPTIONS)}")
    assert len(TABLES) >= 40


# ---- where DDL runs ----

WRONG = table(element("a", 1), element("b", 1))
REFUSED = same_input('Both are element 1 of input tensor "v".')


def test_in_a_block(session: Connection) -> None:
    assert failure(session, f"DO $$ BEGIN {WRONG}; END $$") == REFUSED
    execute(session, f"DO $$ BEGIN BEGIN {WRONG}; EXCEPTION WHEN SQLSTATE 'HV005' THEN NULL; END; {table(X)}; END $$")
    assert execute(session, "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0") == [(1,)]


def test_in_transactions_that_roll_back(connection: Connection) -> None:
    for _ in range(3):
        with connection.transaction(force_rollback=True):
            execute(connection, table(X, Y))
            assert failure(connection, "ALTER FOREIGN TABLE t DROP COLUMN x, DROP COLUMN y") == NO_COLUMNS
            execute(connection, "ALTER FOREIGN TABLE t DROP COLUMN x")
        assert execute(connection, "SELECT to_regclass('t')") == [(None,)]
    assert failure(connection, WRONG) == REFUSED
    assert execute(connection, "SELECT to_regclass('t')") == [(None,)]


def test_of_a_user_without_rights(session: Connection) -> None:
    """The event trigger is a superuser's; the DDL and its errors are anybody's."""
    execute(session, "CREATE ROLE someone; GRANT USAGE ON FOREIGN SERVER triton TO someone")
    execute(session, "GRANT ALL ON SCHEMA scratch TO someone; SET LOCAL ROLE someone")
    assert failure(session, WRONG) == REFUSED
    execute(session, table(X, Y))
    assert failure(session, "ALTER FOREIGN TABLE t DROP COLUMN x, DROP COLUMN y") == NO_COLUMNS
    execute(session, "DROP FOREIGN TABLE t; RESET ROLE")


HOSTILE = """
CREATE FUNCTION scratch.pg_event_trigger_ddl_commands() RETURNS int LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'hijacked'; END $$;
CREATE FUNCTION scratch.hijack(oid, oid) RETURNS bool LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'hijacked'; END $$;
CREATE OPERATOR scratch.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = scratch.hijack);
CREATE TABLE scratch.pg_foreign_server (srvname text);
SET LOCAL search_path = scratch, pg_catalog
"""


def test_with_a_hostile_search_path(session: Connection) -> None:
    execute(session, "REVOKE EXECUTE ON FUNCTION pg_event_trigger_ddl_commands() FROM PUBLIC")
    execute(session, HOSTILE)
    assert failure(session, WRONG) == REFUSED
    execute(session, "SET LOCAL search_path = ''")
    assert failure(session, WRONG.replace(" t ", " scratch.t ")) == REFUSED


def test_other_ddl_does_not_start_python(database: Database, session: Connection) -> None:
    with database.connect(**{"model_fdw.python_path": "/nowhere"}) as fresh, fresh.transaction(force_rollback=True):
        execute(fresh, "CREATE TABLE scratch.plain (a int); ALTER TABLE scratch.plain ADD COLUMN b int")
        execute(fresh, "CREATE FOREIGN DATA WRAPPER bare; CREATE SERVER bare FOREIGN DATA WRAPPER bare")
        execute(fresh, "CREATE FOREIGN TABLE scratch.bare () SERVER bare")
        assert failure(fresh, "CREATE FOREIGN TABLE scratch.t () SERVER triton").sqlstate == "58P01"
        execute(fresh, "DROP FOREIGN TABLE ml.affine; DROP SERVER triton CASCADE")
        execute(fresh, "DROP EXTENSION model_fdw CASCADE; ALTER TABLE scratch.plain ADD COLUMN c int")


def test_tables_that_others_change_are_not_waited_for(database: Database, connection: Connection) -> None:
    execute(connection, "CREATE TABLE p (k int, x float8) PARTITION BY LIST (k)")
    execute(connection, "CREATE FOREIGN TABLE t PARTITION OF p DEFAULT SERVER triton OPTIONS (model 'slow')")
    with database.connect() as other, other.transaction(force_rollback=True):
        execute(other, "ALTER FOREIGN TABLE scratch.t ALTER x OPTIONS (ADD input 'x')")
        execute(connection, "SET lock_timeout = '1s'; ALTER TABLE ONLY p ALTER x SET STATISTICS 10")


def wait_for_locks(connection: Connection, count: int) -> None:
    """Wait until so many sessions wait for a lock on table "t"."""
    sql = "SELECT count(*) FROM pg_locks WHERE relation = 'scratch.t'::regclass AND NOT granted"
    deadline_s = time.monotonic() + 30
    while execute(connection, sql) != [(count,)]:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_tables_that_others_wait_for_are_checked(database: Database, connection: Connection) -> None:
    """Here the one who changes the table, which another session reads, has a third one behind."""
    execute(connection, table(X, Y))
    with database.connect() as wrong, database.connect() as late, ThreadPoolExecutor() as threads:
        with connection.transaction():
            execute(connection, "EXPLAIN SELECT * FROM t WHERE x = 1")  # locks it
            refused = threads.submit(failure, wrong, "ALTER FOREIGN TABLE scratch.t DROP COLUMN x, DROP COLUMN y")
            wait_for_locks(connection, 1)
            waiting = threads.submit(execute, late, "ALTER FOREIGN TABLE scratch.t ADD COLUMN z float8")
            wait_for_locks(connection, 2)
        assert refused.result(30) == NO_COLUMNS
        waiting.result(30)


def test_what_other_ddl_pays(session: Connection, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints what an ALTER TABLE of an ordinary table costs with the event trigger and without."""
    execute(session, "CREATE TABLE plain (a int)")
    costs_ms = {}
    for state in ("DISABLE", "ENABLE", "DISABLE", "ENABLE"):
        execute(session, f"ALTER EVENT TRIGGER model_fdw_check_ddl {state}")
        began_s = time.perf_counter()
        execute(
            session, "DO $$ BEGIN FOR i IN 1..500 LOOP ALTER TABLE plain ALTER a SET STATISTICS 10; END LOOP; END $$"
        )
        costs_ms[state] = (time.perf_counter() - began_s) * 1000 / 500
    with capsys.disabled():
        print(f"\nALTER TABLE: {costs_ms['ENABLE']:.3f} ms, without the event trigger {costs_ms['DISABLE']:.3f} ms")
    assert costs_ms["ENABLE"] - costs_ms["DISABLE"] < 1


# ---- dump and restore ----

RESTORED = "restored"

CAST = "CREATE CAST (mood AS float8) WITH FUNCTION to_number(mood) AS ASSIGNMENT"

DUMPED = f"""
CREATE SCHEMA kept;
SET search_path = kept;
CREATE TABLE parent (k int, x float8) PARTITION BY LIST (k);
CREATE FOREIGN TABLE child PARTITION OF parent DEFAULT SERVER triton OPTIONS (model 'slow');
ALTER FOREIGN TABLE child ALTER x OPTIONS (ADD input 'x', dtype 'FP64', shape '[-1,1]');
CREATE TABLE old (x float8);
CREATE FOREIGN TABLE heir (z float8) INHERITS (old) SERVER triton;
CREATE FOREIGN TABLE renamed ({element("v", 2)}, {element("w", 1)}, u real OPTIONS (output 'w', index '2'))
    SERVER triton;
CREATE FOREIGN TABLE flat (a int OPTIONS (input 'v', index '2', dtype 'INT32', shape '[-1]'),
    b bigint OPTIONS (output 'x', dtype 'INT64', shape '[1]')) SERVER triton;
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE FUNCTION to_number(mood) RETURNS float8 LANGUAGE sql IMMUTABLE AS 'SELECT 1.0::float8';
{CAST};
CREATE FOREIGN TABLE moody (x mood OPTIONS (input 'x', dtype 'FP64', shape '[-1,1]')) SERVER triton;
CREATE VIEW scores AS SELECT * FROM moody;
CREATE MATERIALIZED VIEW later AS SELECT * FROM ml.affine WHERE a = 1 AND b = 2 WITH NO DATA;
"""


@pytest.fixture
def dumped(database: Database) -> Iterator[Database]:
    """The database with tables that a dump takes apart, and an empty one to restore into."""
    database.postgres.psql(database=DATABASE, text=DUMPED)
    database.postgres.psql("-c", f"CREATE DATABASE {RESTORED}")
    try:
        yield database
    finally:
        database.postgres.psql("-c", f"DROP DATABASE {RESTORED}")
        database.postgres.psql(database=DATABASE, text="SET client_min_messages = error; DROP SCHEMA kept CASCADE")


def described(database: Database, name: str) -> str:
    """Dump a database's definitions as text, without what differs between two dumps of the same."""
    lines = run_client(database.postgres, "pg_dump", "--schema-only", name).splitlines()
    return "\n".join(line for line in lines if not line.startswith(("--", "\\")))


@pytest.mark.parametrize("way", ["plain", "custom", "parallel", "clean", "twice"])
def test_dump_and_restore(dumped: Database, tmp_path: Path, way: str) -> None:
    before = described(dumped, DATABASE)
    assert re.search(r"ALTER FOREIGN TABLE (ONLY )?kept\.renamed ALTER COLUMN v", before), "one option after the other"
    assert "EVENT TRIGGER" not in before, "the event trigger comes with the extension"
    dump = tmp_path / "dump"
    if way == "plain":
        run_client(dumped.postgres, "pg_dump", "--file", dump, DATABASE)
        run_client(
            dumped.postgres, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f", dump, RESTORED
        )
    else:
        form = "d" if way == "parallel" else "c"
        jobs = ["--jobs", "3"] if way == "parallel" else []
        run_client(dumped.postgres, "pg_dump", "--format", form, *jobs, "--file", dump, DATABASE)
        clean = ["--clean", "--if-exists"] if way in ("clean", "twice") else []
        for _ in range(2 if way == "twice" else 1):
            run_client(dumped.postgres, "pg_restore", "--exit-on-error", *jobs, *clean, "--dbname", RESTORED, dump)
    assert described(dumped, RESTORED) == before
    with psycopg.connect(dumped.postgres.conninfo(RESTORED), autocommit=True) as restored:
        assert failure(restored, WRONG) == REFUSED
        assert execute(restored, "SELECT s FROM ml.affine WHERE a = 1 AND b = 2") == [(8,)]


def test_dump_of_the_schema_without_the_extension(dumped: Database, tmp_path: Path) -> None:
    """A dump of some schemas holds neither the extension nor the server, which are there, and no cast."""
    with dumped.connect() as connection:
        dump = tmp_path / "dump"
        run_client(dumped.postgres, "pg_dump", "--schema", "kept", "--file", dump, DATABASE)
        before = described(dumped, DATABASE)
        execute(connection, "SET client_min_messages = error; DROP SCHEMA kept CASCADE")
        run_client(
            dumped.postgres, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f", dump, DATABASE
        )
        execute(connection, "SET search_path = kept; " + CAST)
        assert described(dumped, DATABASE) == before


def test_drop_of_everything(session: Connection) -> None:
    execute(session, table(X, Y))
    execute(session, "SET LOCAL client_min_messages = warning; DROP SERVER triton CASCADE")
    assert execute(session, "SELECT to_regclass('t')") == [(None,)]
    execute(session, "DROP EXTENSION model_fdw CASCADE")
    assert execute(session, "SELECT count(*) FROM pg_event_trigger") == [(0,)]
    execute(session, "CREATE EXTENSION model_fdw")
    assert execute(session, "SELECT count(*) FROM pg_event_trigger") == [(1,)]


# ---- what an open cursor reads ----

OPEN = {
    "join": "SELECT t.n, p.s, p.d FROM t JOIN affine p ON p.a = t.n AND p.b = 1",
    "left join": "SELECT t.n, p.s, p.d FROM t LEFT JOIN affine p ON p.a = t.n AND p.b = 1",
    "group": "SELECT t.n, p.d, q.t FROM t LEFT JOIN (affine p JOIN chain q ON q.s = p.s) ON p.a = t.n AND p.b = 1",
    "subquery": "SELECT t.n, (SELECT p.s + p.d FROM affine p WHERE p.a = t.n AND p.b = 1) FROM t",
    "partitions": "SELECT t.n, p.s, p.d FROM t JOIN parts p ON p.a = t.n AND p.b = 1",
    "scan": "SELECT p.s, p.d FROM affine p WHERE p.a IN (1, 2, 3) AND p.b = 1",
}
WHILE_OPEN = (
    "ALTER FOREIGN TABLE affine DROP COLUMN d",
    "ALTER FOREIGN TABLE affine OPTIONS (SET model 'chain')",
    "DROP FOREIGN TABLE affine",
)


@pytest.mark.parametrize("query", OPEN)
@pytest.mark.parametrize("ddl", WHILE_OPEN)
def test_open_cursor_keeps_its_model_tables(connection: Connection, query: str, ddl: str) -> None:
    """As it keeps ordinary tables: the session itself cannot change them either."""
    connection.execute("CREATE TABLE t AS SELECT n FROM generate_series(1, 40) n")
    connection.execute(
        "CREATE FOREIGN TABLE affine (a float8, b float8, s float8, d float8) "
        "SERVER triton OPTIONS (model 'affine', batch_size '1')"
    )
    connection.execute("CREATE FOREIGN TABLE chain (s float8, t bigint) SERVER triton OPTIONS (model 'chain')")
    connection.execute("CREATE TABLE parts (a float8, b float8, s float8, d float8) PARTITION BY RANGE (a)")
    connection.execute(
        "CREATE FOREIGN TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (50) "
        "SERVER triton OPTIONS (model 'affine', batch_size '1')"
    )
    if query == "partitions":
        ddl = "ALTER TABLE parts DROP COLUMN d" if "COLUMN" in ddl else ddl.replace("affine", "part")
    with connection.transaction():
        expected = connection.execute(OPEN[query].encode()).fetchall()
        connection.execute(f"DECLARE c CURSOR FOR {OPEN[query]}".encode())
        rows = connection.execute("FETCH 2 FROM c").fetchall()
        with pytest.raises(psycopg.errors.ObjectInUse), connection.transaction():
            connection.execute(ddl.encode())
        assert rows + connection.execute("FETCH ALL FROM c").fetchall() == expected


def test_loop_keeps_its_model_table(connection: Connection) -> None:
    connection.execute("CREATE TABLE t AS SELECT n FROM generate_series(1, 9) n")
    with pytest.raises(psycopg.errors.ObjectInUse):
        connection.execute(
            "DO $$ DECLARE r record; BEGIN "
            "FOR r IN SELECT t.n, p.s FROM t JOIN ml.affine p ON p.a = t.n AND p.b = 1 LOOP "
            "ALTER FOREIGN TABLE ml.affine OPTIONS (SET model 'chain'); END LOOP; END $$"
        )
