-- The Model Join: affine answers s = 2a + 3b and d = a - b, chain answers t, which is s without its fraction.
SET search_path = scratch, ml;
CREATE TABLE points (id int PRIMARY KEY, a float8, b float8, note text);
INSERT INTO points VALUES (1, 1, 2, 'x'), (2, 3, 4, 'y'), (3, NULL, 1, 'z'), (4, 1, 2, 'w'), (5, 5, NULL, NULL),
                          (6, 0, 0, 'x'), (7, 0.25, 0, 'y');
ANALYZE points;

-- INNER: duplicates stay, NULL matches nothing
SELECT c.id, p.s, p.d FROM points c JOIN affine p ON p.a = c.a AND p.b = c.b ORDER BY c.id;
EXPLAIN (COSTS OFF) SELECT c.id, p.s, p.d FROM points c JOIN affine p ON p.a = c.a AND p.b = c.b ORDER BY c.id;
-- LEFT and RIGHT keep the rows without an answer
SELECT c.id, p.a, p.s FROM points c LEFT JOIN affine p ON p.a = c.a AND p.b = c.b ORDER BY c.id;
EXPLAIN (COSTS OFF) SELECT c.id, p.a, p.s FROM points c LEFT JOIN affine p ON p.a = c.a AND p.b = c.b ORDER BY c.id;
SELECT c.id, p.s FROM affine p RIGHT JOIN points c ON p.a = c.a AND p.b = c.b ORDER BY c.id;
EXPLAIN (COSTS OFF) SELECT c.id, p.s FROM affine p RIGHT JOIN points c ON p.a = c.a AND p.b = c.b;
-- a FULL join would need the model's own rows
SELECT c.id, p.s FROM affine p FULL JOIN points c ON p.a = c.a AND p.b = c.b ORDER BY c.id;

-- by name
SELECT id, s FROM points JOIN affine USING (a, b) ORDER BY id;
SELECT * FROM points NATURAL JOIN affine ORDER BY id;
SELECT * FROM points NATURAL LEFT JOIN affine ORDER BY id;
EXPLAIN (COSTS OFF) SELECT * FROM points NATURAL JOIN affine;
EXPLAIN (COSTS OFF) SELECT * FROM points NATURAL LEFT JOIN affine;

-- inputs from expressions and constants
SELECT c.id, p.s FROM points c JOIN affine p ON p.a = c.id + 1 AND p.b = 0 ORDER BY c.id;
SELECT c.id, p.s FROM points c LEFT JOIN affine p ON p.a = coalesce(c.a, -1) AND p.b = coalesce(c.b, -1) ORDER BY c.id;
EXPLAIN (COSTS OFF)
SELECT c.id, p.s FROM points c LEFT JOIN affine p ON p.a = coalesce(c.a, -1) AND p.b = coalesce(c.b, -1);
SELECT c.id, p.s FROM points c JOIN affine p ON p.a = c.a AND p.b = c.a AND p.b = c.b ORDER BY c.id;

-- conditions on inputs are checked before, those on outputs after the inference
SELECT id, s FROM points JOIN affine USING (a, b) WHERE s > 5 ORDER BY id;
SELECT id, s FROM points JOIN affine USING (a, b) WHERE s > id + 5 ORDER BY id;
SELECT id, s FROM points JOIN affine p USING (a, b) WHERE p.a < 1 ORDER BY id;
SELECT c.id, p.s FROM points c LEFT JOIN affine p ON p.a = c.a AND p.b = c.b AND p.s > 10 ORDER BY c.id;
SELECT c.id, p.s FROM points c LEFT JOIN affine p ON p.a = c.a AND p.b = c.b AND c.note = 'x' ORDER BY c.id;
SELECT c.id, p.s FROM points c LEFT JOIN affine p ON p.a = c.a AND p.b = c.b WHERE p.s IS NULL ORDER BY c.id;
SELECT c.id, p.s FROM points c LEFT JOIN affine p ON p.a = c.a AND p.b = c.b WHERE p.s > 5 ORDER BY c.id;
EXPLAIN (COSTS OFF) SELECT id, s FROM points JOIN affine p USING (a, b) WHERE s > 5 AND p.a < 3 AND note = 'x';
EXPLAIN (COSTS OFF)
SELECT c.id, p.s FROM points c LEFT JOIN affine p ON p.a = c.a AND p.b = c.b AND c.note = 'x' AND p.s > 5;

-- the order of an index is kept, without a sort above the join
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SELECT id, s FROM points JOIN affine USING (a, b) WHERE id > 1 ORDER BY id DESC;
EXPLAIN (COSTS OFF) SELECT id, s FROM points JOIN affine USING (a, b) WHERE id > 1 ORDER BY id DESC;
RESET enable_seqscan;
RESET enable_bitmapscan;

