"""UPDATE, DELETE and MERGE of partitioned and inherited tables, and paths under outer joins.

Every statement is compared with what it does without the Model Join, and explained in full.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

Connection = psycopg.Connection[Any]

BOTH = "(SELECT a, b, s FROM ml.affine UNION ALL SELECT a, b, d FROM ml.affine)"
ON = "p.a = pp.x AND p.b = pp.y"

TARGETS = {
    "partitions": """
        CREATE TABLE pp (id int, x float8, y float8, v float8) PARTITION BY LIST (id);
        CREATE TABLE pp1 (v float8, y float8, x float8, id int);
        ALTER TABLE pp ATTACH PARTITION pp1 FOR VALUES IN (1, 2, 3, 4, 5);
        CREATE TABLE pp2 PARTITION OF pp DEFAULT;
    """,
    "inheritance": """
        CREATE TABLE pp (id int, x float8, y float8, v float8);
        CREATE TABLE pp1 () INHERITS (pp);
        CREATE TABLE pp2 (more int) INHERITS (pp);
        INSERT INTO pp1 SELECT 100 + i, i % 3, i % 2 FROM generate_series(1, 9) i;
        INSERT INTO pp2 SELECT 200 + i, i % 3, i % 2 FROM generate_series(1, 9) i;
    """,
}

STATEMENTS = {
    "inner": f"UPDATE pp SET v = p.s FROM ml.affine p WHERE {ON}",
    "moving": f"UPDATE pp SET v = p.s, id = 7 FROM ml.affine p WHERE {ON} AND pp.id = 2",
    "returning": f"UPDATE pp SET v = p.s FROM ml.affine p WHERE {ON} RETURNING pp.*, pp.tableoid::regclass::text, p.d",
    "using": f"DELETE FROM pp USING ml.affine p WHERE {ON} AND p.s > 3",
    "exists": f"DELETE FROM pp WHERE EXISTS (SELECT FROM ml.affine p WHERE {ON} AND p.s > 3)",
    "not exists": f"DELETE FROM pp WHERE NOT EXISTS (SELECT FROM ml.affine p WHERE {ON} AND p.s > 3)",
    "left": "UPDATE pp SET v = p.s FROM u LEFT JOIN ml.affine p ON p.a = u.z AND p.b = u.t_id WHERE u.id = pp.id",
    "subquery": f"UPDATE pp SET v = (SELECT s FROM ml.affine p WHERE {ON})",
    "two subqueries": f"UPDATE pp SET v = (SELECT s FROM ml.affine p WHERE {ON}) "
    f"+ (SELECT d FROM ml.affine p WHERE {ON})",
    "subquery and join": "UPDATE pp SET v = (SELECT s FROM ml.affine p WHERE p.a = u.z AND p.b = pp.y) "
    "FROM u WHERE u.id = pp.id",
    "subquery and model": f"UPDATE pp SET v = p.s + (SELECT s FROM ml.affine q WHERE q.a = p.d AND q.b = pp.y) "
    f"FROM ml.affine p WHERE {ON}",
    "union": f"UPDATE pp SET v = 1 FROM {BOTH} p WHERE {ON} AND p.s > 3",
    "chain": f"UPDATE pp SET v = q.t FROM ml.affine p JOIN ml.chain q ON q.s = p.s WHERE {ON}",
    "below a join": f"UPDATE pp SET v = p.s FROM ml.affine p, u WHERE {ON} AND u.t_id = p.s",
}

TABLES = """
    INSERT INTO pp SELECT i, nullif(i % 7, 3), nullif(i % 5, 4) FROM generate_series(1, 40) i;
    CREATE TABLE u AS SELECT i AS id, i % 3 AS t_id, (i % 4)::float8 AS z FROM generate_series(1, 30) i;
    ANALYZE pp; ANALYZE u;
