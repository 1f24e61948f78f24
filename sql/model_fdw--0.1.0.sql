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

CREATE FUNCTION model_fdw_check_ddl()
RETURNS event_trigger
LANGUAGE C
AS 'MODULE_PATHNAME';

COMMENT ON FUNCTION model_fdw_check_ddl()
IS 'checks model tables as a whole when they are made or changed';

-- ALTER TABLE works on foreign tables, too, and reaches those that inherit.
CREATE EVENT TRIGGER model_fdw_check_ddl
ON ddl_command_end
WHEN TAG IN ('CREATE FOREIGN TABLE', 'ALTER FOREIGN TABLE', 'IMPORT FOREIGN SCHEMA', 'ALTER TABLE')
EXECUTE FUNCTION model_fdw_check_ddl();

COMMENT ON EVENT TRIGGER model_fdw_check_ddl
IS 'checks model tables as a whole when they are made or changed';

CREATE FUNCTION model_fdw_check("table" regclass)
RETURNS TABLE (severity text, column_name text, problem text, detail text, cure text)
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE
ROWS 10
AS 'MODULE_PATHNAME';

COMMENT ON FUNCTION model_fdw_check(regclass)
IS 'compares a model table with the live model: a row per problem, with the statement that cures it';
