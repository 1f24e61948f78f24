-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION model_fdw" to load this file. \quit

CREATE FUNCTION model_fdw_handler()
RETURNS fdw_handler
LANGUAGE C STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME';

COMMENT ON FUNCTION model_fdw_handler()
IS 'foreign data wrapper handler of model_fdw';

CREATE FUNCTION model_fdw_validator(options text[], catalog oid)
RETURNS void
LANGUAGE C STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME';

COMMENT ON FUNCTION model_fdw_validator(text[], oid)
IS 'checks the options of servers, user mappings, tables and columns of model_fdw';

CREATE FOREIGN DATA WRAPPER model_fdw
HANDLER model_fdw_handler
VALIDATOR model_fdw_validator;

COMMENT ON FOREIGN DATA WRAPPER model_fdw
IS 'models on gRPC inference servers as foreign tables';
