/*-------------------------------------------------------------------------
 *
 * ddl.c
 *	  Checks of whole tables when their DDL ends.
 *
 * The validator sees the options of one object at a time, and no types.  What
 * needs the whole table is checked by an event trigger on ddl_command_end, for
 * tables of the library and of Multicorn alike.  The rules are Python's; types
 * and their casts are looked up here.  No model server is asked.
 *
 * pg_dump creates a table first and sets the options of its columns one by
 * one.  Therefore a rule may only be broken by what the columns' options say,
 * and never by what they do not say yet.
 *
 *-------------------------------------------------------------------------
 */
#include "model_fdw.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_inherits.h"
#include "commands/event_trigger.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(model_fdw_check_ddl);

/* Does the database have any server whose tables are ours? */
static bool
has_model_server(void)
{
	Relation	rel = table_open(ForeignServerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0,
										  NULL);
	HeapTuple	tuple;
	bool		found = false;

	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool  isnull;
		Datum options = heap_getattr(tuple, Anum_pg_foreign_server_srvoptions,
									 RelationGetDescr(rel), &isnull);

		found = model_is_server(((Form_pg_foreign_server) GETSTRUCT(tuple))
									->srvfdw,
								isnull ? NIL : untransformRelOptions(options));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/* Add a relation and all that inherit from it, partitions included. */
static List *
add_relations(List *relids, Oid relid)
{
	if (!has_subclass(relid))
		return list_append_unique_oid(relids, relid);
	return list_concat_unique_oid(relids,
								  find_all_inheritors(relid, NoLock, NULL));
}

/*
 * The relations that the commands which end here made or changed.  The
 * function that lists them is called without a query: neither a search path
 * nor a revoked privilege can change what it is.
 */
static List *
changed_relations(void)
{
	LOCAL_FCINFO(call, 0);
	FmgrInfo	  function;
	ReturnSetInfo result = {
		.type = T_ReturnSetInfo,
		.econtext = CreateStandaloneExprContext(),
		.allowedModes = SFRM_Materialize,
	};
	TupleTableSlot *slot;
	List		   *relids = NIL;

	fmgr_info(F_PG_EVENT_TRIGGER_DDL_COMMANDS, &function);
	InitFunctionCallInfoData(*call, &function, 0, InvalidOid, NULL,
							 (Node *) &result);
	FunctionCallInvoke(call);
	slot = MakeSingleTupleTableSlot(result.setDesc, &TTSOpsMinimalTuple);
	while (tuplestore_gettupleslot(result.setResult, true, false, slot))
	{
		bool isnull;
		Oid	 classid = DatumGetObjectId(slot_getattr(slot, 1, &isnull));

		/* commands about other things than objects have none */
		if (!isnull && classid == RelationRelationId)
			relids = add_relations(relids,
								   DatumGetObjectId(slot_getattr(slot, 2,
																 &isnull)));
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(result.setResult);
	FreeExprContext(result.econtext, true);
	return relids;
}

/* Check the types of input columns; a list of attnums. */
static void
check_inputs(Relation rel, PyObject *attnums)
{
	for (Py_ssize_t i = 0; i < PyList_Size(attnums); i++)
	{
		int				  attnum = PyLong_AsLong(PyList_GetItem(attnums, i));
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel),
											  attnum - 1);
		ModelColumn		  column = {
			.name = NameStr(att->attname),
			.input = true,
			.typid = att->atttypid,
			.typmod = att->atttypmod,
			.collation = att->attcollation,
		};
		ModelMisfit *misfit =
			model_equality_misfit(&column, RelationGetRelationName(rel));

		if (misfit)
			model_raise_misfit(misfit);
	}
}

/*
 * Find a column whose values no cast brings to its tensor, or back; NULL if
 * there is none.  A reading is a list of columns as describe() returns them.
 *
 * The casts of types that are not built in may be made later: they are not
 * even in a dump of some schemas.
 */
static ModelMisfit *
find_misfit(Relation rel, PyObject *reading)
{
	ModelMisfit *misfit = NULL;

	for (Py_ssize_t i = 0; misfit == NULL && i < PyList_Size(reading); i++)
	{
		ModelColumn column;

		model_read_column(&column, RelationGetDescr(rel),
						  PyList_GetItem(reading, i));
		if (column.typid < FirstNormalObjectId)
			misfit = model_cast_misfit(&column);
	}
	return misfit;
}

/* Check the types of all columns; one of the readings must fit. */
static void
check_types(Relation rel, PyObject *readings)
{
	ModelMisfit *first = NULL;

	for (Py_ssize_t i = 0; i < PyList_Size(readings); i++)
	{
		ModelMisfit *misfit = find_misfit(rel, PyList_GetItem(readings, i));

		if (misfit == NULL)
			return;
		/* the first reading is the likeliest */
		if (first == NULL)
			first = misfit;
	}
	if (first)
		model_raise_misfit(first);
}

/* Check one model table. */
static void
check_table(Oid relid)
{
	Relation  rel = table_open(relid, NoLock);
	PyObject *result;

	model_python_start();
	result =
		model_python_call(HOST_VALIDATE_TABLE, "(N)",
						  model_python_json(model_table_json(relid,
															 GetUserId())));
	PG_TRY();
	{
		check_inputs(rel, PyTuple_GetItem(result, 0));
		check_types(rel, PyTuple_GetItem(result, 1));
	}
	PG_FINALLY();
	{
		model_python_release(result);
	}
	PG_END_TRY();
	table_close(rel, NoLock);
}

/*
 * Lock a relation, unless that would mean to wait.  What this transaction has
 * locked already, by whatever mode, is not asked for once more: up to 16, such
 * a request fails where another session waits for the relation.
 */
static bool
lock_at_once(Oid relid)
{
	Relation rel = RelationIdGetRelation(relid);
	bool	 locked;

	if (rel == NULL)
		return false;
	locked = CheckRelationLockedByMe(rel, AccessShareLock, true);
	RelationClose(rel);
	return locked || ConditionalLockRelationOid(relid, AccessShareLock);
}

/* SQL function: the event trigger. */
Datum
model_fdw_check_ddl(PG_FUNCTION_ARGS)
{
	ListCell *cell;

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"model_fdw_check_ddl\" must be called as an event trigger")));
	/* most databases' DDL is none of our business */
	if (!has_model_server())
		PG_RETURN_NULL();
	foreach(cell, changed_relations())
	{
		Oid relid = lfirst_oid(cell);

		/* what another session has locked, this command has not changed */
		if (get_rel_relkind(relid) == RELKIND_FOREIGN_TABLE &&
			lock_at_once(relid) && model_is_foreign_table(relid))
			check_table(relid);
	}
	PG_RETURN_NULL();
}
