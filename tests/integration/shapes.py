"""Query shapes over model tables, and local tables that hold the same rows.

Schemas "model_4096", "model_3" and "model_1" hold foreign tables with that batch size, schema "local" ordinary tables
of the same names: for every input that a shape asks about, the row that the model answers. So the same text, run with
another search path, says what the answer ought to be.

Tables: affine (a, b, s = 2a+3b, d = a-b), iaffine (the same with integer inputs), naffine (numeric inputs, numeric s,
integer d), chain (s, t = trunc(s)), sum10 (f1 to f10, total). Partitioned tables with the contents of affine within
their bounds: listed (by b), ranged (by a, then b), sorted (by d, an output).
"""

# A query is easier to read, and to paste into psql, on one line.
# ruff: noqa: E501

from __future__ import annotations

from dataclasses import dataclass

BATCH_SIZES = (4096, 3, 1)

AFFINE_COLUMNS = {
    "affine": ("double precision", "double precision", "double precision"),
    "iaffine": ("integer", "double precision", "double precision"),
    "naffine": ("numeric", "numeric", "integer"),
}

FEATURES = ", ".join(f"f{n}" for n in range(1, 11))

# Partitioned tables: how, and the partitions with their parents and bounds.
PARTITIONED = {"listed": "LIST (b)", "ranged": "RANGE (a)", "sorted": "RANGE (d)"}
PARTITIONS = {
    "listed_several": ("listed", "IN (0, 1, 2, NULL)"),
    "listed_one": ("listed", "IN (2.5)"),
    "ranged_low": ("ranged", "FROM (MINVALUE) TO (0)"),
    "ranged_middle": ("ranged", "FROM (0) TO (2)"),
    "ranged_high": ("ranged", "FROM (2) TO (4)"),
    "ranged_high_low": ("ranged_high", "FROM (MINVALUE) TO (1)"),
    "ranged_high_rest": ("ranged_high", ""),
    "sorted_low": ("sorted", "FROM (MINVALUE) TO (0)"),
    "sorted_high": ("sorted", "FROM (0) TO (MAXVALUE)"),
}


def data() -> str:
    """SQL that makes the local tables, whose columns hold NULLs, duplicates and halves."""
    features = ", ".join(f"nullif((n * {3 + f} + {f}) % 11, {f % 4})::double precision AS f{f}" for f in range(1, 11))
    return f"""
        CREATE TABLE t (
            id integer PRIMARY KEY, k integer, x double precision, y double precision, i integer, j smallint,
            n numeric, r real, g bigint, txt text
        );
        INSERT INTO t
        SELECT n, n % 5, nullif(n % 7, 3) - 2, nullif((n * 5) % 9, 4) / 2.0, nullif(n % 6, 2), nullif(n % 4, 1),
               nullif(n % 9, 5) / 2.0, nullif(n % 5, 0) / 2.0, nullif(n % 10, 7),
               (ARRAY['a', 'b', NULL, 'c'])[n % 4 + 1]
        FROM generate_series(1, 37) n;
        INSERT INTO t SELECT 100 + id, k, x, y, i, j, n, r, g, txt FROM t WHERE id < 6;
        CREATE INDEX ON t (k);
        CREATE INDEX ON t (x);
        CREATE TABLE u (id integer PRIMARY KEY, t_id integer, x double precision, k integer);
        INSERT INTO u SELECT n, nullif(n % 8, 0) * 2, nullif(n % 4, 1) + 0.5, n % 3 FROM generate_series(1, 15) n;
        CREATE INDEX ON u (t_id);
        CREATE TABLE v (id integer PRIMARY KEY, y double precision, k integer);
        INSERT INTO v SELECT n, nullif(n % 5, 2), n % 2 FROM generate_series(1, 9) n;
        CREATE TABLE e (id integer PRIMARY KEY, x double precision, y double precision);
        CREATE TABLE w AS SELECT n AS id, {features} FROM generate_series(1, 60) n;
        INSERT INTO w SELECT 100 + id, {FEATURES} FROM w WHERE id < 10;
        CREATE TABLE tp (id integer, k integer, x double precision, y double precision) PARTITION BY LIST (k);
        CREATE TABLE tp0 PARTITION OF tp FOR VALUES IN (0, 1);
        CREATE TABLE tp1 PARTITION OF tp FOR VALUES IN (2, 3);
        CREATE TABLE tp2 PARTITION OF tp DEFAULT;
        INSERT INTO tp SELECT id, k, x, y FROM t;
        CREATE TABLE up (k integer, z double precision) PARTITION BY LIST (k);
        CREATE TABLE up0 PARTITION OF up FOR VALUES IN (0, 1);
        CREATE TABLE up1 PARTITION OF up FOR VALUES IN (2, 3);
        CREATE TABLE up2 PARTITION OF up DEFAULT;
        INSERT INTO up SELECT n, n FROM generate_series(0, 4) n;
        CREATE TABLE kept (id integer PRIMARY KEY, s double precision);
        INSERT INTO kept SELECT n, n FROM generate_series(1, 10) n;
        ANALYZE t, u, v, e, w, tp, up, kept;
    """


def local_models() -> str:
    """SQL that makes schema "local"."""
    return f"""
        CREATE SCHEMA local;
        CREATE TABLE local.domain AS
        SELECT n / 2.0::double precision AS v FROM generate_series(-60, 120) n
        UNION ALL VALUES ('NaN'::double precision), ('Infinity'), ('-Infinity');
        CREATE TABLE local.affine AS
        SELECT a.v AS a, b.v AS b, 2 * a.v + 3 * b.v AS s, a.v - b.v AS d FROM local.domain a, local.domain b;
        CREATE INDEX ON local.affine (a, b);
        CREATE TABLE local.iaffine AS
        SELECT a, b, (2 * a + 3 * b)::double precision AS s, (a - b)::double precision AS d
        FROM generate_series(-30, 60) a, generate_series(-30, 60) b;
        CREATE INDEX ON local.iaffine (a, b);
        CREATE TABLE local.naffine AS
        SELECT a::numeric, b::numeric, s::numeric, d::integer FROM local.affine
        WHERE a BETWEEN -30 AND 60 AND b BETWEEN -30 AND 60;
        CREATE INDEX ON local.naffine (a, b);
        CREATE TABLE local.chain AS
        SELECT n / 2.0::double precision AS s, trunc(n / 2.0)::bigint AS t FROM generate_series(-1000, 1000) n;
        CREATE INDEX ON local.chain (s);
        CREATE TABLE local.sum10 AS
        SELECT DISTINCT {FEATURES}, ({FEATURES.replace(", ", " + ")})::real AS total
        FROM w WHERE {FEATURES.replace(", ", " + ")} IS NOT NULL;
        CREATE TABLE local.parent (LIKE local.affine);
        CREATE TABLE local.child () INHERITS (local.parent);
        INSERT INTO local.child SELECT * FROM local.affine;
        CREATE INDEX ON local.child (a, b);
        {partitioned("local")}
        INSERT INTO local.listed SELECT * FROM local.affine WHERE b IN (0, 1, 2, 2.5) AND a BETWEEN -10 AND 20;
        INSERT INTO local.ranged SELECT * FROM local.affine WHERE a < 4 AND a > -10 AND b BETWEEN -10 AND 20;
        INSERT INTO local.sorted SELECT * FROM local.affine WHERE a BETWEEN -10 AND 20 AND b BETWEEN -10 AND 20;
        ANALYZE local.listed, local.ranged, local.sorted;
        ANALYZE local.affine, local.iaffine, local.naffine, local.chain, local.sum10, local.parent, local.child;
        {views("local")}
    """


def models(batch_size: int) -> str:
    """SQL that makes the schema of foreign tables with a batch size."""
    schema = f"model_{batch_size}"
    tables = "".join(
        f"CREATE FOREIGN TABLE {schema}.{name} (a {input_}, b {input_}, s {s}, d {d}) "
        f"SERVER triton OPTIONS (model 'affine', batch_size '{batch_size}');"
        for name, (input_, s, d) in AFFINE_COLUMNS.items()
    )
    features = ", ".join(f"f{n} double precision OPTIONS (input 'x', index '{n}')" for n in range(1, 11))
    return f"""
        CREATE SCHEMA {schema};
        {tables}
        CREATE FOREIGN TABLE {schema}.chain (s double precision, t bigint)
        SERVER triton OPTIONS (model 'chain', batch_size '{batch_size}');
        CREATE FOREIGN TABLE {schema}.sum10 ({features}, total real)
        SERVER triton OPTIONS (model 'sum10', batch_size '{batch_size}');
        CREATE TABLE {schema}.parent (
            a double precision, b double precision, s double precision, d double precision
        );
        CREATE FOREIGN TABLE {schema}.child () INHERITS ({schema}.parent)
        SERVER triton OPTIONS (model 'affine', batch_size '{batch_size}');
        {partitioned(schema, f"SERVER triton OPTIONS (model 'affine', batch_size '{batch_size}')")}
        {views(schema)}
    """


def partitioned(schema: str, model: str = "") -> str:
    """Make the partitioned tables; partitions without partitions of their own are foreign tables of a model."""
    columns = "a double precision, b double precision, s double precision, d double precision"
    statements = [f"CREATE TABLE {schema}.{name} ({columns}) PARTITION BY {how};" for name, how in PARTITIONED.items()]
    for name, (parent, bound) in PARTITIONS.items():
        values = f"FOR VALUES {bound}" if bound else "DEFAULT"
        divided = name == "ranged_high"
        end = "PARTITION BY RANGE (b)" if divided else model
        kind = "FOREIGN TABLE" if model and not divided else "TABLE"
        statements.append(f"CREATE {kind} {schema}.{name} PARTITION OF {schema}.{parent} {values} {end};")
    return "".join(statements)


def views(schema: str) -> str:
    return f"""
        CREATE VIEW {schema}.scored AS
        SELECT t.id, t.k, p.s, p.d FROM t LEFT JOIN {schema}.affine p ON p.a = t.x AND p.b = t.y;
        CREATE VIEW {schema}.cooked AS
        SELECT a, b, coalesce(s, 0) AS s, 'cooked' AS label, a + b AS ab, s > 10 AS high FROM {schema}.affine;
        CREATE VIEW {schema}.guarded WITH (security_barrier) AS
        SELECT t.id, t.k, p.s FROM t JOIN {schema}.affine p ON p.a = t.x AND p.b = t.y WHERE t.k < 4;
        CREATE FUNCTION {schema}.score(x double precision, y double precision) RETURNS double precision
        LANGUAGE sql STABLE AS 'SELECT s FROM {schema}.affine WHERE a = x AND b = y';
        CREATE FUNCTION {schema}.scores(x double precision) RETURNS SETOF {schema}.affine
        LANGUAGE sql STABLE AS 'SELECT * FROM {schema}.affine WHERE a = x AND b IN (1, 2)';
    """


@dataclass(frozen=True)
class Shape:
    """A query, or statements of which the last gives rows.

    ``parameters``: types and values of $1 and so on; ``ordered``: the order of the rows counts; ``node``: there must
    be a Model Join in the plan of the last statement; ``error``: the SQLSTATE in which it ends, with local tables too.
    """

    name: str
    sql: str
    node: bool = False
    ordered: bool = False
    parameters: tuple[tuple[str, str], ...] = ()
    before: tuple[str, ...] = ()
    error: str = ""


ON = "ON p.a = t.x AND p.b = t.y"
AT = "WHERE p.a = t.x AND p.b = t.y"


