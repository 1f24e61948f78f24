/*-------------------------------------------------------------------------
 *
 * check.c
 *	  model_fdw_check(): a table compared with the live model.
 *
 * Python compares options and tensors and writes the statements that cure
 * what differs; here come the types that have no cast.
 *
 *-------------------------------------------------------------------------
 */
#include "model_fdw.h"

#include "access/table.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

#define CHECK_COLUMNS 5 /* severity, column, problem, detail, cure */

PG_FUNCTION_INFO_V1(model_fdw_check);

/* Prepare the function's result. */
static void
begin_result(ReturnSetInfo *result)
{
	MemoryContext old;

	if (result == NULL || !IsA(result, ReturnSetInfo) ||
		(result->allowedModes & SFRM_Materialize) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in context that cannot accept a set")));
	if (result->expectedDesc->natts != CHECK_COLUMNS)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("function \"model_fdw_check\" is of another version than the loaded library"),
				 errhint("Connect again if there was an upgrade.")));
	old = MemoryContextSwitchTo(result->econtext->ecxt_per_query_memory);
	result->returnMode = SFRM_Materialize;
	result->setDesc = CreateTupleDescCopy(result->expectedDesc);
	result->setResult = tuplestore_begin_heap(true, false, work_mem);
	MemoryContextSwitchTo(old);
}

/* Add a row; NULL pointers are NULLs. */
static void
add_row(ReturnSetInfo *result, const char **texts)
{
	Datum values[CHECK_COLUMNS];
	bool  nulls[CHECK_COLUMNS];

	for (int i = 0; i < CHECK_COLUMNS; i++)
	{
		nulls[i] = texts[i] == NULL;
		values[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(texts[i]);
	}
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* Add Python's problems. */
static void
add_problems(ReturnSetInfo *result, PyObject *problems)
{
	for (Py_ssize_t i = 0; i < PyList_Size(problems); i++)
	{
		const char *texts[CHECK_COLUMNS];

		for (int j = 0; j < CHECK_COLUMNS; j++)
		{
			PyObject *text = PyTuple_GetItem(PyList_GetItem(problems, i), j);

			texts[j] = text == Py_None ? NULL : model_python_string(text);
		}
		add_row(result, texts);
	}
}

/* Add the columns whose types do not suit their tensors. */
static void
add_misfits(ReturnSetInfo *result, Relation rel, PyObject *columns)
{
	const char *name = RelationGetRelationName(rel);
	const char *schema = get_namespace_name(RelationGetNamespace(rel));

	for (Py_ssize_t i = 0; i < PyList_Size(columns); i++)
	{
		ModelColumn	 column;
		ModelMisfit *misfit;

		model_read_column(&column, RelationGetDescr(rel),
						  PyList_GetItem(columns, i));
		misfit = model_equality_misfit(&column, name);
		if (misfit == NULL)
			misfit = model_cast_misfit(&column);
		if (misfit)
		{
			const char *texts[CHECK_COLUMNS] = {
				"error", column.name, misfit->message, misfit->detail,
				psprintf("ALTER FOREIGN TABLE %s ALTER COLUMN %s TYPE %s",
						 quote_qualified_identifier(schema, name),
						 quote_identifier(column.name), misfit->type)};

			add_row(result, texts);
		}
	}
}

/*
 * Open the table, which must be a model's and the caller's to read.  Nobody
 * else may lock it, or even wait for it.
 */
static Relation
open_table(Oid relid)
{
	Relation rel;

	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV,
					   get_relkind_objtype(get_rel_relkind(relid)),
					   get_rel_name(relid));
	rel = table_open(relid, AccessShareLock);
	if (!model_is_foreign_table(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a model table",
						RelationGetRelationName(rel)),
				 errhint("Name a foreign table of a model server.")));
	return rel;
}

/* SQL function: one row per problem, none if the table shows the model. */
Datum
model_fdw_check(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Relation	   rel = open_table(PG_GETARG_OID(0));
	PyObject	  *ticket;
	PyObject *volatile found = NULL;

	begin_result(result);
	model_python_start();
	ticket = model_python_call(HOST_CHECK, "(N)",
							   model_python_json(model_table_json(
								   RelationGetRelid(rel), GetUserId())));
	PG_TRY();
	{
		found = model_python_finish(ticket);
		add_problems(result, PyTuple_GetItem(found, 0));
		add_misfits(result, rel, PyTuple_GetItem(found, 1));
	}
	PG_FINALLY();
	{
		model_python_release(found);
		model_python_drop(ticket, HOST_CLOSE);
	}
	PG_END_TRY();
	table_close(rel, AccessShareLock);
	PG_RETURN_NULL();
}
