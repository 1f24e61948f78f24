-- Plain scans: affine answers s = 2a + 3b and d = a - b.
SET search_path = scratch, ml;

-- constants
SELECT * FROM affine WHERE a = 1 AND b = 2;
SELECT s FROM affine WHERE 1 = a AND b = 1 + 1;
SELECT s, d FROM affine WHERE a = '1.5' AND b = -2;
SELECT count(*) FROM affine WHERE a = 1 AND b = 2;
SELECT 'a row' AS found FROM affine WHERE a = 1 AND b = 2;
SELECT p FROM affine p WHERE a = 1 AND b = 2;
EXPLAIN (COSTS OFF) SELECT s FROM affine WHERE a = 1 AND b = 2;

-- conditions on outputs and further conditions on inputs
SELECT s FROM affine WHERE a = 1 AND b = 2 AND s > 7;
SELECT s FROM affine WHERE a = 1 AND b = 2 AND s > 8;
SELECT s FROM affine WHERE a = 1 AND b = 2 AND a < b;
SELECT s FROM affine WHERE a = 1 AND b = 2 AND a > b;
SELECT s FROM affine WHERE a = 1 AND a = 2 AND b = 1;
SELECT s FROM affine WHERE a = b AND b = 2;
EXPLAIN (COSTS OFF) SELECT s FROM affine WHERE a = 1 AND b = 2 AND s > 7 AND a < b + d;
EXPLAIN (COSTS OFF) SELECT s FROM affine WHERE a IN (1, 2) AND b = 2 AND a < b;

-- lists: the cross product, each value once, no NULL
SELECT a, b, s FROM affine WHERE a IN (1, 2) AND b = 10 ORDER BY a;
SELECT a, b, s FROM affine WHERE a = ANY ('{1,2,3}') AND b IN (10, 20) ORDER BY a, b;
SELECT a, s FROM affine WHERE a IN (2, 1, 2, NULL, 1) AND b = 0 ORDER BY a;
SELECT a, s FROM affine WHERE a = ANY ('{2,NULL,2}') AND b = 0;
SELECT a, s FROM affine WHERE a = ANY ('{}') AND b = 0;
SELECT a, s FROM affine WHERE a = ANY (NULL) AND b = 0;
SELECT a, s FROM affine WHERE a = ANY ('{NULL}') AND b = 0;
SELECT a, s FROM affine WHERE a IN (1, 2, 3) AND a IN (3, 2, 4) AND b = 0 ORDER BY a;
SELECT a, s FROM affine WHERE a IN (1, 2, 3) AND a = 2 AND b = 0;
SELECT count(*), sum(s) FROM affine WHERE a = ANY (ARRAY(SELECT generate_series(1, 100))) AND b IN (1, 2, 3);
EXPLAIN (COSTS OFF) SELECT s FROM affine WHERE a IN (1, 2) AND b = ANY (ARRAY[3, 4]);

-- NULL matches nothing
SELECT s FROM affine WHERE a = NULL AND b = 1;
SELECT s FROM affine WHERE a IS NULL AND b = 1;
SELECT s FROM affine WHERE a = (SELECT 1 WHERE false) AND b = 1;

-- what the assignment changes matches nothing; the value of a text stays as it is
SELECT in_int32 FROM echo
WHERE in_bool AND in_int8 = 1 AND in_int16 = 1 AND in_int32 = 3.5 AND in_int64 = 1 AND in_uint8 = 1 AND in_uint16 = 1
  AND in_uint32 = 1 AND in_uint64 = 1 AND in_fp16 = 1 AND in_fp32 = 1 AND in_fp64 = 1 AND in_bytes = 'x';
SELECT out_bool, out_int32, out_uint64, out_fp16, out_fp32, out_fp64, out_bytes FROM echo
WHERE in_bool = false AND in_int8 = 1 AND in_int16 = 1 AND in_int32 = 3.0 AND in_int64 = 1 AND in_uint8 = 1
  AND in_uint16 = 1 AND in_uint32 = 1 AND in_uint64 = 18446744073709551615 AND in_fp16 = 0.5 AND in_fp32 = 0.1
  AND in_fp64 = 'NaN' AND in_bytes = 'grün ''x''  ';