def joins() -> list[Shape]:
    return [
        Shape("inner", f"SELECT t.id, p.* FROM t JOIN affine p {ON}", node=True),
        Shape("inner reversed", "SELECT t.id, s FROM affine p JOIN t ON t.x = p.a AND t.y = p.b", node=True),
        Shape("comma", f"SELECT t.id, s FROM affine p, t {AT}", node=True),
        Shape("using", "SELECT * FROM (SELECT id, x AS a, y AS b FROM t) c JOIN affine USING (a, b)", node=True),
        Shape("natural", "SELECT * FROM (SELECT id, x AS a, y AS b FROM t) c NATURAL JOIN affine", node=True),
        Shape("natural left", "SELECT * FROM (SELECT id, x AS a, y AS b FROM t) c NATURAL LEFT JOIN affine", node=True),
        Shape("row comparison", "SELECT t.id, s FROM t JOIN affine p ON (p.a, p.b) = (t.x, t.y)", node=True),
        Shape("left", f"SELECT t.id, p.* FROM t LEFT JOIN affine p {ON}", node=True),
        Shape("right", f"SELECT t.id, p.* FROM affine p RIGHT JOIN t {ON}", node=True),
        Shape("left, output in ON", f"SELECT t.id, p.* FROM t LEFT JOIN affine p {ON} AND p.s > 4", node=True),
        Shape("left, input in ON", f"SELECT t.id, p.* FROM t LEFT JOIN affine p {ON} AND p.a > 1", node=True),
        Shape("left, outer in ON", f"SELECT t.id, p.* FROM t LEFT JOIN affine p {ON} AND t.k = 1", node=True),
        Shape("left, both in ON", f"SELECT t.id, p.* FROM t LEFT JOIN affine p {ON} AND p.s > t.k", node=True),
        Shape("left, output in WHERE", f"SELECT t.id, p.s FROM t LEFT JOIN affine p {ON} WHERE p.s > 4", node=True),
        Shape("left, NULL in WHERE", f"SELECT t.id, p.s FROM t LEFT JOIN affine p {ON} WHERE p.s IS NULL", node=True),
        Shape("left, input NULL", f"SELECT t.id FROM t LEFT JOIN affine p {ON} WHERE p.a IS NULL", node=True),
        Shape(
            "left, either in WHERE", f"SELECT t.id FROM t LEFT JOIN affine p {ON} WHERE p.s > 4 OR t.k = 2", node=True
        ),
        Shape(
            "left, coalesce",
            "SELECT t.id, coalesce(p.s, -1), CASE WHEN p.s IS NULL THEN 'none' WHEN p.d > 0 THEN 'some' END "
            f"FROM t LEFT JOIN affine p {ON}",
            node=True,
        ),
        Shape(
            "left, coalesce in WHERE",
            f"SELECT t.id FROM t LEFT JOIN affine p {ON} WHERE coalesce(p.s, 99) > 4",
            node=True,
        ),
        Shape(
            "left, placeholders",
            "SELECT t.id, p.cs, p.k, p.k IS NULL FROM t LEFT JOIN "
            "(SELECT a, b, coalesce(s, 0) AS cs, 'const' AS k FROM affine) p ON p.a = t.x AND p.b = t.y",
            node=True,
        ),
        Shape(
            "left, placeholders in ON",
            "SELECT t.id, p.cs FROM t LEFT JOIN "
            "(SELECT a, b, coalesce(s, 0) + 1 AS cs FROM affine) p ON p.a = t.x AND p.b = t.y AND p.cs > 5",
            node=True,
        ),
        Shape("left, view", "SELECT t.id, p.* FROM t LEFT JOIN cooked p ON p.a = t.x AND p.b = t.y", node=True),
        Shape(
            "left, view, then WHERE",
            "SELECT t.id, p.ab FROM t LEFT JOIN cooked p ON p.a = t.x AND p.b = t.y WHERE p.label IS NULL OR p.high",
            node=True,
        ),
        Shape(
            "two lefts with placeholders",
            "SELECT t.id, p.label, q.label, q.ab FROM t LEFT JOIN cooked p ON p.a = t.x AND p.b = t.y "
            "LEFT JOIN cooked q ON q.a = p.ab AND q.b = coalesce(t.y, 1)",
            node=True,
        ),
        Shape("inner, output", f"SELECT t.id, p.s FROM t JOIN affine p {ON} WHERE p.s > 4 AND p.d < 2", node=True),
        Shape("inner, input", f"SELECT t.id, p.s FROM t JOIN affine p {ON} WHERE p.a > 0 AND p.b <> 1", node=True),
        Shape("inner, unused", f"SELECT t.id FROM t JOIN affine p {ON}", node=True),
        Shape("left, unused", f"SELECT t.id FROM t LEFT JOIN affine p {ON}"),
        Shape("count", f"SELECT count(*) FROM t JOIN affine p {ON}", node=True),
        Shape("count left", f"SELECT count(*), count(p.s), count(p) FROM t LEFT JOIN affine p {ON}", node=True),
        Shape("expressions", "SELECT t.id, s FROM t JOIN affine p ON p.a = t.x + 1 AND p.b = abs(t.y * 2)", node=True),
        Shape("coalesced", "SELECT t.id, s FROM t JOIN affine p ON p.a = coalesce(t.x, 0) AND p.b = 1", node=True),
        Shape("a constant", "SELECT t.id, s FROM t JOIN affine p ON p.a = t.x AND p.b = 3", node=True),
        Shape("a constant, left", "SELECT t.id, s FROM t LEFT JOIN affine p ON p.a = t.x AND p.b = 3", node=True),
        Shape("all constants", "SELECT t.id, s FROM t, affine p WHERE p.a = 1 AND p.b = 2"),
        Shape("all constants, left", "SELECT t.id, s FROM t LEFT JOIN affine p ON p.a = 1 AND p.b = 2 AND p.s > 9"),
        Shape("one column for both", "SELECT t.id, s FROM t JOIN affine p ON p.a = t.x AND p.b = t.x", node=True),
        Shape("equal inputs", "SELECT t.id, s FROM t JOIN affine p ON p.a = t.x AND p.b = p.a", node=True),
        Shape("constant class", "SELECT t.id, s FROM t JOIN affine p ON p.a = t.x AND p.b = t.y WHERE t.x = 2"),
        Shape("bound twice", "SELECT t.id, s FROM t JOIN affine p ON p.a = t.x AND p.a = t.i AND p.b = 1", node=True),
        Shape("input = output", "SELECT t.id, s FROM t JOIN affine p ON p.a = t.x AND p.b = t.y AND p.s = p.a"),
        Shape("output = column", f"SELECT t.id, s FROM t JOIN affine p {ON} AND p.d = t.k", node=True),
        Shape(
            "a list beside a column", "SELECT t.id, a, s FROM t JOIN affine p ON p.b = t.y WHERE a IN (1, 2, 2, NULL)"
        ),
        Shape("series", "SELECT n, s FROM generate_series(1, 9) n JOIN affine p ON p.a = n AND p.b = n / 2", node=True),
        Shape("values", "SELECT c.*, s FROM (VALUES (1, 2), (3, NULL)) c (x, y) LEFT JOIN affine ON a = x AND b = y"),
        Shape("empty outer", "SELECT e.id, s FROM e JOIN affine p ON p.a = e.x AND p.b = e.y"),
        Shape("empty outer, left", "SELECT e.id, s FROM e LEFT JOIN affine p ON p.a = e.x AND p.b = e.y"),
        Shape(
            "after an empty left join",
            "SELECT t.id, e.id, s FROM t LEFT JOIN e ON e.id = t.id LEFT JOIN affine p ON p.a = t.x AND p.b = e.y",
        ),
        Shape("packed", f"SELECT w.id, total FROM w JOIN sum10 p USING ({FEATURES})", node=True),
        Shape("packed, left", f"SELECT w.id, total FROM w LEFT JOIN sum10 p USING ({FEATURES})", node=True),
        Shape("packed, natural", "SELECT id, total FROM w NATURAL JOIN sum10 WHERE total > 30", node=True),
        Shape("packed, whole", f"SELECT w.id, p FROM w LEFT JOIN sum10 p USING ({FEATURES}) WHERE f3 > 2", node=True),
    ]


def several() -> list[Shape]:
    return [
        Shape(
            "three tables",
            "SELECT t.id, u.id, s FROM t JOIN u ON u.t_id = t.id JOIN affine p ON p.a = t.x AND p.b = u.x",
            node=True,
        ),
        Shape(
            "three tables, left",
            "SELECT t.id, u.id, s FROM t LEFT JOIN u ON u.t_id = t.id LEFT JOIN affine p ON p.a = t.x AND p.b = u.x",
            node=True,
        ),
        Shape(
            "fan-out after the model",
            f"SELECT t.id, u.id, s FROM t JOIN affine p {ON} JOIN u ON u.t_id = t.id WHERE u.k = 1",
            node=True,
        ),
        Shape(
            "join on an output",
            f"SELECT t.id, v.id, s FROM t JOIN affine p {ON} JOIN v ON v.y = p.d",
            node=True,
        ),
        Shape("inputs of unrelated tables", "SELECT t.id, v.id, s FROM t, v, affine p WHERE p.a = t.x AND p.b = v.y"),
        Shape(
            "inputs of unrelated tables, left",
            "SELECT t.id, v.id, s FROM t CROSS JOIN v LEFT JOIN affine p ON p.a = t.x AND p.b = v.y WHERE v.id < 4",
            node=True,
        ),
        Shape(
            "chain",
            f"SELECT t.id, p.s, c.t FROM t JOIN affine p {ON} JOIN chain c ON c.s = p.s",
            node=True,
        ),
        Shape(
            "chain by name",
            "SELECT id, t FROM (SELECT id, x AS a, y AS b FROM t) c NATURAL JOIN affine NATURAL JOIN chain",
            node=True,
        ),
        Shape(
            "chain, left",
            f"SELECT t.id, p.s, c.t FROM t LEFT JOIN affine p {ON} LEFT JOIN chain c ON c.s = p.s AND c.t > 3",
            node=True,
        ),
        Shape(
            "chain, coalesced",
            f"SELECT t.id, p.s, c.t FROM t LEFT JOIN affine p {ON} LEFT JOIN chain c ON c.s = coalesce(p.s, t.k)",
            node=True,
        ),
        Shape(
            "chain, by an expression",
            f"SELECT t.id, c.t FROM t JOIN affine p {ON} JOIN chain c ON c.s = p.d + 1 WHERE c.t <> 0",
            node=True,
        ),
        Shape(
            "left join of a pair",
            "SELECT t.id, p.s, c.t FROM t LEFT JOIN (affine p JOIN chain c ON c.s = p.s) ON p.a = t.x AND p.b = t.y",
            node=True,
        ),
        Shape(
            "left join of a left pair",
            "SELECT t.id, p.s, c.t FROM t LEFT JOIN (affine p LEFT JOIN chain c ON c.s = p.s AND c.t > 5) "
            "ON p.a = t.x AND p.b = t.y",
            node=True,
        ),
        Shape(
            "left join of a pair with a table",
            "SELECT t.id, v.id, s FROM t LEFT JOIN (v JOIN affine p ON p.b = v.y) ON p.a = t.x AND v.k = t.k",
        ),
        Shape(
            "the same model twice",
            f"SELECT t.id, p.s, q.s FROM t JOIN affine p {ON} JOIN affine q ON q.a = t.y AND q.b = t.x",
            node=True,
        ),
        Shape(
            "two models side by side",
            f"SELECT t.id, p.s, c.t FROM t LEFT JOIN affine p {ON} LEFT JOIN chain c ON c.s = t.n",
            node=True,
        ),
        Shape("union of models", f"SELECT t.id, p.* FROM t JOIN ({UNION}) p ON p.a = t.x AND p.b = t.y"),
        Shape("union of models, left", f"SELECT t.id, p.* FROM t LEFT JOIN ({UNION}) p ON p.a = t.x AND p.b = t.y"),
        Shape("union of models by constants", f"SELECT * FROM ({UNION}) p WHERE a = 1 AND b IN (1, 2)"),
        Shape("inherited", f"SELECT t.id, p.s, p.tableoid::regclass FROM t JOIN parent p {ON}"),
        Shape("inherited, left", f"SELECT t.id, p.s FROM t LEFT JOIN parent p {ON} AND p.s > 2"),
        Shape(
            "union of joins",
            f"SELECT t.id, p.s FROM t JOIN affine p {ON} UNION ALL SELECT v.id, c.t FROM v JOIN chain c ON c.s = v.y",
            node=True,
        ),
        Shape(
            "union below",
            "SELECT o.id, p.s FROM (SELECT id, x, y FROM t UNION ALL SELECT id, y, y FROM v) o "
            "JOIN affine p ON p.a = o.x AND p.b = o.y",
            node=True,
        ),
        Shape("except", f"SELECT t.k FROM t EXCEPT SELECT t.k FROM t JOIN affine p {ON} WHERE p.s > 12", node=True),
        Shape("partitioned", f"SELECT t.id, p.s FROM tp t JOIN affine p {ON}", node=True),
        Shape(
            "partitioned by pairs",
            f"SELECT t.id, z, p.s FROM tp t JOIN up ON up.k = t.k LEFT JOIN affine p {ON} AND p.s > up.z",
            node=True,
        ),
    ]


