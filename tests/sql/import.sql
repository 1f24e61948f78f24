-- IMPORT FOREIGN SCHEMA: a table of each model, a column of each element.
IMPORT FOREIGN SCHEMA models FROM SERVER triton INTO scratch;
SELECT c.relname AS "table", count(*) FILTER (WHERE 'input' = ANY (o.names)) AS inputs,
       count(*) FILTER (WHERE 'output' = ANY (o.names)) AS outputs
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
CROSS JOIN LATERAL (SELECT array_agg(split_part(option, '=', 1)) FROM unnest(a.attfdwoptions) option) o (names)
WHERE c.relnamespace = 'scratch'::regnamespace
GROUP BY 1 ORDER BY 1;

-- every dtype has its type
\d echo
-- an element each of a packed vector, under the names that the model gives
\d sum10
-- a model that declares the dimension of the rows itself, and one that has none
\d triangle
\d no_batch
-- the batch size of a model that takes few rows, an optional input, a name on both sides
\d small_batch
\d optional
\d clash

SELECT value_output FROM clash WHERE value = 3;
SELECT y FROM no_batch WHERE x_1 = 1 AND x_2 = 2 AND x_3 = 4;
SELECT area FROM triangle WHERE a = 3 AND b = 4 AND c = 5;

-- LIMIT TO and EXCEPT
CREATE SCHEMA scratch_some;
IMPORT FOREIGN SCHEMA models LIMIT TO (affine, chain) FROM SERVER triton INTO scratch_some;
\det scratch_some.*
DROP FOREIGN TABLE scratch_some.affine, scratch_some.chain;
IMPORT FOREIGN SCHEMA models LIMIT TO (affine, "no such model") FROM SERVER triton INTO scratch_some;
\det scratch_some.*
DROP FOREIGN TABLE scratch_some.affine;
IMPORT FOREIGN SCHEMA models
    EXCEPT (breast_cancer, broken, chain, clash, decoupled, discount, echo, loan, no_batch, optional, sentiment,
            sequence, slow, small_batch, sum10)
    FROM SERVER triton INTO scratch_some;
\det scratch_some.*

IMPORT FOREIGN SCHEMA models LIMIT TO (decoupled) FROM SERVER triton INTO scratch_some;
IMPORT FOREIGN SCHEMA elsewhere FROM SERVER triton INTO scratch_some;
IMPORT FOREIGN SCHEMA models FROM SERVER triton INTO scratch_some OPTIONS (column 'x: a');
\set VERBOSITY terse
DROP SCHEMA scratch_some CASCADE;
