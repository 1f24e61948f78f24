"""The library where no model is asked: plans, backends and DDL are those of a server without it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import CRASHES, NATIVE

from dev.servers import Postgres

pytestmark = pytest.mark.hosts(NATIVE, reason="there is only one library")

Connection = psycopg.Connection[Any]
SETTINGS = {"enable_partitionwise_join": "on", "enable_partitionwise_aggregate": "on", "autovacuum": "off"}
PRELOADED = {"shared_preload_libraries": "model_fdw"}

TABLES = """
CREATE TABLE a (id int PRIMARY KEY, x int, t text);
INSERT INTO a SELECT i, i % 100, 'a' || i FROM generate_series(1, 5000) i;
CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a, y float8);
INSERT INTO b SELECT i, i, i / 3.0 FROM generate_series(1, 5000) i;
CREATE INDEX ON b (a);
CREATE TABLE parted (id int, v int) PARTITION BY HASH (id);
CREATE TABLE parted0 PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parted1 PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO parted SELECT i, i % 7 FROM generate_series(1, 5000) i;
CREATE TABLE parent (id int);
CREATE TABLE child (more int) INHERITS (parent);
DO $$BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'postgres_fdw') THEN
        CREATE EXTENSION postgres_fdw;
        CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1');
        CREATE USER MAPPING FOR CURRENT_USER SERVER other;
        CREATE FOREIGN TABLE away (id int, x int) SERVER other;
        CREATE FOREIGN TABLE away2 (id int, x int) SERVER other;
    ELSE
        CREATE TABLE away (id int, x int);
        CREATE TABLE away2 (id int, x int);
    END IF;
END$$;
CREATE VIEW sums AS SELECT x, count(*) FROM a GROUP BY x;
ANALYZE;
"""
MODEL = """
CREATE EXTENSION model_fdw;
CREATE SERVER triton FOREIGN DATA WRAPPER model_fdw OPTIONS (url 'grpc://127.0.0.1:1');
CREATE FOREIGN TABLE model (x float8 OPTIONS (input 'x', dtype 'FP64', shape '[-1,1]'),
    y float8 OPTIONS (output 'y', dtype 'FP64', shape '[-1,1]')) SERVER triton OPTIONS (model 'm');
"""
QUERIES = (
    "SELECT * FROM a JOIN b ON b.a = a.id WHERE y > 5",
    "SELECT * FROM a LEFT JOIN b ON b.a = a.id AND y > 5 WHERE a.x = 3",
    "SELECT * FROM a FULL JOIN b ON b.a = a.id",
    "SELECT * FROM a WHERE EXISTS (SELECT FROM b WHERE b.a = a.id)",
    "SELECT * FROM a WHERE NOT EXISTS (SELECT FROM b WHERE b.a = a.id)",
    "SELECT * FROM a WHERE x IN (SELECT v FROM parted)",
    "SELECT * FROM a WHERE x NOT IN (SELECT v FROM parted)",
    "SELECT id, (SELECT y FROM b WHERE b.a = a.id) FROM a WHERE (SELECT max(y) FROM b WHERE b.a = a.id) > 2",
    "SELECT x, count(*), (SELECT max(v) FROM parted) FROM a GROUP BY x HAVING count(*) > (SELECT min(v) FROM parted)",
    "SELECT * FROM a, LATERAL (SELECT * FROM b WHERE b.a = a.id ORDER BY y LIMIT 1) l",
    "WITH w AS MATERIALIZED (SELECT * FROM b) SELECT * FROM a JOIN w ON w.a = a.id WHERE a.id = 7",
    "WITH RECURSIVE w AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM w WHERE i < 9) SELECT * FROM w JOIN a ON a.id = i",
    "SELECT * FROM parted p JOIN parted q USING (id) WHERE p.v = 1",
    "SELECT id, count(*) FROM parted GROUP BY id",
    "SELECT * FROM (SELECT id, x FROM a UNION ALL SELECT id, v FROM parted) u JOIN b ON b.a = u.id",
    "SELECT x FROM a UNION SELECT v FROM parted",
    "SELECT * FROM parent JOIN a USING (id)",
    "SELECT *, rank() OVER (PARTITION BY x ORDER BY id) FROM a",
    "SELECT * FROM sums s JOIN sums u USING (x) ORDER BY x LIMIT 3",
    "SELECT DISTINCT x FROM a ORDER BY x DESC",
    "SELECT * FROM a JOIN generate_series(1, 3) g ON g = a.id JOIN (VALUES (1), (2)) v(i) ON i = g",
    "SELECT * FROM away JOIN away2 USING (id) WHERE away.x = 1",
    "SELECT * FROM a JOIN away USING (id)",
    "SELECT id FROM away UNION ALL SELECT id FROM away2",
    "UPDATE b SET y = 0 FROM a WHERE a.id = b.a AND a.x = 1",
    "DELETE FROM b USING parted p WHERE p.id = b.a AND p.v = 1",
    "INSERT INTO b SELECT id + 10000, id, x FROM a WHERE x = 1",
    "SELECT * FROM a a1, a a2, a a3, a a4, a a5, b b1, b b2 WHERE a1.id = a2.id AND a2.id = a3.id AND a3.id = a4.id"
    " AND a4.id = a5.id AND b1.a = a1.id AND b2.a = a2.id AND $1 > 5",
)
# Small costs, so that plans of small tables have workers.
PARALLEL = "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0"


@pytest.fixture(scope="module")
def plain() -> Iterator[Postgres]:
    """A server that knows nothing of the library."""
    with Postgres(settings=SETTINGS, name="idle-plain-postgres") as postgres:
        postgres.psql("-c", TABLES)
        yield postgres


@pytest.fixture(scope="module")
def preloaded() -> Iterator[Postgres]:
    """A server with the library preloaded, and a model table beside the others."""
    with Postgres(settings={**SETTINGS, **PRELOADED}, name="idle-preloaded-postgres") as postgres:
        postgres.psql("-c", TABLES)
        postgres.psql("-c", MODEL)
        yield postgres
    assert not CRASHES.search(postgres.log.read_text(errors="replace"))


@pytest.fixture(scope="module")
def broken() -> Iterator[Postgres]:
    """A server with the library preloaded, which looks for Python's packages in the wrong place."""
    settings = {**SETTINGS, **PRELOADED, "model_fdw.python_path": "/nowhere"}
    with Postgres(settings=settings, name="idle-broken-postgres") as postgres:
        postgres.psql("-c", TABLES)
        postgres.psql("-c", "CREATE EXTENSION model_fdw")
        yield postgres
    assert not CRASHES.search(postgres.log.read_text(errors="replace"))