UNION = "SELECT a, b, s AS o FROM affine UNION ALL SELECT a, b, d FROM affine WHERE d > 0"
PAIR = "(affine p JOIN chain c ON c.s = p.s)"
COOKED_PAIR = (
    "(SELECT p.a, p.b, coalesce(p.s, 0) AS ps, coalesce(c.t, -1) AS ct, 'k' AS k, p.d + c.t AS both "
    "FROM affine p JOIN chain c ON c.s = p.s) q"
)
AT_Q = "q.a = t.x AND q.b = t.y"


def pairs() -> list[Shape]:
    """Joins whose inner side is a join of models."""
    return [
        Shape("left", f"SELECT t.id, p.*, c.* FROM t LEFT JOIN {PAIR} {ON}", node=True),
        Shape("right", f"SELECT t.id, p.s, c.t FROM {PAIR} RIGHT JOIN t {ON}", node=True),
        Shape("inner", f"SELECT t.id, p.s, c.t FROM t JOIN {PAIR} {ON}", node=True),
        Shape("inner, output", f"SELECT t.id, c.t FROM t JOIN {PAIR} {ON} AND c.t > t.k WHERE p.d < 2", node=True),
        Shape("output in ON", f"SELECT t.id, p.s, c.t FROM t LEFT JOIN {PAIR} {ON} AND c.t > 5", node=True),
        Shape("first output in ON", f"SELECT t.id, p.s, c.t FROM t LEFT JOIN {PAIR} {ON} AND p.s > 5", node=True),
        Shape("input in ON", f"SELECT t.id, p.s, c.t FROM t LEFT JOIN {PAIR} {ON} AND p.a > 0", node=True),
        Shape("outer in ON", f"SELECT t.id, p.s, c.t FROM t LEFT JOIN {PAIR} {ON} AND t.k = 1", node=True),
        Shape("all in ON", f"SELECT t.id, p.s, c.t FROM t LEFT JOIN {PAIR} {ON} AND c.t + p.d > t.k", node=True),
        Shape("output in WHERE", f"SELECT t.id, c.t FROM t LEFT JOIN {PAIR} {ON} WHERE c.t > 5", node=True),
        Shape("either in WHERE", f"SELECT t.id, c.t FROM t LEFT JOIN {PAIR} {ON} WHERE c.t > 5 OR t.k = 2", node=True),
        Shape(
            "NULL in WHERE",
            f"SELECT t.id, p.s, c.t FROM t LEFT JOIN {PAIR} {ON} AND c.t > 3 WHERE c.t IS NULL",
            node=True,
        ),
        Shape(
            "first NULL in WHERE",
            f"SELECT t.id, p.s, p.a, c.t FROM t LEFT JOIN {PAIR} {ON} AND c.t > 3 WHERE p.s IS NULL",
            node=True,
        ),
        Shape(
            "coalesce above",
            f"SELECT t.id, coalesce(p.s, -1), coalesce(c.t, p.d, -2) FROM t LEFT JOIN {PAIR} {ON} AND c.t > 3 "
            "WHERE coalesce(c.t, 9) > 4",
            node=True,
        ),
        Shape(
            "two models of the same inputs",
            "SELECT t.id, p.s, q.d FROM t LEFT JOIN (affine p JOIN affine q ON q.a = p.a AND q.b = p.b) "
            f"{ON} AND q.d < t.k",
            node=True,
        ),
        Shape(
            "inputs from below and outside",
            "SELECT t.id, p.s, q.s FROM t LEFT JOIN (affine p JOIN affine q ON q.a = p.d) "
            f"{ON} AND q.b = t.k AND q.s <> p.s",
            node=True,
        ),
        Shape(
            "inputs from outside only",
            f"SELECT t.id, p.s, q.s FROM t LEFT JOIN (affine p JOIN affine q ON q.s > p.s) {ON} AND q.a = t.k AND q.b = 1",
            node=True,
        ),
        Shape(
            "a constant input",
            "SELECT t.id, p.s, c.t FROM t LEFT JOIN (affine p JOIN chain c ON c.s = 3.5) ON p.a = t.x AND p.b = t.y",
            node=True,
        ),
        Shape(
            "guarded",
            "SELECT t.id, p.s, c.t FROM t LEFT JOIN (affine p JOIN chain c ON c.s = coalesce(p.s, 1)) "
            "ON p.a = t.x AND p.b = t.y AND p.d > 0",
            node=True,
        ),
        Shape(
            "equal columns",
            "SELECT t.id, p.s, c.t FROM t LEFT JOIN (affine p JOIN chain c ON c.s = p.a AND c.s = p.b) ON p.a = t.x AND p.b = t.y",
            node=True,
        ),
        Shape(
            "compared outputs",
            f"SELECT t.id, p.s, c.t FROM t LEFT JOIN (affine p JOIN chain c ON c.s = p.s AND c.t = p.s) {ON}",
            node=True,
        ),
        Shape(
            "three",
            "SELECT t.id, p.s, c.t, q.s FROM t LEFT JOIN (affine p JOIN chain c ON c.s = p.s "
            f"JOIN affine q ON q.a = c.t AND q.b = p.d) {ON}",
            node=True,
        ),
        Shape(
            "three, conditions between",
            "SELECT t.id, p.s, c.t, q.s FROM t LEFT JOIN (affine p JOIN chain c ON c.s = p.s AND c.t < 9 "
            f"JOIN affine q ON q.a = c.t AND q.b = p.d AND q.s > p.s) {ON} AND q.d <> t.k",
            node=True,
        ),
        Shape(
            "three, written backwards",
            "SELECT t.id, p.s, c.t, q.s FROM t LEFT JOIN (affine q JOIN (chain c JOIN affine p ON c.s = p.s) "
            f"ON q.a = c.t) {ON} AND q.b = t.k",
            node=True,
        ),
        Shape("placeholders", f"SELECT t.id, q.*, q.k IS NULL FROM t LEFT JOIN {COOKED_PAIR} ON {AT_Q}", node=True),
        Shape(
            "placeholders in ON",
            f"SELECT t.id, q.ct, q.k FROM t LEFT JOIN {COOKED_PAIR} ON {AT_Q} AND q.both > 5",
            node=True,
        ),
        Shape(
            "placeholders in WHERE",
            f"SELECT t.id, q.ps, q.k FROM t LEFT JOIN {COOKED_PAIR} ON {AT_Q} WHERE q.k IS NULL OR q.both > 3",
            node=True,
        ),
        Shape(
            "placeholders, then more",
            f"SELECT t.id, q.ct, z.t, v.id FROM t LEFT JOIN {COOKED_PAIR} ON {AT_Q} LEFT JOIN chain z ON z.s = q.both "
            "LEFT JOIN v ON v.y = coalesce(q.ct, 1)",
            node=True,
        ),
        Shape(
            "placeholders of one",
            "SELECT t.id, p.label, p.ab, p.high, c.t FROM t LEFT JOIN (cooked p JOIN chain c ON c.s = p.s) "
            "ON p.a = t.x AND p.b = t.y AND p.ab < 5",
            node=True,
        ),
        Shape(
            "placeholders of both, joined twice",
            "SELECT t.id, p.label, p.ab, r.label, r.s FROM t LEFT JOIN (cooked p JOIN cooked r ON r.a = p.ab) "
            "ON p.a = t.x AND p.b = t.y AND r.b = t.k",
            node=True,
        ),
        Shape(
            "whole rows",
            f"SELECT t.id, p, c, p IS NULL, c IS NOT NULL FROM t LEFT JOIN {PAIR} {ON} AND c.t > 3",
            node=True,
        ),
        Shape(
            "whole rows of all",
            f"SELECT t, p, row_to_json(c)::text, p.tableoid::regclass, c.tableoid::regclass FROM t LEFT JOIN {PAIR} {ON}",
            node=True,
        ),
        Shape("whole row of a view", f"SELECT t.id, q, q IS NULL FROM t LEFT JOIN {COOKED_PAIR} ON {AT_Q}", node=True),
        Shape("count", f"SELECT count(*), count(p), count(c.t) FROM t LEFT JOIN {PAIR} {ON} AND p.d < 1", node=True),
        Shape("unused", f"SELECT t.id FROM t LEFT JOIN {PAIR} {ON}"),
        Shape("exists", f"SELECT t.id FROM t WHERE EXISTS (SELECT FROM {PAIR} {AT} AND c.t > t.k)", node=True),
        Shape("not exists", f"SELECT t.id FROM t WHERE NOT EXISTS (SELECT FROM {PAIR} {AT} AND c.t > t.k)", node=True),
        Shape(
            "anti by NULL",
            f"SELECT t.id, p.s, c.t, p FROM t LEFT JOIN {PAIR} {ON} AND c.t > 3 WHERE p.a IS NULL",
            node=True,
        ),
        Shape(
            "after a join",
            f"SELECT t.id, u.id, c.t FROM t JOIN u ON u.t_id = t.id LEFT JOIN {PAIR} ON p.a = t.x AND p.b = u.x",
            node=True,
        ),
        Shape(
            "before a join",
            f"SELECT t.id, u.id, c.t FROM t LEFT JOIN {PAIR} {ON} JOIN u ON u.t_id = t.id WHERE u.k = 1",
            node=True,
        ),
        Shape(
            "below another left join",
            f"SELECT u.id, t.id, p.s, c.t FROM u LEFT JOIN (t LEFT JOIN {PAIR} {ON} AND c.t > 2) ON u.t_id = t.id",
            node=True,
        ),
        Shape(
            "over another left join",
            f"SELECT t.id, u.id, p.s, c.t FROM t LEFT JOIN u ON u.t_id = t.id LEFT JOIN {PAIR} ON p.a = t.x AND p.b = u.x",
            node=True,
        ),
        Shape(
            "pairs in a row",
            f"SELECT t.id, c.t, d.t FROM t LEFT JOIN {PAIR} {ON} LEFT JOIN (affine q JOIN chain d ON d.s = q.d) "
            "ON q.a = c.t AND q.b = t.k",
            node=True,
        ),
        Shape(
            "a model after the pair",
            f"SELECT t.id, c.t, d.t FROM t LEFT JOIN {PAIR} {ON} LEFT JOIN chain d ON d.s = coalesce(c.t, t.k)",
            node=True,
        ),
        Shape(
            "a pair after the model",
            f"SELECT t.id, r.s, c.t FROM t LEFT JOIN affine r ON r.a = t.x AND r.b = 1 LEFT JOIN {PAIR} "
            "ON p.a = r.d AND p.b = t.y",
            node=True,
        ),
        Shape(
            "lateral",
            "SELECT t.id, q.* FROM t LEFT JOIN LATERAL (SELECT p.s + t.k AS e, t.k AS k, c.t FROM affine p "
            f"JOIN chain c ON c.s = p.s {AT}) q ON true",
            node=True,
        ),
        Shape(
            "lateral, with inputs of each other",
            "SELECT t.id, q.* FROM t LEFT JOIN LATERAL (SELECT p.s, c.t FROM affine p "
            f"JOIN chain c ON c.s = p.s + t.k {AT}) q ON q.t > 1",
            node=True,
        ),
        Shape(
            "lateral placeholders as inputs",
            "SELECT t.id, q.* FROM t LEFT JOIN LATERAL (SELECT r.e, c.t FROM LATERAL (SELECT a, b, coalesce(s, t.k) AS e, "
            "1 AS one FROM affine) r JOIN chain c ON c.s = r.e + r.one WHERE r.a = t.x AND r.b = t.y) q ON q.e > 1",
            node=True,
        ),
        Shape("rescan", f"SELECT u.id, (SELECT sum(c.t) FROM t LEFT JOIN {PAIR} {ON} WHERE t.k = u.k) FROM u"),
        Shape(
            "rescan by an input",
            f"SELECT u.id, (SELECT sum(c.t) FROM t LEFT JOIN {PAIR} ON p.a = t.x AND p.b = u.x) FROM u",
        ),
        Shape(
            "rescan by a condition",
            f"SELECT u.id, q.* FROM u, LATERAL (SELECT t.id, c.t FROM t LEFT JOIN {PAIR} {ON} AND c.t > u.k "
            "ORDER BY t.id LIMIT 3) q",
        ),
        Shape(
            "a lateral outer",
            "SELECT u.id, q.x, c.t FROM u, LATERAL (SELECT t.x FROM t WHERE t.k = u.k ORDER BY id LIMIT 2) q "
            f"LEFT JOIN {PAIR} ON p.a = q.x AND p.b = 1",
        ),
        Shape(
            "ordered", f"SELECT t.id, c.t FROM t LEFT JOIN {PAIR} {ON} ORDER BY t.id LIMIT 9", node=True, ordered=True
        ),
        Shape("group", f"SELECT t.k, sum(c.t), count(p.s) FROM t LEFT JOIN {PAIR} {ON} GROUP BY t.k", node=True),
        Shape("partitioned", f"SELECT t.id, c.t FROM tp t LEFT JOIN {PAIR} {ON}", node=True),
        Shape(
            "partitioned inner side",
            "SELECT t.id, c.t FROM t LEFT JOIN (listed p JOIN chain c ON c.s = p.s) ON a = x AND b = y",
        ),
        Shape(
            "packed",
            f"SELECT w.id, total, t FROM w LEFT JOIN (sum10 JOIN chain ON s = total) USING ({FEATURES})",
            node=True,
        ),
        Shape(
            "integers",
            "SELECT t.id, p.s, q.s FROM t LEFT JOIN (iaffine p JOIN naffine q ON q.a = p.s) ON p.a = t.n AND p.b = 1 AND q.b = t.g",
            node=True,
        ),
        Shape("for update", f"SELECT t.id, c.t FROM t LEFT JOIN {PAIR} {ON} FOR UPDATE OF t", node=True),
        Shape("for update of all", f"SELECT t.id, c.t FROM t JOIN {PAIR} {ON} FOR UPDATE", node=True),
        Shape(
            "prepared",
            f"SELECT t.id, p.s, c.t FROM t LEFT JOIN {PAIR} {ON} AND c.t > $1 WHERE t.k < $1",
            node=True,
            parameters=(("int", "3"),),
        ),
        *(
            Shape(
                f"{name} by a parameter, {value}",
                sql,
                node=True,
                parameters=(("int", value),),
            )
            for value in ("4", "6")
            for name, sql in (
                ("gated", f"SELECT t.id, p.s, c.t FROM t LEFT JOIN {PAIR} {ON} AND $1 > 5"),
                (
                    "gated inside",
                    "SELECT t.id, p.s, c.t FROM t LEFT JOIN (affine p JOIN chain c ON c.s = p.s AND $1 > 5) ON a = x AND b = y",
                ),
                ("gated above", f"SELECT t.id, p.s, c.t FROM t LEFT JOIN {PAIR} {ON} WHERE $1 > 5"),
                ("gated inner", f"SELECT t.id, p.s, c.t FROM t JOIN {PAIR} {ON} WHERE $1 > 5"),
                ("gated anti", f"SELECT t.id FROM t WHERE NOT EXISTS (SELECT FROM {PAIR} {AT} AND $1 > 5)"),
            )
        ),
        Shape(
            "cursor",
            "FETCH ALL FROM c",
            before=(
                f"DECLARE c CURSOR FOR SELECT t.id, p.s, c.t FROM t LEFT JOIN {PAIR} {ON} ORDER BY t.id",
                "FETCH 5 FROM c",
                "MOVE 3 FROM c",
            ),
            ordered=True,
        ),
        Shape(
            "scroll cursor",
            "FETCH BACKWARD ALL FROM c",
            before=(
                f"DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT t.id, p.s, c.t FROM t LEFT JOIN {PAIR} {ON} ORDER BY t.id",
                "FETCH 20 FROM c",
            ),
            ordered=True,
        ),
        Shape(
            "update",
            f"UPDATE kept SET s = c.t FROM t LEFT JOIN {PAIR} {ON} AND c.t > 2 WHERE t.id = kept.id RETURNING kept.*, p.s",
            node=True,
        ),
        Shape(
            "delete",
            f"DELETE FROM kept USING {PAIR} WHERE p.a = id AND p.b = 1 AND c.t > 10 RETURNING kept.id, p.s",
            node=True,
        ),
        Shape("insert", f"INSERT INTO kept SELECT 500 + t.id, c.t FROM t LEFT JOIN {PAIR} {ON} RETURNING *", node=True),
        Shape(
            "merge",
            "SELECT * FROM kept",
            before=(
                f"MERGE INTO kept USING (SELECT t.id, c.t FROM t LEFT JOIN {PAIR} {ON}) q ON q.id = kept.id WHEN MATCHED THEN UPDATE SET s = q.t WHEN NOT MATCHED THEN INSERT VALUES (q.id, q.t)",
            ),
        ),
    ]


