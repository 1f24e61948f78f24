/*-------------------------------------------------------------------------
 *
 * options.c
 *	  Options from the catalogs to Python, which alone understands them.
 *
 *-------------------------------------------------------------------------
 */
#include "model_fdw.h"

#include "access/reloptions.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/json.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(model_fdw_validator);

/* Append a string or, for NULL, null. */
void
model_json_string(StringInfo json, const char *string)
{
	if (string)
		escape_json(json, string);
	else
		appendStringInfoString(json, "null");
}

/* Append a list of DefElems as an object. */
void
model_json_options(StringInfo json, List *options)
{
	ListCell   *cell;
	const char *separator = "";

	appendStringInfoChar(json, '{');
	foreach(cell, options)
	{
		DefElem *option = lfirst_node(DefElem, cell);

		appendStringInfoString(json, separator);
		escape_json(json, option->defname);
		appendStringInfoString(json, ": ");
		escape_json(json, defGetString(option));
		separator = ", ";
	}
	appendStringInfoChar(json, '}');
}

/* Append a server as an object: oid, name, options. */
void
model_json_server(StringInfo json, Oid serverid)
{
	ForeignServer *server = GetForeignServer(serverid);

	appendStringInfo(json, "{\"oid\": %u, \"name\": ", serverid);
	escape_json(json, server->servername);
	appendStringInfoString(json, ", \"options\": ");
	model_json_options(json, server->options);
	appendStringInfoChar(json, '}');
}

/*
 * The options of a user's mapping, else of PUBLIC's, else none.
 *
 * GetUserMapping() demands that there be one, but a model server may well
 * need no credentials.
 */
List *
model_user_mapping_options(Oid userid, Oid serverid)
{
	HeapTuple tuple;
	Datum	  options;
	bool	  isnull;
	List	 *result = NIL;

	tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(userid),
							ObjectIdGetDatum(serverid));
	if (!HeapTupleIsValid(tuple))
		tuple = SearchSysCache2(USERMAPPINGUSERSERVER,
								ObjectIdGetDatum(InvalidOid),
								ObjectIdGetDatum(serverid));
	if (!HeapTupleIsValid(tuple))
		return NIL;
	options = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple,
							  Anum_pg_user_mapping_umoptions, &isnull);
	if (!isnull)
		result = untransformRelOptions(options);
	ReleaseSysCache(tuple);
	return result;
}

/* The name by which fdw/options.py knows the catalog's level. */
static const char *
option_level(Oid catalog)
{
	switch (catalog)
	{
		case ForeignDataWrapperRelationId:
			return "foreign-data wrapper";
		case ForeignServerRelationId:
			return "server";
		case UserMappingRelationId:
			return "user mapping";
		case ForeignTableRelationId:
			return "table";
		case AttributeRelationId:
			return "column";
	}
	elog(ERROR, "unexpected catalog %u for options", catalog);
	return NULL;
}

/*
 * May the current user have the server read any file?  A superuser may, too.
 */
static bool
may_read_files(void)
{
	return has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES);
}

/* SQL function: check the options of one object when its DDL runs. */
Datum
model_fdw_validator(PG_FUNCTION_ARGS)
{
	List		  *options = untransformRelOptions(PG_GETARG_DATUM(0));
	const char	  *level = option_level(PG_GETARG_OID(1));
	StringInfoData json;
	PyObject	  *dict;

	/* a bare wrapper or column needs no interpreter */
	if (options == NIL && strcmp(level, "server") != 0)
		PG_RETURN_VOID();

	model_python_start();
	initStringInfo(&json);
	model_json_options(&json, options);
	dict = model_python_json(json.data);
	model_python_release(model_python_call(HOST_VALIDATE, "(sNO)", level, dict,
										   may_read_files() ? Py_True
															: Py_False));
	PG_RETURN_VOID();
}