-- subqueries
SELECT s FROM affine WHERE a = (SELECT 1) AND b = (SELECT max(n) FROM generate_series(1, 5) n);
SELECT a, s FROM affine WHERE a IN (SELECT generate_series(1, 3)) AND b = 0 ORDER BY a;
EXPLAIN (COSTS OFF) SELECT s FROM affine WHERE a = (SELECT 1) AND b = (SELECT max(n) FROM generate_series(1, 5) n);
SELECT n, (SELECT s FROM affine WHERE a = n AND b = n * n) FROM generate_series(1, 3) n ORDER BY n;
SELECT n, s FROM generate_series(1, 3) n, LATERAL (SELECT s FROM affine WHERE a = n AND b = 1) p ORDER BY n;
SELECT n, s FROM generate_series(1, 3) n, LATERAL (SELECT s FROM affine WHERE a IN (n, -n) AND b = 1 ORDER BY s LIMIT 1) p
ORDER BY n;
EXPLAIN (COSTS OFF)
SELECT n, s FROM generate_series(1, 3) n, LATERAL (SELECT s FROM affine WHERE a IN (n, -n) AND b = 1 ORDER BY s LIMIT 1) p;

-- two scans, a CTE, a set operation
SELECT p.s, q.s FROM affine p, affine q WHERE p.a = 1 AND p.b = 2 AND q.a = 3 AND q.b = 4;
WITH one AS (SELECT s FROM affine WHERE a = 1 AND b = 2) SELECT x.s + y.s AS twice FROM one x, one y;
SELECT s FROM affine WHERE a = 1 AND b = 1 UNION ALL SELECT s FROM affine WHERE a = 2 AND b = 2 ORDER BY s;

-- a chain: t is s without its fraction
SELECT t FROM chain WHERE s = (SELECT s FROM affine WHERE a = 0.75 AND b = 0);
SELECT t FROM affine p JOIN chain c ON c.s = p.s WHERE a = 0.75 AND b = 0;

-- prepared, with a plan for any parameters
SET plan_cache_mode = force_generic_plan;
PREPARE one (float8, float8) AS SELECT a, b, s FROM affine WHERE a = $1 AND b = $2;
EXPLAIN (COSTS OFF) EXECUTE one (1, 2);
EXECUTE one (1, 2);
EXECUTE one (3, 4);
EXECUTE one (NULL, 4);
PREPARE several (float8[], int) AS SELECT a, b, s FROM affine WHERE a = ANY ($1) AND b = $2 ORDER BY a;
EXPLAIN (COSTS OFF) EXECUTE several ('{1}', 2);
EXECUTE several ('{3,1,1,NULL}', 2);
EXECUTE several ('{}', 2);
EXECUTE several (NULL, 2);
EXECUTE several ('{1}', NULL);
SET plan_cache_mode = force_custom_plan;
EXECUTE one (1, 2);
EXECUTE several ('{3,1,1,NULL}', 2);
RESET plan_cache_mode;

-- an input that may stay unbound, and ones that may not
SELECT x, bias, y FROM optional WHERE x = 1;
SELECT x, bias, y FROM optional WHERE x = 1 AND bias = 5;
SELECT x, bias, y FROM optional WHERE x = 1 AND bias IS NULL;
SELECT y FROM optional WHERE bias = 1;
SELECT s FROM affine WHERE a = 1;
\pset footer off
EXPLAIN (COSTS OFF) SELECT s FROM affine WHERE a = 1;
\pset footer on
SELECT s FROM affine WHERE a = 1 AND b > 2;
CREATE VIEW few AS SELECT * FROM affine LIMIT 10;
SELECT s FROM few WHERE a = 1 AND b = 2;