MEMBERS = (
    "SELECT a, b, s AS o, 'one' AS m FROM affine UNION ALL SELECT a, b, d, 'two' FROM affine "
    "UNION ALL SELECT s, s, t::float8 + 1, 'three' FROM chain"
)
UNITED = f"({MEMBERS}) p"
SAME = "p.a = t.x AND p.b = t.x"


def unions() -> list[Shape]:
    """Joins whose inner side is an Append of models."""
    return [
        Shape("inner", f"SELECT t.id, p.* FROM t JOIN {UNITED} ON {SAME}", node=True),
        Shape("inner, two inputs", f"SELECT t.id, p.* FROM t JOIN {UNITED} {ON}", node=True),
        Shape("left", f"SELECT t.id, p.* FROM t LEFT JOIN {UNITED} {ON}", node=True),
        Shape("right", f"SELECT t.id, p.* FROM {UNITED} RIGHT JOIN t ON {SAME}", node=True),
        Shape("output in ON", f"SELECT t.id, p.o FROM t LEFT JOIN {UNITED} ON {SAME} AND p.o > t.k", node=True),
        Shape("input in ON", f"SELECT t.id, p.o FROM t LEFT JOIN {UNITED} ON {SAME} AND p.a > 1", node=True),
        Shape("outer in ON", f"SELECT t.id, p.o FROM t LEFT JOIN {UNITED} ON {SAME} AND t.k = 1", node=True),
        Shape("member in ON", f"SELECT t.id, p.o FROM t LEFT JOIN {UNITED} ON {SAME} AND p.m <> 'two'", node=True),
        Shape("output in WHERE", f"SELECT t.id, p.o FROM t LEFT JOIN {UNITED} ON {SAME} WHERE p.o > 3", node=True),
        Shape(
            "either in WHERE",
            f"SELECT t.id, p.m FROM t LEFT JOIN {UNITED} ON {SAME} WHERE p.o > 3 OR t.k = 2",
            node=True,
        ),
        Shape("NULL in WHERE", f"SELECT t.id, p.m FROM t LEFT JOIN {UNITED} {ON} WHERE p.o IS NULL", node=True),
        Shape(
            "coalesce above",
            f"SELECT t.id, coalesce(p.o, -1), coalesce(p.m, 'no') FROM t LEFT JOIN {UNITED} ON {SAME} "
            "WHERE coalesce(p.o, 9) > 2",
            node=True,
        ),
        Shape(
            "placeholders",
            f"SELECT t.id, p.* FROM t LEFT JOIN (SELECT a, b, coalesce(o, 0) AS o, m || '!' AS m, 'k' AS k FROM ({MEMBERS}) q) p "
            f"ON {SAME} AND p.o < 9",
            node=True,
        ),
        Shape(
            "placeholders in WHERE",
            f"SELECT t.id, p.k FROM t LEFT JOIN (SELECT a, b, coalesce(o, 0) AS o, 'k' AS k FROM ({MEMBERS}) q) p "
            f"ON {SAME} WHERE p.k IS NULL OR p.o > 3",
            node=True,
        ),
        Shape(
            "views",
            "SELECT t.id, p.* FROM t LEFT JOIN (SELECT * FROM cooked UNION ALL SELECT * FROM cooked) p ON p.a = x AND p.b = y",
            node=True,
        ),
        Shape("whole row", f"SELECT t.id, p, p IS NULL FROM t LEFT JOIN {UNITED} ON {SAME}", node=True),
        Shape("whole rows of both", f"SELECT t, p FROM t JOIN {UNITED} ON {SAME}", node=True),
        Shape(
            "whole rows inside",
            "SELECT t.id, p.* FROM t JOIN (SELECT a, b, q FROM affine q UNION ALL SELECT a, b, r FROM affine r) p ON p.a = x AND p.b = y",
            node=True,
        ),
        Shape("count", f"SELECT count(*), count(p.o), count(p) FROM t LEFT JOIN {UNITED} ON {SAME}", node=True),
        Shape("unused", f"SELECT t.id FROM t LEFT JOIN {UNITED} ON {SAME}", node=True),
        Shape("exists", f"SELECT t.id FROM t WHERE EXISTS (SELECT FROM {UNITED} WHERE {SAME} AND p.o > 4)", node=True),
        Shape(
            "not exists",
            f"SELECT t.id FROM t WHERE NOT EXISTS (SELECT FROM {UNITED} WHERE {SAME} AND p.o > 4)",
            node=True,
        ),
        Shape(
            "anti by NULL",
            f"SELECT t.id, p.o, p FROM t LEFT JOIN {UNITED} {ON} AND p.o > 4 WHERE p.a IS NULL",
            node=True,
        ),
        Shape("in", f"SELECT t.id FROM t WHERE (t.x, t.x) IN (SELECT a, b FROM ({MEMBERS}) q WHERE o > 4)", node=True),
        Shape(
            "in a subquery",
            f"SELECT * FROM {UNITED} WHERE (a, b) IN (SELECT x, x FROM t)",
            node=True,
        ),
        Shape(
            "nested",
            "SELECT t.id, p.* FROM t LEFT JOIN (SELECT a, b, s FROM affine UNION ALL SELECT * FROM "
            "(SELECT a, b, d FROM affine UNION ALL SELECT a, b, s FROM affine) q) p ON p.a = t.x AND p.b = t.y",
            node=True,
        ),
        Shape(
            "a dead member",
            "SELECT t.id, p.* FROM t LEFT JOIN (SELECT a, b, s FROM affine UNION ALL SELECT a, b, d FROM affine q WHERE false) p ON p.a = x AND p.b = y",
            node=True,
        ),
        Shape(
            "of a table too",
            "SELECT t.id, p.* FROM t JOIN (SELECT a, b, s FROM affine UNION ALL SELECT x, y, k::float8 FROM t q) p ON p.a = t.x AND p.b = t.y",
        ),
        Shape(
            "of different types",
            "SELECT t.id, p.* FROM t JOIN (SELECT a, b, s, 1 AS n FROM affine UNION ALL SELECT a, b, d, 2 FROM affine) p ON p.a = t.i AND p.b = t.g",
            node=True,
        ),
        Shape(
            "inputs of several tables",
            f"SELECT t.id, u.id, p.* FROM t JOIN u ON u.t_id = t.id JOIN {UNITED} ON p.a = t.x AND p.b = u.x",
            node=True,
        ),
        Shape(
            "below another left join",
            f"SELECT u.id, t.id, p.o FROM u LEFT JOIN (t LEFT JOIN {UNITED} ON {SAME} AND p.o > 2) ON u.t_id = t.id",
            node=True,
        ),
        Shape(
            "over another left join",
            f"SELECT t.id, u.id, p.o FROM t LEFT JOIN u ON u.t_id = t.id LEFT JOIN {UNITED} ON p.a = t.x AND p.b = u.x",
            node=True,
        ),
        Shape(
            "then a model",
            f"SELECT t.id, p.o, c.t FROM t LEFT JOIN {UNITED} ON {SAME} LEFT JOIN chain c ON c.s = p.o",
            node=True,
        ),
        Shape(
            "after a model",
            f"SELECT t.id, q.s, p.o FROM t JOIN affine q ON q.a = x AND q.b = y LEFT JOIN {UNITED} ON p.a = q.d AND p.b = q.d",
            node=True,
        ),
        Shape(
            "then a pair",
            f"SELECT t.id, p.o, d.t FROM t LEFT JOIN {UNITED} ON {SAME} LEFT JOIN (affine q JOIN chain d ON d.s = q.s) ON q.a = p.o AND q.b = t.k",
            node=True,
        ),
        Shape(
            "then a table",
            f"SELECT t.id, p.o, v.id FROM t LEFT JOIN {UNITED} ON {SAME} JOIN v ON v.y = coalesce(p.o, 1)",
            node=True,
        ),
        Shape(
            "lateral",
            f"SELECT t.id, q.* FROM t LEFT JOIN LATERAL (SELECT p.o + t.k AS o, t.k AS k, m FROM {UNITED} WHERE {SAME}) q ON true",
            node=True,
        ),
        Shape("rescan", f"SELECT u.id, (SELECT sum(p.o) FROM t LEFT JOIN {UNITED} ON {SAME} WHERE t.k = u.k) FROM u"),
        Shape(
            "rescan by an input",
            f"SELECT u.id, (SELECT sum(p.o) FROM t JOIN {UNITED} ON p.a = t.x AND p.b = u.x) FROM u",
        ),
        Shape(
            "ordered",
            f"SELECT t.id, p.o, p.m FROM t LEFT JOIN {UNITED} ON {SAME} ORDER BY t.id, p.m LIMIT 9",
            node=True,
            ordered=True,
        ),
        Shape("group", f"SELECT p.m, sum(p.o), count(*) FROM t LEFT JOIN {UNITED} ON {SAME} GROUP BY p.m", node=True),
        Shape("partitioned outer", f"SELECT t.id, p.o FROM tp t LEFT JOIN {UNITED} ON {SAME}", node=True),
        Shape("for update", f"SELECT t.id, p.o FROM t LEFT JOIN {UNITED} ON {SAME} FOR UPDATE OF t", node=True),
        Shape(
            "update",
            f"UPDATE kept SET s = p.o FROM {UNITED} WHERE p.a = id AND p.b = id AND m = 'two' RETURNING kept.*, p.m",
            node=True,
        ),
        Shape(
            "insert",
            f"INSERT INTO kept SELECT 500 + t.id, max(p.o) FROM t LEFT JOIN {UNITED} ON {SAME} GROUP BY t.id RETURNING *",
            node=True,
        ),
        Shape(
            "prepared",
            f"SELECT t.id, p.* FROM t LEFT JOIN {UNITED} ON {SAME} AND p.o > $1 WHERE t.k < $1",
            node=True,
            parameters=(("int", "3"),),
        ),
        *(
            Shape(f"{name} by a parameter, {value}", sql, node=True, parameters=(("int", value),))
            for value in ("4", "6")
            for name, sql in (
                ("gated", f"SELECT t.id, p.o FROM t LEFT JOIN {UNITED} ON {SAME} AND $1 > 5"),
                ("gated above", f"SELECT t.id, p.o FROM t LEFT JOIN {UNITED} ON {SAME} WHERE $1 > 5"),
                ("gated inner", f"SELECT t.id, p.o FROM t JOIN {UNITED} ON {SAME} WHERE $1 > 5"),
            )
        ),
        Shape(
            "scroll cursor",
            "FETCH BACKWARD ALL FROM c",
            before=(
                f"DECLARE c SCROLL CURSOR FOR SELECT t.id, p.o, p.m FROM t LEFT JOIN {UNITED} ON {SAME} ORDER BY t.id, p.m",
                "FETCH 20 FROM c",
            ),
            ordered=True,
        ),
        *(
            shape
            for table in PARTITIONED
            for shape in (
                Shape(f"{table}, inner", f"SELECT t.id, p.* FROM t JOIN {table} p {ON}", node=True),
                Shape(f"{table}, left", f"SELECT t.id, p.* FROM t LEFT JOIN {table} p {ON}", node=True),
                Shape(f"{table}, output", f"SELECT t.id, p.d FROM t LEFT JOIN {table} p {ON} AND p.s > 3", node=True),
                Shape(
                    f"{table}, exists",
                    f"SELECT t.id FROM t WHERE EXISTS (SELECT FROM {table} p {AT} AND p.s > 3)",
                    node=True,
                ),
                Shape(
                    f"{table}, not exists",
                    f"SELECT t.id FROM t WHERE NOT EXISTS (SELECT FROM {table} p {AT})",
                    node=True,
                ),
                Shape(
                    f"{table}, whole row",
                    f"SELECT t.id, p, p.tableoid::regclass FROM t LEFT JOIN {table} p {ON}",
                    node=True,
                ),
                Shape(
                    f"{table}, pruned",
                    f"SELECT t.id, p.* FROM t JOIN {table} p ON p.a = t.x AND p.b = 1 AND p.d < 2",
                    node=True,
                ),
                Shape(
                    f"{table}, scan",
                    f"SELECT p.*, p.tableoid::regclass FROM {table} p WHERE a IN (-1, 0, 1.5, 3) AND b IN (0, 0.5, 1, 2.5)",
                ),
                Shape(
                    f"{table}, rescan",
                    f"SELECT u.id, (SELECT sum(p.s) FROM t JOIN {table} p ON p.a = t.x AND p.b = u.x) FROM u",
                ),
                Shape(f"{table}, scalar", f"SELECT t.id, (SELECT p.s FROM {table} p {AT}) FROM t"),
                Shape(
                    f"{table}, update",
                    f"UPDATE kept SET s = p.s FROM {table} p WHERE p.a = id AND p.b = kept.s RETURNING kept.*, p.d",
                    node=True,
                ),
                Shape(
                    f"{table}, for update", f"SELECT t.id, p.s FROM t JOIN {table} p {ON} FOR UPDATE OF t", node=True
                ),
            )
        ),
        Shape(
            "a partition", "SELECT t.id, p.* FROM t LEFT JOIN ranged_high_rest p ON p.a = t.x AND p.b = t.y", node=True
        ),
        Shape("a partition, scan", "SELECT * FROM listed_one WHERE a IN (1, 2) AND b IN (1, 2.5)"),
        Shape("a partition by its bound", "SELECT t.id, p.* FROM t LEFT JOIN listed_one p ON p.a = t.x", node=True),
    ]