"""


def change(connection: Connection, sql: str) -> list[Any]:
    """Explain a statement, run it and take it back; return what it gave and what it left."""
    with connection.transaction(force_rollback=True):
        plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN (VERBOSE, COSTS OFF) {sql}".encode()))
        cursor = connection.execute(sql.encode())
        rows: list[Any] = sorted(cursor.fetchall(), key=repr) if cursor.description else []
        rows.append(cursor.rowcount)
        rows += connection.execute("SELECT tableoid::regclass::text, * FROM pp ORDER BY pp::text").fetchall()
        return ["Model Join" in plan, rows]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", STATEMENTS)
@pytest.mark.parametrize("methods", ["all", "merge", "nested"])
def test_change(connection: Connection, target: str, name: str, methods: str) -> None:
    connection.execute((TARGETS[target] + TABLES).encode())
    off = {"all": (), "merge": ("hashjoin", "nestloop"), "nested": ("hashjoin", "mergejoin")}[methods]
    for method in off:
        connection.execute(f"SET enable_{method} = off".encode())
    batched, rows = change(connection, STATEMENTS[name])
    assert batched
    connection.execute("SET model_fdw.enable_model_join = off")
    assert change(connection, STATEMENTS[name]) == [False, rows]


def test_change_under_auto_explain(connection: Connection) -> None:
    """What explains the plan of a statement that runs must not end it."""
    connection.execute((TARGETS["partitions"] + TABLES).encode())
    try:
        connection.execute("LOAD 'auto_explain'")
    except psycopg.errors.UndefinedFile:
        pytest.skip("auto_explain is not installed")
    connection.execute("SET auto_explain.log_min_duration = 0; SET auto_explain.log_verbose = on")
    assert connection.execute(STATEMENTS["inner"].encode()).rowcount > 0


def test_models_as_target(connection: Connection) -> None:
    """A model is no target, also as a partition: PostgreSQL says so."""
    connection.execute("""
        CREATE TABLE parts (a float8, b float8, s float8, d float8) PARTITION BY RANGE (b);
        CREATE FOREIGN TABLE parts1 PARTITION OF parts FOR VALUES FROM (0) TO (9)
        SERVER triton OPTIONS (model 'affine');
        CREATE TABLE c AS SELECT i::float8 AS x FROM generate_series(1, 3) i;
    """)
    for sql in (
        "UPDATE parts p SET s = 1 FROM c WHERE p.a = c.x AND p.b = 1",
        "MERGE INTO parts p USING c ON p.a = c.x AND p.b = 1 WHEN MATCHED THEN DELETE",
    ):
        if sql.startswith("MERGE") and connection.info.server_version < 150000:
            continue
        with pytest.raises(psycopg.Error) as caught:
            connection.execute(sql.encode())
        assert "parts1" in str(caught.value)
        assert caught.value.sqlstate != "XX000"


def test_merge(connection: Connection) -> None:
    if connection.info.server_version < 150000:
        pytest.skip("MERGE is of 15")
    connection.execute((TARGETS["partitions"] + TABLES).encode())
    sql = (
        "MERGE INTO pp USING (SELECT u.id, p.s FROM u JOIN ml.affine p ON p.a = u.z AND p.b = u.t_id) c "
        "ON c.id = pp.id WHEN MATCHED AND c.s > 3 THEN UPDATE SET v = c.s WHEN NOT MATCHED THEN DO NOTHING"
    )
    batched, rows = change(connection, sql)
    assert batched
    connection.execute("SET model_fdw.enable_model_join = off")
    assert change(connection, sql) == [False, rows]


# ---- models on the nullable side of an outer join ----

OUTER = {
    "beside a union": f"SELECT * FROM c LEFT JOIN ml.affine a ON a.a = c.x AND a.b = 1 JOIN {BOTH} b "
    "ON b.a = c.x AND b.b = 1 WHERE a.s IS NULL OR b.s > 1",
    "read by a union": f"SELECT * FROM c LEFT JOIN ml.affine a ON a.a = c.x AND a.b = 1 JOIN {BOTH} b "
    "ON b.a = c.x AND b.b = a.s WHERE a.s IS NULL OR b.s > 1",
    "read by a model": "SELECT * FROM c LEFT JOIN ml.affine a ON a.a = c.x AND a.b = 1 JOIN ml.affine b "
    "ON b.a = a.s AND b.b = c.x WHERE a.s IS NULL OR b.s > 1",
    "sources that nothing joins": "SELECT * FROM (SELECT c.x, e.y FROM c LEFT JOIN (SELECT x AS y FROM c) e "
    "ON e.y = c.x + 1) l, (SELECT x AS z FROM c) m, ml.affine b WHERE b.a = l.y AND b.b = m.z",
}


@pytest.mark.parametrize("name", OUTER)
def test_outer_join(connection: Connection, name: str) -> None:
    connection.execute("CREATE TABLE c AS SELECT i::float8 AS x FROM generate_series(1, 9) i; ANALYZE c")
    results = []
    for node in ("on", "off"):
        connection.execute(f"SET model_fdw.enable_model_join = {node}".encode())
        connection.execute(f"EXPLAIN VERBOSE {OUTER[name]}".encode())
        results.append(sorted(connection.execute(OUTER[name].encode()).fetchall(), key=repr))
    assert results[0] == results[1]
    assert results[0]
