"""A database with model tables of all kinds, and questions to it: what a dump, a restore or pg_upgrade must keep.

fill() makes it, answers() asks; two databases with equal answers are the same to their users.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from dev.servers import Postgres

Answers = dict[str, list[tuple[Any, ...]]]

ANALYST, TOKEN = "shop_analyst", "kept-with-care"
SERVICE = "model_fdw.example.v1"

# $triton, $web and $service stand for the servers' addresses.
DEFINITIONS = f"""
SET client_min_messages = error;
CREATE SCHEMA ext;
CREATE EXTENSION model_fdw SCHEMA ext;
CREATE SERVER triton FOREIGN DATA WRAPPER model_fdw OPTIONS (url '$triton', default_batch_size '3');
CREATE SERVER web FOREIGN DATA WRAPPER model_fdw OPTIONS (url '$web');
CREATE SERVER service FOREIGN DATA WRAPPER model_fdw OPTIONS (url '$service', protocol 'grpc');
COMMENT ON SERVER web IS 'the same models';
CREATE USER MAPPING FOR PUBLIC SERVER triton;
CREATE USER MAPPING FOR {ANALYST} SERVER triton OPTIONS (token '{TOKEN}', headers 'x-team: a b');

-- imported: by element, with options, a method, over HTTP
CREATE SCHEMA ml;
IMPORT FOREIGN SCHEMA models EXCEPT (tensors, embedder) FROM SERVER triton INTO ml;
CREATE SCHEMA web;
IMPORT FOREIGN SCHEMA models LIMIT TO (affine) FROM SERVER web INTO web
    OPTIONS (prefix 'my ', columns 'a: "first, or A"; s: "Summe"');
CREATE SCHEMA service;
IMPORT FOREIGN SCHEMA "{SERVICE}" FROM SERVER service INTO service;

-- by hand: types of its own, arrays, an error column, altered column by column, a column dropped
CREATE DOMAIN amount AS numeric(10, 2);
CREATE FOREIGN TABLE priced (a amount, b amount, s numeric(20, 1) OPTIONS (output 's'))
    SERVER triton OPTIONS (model 'affine', row_cost '7', batch_size '2');
COMMENT ON COLUMN priced.s IS 'twice a, three times b';
CREATE FOREIGN TABLE vectors (
    v real[] OPTIONS (input 'in_fp32_vector'), o real[] OPTIONS (output 'out_fp32_vector'),
    second real OPTIONS (output 'out_fp32_vector', index '2')
) SERVER triton OPTIONS (model 'tensors');
CREATE FOREIGN TABLE roots (
    z float8 OPTIONS (input 'z'), x float8 OPTIONS (input 'x'), y float8 OPTIONS (output 'y')
) SERVER triton OPTIONS (model 'broken');
ALTER FOREIGN TABLE roots DROP COLUMN z;
ALTER FOREIGN TABLE roots ADD COLUMN wrong text OPTIONS (error 'true');
ALTER FOREIGN TABLE roots ALTER x OPTIONS (ADD dtype 'FP64', ADD shape '[-1,1]');

-- what is built on model tables
CREATE TABLE items (id int PRIMARY KEY, kind text, a float8, b float8);
INSERT INTO items SELECT i, CASE i % 3 WHEN 0 THEN 'old' ELSE 'live' END, i, nullif(i % 7, 6) - 3
FROM generate_series(1, 500) i;
ANALYZE items;
CREATE VIEW scored AS SELECT id, s, t FROM items LEFT JOIN ml.affine USING (a, b) LEFT JOIN ml.chain USING (s);
CREATE VIEW careful WITH (security_barrier) AS SELECT id, s FROM items JOIN ml.affine USING (a, b) WHERE s > 100;
CREATE FUNCTION score(a float8, b float8) RETURNS TABLE (s float8)
LANGUAGE sql STABLE AS $$ SELECT p.s FROM ml.affine p WHERE p.a = $1 AND p.b = $2 $$;
CREATE FUNCTION best(float8) RETURNS float8
LANGUAGE sql STABLE BEGIN ATOMIC SELECT max(p.s) FROM ml.affine p WHERE p.a = $1 AND p.b IN (1, 2, 3); END;
CREATE TABLE sums (a float8, b float8, s float8) PARTITION BY RANGE (a);
CREATE TABLE sums_low PARTITION OF sums FOR VALUES FROM (MINVALUE) TO (250);
INSERT INTO sums SELECT a, b, -1 FROM items WHERE a < 250;
CREATE FOREIGN TABLE sums_high PARTITION OF sums FOR VALUES FROM (250) TO (MAXVALUE) SERVER triton
    OPTIONS (model 'affine');
ALTER FOREIGN TABLE sums_high ALTER a OPTIONS (ADD input 'a'), ALTER b OPTIONS (ADD input 'b', ADD dtype 'FP64'),
    ALTER s OPTIONS (ADD output 's');
CREATE MATERIALIZED VIEW kept AS SELECT id, s FROM scored WHERE s > 900;
CREATE INDEX ON kept (s);
CREATE MATERIALIZED VIEW later AS SELECT id, s FROM scored WITH NO DATA;
CREATE PROCEDURE refresh() LANGUAGE sql AS $$ REFRESH MATERIALIZED VIEW kept $$;

