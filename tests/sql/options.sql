-- Options: what they do.
-- the name of the table is the name of the model; a column's name is that of its tensor
CREATE FOREIGN TABLE affine (a float8, b float8, s float8) SERVER triton;
SELECT * FROM affine WHERE a = 1 AND b = 2;
-- columns in any order, of other names and types, outputs left out
CREATE FOREIGN TABLE mine (
    answer numeric(10, 2) OPTIONS (output 's'),
    second integer OPTIONS (input 'b'),
    first numeric OPTIONS (input 'a')
) SERVER triton OPTIONS (model 'affine', batch_size '2');
SELECT * FROM mine WHERE first = 1.25 AND second = 2;
SELECT n, m.* FROM generate_series(1, 5) n JOIN mine m ON m.first = n AND m.second = n ORDER BY n;
EXPLAIN (COSTS OFF) SELECT answer FROM generate_series(1, 5) n JOIN mine m ON m.first = n AND m.second = n;
-- an element of a vector
CREATE FOREIGN TABLE sides (
    z float8 OPTIONS (input 'sides', index '3'),
    x float8 OPTIONS (input 'sides', index '1'),
    y float8 OPTIONS (input 'sides', index '2'),
    area float8
) SERVER triton OPTIONS (model 'triangle');
SELECT * FROM sides WHERE x = 3 AND y = 4 AND z = 5;

-- a version each
CREATE FOREIGN TABLE first (price float8, discounted float8) SERVER triton OPTIONS (model 'discount', version '1');
CREATE FOREIGN TABLE second (price float8, discounted float8) SERVER triton OPTIONS (model 'discount', version '2');
CREATE FOREIGN TABLE latest (price float8, discounted float8) SERVER triton OPTIONS (model 'discount');
SELECT f.discounted AS first, s.discounted AS second, l.discounted AS latest
FROM first f, second s, latest l WHERE f.price = 80 AND s.price = 80 AND l.price = 80;
EXPLAIN (COSTS OFF) SELECT discounted FROM first WHERE price = 80;

-- ALTER takes effect at the next statement
ALTER FOREIGN TABLE latest OPTIONS (ADD version '1');
SELECT discounted FROM latest WHERE price = 80;
ALTER FOREIGN TABLE latest OPTIONS (SET version '3');
SELECT discounted FROM latest WHERE price = 80;
ALTER FOREIGN TABLE latest OPTIONS (DROP version);
SELECT discounted FROM latest WHERE price = 80;
ALTER FOREIGN TABLE latest ALTER COLUMN discounted OPTIONS (ADD output 'discount');
SELECT discounted FROM latest WHERE price = 80;
-- also of a prepared statement
PREPARE ask AS SELECT discounted FROM second WHERE price = 80;
EXECUTE ask;
ALTER FOREIGN TABLE second OPTIONS (SET version '1');
EXECUTE ask;

-- the batch size decides how many requests a join makes, a model's own limit splits them
CREATE FUNCTION batches(query text) RETURNS TABLE (line text) LANGUAGE plpgsql AS $$
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || query LOOP
        IF line ~ '(Batch Size|Batches|Rows Sent|Largest Batch|Rows Not Sent):' THEN
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;
SELECT * FROM batches('SELECT answer FROM generate_series(1, 5) n JOIN mine m ON m.first = n AND m.second = n');
ALTER FOREIGN TABLE mine OPTIONS (SET batch_size '1');
SELECT * FROM batches('SELECT answer FROM generate_series(1, 5) n JOIN mine m ON m.first = n AND m.second = n');
ALTER FOREIGN TABLE mine OPTIONS (DROP batch_size);
SELECT * FROM batches('SELECT answer FROM generate_series(1, 5) n JOIN mine m ON m.first = n AND m.second = n');
SELECT * FROM batches('SELECT answer FROM generate_series(1, 5) n LEFT JOIN mine m ON m.first = nullif(n, 2) AND m.second = n');
SELECT * FROM batches('SELECT y FROM generate_series(1, 20) n JOIN ml.small_batch m ON m.x = n');