def semis() -> list[Shape]:
    return [
        Shape("exists", f"SELECT t.id FROM t WHERE EXISTS (SELECT FROM affine p {AT})", node=True),
        Shape("exists, output", f"SELECT t.id FROM t WHERE EXISTS (SELECT FROM affine p {AT} AND p.s > 4)", node=True),
        Shape("exists or", f"SELECT t.id FROM t WHERE t.k = 1 OR EXISTS (SELECT FROM affine p {AT} AND p.s > 4)"),
        Shape("not exists", f"SELECT t.id FROM t WHERE NOT EXISTS (SELECT FROM affine p {AT})", node=True),
        Shape(
            "not exists, output",
            f"SELECT t.id FROM t WHERE NOT EXISTS (SELECT FROM affine p {AT} AND p.s > t.k)",
            node=True,
        ),
        Shape("in", "SELECT t.id FROM t WHERE (t.x, t.y) IN (SELECT a, b FROM affine WHERE s > 3)", node=True),
        Shape("in, correlated", "SELECT t.id FROM t WHERE t.x IN (SELECT a FROM affine p WHERE p.b = t.y AND p.d < 1)"),
        Shape("in, output", f"SELECT t.id FROM t WHERE t.k IN (SELECT p.d FROM affine p {AT})"),
        Shape(
            "in, constant", "SELECT t.id FROM t WHERE t.x IN (SELECT a FROM affine WHERE b = 2 AND s > 3)", node=True
        ),
        Shape("not in", f"SELECT t.id FROM t WHERE t.k NOT IN (SELECT p.d FROM affine p {AT})"),
        Shape(
            "not in a scan", "SELECT t.id FROM t WHERE t.x NOT IN (SELECT s FROM affine WHERE a = 0 AND b IN (0, 1))"
        ),
        Shape("model in a subquery", "SELECT * FROM affine p WHERE (a, b) IN (SELECT x, y FROM t)", node=True),
        Shape(
            "model in two subqueries", "SELECT * FROM affine WHERE a IN (SELECT x FROM t) AND b IN (SELECT y FROM v)"
        ),
        Shape("model in a subquery and by a constant", "SELECT * FROM affine WHERE a IN (SELECT x FROM t) AND b = 3"),
        Shape("model not in", "SELECT s FROM affine WHERE a = 1 AND b IN (1, 2, 3) AND s NOT IN (SELECT k + 7 FROM t)"),
        Shape(
            "exists over a join",
            "SELECT t.id FROM t WHERE EXISTS (SELECT FROM v JOIN affine p ON p.b = v.y WHERE p.a = t.x AND p.s = t.k)",
        ),
        Shape(
            "exists beside a join",
            f"SELECT t.id, c.t FROM t JOIN chain c ON c.s = t.n WHERE EXISTS (SELECT FROM affine p {AT} AND p.s > c.t)",
            node=True,
        ),
        Shape(
            "anti over a left join",
            f"SELECT t.id FROM t LEFT JOIN affine p {ON} WHERE NOT EXISTS (SELECT FROM chain c WHERE c.s = p.s)",
            node=True,
        ),
        Shape("any", f"SELECT t.id FROM t WHERE t.k = ANY (SELECT p.d FROM affine p {AT})"),
        Shape("all", f"SELECT t.id FROM t WHERE t.k > ALL (SELECT p.d FROM affine p {AT})"),
    ]


