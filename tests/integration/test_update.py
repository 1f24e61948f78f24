"""ALTER EXTENSION UPDATE: an updated extension is a new one, and libraries and SQL of two versions bear each other.

All pairs of versions that the scripts in sql/ lead to are tried, and those of a made-up next version.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from conftest import Database
from trees import Tree

from dev.build import build_library
from dev.environments import site_packages
from dev.places import CHECKOUT
from dev.processes import private_directory
from dev.servers import Postgres, default_places

pytestmark = pytest.mark.hosts("native", reason="a Multicorn database needs no extension of ours")

Connection = psycopg.Connection[Any]

SCRIPTS = CHECKOUT / "sql"
CURRENT = (SCRIPTS / "model_fdw.control").read_text().partition("default_version = '")[2].partition("'")[0]
# The next version; one whose update forgets something; one whose SQL needs another library.
NEXT, FORGETFUL, FOREIGN = "1000.0", "1001.0", "1002.0"

ADDED = """
CREATE FUNCTION model_fdw_next() RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT 'next' $$;
REVOKE ALL ON FUNCTION model_fdw_next() FROM PUBLIC;
"""
COMMENTED = ADDED + "COMMENT ON FUNCTION model_fdw_next() IS 'new';"
WIDER = """
DROP FUNCTION model_fdw_check(regclass);
CREATE FUNCTION model_fdw_check("table" regclass)
RETURNS TABLE (severity text, column_name text, problem text, detail text, cure text, more text)
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
"""

MEMBERS = """
SELECT pg_describe_object(classid, objid, 0), obj_description(objid, classid::regclass::name),
       pg_get_functiondef(p.oid), p.proacl::text, p.proowner::regrole::text,
       (w.fdwhandler::regproc, w.fdwvalidator::regproc, w.fdwacl, w.fdwoptions, w.fdwowner::regrole)::text,
       (t.evtevent, t.evtfoid::regproc, t.evtenabled, t.evttags, t.evtowner::regrole)::text
FROM pg_depend
LEFT JOIN pg_proc p ON classid = 'pg_proc'::regclass AND p.oid = objid
LEFT JOIN pg_foreign_data_wrapper w ON classid = 'pg_foreign_data_wrapper'::regclass AND w.oid = objid
LEFT JOIN pg_event_trigger t ON classid = 'pg_event_trigger'::regclass AND t.oid = objid
WHERE deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'model_fdw')
ORDER BY 1
"""
EXTENSION = """
SELECT extversion, extrelocatable, extnamespace::regnamespace::text, extconfig, obj_description(oid, 'pg_extension')
FROM pg_extension WHERE extname = 'model_fdw'
"""

JOIN = "SELECT sum(s) FROM generate_series(1, 1000) r (a) JOIN ml.affine USING (a) WHERE b = 1"
JOINED = [(2 * 500500.0 + 3000,)]


@pytest.fixture(scope="module")
def tree() -> Iterator[Tree]:
    """A PostgreSQL with the scripts of sql/, and those of the versions that are made up."""
    places = default_places()
    build_library(replace(places, postgres=None))
    home = private_directory(places.account)
    tree = Tree(home)
    current = (SCRIPTS / f"model_fdw--{CURRENT}.sql").read_text()
    scripts = {
        NEXT: current + COMMENTED,
        f"{CURRENT}--{NEXT}": COMMENTED,
        FORGETFUL: current + COMMENTED,
        f"{CURRENT}--{FORGETFUL}": ADDED,
        f"{NEXT}--{FOREIGN}": "CREATE FUNCTION model_fdw_other() RETURNS text LANGUAGE C AS 'MODULE_PATHNAME'",
        f"{CURRENT}--wider": WIDER,
    }
    for name, text in scripts.items():
        path = tree.extensions / f"model_fdw--{name}.sql"
        path.write_text(text)
    yield tree
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def postgres(tree: Tree) -> Iterator[Postgres]:
    with Postgres(bindir=tree.bindir, name="update-postgres") as postgres:
        yield postgres


@pytest.fixture
def session(postgres: Postgres) -> Iterator[Connection]:
    """A session without the extension."""
    with psycopg.connect(postgres.conninfo(), autocommit=True) as session:
        yield session
        session.execute("SET client_min_messages = error")
        session.execute("DROP SCHEMA IF EXISTS ml CASCADE")
        session.execute("DROP EXTENSION IF EXISTS model_fdw CASCADE")


def rows(session: Connection, sql: str) -> list[tuple[Any, ...]]:
    return session.execute(sql.encode()).fetchall()


def described(session: Connection) -> list[tuple[Any, ...]]:
    """All that the catalogs hold of the extension and its members."""
    return rows(session, EXTENSION) + rows(session, MEMBERS)


def create(session: Connection, version: str, triton: str = "") -> None:
    session.execute(f"CREATE EXTENSION model_fdw VERSION '{version}'".encode())
    if triton:
        server = f"CREATE SERVER triton FOREIGN DATA WRAPPER model_fdw OPTIONS (url '{triton}')"
        session.execute(f"{server}; CREATE SCHEMA ml; IMPORT FOREIGN SCHEMA models FROM SERVER triton INTO ml".encode())


def update(session: Connection, version: str) -> None:
    session.execute(f"ALTER EXTENSION model_fdw UPDATE TO '{version}'".encode())


def updated_and_new(session: Connection, old: str, new: str) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Describe the extension after an update, and after it was created as that version."""
    create(session, old)
    update(session, new)
    updated = described(session)
    session.execute("DROP EXTENSION model_fdw")
    create(session, new)
    fresh = described(session)
    session.execute("DROP EXTENSION model_fdw")
    return updated, fresh


