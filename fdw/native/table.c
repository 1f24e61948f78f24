/*-------------------------------------------------------------------------
 *
 * table.c
 *	  What a foreign table says about its model.
 *
 * The description comes from Python for each statement anew, so that ALTER
 * takes effect at the next one; Python caches what it had to ask the server.
 *
 *-------------------------------------------------------------------------
 */
#include "model_fdw.h"

#include "access/parallel.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/heap.h"
#include "catalog/pg_class.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "common/string.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* Our callbacks for planning a scan. */
FdwRoutine *
model_routine(void)
{
	static FdwRoutine *routine = NULL;

	if (routine == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		routine = makeNode(FdwRoutine);
		model_scan_routine(routine);
		MemoryContextSwitchTo(old);
	}
	return routine;
}

/* Is this relation a table of ours? */
static bool
is_table(RelOptInfo *rel, RelOptKind kind)
{
	return rel->rtekind == RTE_RELATION && rel->fdwroutine != NULL &&
		rel->reloptkind == kind &&
		rel->fdwroutine->GetForeignPaths == model_routine()->GetForeignPaths;
}

/* Is this base relation a table of ours? */
bool
model_is_table(RelOptInfo *rel)
{
	return is_table(rel, RELOPT_BASEREL);
}

/* Is this member of an Append a table of ours? */
bool
model_is_member(RelOptInfo *rel)
{
	return is_table(rel, RELOPT_OTHER_MEMBER_REL);
}

/*
 * Does this symbol of a C library make the wrapper's callbacks?  Only a
 * superuser makes functions in C, so that the name is proof enough.
 */
static bool
has_handler(Oid wrapperid, const char *symbol)
{
	Oid		  handler = GetForeignDataWrapper(wrapperid)->fdwhandler;
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(handler));
	bool	  result;
	bool	  isnull;
	Datum	  source;

	if (!HeapTupleIsValid(tuple))
		return false;
	source = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &isnull);
	result = !isnull &&
		((Form_pg_proc) GETSTRUCT(tuple))->prolang == ClanguageId &&
		strcmp(TextDatumGetCString(source), symbol) == 0;
	ReleaseSysCache(tuple);
	return result;
}

/* Are a server's tables ours: the library's own, or our Multicorn class's? */
bool
model_is_server(Oid wrapperid, List *options)
{
	ListCell *cell;

	if (has_handler(wrapperid, "model_fdw_handler"))
		return true;
	foreach(cell, options)
	{
		DefElem *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, "wrapper") == 0 &&
			strcmp(defGetString(option), "fdw.ModelFdw") == 0)
			return has_handler(wrapperid, "multicorn_handler");
	}
	return false;
}

/* Is this a foreign table of ours, under either host? */
bool
model_is_foreign_table(Oid relid)
{
	ForeignServer *server;

	if (get_rel_relkind(relid) != RELKIND_FOREIGN_TABLE)
		return false;
	server = GetForeignServer(GetForeignTable(relid)->serverid);
	return model_is_server(server->fdwid, server->options);
}

/* Find a column by its number; NULL for system columns and the whole row. */
ModelColumn *
model_table_column(ModelTable *table, AttrNumber attnum)
{
	for (int i = 0; i < table->ncolumns; i++)
		if (table->columns[i].attnum == attnum)
			return &table->columns[i];
	return NULL;
}

/*
 * Refuse a system column; a model's rows are not stored.  The planner itself
 * reads the ctid of a partitioned table, which means nothing in a partition
 * that is a model.
 */
void
model_refuse_system_column(AttrNumber attnum, bool member)
{
	if (attnum >= 0 || attnum == TableOidAttributeNumber ||
		(member && attnum == SelfItemPointerAttributeNumber))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot read system column \"%s\" of a model table",
					NameStr(SystemAttributeDefinition(attnum)->attname)),
			 errdetail("A model's rows are not stored.")));
}

/*
 * Everything that the catalogs know of a table and its server, as JSON.  The
 * table is locked already, but for a parallel worker, which needs a lock too.
 */
char *
model_table_json(Oid relid, Oid userid)
{
	ForeignTable  *table = GetForeignTable(relid);
	LOCKMODE	   lockmode = IsParallelWorker() ? AccessShareLock : NoLock;
	Relation	   rel = table_open(relid, lockmode);
	TupleDesc	   desc = RelationGetDescr(rel);
	const char	  *separator = "";
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfo(&json, "{\"oid\": %u, \"schema\": ", relid);
	model_json_string(&json, get_namespace_name(RelationGetNamespace(rel)));
	appendStringInfoString(&json, ", \"name\": ");
	model_json_string(&json, RelationGetRelationName(rel));
	appendStringInfoString(&json, ", \"options\": ");
	model_json_options(&json, table->options);
	appendStringInfoString(&json, ", \"server\": ");
	model_json_server(&json, table->serverid);
	appendStringInfoString(&json, ", \"user_mapping\": ");
	model_json_options(&json,
					   model_user_mapping_options(userid, table->serverid));
	appendStringInfoString(&json, ", \"columns\": [");
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped)
			continue;
		appendStringInfo(&json, "%s{\"attnum\": %d, \"name\": ", separator,
						 att->attnum);
		model_json_string(&json, NameStr(att->attname));
		appendStringInfoString(&json, ", \"type\": ");
		model_json_string(&json, format_type_be(getBaseType(att->atttypid)));
		appendStringInfoString(&json, ", \"options\": ");
		model_json_options(&json, GetForeignColumnOptions(relid, att->attnum));
		appendStringInfoChar(&json, '}');
		separator = ", ";
	}
	appendStringInfoString(&json, "]}");
	table_close(rel, NoLock);
	return json.data;
}

