-- IMPORT FOREIGN SCHEMA under other names, and into a schema that has the table already.
CREATE SCHEMA scratch_some;
IMPORT FOREIGN SCHEMA models LIMIT TO (affine) FROM SERVER triton INTO scratch_some;
-- options: names, arrays, versions
CREATE SCHEMA scratch_more;
IMPORT FOREIGN SCHEMA models LIMIT TO (sum10) FROM SERVER triton INTO scratch_more
    OPTIONS (prefix 'my_', expand 'none', float_arrays 'real');
\d scratch_more.my_sum10
SELECT total FROM scratch_more.my_sum10 WHERE x = '{1,2,3,4,5,6,7,8,9,10}';
IMPORT FOREIGN SCHEMA models LIMIT TO (triangle) FROM SERVER triton INTO scratch_more
    OPTIONS (columns 'sides: "x,y", right side, base; area: "a ""b"""');
\d scratch_more.triangle
IMPORT FOREIGN SCHEMA models LIMIT TO (discount) FROM SERVER triton INTO scratch_more OPTIONS (versions 'all');
IMPORT FOREIGN SCHEMA models LIMIT TO (discount) FROM SERVER triton INTO scratch_more OPTIONS (versions '2', prefix 'the ');
SELECT a.discounted, b.discounted, c.discounted
FROM scratch_more.discount_v1 a, scratch_more.discount_v2 b, scratch_more."the discount_v2" c
WHERE a.price = 80 AND b.price = 80 AND c.price = 80;
\det scratch_more.*
IMPORT FOREIGN SCHEMA models LIMIT TO (sum10) FROM SERVER triton INTO scratch_more OPTIONS (columns 'x: a, b');
IMPORT FOREIGN SCHEMA models LIMIT TO (sum10) FROM SERVER triton INTO scratch_more OPTIONS (columns 'z: a');
IMPORT FOREIGN SCHEMA models LIMIT TO (sum10) FROM SERVER triton INTO scratch_more OPTIONS (float_arrays 'float4');
IMPORT FOREIGN SCHEMA models LIMIT TO (discount) FROM SERVER triton INTO scratch_more OPTIONS (versions 'newest');
IMPORT FOREIGN SCHEMA models LIMIT TO (discount) FROM SERVER triton INTO scratch_more OPTIONS (expand 'some');
\set VERBOSITY terse
DROP SCHEMA scratch_more CASCADE;
\set VERBOSITY default

-- a table that is there stays, and it is told where its model is another one now
ALTER FOREIGN TABLE scratch_some.affine ALTER COLUMN a OPTIONS (SET dtype 'FP32'), DROP COLUMN b;
IMPORT FOREIGN SCHEMA models LIMIT TO (affine, chain) FROM SERVER triton INTO scratch_some;
SELECT * FROM model_fdw_check('scratch_some.affine') \gx
ALTER FOREIGN TABLE "scratch_some"."affine" ALTER COLUMN "a" OPTIONS (SET dtype 'FP64', SET shape '[-1,1]');
ALTER FOREIGN TABLE "scratch_some"."affine"
    ADD COLUMN "b" double precision OPTIONS (input 'b', dtype 'FP64', shape '[-1,1]');
SELECT * FROM model_fdw_check('scratch_some.affine');
-- a table of another kind does not
DROP FOREIGN TABLE scratch_some.affine;
CREATE TABLE scratch_some.affine (a float8);
IMPORT FOREIGN SCHEMA models LIMIT TO (affine) FROM SERVER triton INTO scratch_some;
\set VERBOSITY terse
DROP SCHEMA scratch_some CASCADE;