def test_an_update_is_a_new_extension(session: Connection) -> None:
    pairs = rows(session, "SELECT source, target FROM pg_extension_update_paths('model_fdw') WHERE path IS NOT NULL")
    assert (CURRENT, NEXT) in pairs
    made_up = {FORGETFUL, FOREIGN, "wider"}
    for old, new in pairs:
        if not {old, new} & made_up:
            updated, fresh = updated_and_new(session, old, new)
            assert updated == fresh, (old, new)
            assert updated[0][0] == new


def test_a_difference_is_seen(session: Connection) -> None:
    updated, fresh = updated_and_new(session, CURRENT, FORGETFUL)
    different = [pair for pair in zip(updated, fresh) if pair[0] != pair[1]]
    assert [(one[:2], other[:2]) for one, other in different] == [
        (("function model_fdw_next()", None), ("function model_fdw_next()", "new"))
    ]


def test_every_member_has_a_comment(session: Connection) -> None:
    create(session, CURRENT)
    assert [row[0] for row in described(session)[1:] if not row[1]] == []


def test_the_default_version_is_reached_from_all_others(session: Connection) -> None:
    """Nobody who has an older version is left behind."""
    versions = {path.stem.split("--")[1] for path in SCRIPTS.glob("*.sql")}
    reached = rows(
        session,
        f"SELECT source FROM pg_extension_update_paths('model_fdw') WHERE target = '{CURRENT}' AND path IS NOT NULL",
    )
    assert versions - {CURRENT} <= {source for (source,) in reached}


def test_the_library_serves_the_sql_of_all_versions(session: Connection, database: Database) -> None:
    """It is installed first; ALTER EXTENSION UPDATE comes later, or never."""
    for path in SCRIPTS.glob("model_fdw--*.sql"):
        if path.stem.count("--") == 1:
            create(session, path.stem.partition("--")[2], database.triton.url)
            assert rows(session, JOIN) == JOINED
            assert rows(session, "SELECT * FROM model_fdw_check('ml.affine')") == []
            session.execute("SET client_min_messages = error; DROP SCHEMA ml CASCADE")
            session.execute("DROP EXTENSION model_fdw CASCADE; RESET client_min_messages")


def test_an_update_with_tables(session: Connection, database: Database) -> None:
    create(session, CURRENT, database.triton.url)
    session.execute("CREATE VIEW ml.seen AS SELECT * FROM ml.affine WHERE a = 1 AND b = 2")
    before = rows(session, "SELECT * FROM ml.seen")
    update(session, NEXT)
    assert rows(session, "SELECT model_fdw_next()") == [("next",)]
    assert rows(session, JOIN) == JOINED
    assert rows(session, "SELECT * FROM ml.seen") == before == [(1, 2, 8, -1)]
    with pytest.raises(psycopg.Error, match='columns "x" and "y" of foreign table "t" feed the same input'):
        session.execute("CREATE FOREIGN TABLE t (x int OPTIONS (input 'v'), y int OPTIONS (input 'v')) SERVER triton")