def scans() -> list[Shape]:
    return [
        Shape("constants", "SELECT * FROM affine WHERE a = 1 AND b = 2"),
        Shape("reversed constants", "SELECT * FROM affine WHERE 1 = a AND 2.5 = b"),
        Shape("lists", "SELECT * FROM affine WHERE a IN (1, 2, 3, 2) AND b IN (0, 0.5)"),
        Shape("lists with NULL", "SELECT * FROM affine WHERE a IN (1, NULL, 3) AND b = ANY ('{NULL,1}')"),
        Shape("empty list", "SELECT * FROM affine WHERE a = ANY ('{}') AND b = 1"),
        Shape("list and filter", "SELECT * FROM affine WHERE a IN (1, 2, 3) AND b IN (4, 5) AND s > 18 AND a < 3"),
        Shape("list twice", "SELECT * FROM affine WHERE a IN (1, 2, 3) AND a IN (2, 3, 4) AND b = 1"),
        Shape("constant and list", "SELECT * FROM affine WHERE a = 2 AND a IN (2, 3) AND b = 1"),
        Shape("contradiction", "SELECT * FROM affine WHERE a = 2 AND a = 3 AND b = 1"),
        Shape("NULL", "SELECT * FROM affine WHERE a = NULL AND b = 1"),
        Shape("special values", "SELECT * FROM affine WHERE a IN ('NaN', 'Infinity', '-Infinity') AND b IN ('NaN', 1)"),
        Shape("subquery", "SELECT * FROM affine WHERE a = (SELECT max(x) FROM t) AND b = (SELECT min(y) FROM t)"),
        Shape("subquery without a row", "SELECT * FROM affine WHERE a = (SELECT x FROM e) AND b = 1"),
        Shape("array of a subquery", "SELECT * FROM affine WHERE a = ANY (ARRAY(SELECT x FROM t)) AND b = 1"),
        Shape("aggregate", "SELECT sum(s), count(*) FROM affine WHERE a IN (1, 2, 3) AND b IN (1, 2)"),
        Shape("order", "SELECT * FROM affine WHERE a IN (3, 1, 2) AND b = 1 ORDER BY s DESC LIMIT 2", ordered=True),
        Shape("self join", "SELECT * FROM affine p JOIN affine q ON q.a = p.d AND q.b = p.a WHERE p.a = 3 AND p.b = 1"),
        Shape("chain", "SELECT * FROM affine p JOIN chain c USING (s) WHERE a IN (1, 2) AND b IN (1, 2.5)"),
        Shape("no outputs", "SELECT count(*) FROM affine WHERE a IN (1, 2, 3) AND b = 1"),
        Shape("parameters", "SELECT * FROM affine WHERE a = $1 AND b = $2", parameters=(("float8", "1"), ("int", "2"))),
        Shape("NULL parameter", "SELECT * FROM affine WHERE a = $1 AND b = 1", parameters=(("float8", "NULL"),)),
        Shape(
            "array parameter",
            "SELECT * FROM affine WHERE a = ANY ($1) AND b = 1",
            parameters=(("float8[]", "'{1,2,2}'"),),
        ),
        Shape("NULL array", "SELECT * FROM affine WHERE a = ANY ($1) AND b = 1", parameters=(("float8[]", "NULL"),)),
        Shape(
            "parameter list",
            "SELECT * FROM affine WHERE a IN ($1, $2) AND b = 1",
            parameters=(("float8", "1"), ("float8", "NULL")),
        ),
        Shape(
            "gated by a parameter", "SELECT * FROM affine WHERE a = 1 AND b = 1 AND $1 > 5", parameters=(("int", "4"),)
        ),
        Shape("tableoid", "SELECT tableoid::regclass, s FROM affine WHERE a = 1 AND b = 1"),
        Shape("whole row", "SELECT p, p.s FROM affine p WHERE a = 1 AND b = 1"),
        Shape(
            "prepared join",
            f"SELECT t.id, s FROM t JOIN affine p {ON} WHERE t.k = $1",
            node=True,
            parameters=(("int", "2"),),
        ),
        Shape(
            "prepared join by a parameter",
            "SELECT t.id, s FROM t JOIN affine p ON p.a = t.x AND p.b = $1",
            node=True,
            parameters=(("float8", "2.5"),),
        ),
        Shape(
            "prepared output condition",
            f"SELECT t.id, s FROM t JOIN affine p {ON} WHERE p.s > $1",
            node=True,
            parameters=(("int", "4"),),
        ),
        Shape(
            "gated join",
            f"SELECT t.id, s FROM t JOIN affine p {ON} WHERE $1 > 5",
            node=True,
            parameters=(("int", "6"),),
        ),
        Shape(
            "closed join",
            f"SELECT t.id, s FROM t JOIN affine p {ON} WHERE $1 > 5",
            node=True,
            parameters=(("int", "4"),),
        ),
        Shape(
            "gated left join",
            f"SELECT t.id, s FROM t LEFT JOIN affine p {ON} AND $1 > 5",
            node=True,
            parameters=(("int", "6"),),
        ),
        Shape(
            "closed left join",
            f"SELECT t.id, s FROM t LEFT JOIN affine p {ON} AND $1 > 5",
            node=True,
            parameters=(("int", "4"),),
        ),
        Shape(
            "left join closed above",
            f"SELECT t.id, s FROM t LEFT JOIN affine p {ON} WHERE $1 > 5",
            node=True,
            parameters=(("int", "4"),),
        ),
        Shape(
            "closed exists",
            f"SELECT t.id FROM t WHERE NOT EXISTS (SELECT FROM affine p {AT} AND $1 > 5)",
            node=True,
            parameters=(("int", "4"),),
        ),
        Shape("gated by the time", f"SELECT t.id, s FROM t JOIN affine p {ON} WHERE now() > '2020-01-01'", node=True),
        Shape("never", f"SELECT t.id, s FROM t JOIN affine p {ON} WHERE false"),
        Shape("never, left", f"SELECT t.id, s FROM t LEFT JOIN affine p {ON} AND false"),
    ]


def numbers() -> list[Shape]:
    return [
        Shape("integers", "SELECT t.id, s FROM t JOIN affine p ON p.a = t.i AND p.b = t.j", node=True),
        Shape("numeric and bigint", "SELECT t.id, s FROM t JOIN affine p ON p.a = t.n AND p.b = t.g", node=True),
        Shape("real and smallint", "SELECT t.id, s FROM t LEFT JOIN affine p ON p.a = t.r AND p.b = t.j", node=True),
        Shape("integer input, numeric", "SELECT t.id, p.* FROM t JOIN iaffine p ON p.a = t.n AND p.b = 1", node=True),
        Shape(
            "integer input, numeric, left",
            "SELECT t.id, p.* FROM t LEFT JOIN iaffine p ON p.a = t.n AND p.b = t.i",
            node=True,
        ),
        Shape(
            "integer input, double", "SELECT t.id, p.* FROM t LEFT JOIN iaffine p ON p.a = t.x AND p.b = t.y", node=True
        ),
        Shape(
            "integer input, real", "SELECT t.id, p.* FROM t LEFT JOIN iaffine p ON p.a = t.r AND p.b = t.j", node=True
        ),
        Shape("integer input, bigint", "SELECT t.id, p.* FROM t JOIN iaffine p ON p.a = t.g AND p.b = t.j", node=True),
        Shape(
            "integer input, anti",
            "SELECT t.id FROM t WHERE NOT EXISTS (SELECT FROM iaffine p WHERE a = t.n AND b = 1)",
            node=True,
        ),
        Shape("integer input, half", "SELECT * FROM iaffine WHERE a = 3.5 AND b = 1"),
        Shape("integer input, whole numeric", "SELECT * FROM iaffine WHERE a = 3.0 AND b = 1::bigint"),
        Shape("integer input, mixed list", "SELECT * FROM iaffine WHERE a IN (1, 2.5, 3, NULL) AND b = 1"),
        Shape("integer input, double list", "SELECT * FROM iaffine WHERE a = ANY ('{1,2.5,3}'::float8[]) AND b = 1"),
        Shape("integer input, bigint list", "SELECT * FROM iaffine WHERE a = ANY ('{1,2}'::bigint[]) AND b = 1"),
        Shape(
            "integer input, parameter",
            "SELECT * FROM iaffine WHERE a = $1 AND b = $2",
            parameters=(("numeric", "2.5"), ("bigint", "1")),
        ),
        Shape("numeric input", "SELECT t.id, p.* FROM t JOIN naffine p ON p.a = t.n AND p.b = t.g", node=True),
        Shape(
            "numeric input, double", "SELECT t.id, p.* FROM t LEFT JOIN naffine p ON p.a = t.x AND p.b = t.r", node=True
        ),
        Shape(
            "numeric input, integer",
            "SELECT t.id, p.* FROM t LEFT JOIN naffine p ON p.a = t.i AND p.b = 0.50",
            node=True,
        ),
        Shape("numeric list", "SELECT * FROM naffine WHERE a IN (1, 1.0, 1.00, 2.5) AND b = 1"),
        Shape(
            "explicit cast", "SELECT t.id, s FROM t JOIN affine p ON p.a = t.n::int AND p.b = t.g::float8", node=True
        ),
        Shape(
            "texts", "SELECT t.id, s FROM t JOIN affine p ON p.a = length(t.txt) AND p.b = ascii(t.txt) - 90", node=True
        ),
    ]


def uppers() -> list[Shape]:
    return [
        Shape("group", f"SELECT t.k, sum(p.s), count(*), max(p.d) FROM t JOIN affine p {ON} GROUP BY t.k", node=True),
        Shape("group by output", f"SELECT p.d, count(*) FROM t LEFT JOIN affine p {ON} GROUP BY p.d", node=True),
        Shape("having", f"SELECT t.k FROM t JOIN affine p {ON} GROUP BY t.k HAVING sum(p.s) > 20", node=True),
        Shape(
            "grouping sets",
            f"SELECT t.k, p.d > 0, count(p.s) FROM t LEFT JOIN affine p {ON} GROUP BY GROUPING SETS ((t.k), (p.d > 0), ())",
            node=True,
        ),
        Shape(
            "filter", f"SELECT count(*) FILTER (WHERE p.s > 3), sum(DISTINCT p.s) FROM t JOIN affine p {ON}", node=True
        ),
        Shape("distinct", f"SELECT DISTINCT p.s, t.k FROM t JOIN affine p {ON}", node=True),
        Shape(
            "distinct on",
            f"SELECT DISTINCT ON (t.k) t.k, p.s, t.id FROM t JOIN affine p {ON} ORDER BY t.k, p.s DESC, t.id",
            node=True,
            ordered=True,
        ),
        Shape(
            "window",
            "SELECT t.id, sum(p.s) OVER (PARTITION BY t.k ORDER BY t.id), lag(p.s) OVER (ORDER BY t.id) "
            f"FROM t LEFT JOIN affine p {ON}",
            node=True,
        ),
        Shape("order by index", f"SELECT t.id, p.s FROM t JOIN affine p {ON} ORDER BY t.id", node=True, ordered=True),
        Shape(
            "order by output",
            f"SELECT t.id, p.s FROM t LEFT JOIN affine p {ON} ORDER BY p.s, t.id",
            node=True,
            ordered=True,
        ),
        Shape(
            "limit",
            f"SELECT t.id, p.s FROM t JOIN affine p {ON} ORDER BY t.id LIMIT 7 OFFSET 3",
            node=True,
            ordered=True,
        ),
        Shape(
            "limit left",
            f"SELECT t.id, p.s FROM t LEFT JOIN affine p {ON} ORDER BY t.id LIMIT 5",
            node=True,
            ordered=True,
        ),
        Shape(
            "limit below",
            "SELECT t.id, p.s FROM (SELECT * FROM t ORDER BY id LIMIT 5 OFFSET 1) t LEFT JOIN affine p ON a = x AND b = y",
            node=True,
        ),
        Shape(
            "fetch with ties",
            f"SELECT p.d FROM t JOIN affine p {ON} ORDER BY p.d FETCH FIRST 3 ROWS WITH TIES",
            node=True,
        ),
        Shape("whole row", f"SELECT t.id, p FROM t JOIN affine p {ON}", node=True),
        Shape("whole row, left", f"SELECT t.id, p, p IS NULL, p IS NOT NULL FROM t LEFT JOIN affine p {ON}", node=True),
        Shape(
            "whole row of a view",
            "SELECT t.id, p, p IS NULL FROM t LEFT JOIN cooked p ON p.a = x AND p.b = y",
            node=True,
        ),
        Shape("whole rows of both", f"SELECT t, p FROM t LEFT JOIN affine p {ON}", node=True),
        Shape("row_to_json", f"SELECT row_to_json(p)::text FROM t JOIN affine p {ON} AND p.s > 3", node=True),
        Shape("whole row in ON", f"SELECT t.id, p.s FROM t LEFT JOIN affine p {ON} AND p::text LIKE '%5%'", node=True),
        Shape("tableoid", f"SELECT t.id, p.tableoid::regclass FROM t LEFT JOIN affine p {ON}", node=True),
        Shape("view", "SELECT * FROM scored WHERE s > 3", node=True),
        Shape("view, unused", "SELECT id, k FROM scored"),
        Shape("barrier view", "SELECT * FROM guarded WHERE s > 3", node=True),
        Shape("view joined", "SELECT q.id, q.s, u.id FROM scored q JOIN u ON u.t_id = q.id", node=True),
        Shape(
            "cte",
            f"WITH c AS MATERIALIZED (SELECT * FROM t WHERE k < 3) SELECT t.id, s FROM c t JOIN affine p {ON}",
            node=True,
        ),
        Shape(
            "model in a cte",
            f"WITH c AS MATERIALIZED (SELECT t.id, s FROM t JOIN affine p {ON}) SELECT * FROM c, c d WHERE c.id = d.id",
        ),
        Shape(
            "model in a plain cte",
            f"WITH c AS (SELECT t.id, s FROM t JOIN affine p {ON}) SELECT * FROM c WHERE s > 2",
            node=True,
        ),
        Shape(
            "recursion",
            "WITH RECURSIVE r (n, v) AS (SELECT 1, 3.0::float8 UNION ALL "
            "SELECT n + 1, p.d FROM r JOIN affine p ON p.a = r.v AND p.b = r.n WHERE n < 6) SELECT * FROM r",
        ),
        Shape("set-returning", f"SELECT t.id, generate_series(1, p.d::int) FROM t JOIN affine p {ON}", node=True),
        Shape("rescan", f"SELECT u.id, (SELECT sum(p.s) FROM t JOIN affine p {ON} WHERE t.k = u.k) FROM u"),
        Shape(
            "rescan, left", f"SELECT u.id, (SELECT count(p.s) FROM t LEFT JOIN affine p {ON} WHERE t.id < u.id) FROM u"
        ),
        Shape(
            "rescan by an input",
            "SELECT u.id, (SELECT sum(p.s) FROM t JOIN affine p ON p.a = t.x AND p.b = u.x) FROM u",
        ),
        Shape(
            "rescan, lateral limit",
            f"SELECT u.id, q.* FROM u, LATERAL (SELECT t.id, p.s FROM t JOIN affine p {ON} WHERE t.k = u.k ORDER BY t.id LIMIT 2) q",
        ),
        Shape(
            "a lateral outer",
            "SELECT u.id, q.x, s FROM u, LATERAL (SELECT t.x FROM t WHERE t.k = u.k ORDER BY id LIMIT 2) q JOIN affine p ON p.a = q.x AND p.b = 1",
        ),
        Shape(
            "lateral", f"SELECT t.id, q.* FROM t, LATERAL (SELECT p.s, p.d + t.k AS e FROM affine p {AT}) q", node=True
        ),
        Shape(
            "lateral left",
            f"SELECT t.id, q.* FROM t LEFT JOIN LATERAL (SELECT p.s, t.k AS k FROM affine p {AT}) q ON true",
            node=True,
        ),
        Shape("lateral with offset", f"SELECT t.id, q.* FROM t, LATERAL (SELECT p.s FROM affine p {AT} OFFSET 0) q"),
        Shape(
            "lateral with limit",
            "SELECT t.id, q.* FROM t LEFT JOIN LATERAL (SELECT s FROM affine WHERE a = t.x AND b IN (1, 2, 3) ORDER BY s LIMIT 1) q ON true",
        ),
        Shape(
            "lateral aggregate",
            "SELECT t.id, q.* FROM t, LATERAL (SELECT sum(s), count(*) FROM affine WHERE a = t.x AND b IN (1, 2)) q",
        ),
        Shape(
            "lateral values",
            "SELECT t.id, s FROM t, LATERAL (VALUES (t.x, t.y), (t.y, 1)) q (x, y), affine p WHERE p.a = q.x AND p.b = q.y",
            node=True,
        ),
        Shape("for update", f"SELECT t.id, p.s FROM t JOIN affine p {ON} FOR UPDATE OF t", node=True),
        Shape("for update of all", f"SELECT t.id, p.s FROM t JOIN affine p {ON} WHERE p.s > 2 FOR UPDATE", node=True),
        Shape("for share, left", f"SELECT t.id, p.s FROM t LEFT JOIN affine p {ON} FOR SHARE OF t", node=True),
    ]