-- nothing read but the rows; only some rows read
SELECT count(*) FROM points JOIN affine USING (a, b);
SELECT count(*) FROM points NATURAL LEFT JOIN affine;
EXPLAIN (COSTS OFF) SELECT count(*) FROM points JOIN affine USING (a, b);
EXPLAIN (COSTS OFF) SELECT count(*) FROM points NATURAL LEFT JOIN affine;
SELECT id, s FROM (SELECT * FROM points ORDER BY id) c JOIN affine USING (a, b) LIMIT 2;
EXPLAIN (COSTS OFF) SELECT id, s FROM (SELECT * FROM points ORDER BY id) c JOIN affine USING (a, b) LIMIT 2;
SELECT note, count(*), sum(s) FROM points JOIN affine USING (a, b) GROUP BY note ORDER BY note;

-- semi and anti joins
SELECT id FROM points c WHERE EXISTS (SELECT FROM affine p WHERE p.a = c.a AND p.b = c.b AND p.s > 5) ORDER BY id;
EXPLAIN (COSTS OFF)
SELECT id FROM points c WHERE EXISTS (SELECT FROM affine p WHERE p.a = c.a AND p.b = c.b AND p.s > 5);
SELECT id FROM points c WHERE NOT EXISTS (SELECT FROM affine p WHERE p.a = c.a AND p.b = c.b AND p.s > 5) ORDER BY id;
EXPLAIN (COSTS OFF)
SELECT id FROM points c WHERE NOT EXISTS (SELECT FROM affine p WHERE p.a = c.a AND p.b = c.b AND p.s > 5);
SELECT id FROM points c WHERE (a, b) IN (SELECT a, b FROM affine) ORDER BY id;
SELECT id FROM points c WHERE 8 IN (SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b) ORDER BY id;
SELECT id FROM points c WHERE 8 NOT IN (SELECT s FROM affine p WHERE p.a = c.a AND p.b = c.b) ORDER BY id;

-- models chained one into the other, and side by side
SELECT c.id, p.s, q.t FROM points c JOIN affine p USING (a, b) JOIN chain q ON q.s = p.s ORDER BY c.id;
SELECT * FROM points NATURAL JOIN affine NATURAL JOIN chain ORDER BY id;
SELECT c.id, q.t FROM points c LEFT JOIN affine p USING (a, b) LEFT JOIN chain q ON q.s = p.s ORDER BY c.id;
EXPLAIN (COSTS OFF) SELECT c.id, p.s, q.t FROM points c JOIN affine p USING (a, b) JOIN chain q ON q.s = p.s;
SELECT c.id, p.s, q.s FROM points c JOIN affine p ON p.a = c.a AND p.b = c.b JOIN affine q ON q.a = c.b AND q.b = c.a
ORDER BY c.id;

-- inputs from two tables
CREATE TABLE weights (note text, w float8);
INSERT INTO weights VALUES ('x', 10), ('y', 20), ('y', 30);
ANALYZE weights;
SELECT c.id, w.w, p.s FROM points c JOIN weights w USING (note) JOIN affine p ON p.a = c.a AND p.b = w.w
ORDER BY c.id, w.w;
SELECT c.id, w.w, p.s FROM points c CROSS JOIN weights w JOIN affine p ON p.a = c.a AND p.b = w.w WHERE c.id < 3
ORDER BY c.id, w.w;

-- a rescan asks again
SELECT n, (SELECT sum(s) FROM points c JOIN affine p ON p.a = c.a AND p.b = n) FROM generate_series(1, 3) n ORDER BY n;

-- a list inside a join, and a left join with two models on its right side, are one request per row
SELECT c.id, p.b, p.s FROM points c JOIN affine p ON p.a = c.a AND p.b IN (1, 2, 2) ORDER BY c.id, p.b;
EXPLAIN (COSTS OFF) SELECT c.id, p.b, p.s FROM points c JOIN affine p ON p.a = c.a AND p.b IN (1, 2, 2);
SELECT c.id, p.s, q.t FROM points c LEFT JOIN (affine p JOIN chain q ON q.s = p.s) ON p.a = c.a AND p.b = c.b
ORDER BY c.id;

-- rows read and written
CREATE TABLE scores AS SELECT id, s FROM points JOIN affine USING (a, b);
UPDATE scores SET s = p.d FROM points c JOIN affine p USING (a, b) WHERE c.id = scores.id AND c.id <= 2;
SELECT * FROM scores ORDER BY id;

-- without the node
SET model_fdw.enable_model_join = off;
EXPLAIN (COSTS OFF) SELECT c.id, p.s FROM points c LEFT JOIN affine p ON p.a = c.a AND p.b = c.b;
SELECT c.id, p.s FROM points c LEFT JOIN affine p ON p.a = c.a AND p.b = c.b ORDER BY c.id;
SELECT * FROM points NATURAL JOIN affine NATURAL JOIN chain ORDER BY id;
RESET model_fdw.enable_model_join;

-- an input that nothing binds
SELECT c.id, p.s FROM points c JOIN affine p ON p.a = c.a;
SELECT c.id, p.s FROM points c JOIN affine p ON p.a = c.a AND p.b >= c.b;