def test_sql_that_is_newer_than_the_library(session: Connection, database: Database, tree: Tree) -> None:
    """An update without the new library is refused; what another session has updated is told, not read."""
    create(session, CURRENT, database.triton.url)
    update(session, NEXT)
    before = described(session)
    with pytest.raises(psycopg.errors.UndefinedFunction) as refused:
        update(session, FOREIGN)
    message = f'could not find function "model_fdw_other" in file "{tree.library}"'
    assert refused.value.diag.message_primary == message
    assert described(session) == before
    assert rows(session, JOIN) == JOINED

    session.execute("SET client_min_messages = error; DROP SCHEMA ml CASCADE; DROP EXTENSION model_fdw CASCADE")
    create(session, CURRENT, database.triton.url)
    update(session, "wider")
    with pytest.raises(psycopg.errors.DatatypeMismatch) as wider:
        session.execute("SELECT * FROM model_fdw_check('ml.affine')")
    message = 'function "model_fdw_check" is of another version than the loaded library'
    assert (wider.value.diag.message_primary, wider.value.diag.message_hint) == (
        message,
        "Connect again if there was an upgrade.",
    )


def test_sessions_outlive_the_replacement_of_the_library(
    postgres: Postgres, session: Connection, database: Database, tree: Tree
) -> None:
    create(session, CURRENT, database.triton.url)
    assert rows(session, JOIN) == JOINED
    replaced = tree.library.with_suffix(".new")
    shutil.copy(tree.library, replaced)
    replaced.replace(tree.library)
    session.execute("LOAD 'model_fdw'")
    assert rows(session, JOIN) == JOINED
    with psycopg.connect(postgres.conninfo()) as later:
        assert rows(later, JOIN) == JOINED


def test_a_package_of_another_version(postgres: Postgres, session: Connection, tree: Tree) -> None:
    """A session that has loaded the library before an upgrade, and Python after it."""
    session.execute("LOAD 'model_fdw'")
    package = tree.home / "packages" / "fdw"
    ignored = shutil.ignore_patterns("native", "__pycache__")
    shutil.copytree(CHECKOUT / "fdw", package, ignore=ignored)
    init = package / "__init__.py"
    init.write_text(init.read_text().replace(f'"{CURRENT}"', f'"{NEXT}"'))
    for path in [package.parent, *package.parent.rglob("*")]:
        path.chmod(0o755)
    session.execute(f"SET model_fdw.python_path = '{package.parent}:{site_packages(default_places().venv)}'".encode())
    session.execute("CREATE EXTENSION model_fdw")
    for _ in range(2):
        with pytest.raises(psycopg.errors.UndefinedFile) as refused:
            session.execute("CREATE SERVER s FOREIGN DATA WRAPPER model_fdw OPTIONS (url 'grpc://h:1')")
        diag = refused.value.diag
        assert (diag.message_primary, diag.message_detail, diag.message_hint) == (
            f"Python package model_fdw has version {NEXT}, the loaded library version {CURRENT}",
            f'The package is in "{package}".',
            "Connect again if there was an upgrade, else install both from the same release.",
        )


def test_drop(session: Connection, database: Database) -> None:
    create(session, CURRENT, database.triton.url)
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        session.execute("DROP EXTENSION model_fdw")
    assert rows(session, JOIN) == JOINED
    session.execute("SET client_min_messages = error; DROP EXTENSION model_fdw CASCADE")
    assert rows(session, "SELECT to_regclass('ml.affine'), (SELECT count(*) FROM pg_event_trigger)") == [(None, 0)]
    assert rows(session, "SELECT count(*) FROM pg_foreign_server") == [(0,)]
    session.execute("DROP SCHEMA ml")
    create(session, CURRENT, database.triton.url)
    assert rows(session, JOIN) == JOINED
