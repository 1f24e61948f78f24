/*-------------------------------------------------------------------------
 *
 * import.c
 *	  IMPORT FOREIGN SCHEMA.
 *
 *-------------------------------------------------------------------------
 */
#include "model_fdw.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_foreign_table.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

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

/*
 * The tables of a server that are in a schema already, as a JSON array.  They
 * are locked, so that they stay as they are.
 */
static void
json_existing_tables(StringInfo json, Oid serverid, const char *schema)
{
	Oid			namespace = get_namespace_oid(schema, false);
	Relation	rel = table_open(ForeignTableRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0,
										  NULL);
	const char *separator = "";
	HeapTuple	tuple;

	appendStringInfoChar(json, '[');
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_foreign_table form = (Form_pg_foreign_table) GETSTRUCT(tuple);
		Relation			  table;

		if (form->ftserver != serverid ||
			get_rel_namespace(form->ftrelid) != namespace)
			continue;
		table = try_relation_open(form->ftrelid, AccessShareLock);
		if (table == NULL)
			continue;
		appendStringInfo(json, "%s%s", separator,
						 model_table_json(form->ftrelid, GetUserId()));
		relation_close(table, NoLock);
		separator = ", ";
	}
	appendStringInfoChar(json, ']');
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* Show one notice: (message, detail or None, hint or None). */
static void
show_notice(PyObject *notice)
{
	PyObject *detail = PyTuple_GetItem(notice, 1);
	PyObject *hint = PyTuple_GetItem(notice, 2);

	ereport(NOTICE,
			(errmsg_internal("%s", model_python_string(PyTuple_GetItem(notice, 0))),
			 detail != Py_None ?
			 errdetail_internal("%s", model_python_string(detail)) : 0,
			 hint != Py_None ?
			 errhint("%s", model_python_string(hint)) : 0));
}

/* Show the notices of an import and return its statements. */
static List *
read_import(PyObject *result)
{
	PyObject *statements = PyTuple_GetItem(result, 0);
	PyObject *notices = PyTuple_GetItem(result, 1);
	List	 *commands = NIL;

	for (Py_ssize_t i = 0; i < PyList_Size(notices); i++)
		show_notice(PyList_GetItem(notices, i));
	for (Py_ssize_t i = 0; i < PyList_Size(statements); i++)
		commands = lappend(commands,
						   model_python_string(PyList_GetItem(statements, i)));
	return commands;
}

/*
 * FDW callback: one CREATE FOREIGN TABLE per model of the server.
 *
 * LIMIT TO and EXCEPT have been applied to the models' names when this
 * returns.  PostgreSQL would apply them again, to the names that a prefix, a
 * version or a cut has made of these, so it is told that there are none.
 */
List *
model_import_foreign_schema(ImportForeignSchemaStmt *stmt, Oid serverid)
{
	StringInfoData server;
	StringInfoData mapping;
	StringInfoData names;
	StringInfoData options;
	StringInfoData existing;
	PyObject	  *ticket;
	PyObject *volatile result = NULL;
	List *volatile commands = NIL;

	initStringInfo(&server);
	model_json_server(&server, serverid);
	initStringInfo(&mapping);
	model_json_options(&mapping,
					   model_user_mapping_options(GetUserId(), serverid));
	initStringInfo(&names);
	json_table_list(&names, stmt->table_list);
	initStringInfo(&options);
	model_json_options(&options, stmt->options);
	initStringInfo(&existing);
	json_existing_tables(&existing, serverid, stmt->local_schema);

	model_python_start();
	ticket = model_python_call(HOST_IMPORT_SCHEMA, "(NNssNNN)",
							   model_python_json(server.data),
							   model_python_json(mapping.data),
							   stmt->remote_schema,
							   restriction_name(stmt->list_type),
							   model_python_json(names.data),
							   model_python_json(options.data),
							   model_python_json(existing.data));
	PG_TRY();
	{
		result = model_python_finish(ticket);
		commands = read_import(result);
	}
	PG_FINALLY();
	{
		model_python_release(result);
		model_python_drop(ticket, HOST_CLOSE);
	}
	PG_END_TRY();
	stmt->list_type = FDW_IMPORT_SCHEMA_ALL;
	return commands;
}
