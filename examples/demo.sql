-- The session of the demo: psql -v url=grpc://host:port -f examples/demo.sql
-- Needs table "patients": see examples/patients.sql.

\set ON_ERROR_STOP on
\set QUIET on
\pset footer off
\timing on
\set QUIET off

\echo '== connect =='
\ir connect.sql
\dE ml.*

\echo '== score patients =='
SELECT id, malignant, benign, diagnosis
FROM patients NATURAL JOIN ml.breast_cancer
ORDER BY id
LIMIT 10;

\echo '== accuracy =='
SELECT CASE WHEN held_out THEN 'held out' WHEN NOT held_out THEN 'training' ELSE 'all' END AS patients,
       count(*),
       round(avg(((malignant > benign) = (diagnosis = 'malignant'))::integer), 3) AS accuracy
FROM patients NATURAL JOIN ml.breast_cancer
GROUP BY ROLLUP (held_out)
ORDER BY held_out DESC NULLS LAST;

\echo '== a missing value =='
-- SQL equality: NULL matches nothing, so the left join keeps the row and nothing is sent for it.
SELECT r.a, r.b, r.c, t.area
FROM (VALUES (3.0, 4.0, 5.0), (6, 8, NULL)) AS r (a, b, c)
LEFT JOIN ml.triangle t USING (a, b, c);

\echo '== texts =='
SELECT label, score, text
FROM (VALUES ('What a lovely surprise, thank you!'),
             ('Cold soup and rude waiters.')) AS reviews (text)
NATURAL JOIN ml.sentiment;

\echo '== a million rows: table =='
CREATE TABLE readings AS
SELECT id, random() AS f1, random() AS f2, random() AS f3, random() AS f4, random() AS f5,
       random() AS f6, random() AS f7, random() AS f8, random() AS f9, random() AS f10
FROM generate_series(1, 1000000) AS id;
VACUUM ANALYZE readings;

\echo '== plan =='
\set QUIET on
\pset format unaligned
\set QUIET off
EXPLAIN (ANALYZE, COSTS OFF)
SELECT id, total FROM readings r NATURAL JOIN ml.sum10 WHERE id <= 10000;
\set QUIET on
\pset format aligned
\set QUIET off

\echo '== a million rows: join =='
-- The sums agree to the digits that the model has, which computes in 4 bytes. So would sum() of type real, and lose more.
SELECT clock_timestamp() AS started \gset
SELECT count(*), sum(total::float8), sum(f1 + f2 + f3 + f4 + f5 + f6 + f7 + f8 + f9 + f10) AS proof
FROM readings NATURAL JOIN ml.sum10;
SELECT round(1000000 / extract(epoch FROM clock_timestamp() - :'started')) AS rows_per_second;