SUBQUERY = f"(SELECT p.s FROM affine p {AT})"


def subqueries() -> list[Shape]:
    return [
        Shape("select list", f"SELECT t.id, {SUBQUERY} FROM t"),
        Shape("select list, ordered", f"SELECT t.id, {SUBQUERY} FROM t ORDER BY t.id LIMIT 5", ordered=True),
        Shape("two", f"SELECT t.id, {SUBQUERY}, (SELECT d FROM affine WHERE a = t.i AND b = t.j) FROM t"),
        Shape("the same twice", f"SELECT t.id, {SUBQUERY}, {SUBQUERY} + 1 FROM t"),
        Shape("inside an expression", f"SELECT t.id, {SUBQUERY} * 2 + t.k FROM t WHERE t.k > 1"),
        Shape("with an output condition", f"SELECT t.id, (SELECT p.d FROM affine p {AT} AND p.s > 3) FROM t"),
        Shape("with an outer condition", f"SELECT t.id, (SELECT p.d FROM affine p {AT} AND t.k > 2) FROM t"),
        Shape("with an input condition", f"SELECT t.id, (SELECT p.d FROM affine p {AT} AND p.a > 0) FROM t"),
        Shape("of an expression", f"SELECT t.id, (SELECT coalesce(p.s, 0) + t.k FROM affine p {AT}) FROM t"),
        Shape("of a constant", f"SELECT t.id, (SELECT 'yes' FROM affine p {AT}) FROM t"),
        Shape("of a whole row", f"SELECT t.id, (SELECT p FROM affine p {AT}) FROM t"),
        Shape("of a row", f"SELECT t.id, (SELECT ROW(p.s, t.id)::text FROM affine p {AT}) FROM t"),
        Shape("coalesced", f"SELECT t.id, coalesce({SUBQUERY}, -1) FROM t"),
        Shape("guarded by coalesce", f"SELECT t.id, coalesce(t.x, {SUBQUERY}, -2) FROM t"),
        Shape("guarded by case", f"SELECT t.id, CASE WHEN t.k = 1 THEN {SUBQUERY} ELSE 0 END FROM t"),
        Shape(
            "lazy",
            "SELECT t.id, CASE WHEN t.k > 0 THEN (SELECT s FROM affine WHERE a = 1 / t.k AND b = 1) END FROM t",
        ),
        Shape(
            "lazy and",
            "SELECT t.id, t.k > 0 AND (SELECT s FROM affine WHERE a = 4 / nullif(t.k, 0) AND b = 1) > 3 FROM t",
        ),
        Shape(
            "lazy in WHERE",
            "SELECT t.id FROM t WHERE t.k > 0 AND (SELECT s FROM affine WHERE a = 4 / nullif(t.k, 0) AND b = 1) > 3",
        ),
        Shape("in WHERE", f"SELECT t.id FROM t WHERE {SUBQUERY} > 3"),
        Shape("in WHERE and the select list", f"SELECT t.id, {SUBQUERY} FROM t WHERE {SUBQUERY} > 3"),
        Shape("in WHERE, NULL", f"SELECT t.id FROM t WHERE {SUBQUERY} IS NULL"),
        Shape("in WHERE, or", f"SELECT t.id FROM t WHERE t.k = 1 OR {SUBQUERY} > 3"),
        Shape("compared with a column", f"SELECT t.id FROM t WHERE {SUBQUERY} = t.k"),
        Shape("in ORDER BY", f"SELECT t.id FROM t ORDER BY {SUBQUERY} DESC NULLS LAST, t.id", ordered=True),
        Shape("in GROUP BY", f"SELECT {SUBQUERY}, count(*) FROM t GROUP BY 1"),
        Shape("in an aggregate", f"SELECT t.k, sum({SUBQUERY}), count({SUBQUERY}) FROM t GROUP BY t.k"),
        Shape("in an aggregate's filter", f"SELECT count(*) FILTER (WHERE {SUBQUERY} > 3) FROM t"),
        Shape("in an ordered aggregate", f"SELECT array_agg(t.id ORDER BY {SUBQUERY}, t.id) FROM t"),
        Shape("in HAVING", "SELECT t.k FROM t GROUP BY t.k HAVING (SELECT s FROM affine WHERE a = t.k AND b = 1) > 5"),
        Shape("of an aggregate", "SELECT t.k, (SELECT s FROM affine WHERE a = max(t.x) AND b = 1) FROM t GROUP BY t.k"),
        Shape("of a window", f"SELECT t.id, sum({SUBQUERY}) OVER (ORDER BY t.id) FROM t"),
        Shape("distinct", f"SELECT DISTINCT {SUBQUERY} FROM t"),
        Shape("set-returning", f"SELECT t.id, generate_series(1, (SELECT p.d::int FROM affine p {AT})) FROM t"),
        Shape(
            "nested",
            "SELECT t.id, (SELECT c.t FROM chain c WHERE c.s = (SELECT p.s FROM affine p WHERE p.a = t.x AND p.b = t.y)) FROM t",
        ),
        Shape("joined inside", f"SELECT t.id, (SELECT c.t FROM affine p JOIN chain c ON c.s = p.s {AT}) FROM t"),
        Shape(
            "left joined inside",
            f"SELECT t.id, (SELECT c.t FROM affine p LEFT JOIN chain c ON c.s = p.s AND c.t > 5 {AT}) FROM t",
        ),
        Shape(
            "union inside",
            f"SELECT t.id, (SELECT p.s FROM affine p {AT} AND t.k < 2 UNION ALL SELECT 0 WHERE t.k >= 2) FROM t",
        ),
        Shape(
            "limit inside",
            "SELECT t.id, (SELECT s FROM affine WHERE a = t.x AND b IN (1, 2) ORDER BY s DESC LIMIT 1) FROM t",
        ),
        Shape("limit of one", f"SELECT t.id, (SELECT p.s FROM affine p {AT} LIMIT 1) FROM t"),
        Shape("limit of none", f"SELECT t.id, (SELECT p.s FROM affine p {AT} LIMIT 0) FROM t"),
        Shape("offset inside", f"SELECT t.id, (SELECT p.s FROM affine p {AT} OFFSET 1) FROM t"),
        Shape("aggregate inside", "SELECT t.id, (SELECT sum(s) FROM affine WHERE a = t.x AND b IN (1, 2)) FROM t"),
        Shape("count inside", f"SELECT t.id, (SELECT count(*) FROM affine p {AT}) FROM t"),
        Shape("array", "SELECT t.id, ARRAY(SELECT s FROM affine WHERE a = t.x AND b IN (1, 2) ORDER BY s) FROM t"),
        Shape("array of one", f"SELECT t.id, ARRAY(SELECT p.s FROM affine p {AT}) FROM t"),
        Shape("exists", f"SELECT t.id, EXISTS (SELECT FROM affine p {AT} AND p.s > 3) FROM t"),
        Shape("in", f"SELECT t.id, t.k IN (SELECT p.d FROM affine p {AT}) FROM t"),
        Shape("not in", f"SELECT t.id, t.k NOT IN (SELECT p.d FROM affine p {AT}) FROM t"),
        Shape(
            "more than one row",
            "SELECT t.id, (SELECT s FROM affine WHERE a = t.x AND b IN (1, 2)) FROM t",
            error="21000",
        ),
        Shape(
            "one row of a list",
            "SELECT t.id, (SELECT s FROM affine WHERE a = t.x AND b IN (1, 1) AND s > 0) FROM t",
        ),
        Shape(
            "of a list that is filtered",
            "SELECT t.id, (SELECT s FROM affine WHERE a = t.x AND b IN (1, 50) AND s < 60) FROM t",
        ),
        Shape("uncorrelated", "SELECT t.id, (SELECT s FROM affine WHERE a = 1 AND b = 2) FROM t"),
        Shape(
            "by a parameter",
            "SELECT t.id, (SELECT s FROM affine WHERE a = t.x AND b = $1) FROM t",
            parameters=(("float8", "2"),),
        ),
        Shape(
            "gated by a parameter",
            f"SELECT t.id, (SELECT p.s FROM affine p {AT} AND $1 > 5) FROM t",
            parameters=(("int", "4"),),
        ),
        Shape(
            "over a join",
            "SELECT t.id, u.id, (SELECT s FROM affine WHERE a = t.x AND b = u.x) FROM t JOIN u ON u.t_id = t.id",
        ),
        Shape(
            "over a left join",
            "SELECT t.id, u.id, (SELECT s FROM affine WHERE a = t.x AND b = u.x) FROM t LEFT JOIN u ON u.t_id = t.id",
        ),
        Shape(
            "below a left join",
            f"SELECT u.id, q.s FROM u LEFT JOIN (SELECT t.id, {SUBQUERY} AS s FROM t) q ON q.id = u.t_id",
        ),
        Shape(
            "below a left join, coalesced",
            f"SELECT u.id, q.s FROM u LEFT JOIN (SELECT t.id, coalesce({SUBQUERY}, 0) AS s FROM t) q ON q.id = u.t_id",
        ),
        Shape(
            "over a model join",
            "SELECT t.id, q.s, (SELECT c.t FROM chain c WHERE c.s = q.s) FROM t JOIN affine q ON q.a = t.x AND q.b = t.y",
        ),
        Shape(
            "over a left model join",
            "SELECT t.id, q.s, (SELECT c.t FROM chain c WHERE c.s = q.s) FROM t LEFT JOIN affine q ON q.a = t.x AND q.b = t.y",
        ),
        Shape("in ON", "SELECT t.id, u.id FROM t JOIN u ON u.k = (SELECT d FROM affine WHERE a = t.k AND b = 2)"),
        Shape(
            "in ON of a left join",
            "SELECT t.id, u.id FROM t LEFT JOIN u ON u.t_id = t.id AND u.k < (SELECT s FROM affine WHERE a = t.x AND b = 0)",
        ),
        Shape(
            "in LIMIT", "SELECT id FROM t ORDER BY id LIMIT (SELECT s FROM affine WHERE a = 1 AND b = 1)", ordered=True
        ),
        Shape(
            "in VALUES",
            "SELECT * FROM t, LATERAL (VALUES ((SELECT s FROM affine WHERE a = t.x AND b = 1))) q (s) WHERE s > 0",
        ),
        Shape("in a subselect", f"SELECT q.s + 1 FROM (SELECT {SUBQUERY} AS s, t.k FROM t OFFSET 0) q WHERE q.k < 3"),
        Shape(
            "in a union",
            f"SELECT {SUBQUERY} FROM t UNION ALL SELECT (SELECT s FROM affine WHERE a = v.y AND b = 1) FROM v",
        ),
        Shape("over a partitioned table", f"SELECT t.id, {SUBQUERY} FROM tp t"),
        Shape(
            "over a partitioned table, with a condition without columns",
            f"SELECT t.id FROM tp t WHERE {SUBQUERY} > 3 AND (SELECT max(id) > 1 FROM u)",
        ),
        Shape("over a function", "SELECT n, (SELECT s FROM affine WHERE a = n AND b = n) FROM generate_series(1, 6) n"),
        Shape("over nothing", "SELECT (SELECT s FROM affine WHERE a = 1 AND b = 1), 1"),
        Shape("over an empty table", "SELECT e.id, (SELECT s FROM affine WHERE a = e.x AND b = e.y) FROM e"),
        Shape("cut short", f"SELECT {SUBQUERY} FROM t WHERE t.k = 1 LIMIT 2 OFFSET 1"),
        Shape(
            "two levels up",
            "SELECT u.id, (SELECT sum((SELECT s FROM affine WHERE a = t.x AND b = u.x)) FROM t WHERE t.k = u.k) FROM u",
        ),
        Shape(
            "inside exists",
            "SELECT u.id FROM u WHERE EXISTS (SELECT FROM t WHERE t.k = u.k AND (SELECT s FROM affine WHERE a = t.x AND b = u.x) > 8)",
        ),
        Shape("of a function", "SELECT t.id, score(t.x, t.y) FROM t"),
        Shape("of a function in WHERE", "SELECT t.id FROM t WHERE score(t.x, 1) > 5"),
        Shape("function scan", "SELECT t.id, q.* FROM t, scores(t.x) q"),
        Shape(
            "multiple assignment",
            "UPDATE kept SET (s, id) = (SELECT p.s, kept.id + 100 FROM affine p WHERE p.a = kept.id AND p.b = 1) RETURNING *",
        ),
        Shape(
            "of an update",
            "UPDATE kept SET s = (SELECT s FROM affine WHERE a = kept.id AND b = kept.s) WHERE id < 6 RETURNING *",
        ),
        Shape(
            "of an insert",
            "INSERT INTO kept SELECT 200 + t.id, (SELECT s FROM affine WHERE a = t.x AND b = 1) FROM t RETURNING *",
        ),
        Shape(
            "of insert values",
            "INSERT INTO kept VALUES (300, (SELECT s FROM affine WHERE a = 1 AND b = 1)) RETURNING *",
        ),
        Shape(
            "in RETURNING",
            "DELETE FROM kept WHERE id < 4 RETURNING id, (SELECT s FROM affine WHERE a = kept.id AND b = 1)",
        ),
        Shape("for update", f"SELECT t.id, {SUBQUERY} FROM t WHERE t.k = 2 FOR UPDATE"),
    ]


