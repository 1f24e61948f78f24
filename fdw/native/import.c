/*-------------------------------------------------------------------------
 *
 * import.c
 *	  IMPORT FOREIGN SCHEMA.
 *
 *-------------------------------------------------------------------------
 */
#include "model_fdw.h"

#include "foreign/foreign.h"
#include "miscadmin.h"

/* The statement's list of tables as a JSON array. */
static void
json_table_list(StringInfo json, List *tables)
{
	const char *separator = "";
	ListCell   *cell;

	appendStringInfoChar(json, '[');
	foreach(cell, tables)
	{
		appendStringInfoString(json, separator);
		model_json_string(json, lfirst_node(RangeVar, cell)->relname);
		separator = ", ";
	}
	appendStringInfoChar(json, ']');
}

/* Python's word for LIMIT TO and EXCEPT. */
static const char *
restriction_name(ImportForeignSchemaType type)
{
	switch (type)
	{
		case FDW_IMPORT_SCHEMA_ALL:
			return "all";
		case FDW_IMPORT_SCHEMA_LIMIT_TO:
			return "limit to";
		case FDW_IMPORT_SCHEMA_EXCEPT:
			return "except";
	}
	elog(ERROR, "unexpected restriction %d", (int) type);
	return NULL;
}

/* Show one notice: (message, hint or None). */
static void
show_notice(PyObject *notice)
{
	PyObject   *hint = PyTuple_GetItem(notice, 1);

	ereport(NOTICE,
			(errmsg_internal("%s", model_python_string(PyTuple_GetItem(notice, 0))),
			 hint != Py_None ?
			 errhint("%s", model_python_string(hint)) : 0));
}

/* Show the notices of an import and return its statements. */
static List *
read_import(PyObject *result)
{
	PyObject   *statements = PyTuple_GetItem(result, 0);
	PyObject   *notices = PyTuple_GetItem(result, 1);
	List	   *commands = NIL;

	for (Py_ssize_t i = 0; i < PyList_Size(notices); i++)
		show_notice(PyList_GetItem(notices, i));
	for (Py_ssize_t i = 0; i < PyList_Size(statements); i++)
		commands = lappend(commands,
						   model_python_string(PyList_GetItem(statements, i)));
	return commands;
}

/* FDW callback: one CREATE FOREIGN TABLE per model of the server. */
List *
model_import_foreign_schema(ImportForeignSchemaStmt *stmt, Oid serverid)
{
	StringInfoData server;
	StringInfoData mapping;
	StringInfoData names;
	StringInfoData options;
	PyObject   *ticket;
	PyObject   *volatile result = NULL;
	List	   *volatile commands = NIL;

	initStringInfo(&server);
	model_json_server(&server, serverid);
	initStringInfo(&mapping);
	model_json_options(&mapping,
					   model_user_mapping_options(GetUserId(), serverid));
	initStringInfo(&names);
	json_table_list(&names, stmt->table_list);
	initStringInfo(&options);
	model_json_options(&options, stmt->options);

	model_python_start();
	ticket = model_python_call(HOST_IMPORT_SCHEMA, "(NNssNN)",
							   model_python_json(server.data),
							   model_python_json(mapping.data),
							   stmt->remote_schema,
							   restriction_name(stmt->list_type),
							   model_python_json(names.data),
							   model_python_json(options.data));
	PG_TRY();
	{
		result = model_python_finish(ticket);
		commands = read_import(result);
	}
	PG_FINALLY();
	{
		model_python_release(result);
		model_python_drop(ticket, HOST_CANCEL);
	}
	PG_END_TRY();
	return commands;
}
