-- What our own foreign data wrapper says and Multicorn does not: what its validator refuses,
CREATE SERVER other FOREIGN DATA WRAPPER model_fdw;
CREATE SERVER other FOREIGN DATA WRAPPER model_fdw OPTIONS (url 'http://h:8000/v2');
CREATE SERVER other FOREIGN DATA WRAPPER model_fdw OPTIONS (url 'grpc://127.0.0.1', default_batchsize '8');
CREATE SERVER other FOREIGN DATA WRAPPER model_fdw OPTIONS (url 'grpc://127.0.0.1', default_batch_size '0');
ALTER SERVER triton OPTIONS (DROP url);
CREATE USER MAPPING FOR PUBLIC SERVER triton OPTIONS (tokens 'x');
CREATE USER MAPPING FOR PUBLIC SERVER triton OPTIONS (password 'x');
CREATE FOREIGN TABLE affine (a float8, b float8, s float8) SERVER triton OPTIONS (url 'grpc://127.0.0.1');
CREATE FOREIGN TABLE affine (a float8, b float8, s float8) SERVER triton OPTIONS (batch_size 'many');
CREATE FOREIGN TABLE affine (a float8 OPTIONS (dtype 'DOUBLE'), b float8, s float8) SERVER triton;
ALTER FOREIGN DATA WRAPPER model_fdw OPTIONS (ADD url 'x');
-- and that a model cannot be written
INSERT INTO ml.affine (a, b) VALUES (1, 2);
UPDATE ml.affine SET s = 0 WHERE a = 1 AND b = 2;
DELETE FROM ml.affine WHERE a = 1 AND b = 2;