def writes() -> list[Shape]:
    kept = "SELECT * FROM kept"
    return [
        Shape(
            "update",
            "UPDATE kept SET s = p.s FROM affine p WHERE p.a = kept.id AND p.b = kept.s RETURNING kept.*, p.d",
            node=True,
        ),
        Shape(
            "update by two",
            f"UPDATE kept SET s = p.s FROM t JOIN affine p {ON} WHERE t.id = kept.id RETURNING kept.*",
            node=True,
        ),
        Shape(
            "update, whole row",
            "UPDATE kept SET s = -p.s FROM affine p WHERE p.a = kept.id AND p.b = 1 RETURNING kept.id, p",
            node=True,
        ),
        Shape(
            "update, then look",
            kept,
            before=("UPDATE kept SET s = p.s FROM affine p WHERE p.a = id AND p.b = 2 AND p.s > 9",),
        ),
        Shape(
            "delete",
            "DELETE FROM kept USING affine p WHERE p.a = id AND p.b = 1 AND p.s > 10 RETURNING kept.id, p.s",
            node=True,
        ),
        Shape(
            "delete exists",
            "DELETE FROM kept WHERE EXISTS (SELECT FROM affine WHERE a = id AND b = 1 AND s > 9) RETURNING id",
            node=True,
        ),
        Shape(
            "insert", f"INSERT INTO kept SELECT 500 + t.id, p.s FROM t LEFT JOIN affine p {ON} RETURNING *", node=True
        ),
        Shape(
            "insert on conflict",
            f"INSERT INTO kept SELECT t.id, p.s FROM t JOIN affine p {ON} ON CONFLICT (id) DO UPDATE SET s = excluded.s RETURNING *",
            node=True,
        ),
        Shape(
            "merge",
            kept,
            before=(
                "MERGE INTO kept USING affine p ON p.a = id AND p.b = kept.s WHEN MATCHED AND p.s > 20 THEN DELETE WHEN MATCHED THEN UPDATE SET s = p.s",
            ),
        ),
        Shape(
            "merge by a join",
            kept,
            before=(
                f"MERGE INTO kept USING (SELECT t.id, p.s FROM t LEFT JOIN affine p {ON}) q ON q.id = kept.id WHEN MATCHED THEN UPDATE SET s = q.s WHEN NOT MATCHED THEN INSERT VALUES (q.id, q.s)",
            ),
        ),
        Shape(
            "create table as",
            "SELECT * FROM made",
            before=(f"CREATE TABLE made AS SELECT t.id, p.s, p.d FROM t LEFT JOIN affine p {ON}",),
        ),
        Shape(
            "materialized view",
            "SELECT * FROM made",
            before=("CREATE MATERIALIZED VIEW made AS SELECT * FROM scored", "REFRESH MATERIALIZED VIEW made"),
        ),
        Shape(
            "writing cte",
            f"WITH done AS (INSERT INTO kept SELECT 600 + t.id, p.s FROM t JOIN affine p {ON} RETURNING id, s) SELECT count(*), sum(s) FROM done",
        ),
        Shape(
            "copy",
            kept,
            before=(
                "CREATE TEMP TABLE out AS SELECT 1",
                f"INSERT INTO kept SELECT 700 + row_number() OVER (ORDER BY t.id), p.s FROM t JOIN affine p {ON}",
            ),
        ),
        Shape(
            "a loop",
            "SELECT * FROM kept",
            before=(
                f"""DO $$ DECLARE r record; BEGIN
                    FOR r IN SELECT t.id, p.s FROM t JOIN affine p {ON} ORDER BY t.id LOOP
                        BEGIN
                            IF r.id % 3 = 0 THEN RAISE division_by_zero; END IF;
                            INSERT INTO kept VALUES (r.id, r.s);
                        EXCEPTION WHEN unique_violation THEN
                            UPDATE kept SET s = (SELECT d FROM affine WHERE a = r.s AND b = 1) WHERE id = r.id;
                        WHEN division_by_zero THEN NULL;
                        END;
                    END LOOP; END $$""",
            ),
        ),
        Shape(
            "a loop with constants",
            "SELECT * FROM kept",
            before=(
                "DO $$ BEGIN FOR i IN 1..10 LOOP UPDATE kept SET s = (SELECT s FROM affine WHERE a = i AND b = 2.5) WHERE id = i; END LOOP; END $$",
            ),
        ),
        Shape(
            "savepoints",
            "SELECT * FROM kept",
            before=(
                "SAVEPOINT one",
                "UPDATE kept SET s = p.s FROM affine p WHERE p.a = id AND p.b = 2",
                "SAVEPOINT two",
                "DELETE FROM kept USING affine p WHERE p.a = id AND p.b = 1 AND p.s > 10",
                "ROLLBACK TO two",
                "INSERT INTO kept SELECT 800, s FROM affine WHERE a = 1 AND b = 1",
            ),
        ),
        Shape(
            "cursor",
            "FETCH ALL FROM c",
            before=(
                f"DECLARE c CURSOR FOR SELECT t.id, p.s FROM t LEFT JOIN affine p {ON} ORDER BY t.id",
                "FETCH 5 FROM c",
                "MOVE 3 FROM c",
            ),
            ordered=True,
        ),
        Shape(
            "scroll cursor",
            "FETCH BACKWARD ALL FROM c",
            before=(
                f"DECLARE c SCROLL CURSOR FOR SELECT t.id, {SUBQUERY} FROM t JOIN affine p {ON} ORDER BY t.id",
                "FETCH 20 FROM c",
            ),
            ordered=True,
        ),
        Shape("division by zero", f"SELECT 1 / p.d FROM t JOIN affine p {ON}", node=True, error="22012"),
        Shape(
            "trigger",
            "SELECT * FROM kept",
            before=(
                "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SELECT s INTO NEW.s FROM affine WHERE a = NEW.id AND b = 1; RETURN NEW; END $$",
                "CREATE TRIGGER fill BEFORE INSERT ON kept FOR EACH ROW EXECUTE FUNCTION fill()",
                "INSERT INTO kept SELECT n FROM generate_series(11, 20) n",
            ),
        ),
    ]


GROUPS = {
    "joins": joins,
    "several": several,
    "pairs": pairs,
    "unions": unions,
    "semis": semis,
    "scans": scans,
    "numbers": numbers,
    "uppers": uppers,
    "subqueries": subqueries,
    "writes": writes,
}

# Conditions that give an input no value: refused, whatever the plan.
REFUSED = {
    "no condition": "SELECT * FROM affine",
    "one of two": "SELECT * FROM affine WHERE a = 1",
    "range": "SELECT * FROM affine WHERE a = 1 AND b > 2",
    "or": "SELECT * FROM affine WHERE a = 1 AND (b = 1 OR b = 2 OR s = 3)",
    "rows in a list": "SELECT * FROM affine WHERE (a, b) IN ((1, 2), (3, 4))",
    "full join": f"SELECT * FROM t FULL JOIN affine p {ON}",
    "preserved": f"SELECT * FROM affine p LEFT JOIN t {ON}",
    "cross join": "SELECT * FROM t, affine",
    "join by one": "SELECT * FROM t JOIN affine p ON p.a = t.x",
    "join by inequality": "SELECT * FROM t JOIN affine p ON p.a = t.x AND p.b > t.y",
    "anti of a model": f"SELECT * FROM affine p WHERE NOT EXISTS (SELECT FROM t {AT})",
    "bound by itself": "SELECT * FROM affine p JOIN affine q ON q.a = p.s AND q.b = p.d",
    "by its own output": "SELECT * FROM affine WHERE a = 1 AND b = s",
    "limit in between": "SELECT * FROM t JOIN (SELECT * FROM affine LIMIT 5) p ON p.a = t.x AND p.b = t.y",
    "aggregate in between": "SELECT * FROM t JOIN (SELECT a, b, max(s) FROM affine GROUP BY a, b LIMIT 9) p ON p.a = t.x AND p.b = t.y",
    "not equal": "SELECT * FROM affine WHERE a <> 1 AND b = 1",
    "all": "SELECT * FROM affine WHERE a = ALL ('{1}') AND b = 1",
    "not distinct": "SELECT * FROM affine WHERE a IS NOT DISTINCT FROM 1 AND b = 1",
}