def session(postgres: Postgres) -> Connection:
    return psycopg.connect(postgres.conninfo(), autocommit=True, prepare_threshold=None)


def plans(postgres: Postgres, *settings: str) -> list[str]:
    """EXPLAIN all queries, with costs."""
    with session(postgres) as connection:
        for setting in settings:
            connection.execute(setting.encode())
        found = []
        for number, query in enumerate(QUERIES):
            explained = query
            if "$1" in query:
                connection.execute("SET plan_cache_mode = force_generic_plan")
                connection.execute(f"PREPARE q{number} (int) AS {query}".encode())
                explained = f"EXECUTE q{number} (1)"
            rows = connection.execute(f"EXPLAIN (VERBOSE) {explained}".encode()).fetchall()
            found.append("\n".join([query, *(row[0] for row in rows)]))
        return found


@pytest.mark.parametrize("settings", [(), (PARALLEL,), ("SET geqo_threshold = 3",), ("SET enable_hashjoin = off",)])
def test_plans(plain: Postgres, preloaded: Postgres, settings: Sequence[str]) -> None:
    """Plans of ordinary queries are the same, with their costs."""
    assert plans(preloaded, *settings) == plans(plain, *settings)


def open_files(pid: int) -> list[str]:
    """List what a process has open, but for numbers that differ from process to process."""
    targets = [str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()]
    kinds = [name.partition(":")[0] for name in targets if not re.search(r"/base/|/global/|/pg_wal/|\.log$", name)]
    return sorted(kinds)


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def maps(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def test_backend(plain: Postgres, preloaded: Postgres) -> None:
    """A backend that asks no model has no thread and no file more."""
    found = []
    for postgres in (plain, preloaded):
        with session(postgres) as connection:
            connection.execute("SELECT * FROM a JOIN b ON b.a = a.id")
            pid = connection.info.backend_pid
            assert threads(pid) == 1
            found.append(open_files(pid))
        assert postgres.running is not None
        assert threads(postgres.running.pid) == 1
    assert found[1] == found[0]


def test_library_without_python(plain: Postgres) -> None:
    """The library, loaded into a session, starts no Python before a model is asked."""
    with session(plain) as connection:
        connection.execute("LOAD 'model_fdw'")
        for query in QUERIES[:9]:
            connection.execute(query.encode())
        pid = connection.info.backend_pid
        assert "model_fdw" in maps(pid)
        assert "grpc" not in maps(pid)
        assert threads(pid) == 1


def test_ddl_beside_a_locked_model(preloaded: Postgres) -> None:
    """DDL about other things waits for nobody who holds a model table."""
    with session(preloaded) as holder, session(preloaded) as other:
        holder.execute("BEGIN")
        holder.execute("ALTER FOREIGN TABLE model OPTIONS (ADD batch_size '10')")
        other.execute("SET statement_timeout = '10s'")
        for statement in (
            "CREATE TABLE made (i int PRIMARY KEY)",
            "ALTER TABLE made ADD j int DEFAULT 1",
            "CREATE INDEX ON made (j)",
            "ALTER TABLE made RENAME j TO k",
            "ALTER TABLE parted ADD w int",
            "ALTER TABLE parted DROP w",
            "DROP TABLE made",
        ):
            other.execute(statement.encode())
        holder.execute("ROLLBACK")


def test_ddl_starts_no_python(plain: Postgres) -> None:
    """The event trigger asks Python about model tables only."""
    plain.psql("-c", "CREATE DATABASE models")
    plain.psql("-c", MODEL, database="models")
    with psycopg.connect(plain.conninfo("models"), autocommit=True) as connection:
        connection.execute("CREATE TABLE made (i int)")
        connection.execute("ALTER TABLE made ADD j int")
        assert "model_fdw" in maps(connection.info.backend_pid), "the event trigger has not run"
        assert "grpc" not in maps(connection.info.backend_pid)


def test_broken_python(broken: Postgres) -> None:
    """Where Python's packages are missing the server, ordinary queries, DDL and a dump are as ever."""
    log = broken.log.read_text()
    assert "could not preload the Python modules of model_fdw" in log
    with session(broken) as connection:
        for query in QUERIES[:9]:
            connection.execute(query.encode())
        connection.execute("CREATE TABLE made (i int)")
        connection.execute("ALTER TABLE made ADD j int")
        with pytest.raises(psycopg.errors.UndefinedFile, match="could not import Python package"):
            connection.execute("CREATE SERVER s FOREIGN DATA WRAPPER model_fdw OPTIONS (url 'grpc://127.0.0.1:1')")
        assert connection.execute("SELECT count(*) FROM made").fetchone() == (0,)
        connection.execute("DROP TABLE made")
    assert "CREATE EXTENSION IF NOT EXISTS model_fdw" in broken.run("pg_dump")
