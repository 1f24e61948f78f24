-- Arrays: a column that is a whole tensor.
CREATE FOREIGN TABLE floats (
    v real[] OPTIONS (input 'in_fp32_vector'),
    o real[] OPTIONS (output 'out_fp32_vector'),
    second real OPTIONS (output 'out_fp32_vector', index '2')
) SERVER triton OPTIONS (model 'tensors');
SELECT * FROM floats WHERE v = '{1,-0,NaN,Infinity}';

-- rows of different lengths, in the order of the other table
CREATE TABLE c (id int, v real[]);
INSERT INTO c VALUES (1, '{1,2}'), (2, '{3,4,5}'), (3, NULL), (4, '[0:1]={6,7}'), (5, '{8,9,10}');
SELECT id, o, second FROM c JOIN floats USING (v);
SELECT id, o FROM c LEFT JOIN floats USING (v) WHERE o IS NULL OR o[1] > 2;
EXPLAIN (COSTS OFF) SELECT id, o FROM c JOIN floats USING (v);

-- the empty array, matrices, texts
CREATE FOREIGN TABLE matrices (
    m bigint[] OPTIONS (input 'in_int64_matrix'), o bigint[] OPTIONS (output 'out_int64_matrix')
) SERVER triton OPTIONS (model 'tensors');
SELECT o FROM (VALUES ('{}'::bigint[]), ('{{1,2},{3,4}}'), ('{{5},{6}}')) AS r (m) JOIN matrices USING (m);
CREATE FOREIGN TABLE texts (
    t text[] OPTIONS (input 'in_bytes_vector'), o text[] OPTIONS (output 'out_bytes_vector')
) SERVER triton OPTIONS (model 'tensors');
SELECT o FROM texts WHERE t = '{"",NULL_,"a b","é"}';

-- what an array cannot be
CREATE FOREIGN TABLE triples (
    v real[] OPTIONS (input 'in_fp32_triple'), o real[] OPTIONS (output 'out_fp32_triple')
) SERVER triton OPTIONS (model 'tensors');
SELECT o FROM triples WHERE v = '{1,2}';
SELECT o FROM triples WHERE v = '{{1,2,3}}';
SELECT o FROM triples WHERE v = '{1,2,NULL}';
SELECT o FROM matrices WHERE m = '{1}';

-- a model without a dimension for rows, by element and whole
EXPLAIN (COSTS OFF) SELECT y FROM ml.no_batch WHERE x_1 = 1 AND x_2 = 2 AND x_3 = 4;
CREATE FOREIGN TABLE whole (
    x float8[] OPTIONS (input 'x', dtype 'FP64', shape '[3]'), y float8 OPTIONS (output 'y', dtype 'FP64', shape '[1]')
) SERVER triton OPTIONS (model 'no_batch');
EXPLAIN (COSTS OFF) SELECT id, y FROM c JOIN whole ON x = v::float8[] || 1::float8;
SELECT id, y FROM c JOIN whole ON x = v::float8[] || 1::float8 WHERE cardinality(v) = 2;
