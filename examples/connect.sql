-- Make the models of a Triton server tables of schema "ml".
-- Variable url: the address of the server, grpc://host:port.

CREATE EXTENSION model_fdw;
CREATE SERVER triton FOREIGN DATA WRAPPER model_fdw OPTIONS (url :'url');
CREATE SCHEMA ml;
IMPORT FOREIGN SCHEMA models FROM SERVER triton INTO ml;
