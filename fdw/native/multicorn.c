/*-------------------------------------------------------------------------
 *
 * multicorn.c
 *	  Model tables of Multicorn: the same plans as for our own.
 *
 *	  CREATE SERVER s FOREIGN DATA WRAPPER multicorn
 *		OPTIONS (wrapper 'fdw.ModelFdw', url ...)
 *
 * Multicorn's handler gives the callbacks of such a table, and Multicorn
 * calls execute() once per rescan.  Where this library is loaded, the planner
 * is given our callbacks instead (get_relation_info_hook), so that the whole
 * planning is the same as for a table of our own: bindings, Model Joins,
 * batched subqueries.
 *
 * The executor looks the callbacks up by the table again and would find
 * Multicorn's, so the plan of a scan is no ForeignScan:
 *
 *	  Custom Scan (Model Scan) on the table
 *
 * which does what our foreign scan does (scan.c).  Nothing of Multicorn is
 * called or linked; it is known by the name of its handler.  IMPORT and
 * EXPLAIN of statements that were planned before the library was loaded stay
 * Multicorn's, see fdw/wrapper.py.
 *
 *-------------------------------------------------------------------------
 */
#include "model_fdw.h"

#include "foreign/foreign.h"
#include "optimizer/pathnode.h"
#include "utils/rel.h"

typedef struct AdoptedScanState
{
	CustomScanState custom;
	ModelScanState *scan;
} AdoptedScanState;

static Plan *plan_adopted_scan(PlannerInfo *root, RelOptInfo *rel,
							   CustomPath *path, List *tlist, List *clauses,
							   List *custom_plans);
static Node *create_adopted_state(CustomScan *plan);
static void begin_adopted_scan(CustomScanState *node, EState *estate,
							   int eflags);
static TupleTableSlot *exec_adopted_scan(CustomScanState *node);
static void end_adopted_scan(CustomScanState *node);
static void rescan_adopted_scan(CustomScanState *node);
static void explain_adopted_scan(CustomScanState *node, List *ancestors,
								 ExplainState *es);

static const CustomPathMethods adopted_path_methods = {
	.CustomName = "Model Scan",
	.PlanCustomPath = plan_adopted_scan,
	.ReparameterizeCustomPathByChild = model_scan_reparameterize,
};

const CustomScanMethods model_adopted_scan_methods = {
	.CustomName = "Model Scan",
	.CreateCustomScanState = create_adopted_state,
};

static const CustomExecMethods adopted_exec_methods = {
	.CustomName = "Model Scan",
	.BeginCustomScan = begin_adopted_scan,
	.ExecCustomScan = exec_adopted_scan,
	.EndCustomScan = end_adopted_scan,
	.ReScanCustomScan = rescan_adopted_scan,
	.ExplainCustomScan = explain_adopted_scan,
};

/* ---- planning ---- */

/* Plan a relation with our callbacks, if it is a model table of Multicorn. */
void
model_adopt(RelOptInfo *rel)
{
	ForeignServer *server;

	if (rel->rtekind != RTE_RELATION || rel->fdwroutine == NULL ||
		rel->fdwroutine->GetForeignPaths == model_routine()->GetForeignPaths)
		return;
	server = GetForeignServer(rel->serverid);
	if (model_is_server(server->fdwid, server->options))
		rel->fdwroutine = model_routine();
}

/* Has model_adopt() given the relation our callbacks? */
bool
model_is_adopted(RelOptInfo *rel)
{
	return rel->fdwroutine == model_routine();
}

/* The path of an adopted table's scan. */
Path *
model_adopted_path(ForeignPath *scan)
{
	CustomPath *path = makeNode(CustomPath);

	path->path = scan->path;
	path->path.type = T_CustomPath;
	path->path.pathtype = T_CustomScan;
	path->flags = CUSTOMPATH_SUPPORT_PROJECTION;
	path->custom_private = scan->fdw_private;
	path->methods = &adopted_path_methods;
	return &path->path;
}

/* Custom path callback: the plan node. */
static Plan *
plan_adopted_scan(PlannerInfo *root, RelOptInfo *rel, CustomPath *path,
				  List *tlist, List *clauses, List *custom_plans)
{
	CustomScan *scan = makeNode(CustomScan);

	model_scan_lists(root, rel, linitial(path->custom_private), clauses,
					 &scan->scan.plan.qual, &scan->custom_exprs,
					 &scan->custom_private);
	scan->scan.plan.targetlist = tlist;
	scan->scan.scanrelid = rel->relid;
	scan->flags = path->flags;
	scan->methods = &model_adopted_scan_methods;
	return &scan->scan.plan;
}

/* ---- execution ---- */

/* Custom scan callback: the node's state. */
static Node *
create_adopted_state(CustomScan *plan)
{
	AdoptedScanState *state = (AdoptedScanState *)
		newNode(sizeof(AdoptedScanState), T_CustomScanState);

	state->custom.methods = &adopted_exec_methods;
	return (Node *) state;
}

/* Custom scan callback: start. */
static void
begin_adopted_scan(CustomScanState *node, EState *estate, int eflags)
{
	CustomScan *plan = (CustomScan *) node->ss.ps.plan;

	((AdoptedScanState *) node)->scan = model_scan_begin(&node->ss,
														 plan->custom_exprs,
														 plan->custom_private,
														 eflags);
}

/* The next row before conditions and projection. */
static TupleTableSlot *
next_adopted_row(ScanState *node)
{
	TupleTableSlot *slot = model_scan_next(((AdoptedScanState *) node)->scan);

	slot->tts_tableOid = RelationGetRelid(node->ss_currentRelation);
	return slot;
}

/* Does the row hold for the new version of the outer row? */
static bool
recheck_adopted_row(ScanState *node, TupleTableSlot *slot)
{
	return model_scan_recheck(((AdoptedScanState *) node)->scan, slot);
}

/* Custom scan callback: the next row. */
static TupleTableSlot *
exec_adopted_scan(CustomScanState *node)
{
	return ExecScan(&node->ss, next_adopted_row, recheck_adopted_row);
}

/* Custom scan callback: the end, also early. */
static void
end_adopted_scan(CustomScanState *node)
{
	model_scan_end(((AdoptedScanState *) node)->scan);
}

/* Custom scan callback: start over with new parameters. */
static void
rescan_adopted_scan(CustomScanState *node)
{
	model_scan_restart(((AdoptedScanState *) node)->scan);
	ExecScanReScan(&node->ss);
}

/* Custom scan callback: EXPLAIN. */
static void
explain_adopted_scan(CustomScanState *node, List *ancestors, ExplainState *es)
{
	model_scan_explain(((AdoptedScanState *) node)->scan, es);
}

/* The lists of a scan's plan, of either kind; false: it is none of ours. */
bool
model_scan_plan(Plan *plan, List **exprs, List **private)
{
	*exprs = *private = NIL;
	if (IsA(plan, ForeignScan))
	{
		*exprs = ((ForeignScan *) plan)->fdw_exprs;
		*private = ((ForeignScan *) plan)->fdw_private;
	}
	else if (IsA(plan, CustomScan) &&
			 ((CustomScan *) plan)->methods == &model_adopted_scan_methods)
	{
		*exprs = ((CustomScan *) plan)->custom_exprs;
		*private = ((CustomScan *) plan)->custom_private;
	}
	return list_length(*exprs) == SCAN_NEXPRS &&
		list_length(*private) == SCAN_NPRIVATE &&
		((Scan *) plan)->scanrelid != 0;
}