/*
 * Say why an input column's equality is too coarse: it says "equal" to texts
 * that a model would tell apart.  NULL: it is not.
 */
ModelMisfit *
model_equality_misfit(ModelColumn *column, const char *table)
{
	Oid	  base = getBaseType(column->typid);
	Oid	  element = get_element_type(base);
	char *type = format_type_be(OidIsValid(element) ? getBaseType(element)
													: base);
	ModelMisfit *misfit = palloc(sizeof(ModelMisfit));

	misfit->sqlstate = ERRCODE_FEATURE_NOT_SUPPORTED;
	if (!column->input)
		return NULL;
	if (strcmp(type, "character") == 0 || strcmp(type, "citext") == 0 ||
		pg_str_endswith(type, ".citext"))
	{
		misfit->message = psprintf(
			"input column \"%s\" of foreign table \"%s\" cannot have type %s",
			column->name, table, format_type_be(base));
		misfit->detail =
			"Its equality ignores differences that the model would see.";
		misfit->type = OidIsValid(element) ? "text[]" : "text";
		misfit->hint = psprintf("Use type %s.", misfit->type);
		return misfit;
	}
	if (OidIsValid(column->collation) &&
		!get_collation_isdeterministic(column->collation))
	{
		misfit->message = psprintf(
			"input column \"%s\" of foreign table \"%s\" cannot have a nondeterministic collation",
			column->name, table);
		misfit->detail = NULL;
		misfit->type = psprintf("%s COLLATE pg_catalog.\"C\"",
								format_type_with_typemod(column->typid,
														 column->typmod));
		misfit->hint = "Use a deterministic collation, such as \"C\".";
		return misfit;
	}
	return NULL;
}

/* Refuse a column because of its type. */
void
model_raise_misfit(ModelMisfit *misfit)
{
	ereport(ERROR,
			(errcode(misfit->sqlstate),
			 errmsg_internal("%s", misfit->message),
			 misfit->detail ? errdetail_internal("%s", misfit->detail) : 0,
			 errhint("%s", misfit->hint)));
}

/* Fill one column from its entry of Python's description and the catalogs. */
void
model_read_column(ModelColumn *column, TupleDesc desc, PyObject *entry)
{
	Form_pg_attribute att;
	char			 *kind = model_python_string(PyTuple_GetItem(entry, 2));

	column->attnum = PyLong_AsLong(PyTuple_GetItem(entry, 0));
	column->input = *model_python_string(PyTuple_GetItem(entry, 1)) == 'i';
	column->array = *kind == '[';
	column->kind = kind[column->array];
	column->optional = PyObject_IsTrue(PyTuple_GetItem(entry, 3));
	if (column->attnum < 1 || column->attnum > desc->natts)
		elog(ERROR, "column %d of a model table is not known", column->attnum);
	att = TupleDescAttr(desc, column->attnum - 1);
	column->name = pstrdup(NameStr(att->attname));
	column->typid = att->atttypid;
	column->typmod = att->atttypmod;
	column->collation = att->attcollation;
	column->natural = model_kind_type(column->kind, column->array);
}

/* Fill the table from Python's description. */
static void
read_description(ModelTable *table, PyObject *description)
{
	PyObject	*columns = PyTuple_GetItem(description, 0);
	Relation	 rel = table_open(table->relid, NoLock);
	ModelMisfit *misfit;

	table->name = pstrdup(RelationGetRelationName(rel));
	table->ncolumns = PyList_Size(columns);
	table->columns = palloc0(sizeof(ModelColumn) * (table->ncolumns + 1));
	for (int i = 0; i < table->ncolumns; i++)
	{
		model_read_column(&table->columns[i], RelationGetDescr(rel),
						  PyList_GetItem(columns, i));
		misfit = model_equality_misfit(&table->columns[i], table->name);
		if (misfit)
			model_raise_misfit(misfit);
	}
	table_close(rel, NoLock);
	table->batch_size = PyLong_AsLong(PyTuple_GetItem(description, 1));
	table->max_in_flight = PyLong_AsLong(PyTuple_GetItem(description, 2));
	table->row_cost = PyFloat_AsDouble(PyTuple_GetItem(description, 3));
	table->model = model_python_string(PyTuple_GetItem(description, 4));
	table->version = model_python_string(PyTuple_GetItem(description, 5));
	table->endpoint = model_python_string(PyTuple_GetItem(description, 6));
	table->batched = PyObject_IsTrue(PyTuple_GetItem(description, 7));
}

/*
 * Describe a table as "userid" sees it (InvalidOid: the current user).
 *
 * Waits for the model's metadata where the table's options leave something
 * open; may be interrupted there.
 */
ModelTable *
model_table_describe(Oid relid, Oid userid)
{
	ModelTable *table = palloc0(sizeof(ModelTable));
	PyObject   *ticket;
	PyObject *volatile description = NULL;

	table->relid = relid;
	table->userid = OidIsValid(userid) ? userid : GetUserId();
	model_python_start();
	ticket =
		model_python_call(HOST_DESCRIBE, "(N)",
						  model_python_json(model_table_json(relid,
															 table->userid)));
	PG_TRY();
	{
		description = model_python_finish(ticket);
		read_description(table, description);
	}
	PG_FINALLY();
	{
		model_python_release(description);
		model_python_drop(ticket, HOST_CLOSE);
	}
	PG_END_TRY();
	return table;
}

/*
 * The description of a relation that is being planned, made once a query.
 */
ModelTable *
model_table_of(RelOptInfo *rel, Oid relid)
{
	if (rel->fdw_private == NULL)
		rel->fdw_private = model_table_describe(relid, rel->userid);
	return rel->fdw_private;
}
