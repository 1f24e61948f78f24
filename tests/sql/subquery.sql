-- Scalar subqueries over a model: which are computed in batches, and which are one request per row.
SET search_path = scratch, ml;
CREATE TABLE points (id int PRIMARY KEY, a float8, b float8);
INSERT INTO points VALUES (1, 1, 2), (2, 3, 4), (3, NULL, 1), (4, 1, 2), (5, 0, 0);
ANALYZE points;

-- in the select list: a row without an answer gives NULL
SELECT id, (SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b) AS s FROM points c ORDER BY id;
EXPLAIN (COSTS OFF) SELECT id, (SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b) AS s FROM points c;
-- two of them, and inside an expression
SELECT id, (SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b) + 1 AS s1,
       (SELECT d FROM affine p WHERE p.a = c.a AND p.b = c.id) AS d
FROM points c ORDER BY id;
EXPLAIN (COSTS OFF)
SELECT id, (SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b) + 1 AS s1,
       (SELECT d FROM affine p WHERE p.a = c.a AND p.b = c.id) AS d
FROM points c;
-- conditions inside
SELECT id, (SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b AND p.s > 5) AS s FROM points c ORDER BY id;
SELECT id, (SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b AND c.id > 2) AS s FROM points c ORDER BY id;
EXPLAIN (COSTS OFF)
SELECT id, (SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b AND p.s > 5) AS s FROM points c;

-- in the argument of an aggregate
SELECT sum((SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b)) FROM points c;
EXPLAIN (COSTS OFF) SELECT sum((SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b)) FROM points c;
SELECT b, count((SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b)) FROM points c GROUP BY b ORDER BY b;

-- in a condition on one table
SELECT id FROM points c WHERE (SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b) > 5 ORDER BY id;
EXPLAIN (COSTS OFF) SELECT id FROM points c WHERE (SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b) > 5;
SELECT id FROM points c WHERE (SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b) IS NULL ORDER BY id;
SELECT id FROM points c WHERE 8 IN (SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b) ORDER BY id;
EXPLAIN (COSTS OFF) SELECT id FROM points c WHERE 8 IN (SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b);
DELETE FROM points c WHERE (SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b) > 17;
SELECT id FROM points ORDER BY id;
BEGIN;
UPDATE points c SET b = (SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b);
SELECT * FROM points ORDER BY id;
ROLLBACK;

-- a chain of models
SELECT id, (SELECT t FROM chain q WHERE q.s = (SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b)) AS t
FROM points c ORDER BY id;

-- One request per row: under CASE, COALESCE, AND and OR the value may not be needed for every row ...
SELECT id, CASE WHEN id > 2 THEN (SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b) END AS s FROM points c ORDER BY id;
EXPLAIN (COSTS OFF)
SELECT id, CASE WHEN id > 2 THEN (SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b) END AS s FROM points c;
SELECT id, coalesce((SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b), -1) AS s FROM points c ORDER BY id;
EXPLAIN (COSTS OFF) SELECT id, coalesce(a, (SELECT s FROM affine p WHERE p.a = 1 AND p.b = c.b)) AS s FROM points c;
SELECT id FROM points c WHERE id > 4 OR (SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b) > 5 ORDER BY id;
EXPLAIN (COSTS OFF)
SELECT id FROM points c WHERE id > 4 OR (SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b) > 5;
-- ... and neither with LIMIT.
EXPLAIN (COSTS OFF)
SELECT id, (SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b) AS s FROM points c LIMIT 2;
-- A CASE that fails for other rows than those asked about does not fail.
SELECT n, CASE WHEN n >= 0 THEN (SELECT y FROM broken p WHERE p.x = n) END AS y FROM generate_series(-2, 1) n ORDER BY n;

-- more than one row is an error, one value in a list is not
SELECT id, (SELECT s FROM affine p WHERE p.a IN (c.a, c.b) AND p.b = 0) AS s FROM points c ORDER BY id;
SELECT id, (SELECT s FROM affine p WHERE p.a IN (c.a, c.a) AND p.b = 0) AS s FROM points c ORDER BY id;
-- one row of several values, an aggregate, a LIMIT
SELECT id, (SELECT ROW(s, d) FROM affine p WHERE p.a = c.a AND p.b = c.b) AS r FROM points c ORDER BY id;
SELECT id, (SELECT count(*) FROM affine p WHERE p.a = c.a AND p.b = c.b) AS n FROM points c ORDER BY id;
SELECT id, (SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b LIMIT 1) AS s FROM points c ORDER BY id;
SELECT id, ARRAY(SELECT s FROM affine p WHERE p.a IN (c.a, c.b) AND p.b = 0 ORDER BY s) AS s FROM points c ORDER BY id;

-- not correlated: one request
SELECT id, (SELECT s FROM affine p WHERE p.a = 1 AND p.b = 2) AS s FROM points c ORDER BY id;
EXPLAIN (COSTS OFF) SELECT id, (SELECT s FROM affine p WHERE p.a = 1 AND p.b = 2) AS s FROM points c;

-- a function that is inlined is batched like a join
CREATE FUNCTION score(a float8, b float8) RETURNS TABLE (s float8)
LANGUAGE sql STABLE AS $$ SELECT p.s FROM ml.affine p WHERE p.a = $1 AND p.b = $2 $$;
SELECT c.id, t.s FROM points c CROSS JOIN LATERAL score(c.a, c.b) t ORDER BY c.id;
EXPLAIN (COSTS OFF) SELECT c.id, t.s FROM points c CROSS JOIN LATERAL score(c.a, c.b) t;