GRANT USAGE ON SCHEMA ml, ext TO {ANALYST};
GRANT SELECT ON items, ml.affine TO {ANALYST};
GRANT USAGE ON FOREIGN SERVER triton TO {ANALYST};
ALTER ROLE {ANALYST} SET model_fdw.enable_model_join = off;
"""


def options(column: str) -> str:
    """Sort options, which pg_dump writes in the order of their names."""
    return f"ARRAY(SELECT unnest({column}) ORDER BY 1)"


QUESTIONS = {
    "imported": "SELECT id, s, d FROM items JOIN ml.affine USING (a, b)",
    "a constant and a list": "SELECT * FROM ml.affine WHERE a = 7 AND b IN (1, 2)",
    "elements": "SELECT id, y FROM items JOIN ml.no_batch ON x_1 = a AND x_2 = b AND x_3 = 1 WHERE id < 10",
    "over HTTP": 'SELECT "first, or A", "Summe" FROM web."my affine" WHERE "first, or A" IN (1, 2) AND b = 5',
    "a method": "SELECT * FROM service.\"AppraiseOne\" WHERE weight = 4 AND sizes = '{1,3,2}'",
    "types of its own": "SELECT i.id, p.* FROM items i JOIN priced p ON p.a = i.a / 4 AND p.b = i.b",
    "arrays": "SELECT id, o, second FROM items JOIN vectors ON v = array_fill(a::real, ARRAY[id % 4 + 2])",
    "an error column": "SELECT id, y, wrong FROM items LEFT JOIN roots ON x = b WHERE id < 20",
    "views": "SELECT * FROM scored FULL JOIN careful USING (id)",
    "functions": "SELECT id, x.s, best(a) FROM items, score(a, b) x WHERE id < 50",
    "partitions": "SELECT i.id, m.s FROM items i JOIN sums m USING (a, b)",
    "a materialized view": "SELECT * FROM kept",
    "one without data": "SELECT relispopulated FROM pg_class WHERE relname = 'later'",
    "what does not fit": "SELECT c.* FROM pg_foreign_table, ext.model_fdw_check(ftrelid) c "
    "WHERE ftrelid IN ('ml.affine'::regclass, 'roots'::regclass)",
    "options of servers": f"SELECT srvname, {options('srvoptions')}, obj_description(oid) FROM pg_foreign_server",
    "options of users": f"SELECT srvname, usename, {options('umoptions')} FROM pg_user_mappings",
    "options of tables": f"SELECT ftrelid::regclass::text, {options('ftoptions')} FROM pg_foreign_table",
    "options of columns": f"SELECT attrelid::regclass::text, attname, atttypid::regtype::text, "
    f"{options('attfdwoptions')}, col_description(attrelid, attnum) FROM pg_attribute "
    "WHERE attfdwoptions IS NOT NULL AND NOT attisdropped",
    "privileges": "SELECT relname, privilege_type, grantee::regrole::text FROM pg_class, aclexplode(relacl) "
    "WHERE grantee <> relowner AND relnamespace = 'ml'::regnamespace",
    "settings": f"SELECT setconfig FROM pg_db_role_setting WHERE setrole = '{ANALYST}'::regrole",
    "the extension": "SELECT extname, extversion, extnamespace::regnamespace::text FROM pg_extension",
    "its members": "SELECT pg_describe_object(classid, objid, objsubid), "
    "obj_description(objid, classid::regclass::name) FROM pg_depend JOIN pg_extension e ON refobjid = e.oid "
    "WHERE deptype = 'e' AND extname = 'model_fdw'",
    "the event trigger": "SELECT evtname, evtevent, evtenabled, evtfoid::regproc::text, evttags FROM pg_event_trigger",
}

ANALYSTS = "SELECT id, s FROM items JOIN ml.affine USING (a, b)"

# The event trigger is there and at work.
WRONG = "CREATE FOREIGN TABLE wrong (x float8 OPTIONS (input 'v'), y float8 OPTIONS (input 'v')) SERVER triton"


def fill(postgres: Postgres, name: str, **addresses: str) -> None:
    """Make the database with servers at the addresses triton, web and service."""
    definitions = DEFINITIONS
    for word, address in addresses.items():
        definitions = definitions.replace(f"${word}", address)
    postgres.psql(
        "-c", f"DROP ROLE IF EXISTS {ANALYST}", "-c", f"CREATE ROLE {ANALYST}", "-c", f"CREATE DATABASE {name}"
    )
    postgres.psql(database=name, text=definitions)


def answers(postgres: Postgres, name: str) -> Answers:
    """Ask a database all questions; the rows of each are sorted."""
    with psycopg.connect(postgres.conninfo(name), autocommit=True) as connection:
        found = {question: rows(connection, sql) for question, sql in QUESTIONS.items()}
        connection.execute("CALL refresh()")
        found["refreshed"] = rows(connection, QUESTIONS["a materialized view"])
        with pytest.raises(psycopg.Error, match='columns "x" and "y" of foreign table "wrong" feed the same input'):
            connection.execute(WRONG)
        connection.execute(f"SET ROLE {ANALYST}")
        found["of the analyst"] = rows(connection, ANALYSTS)
        return found


def rows(connection: psycopg.Connection[Any], sql: str) -> list[tuple[Any, ...]]:
    return sorted(connection.execute(sql.encode()).fetchall(), key=repr)
