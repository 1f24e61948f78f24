/*-------------------------------------------------------------------------
 *
 * append.c
 *	  The Model Append: rows of several models' answers to one outer row.
 *
 *	  t JOIN (SELECT .. FROM m1 UNION ALL SELECT .. FROM m2) p ON p.a = t.x
 *
 *	  Custom Scan (Model Append)
 *		-> Custom Scan (Model Join), left, with m2
 *			 -> Custom Scan (Model Join), left, with m1
 *				  -> any plan that gives the outer rows
 *
 * Each outer row comes with the answers of all members of the Append, and the
 * node makes of it a row for each member that was found, in their order.  An
 * outer row without any is dropped by an inner join, extended with NULLs by a
 * left join, and all that an anti join returns.
 *
 * custom_scan_tlist holds the columns of the plan below, then those of the
 * Append.  The branches in custom_exprs are a list for each member: the
 * condition that it was found, then what each column of the Append is for it.
 *
 *-------------------------------------------------------------------------
 */
#include "model_fdw.h"

#include "miscadmin.h"
#include "nodes/makefuncs.h"

/* the lists of custom_exprs */
typedef enum ModelAppendExpr
{
	APPEND_EXPR_BRANCHES, /* a list for each member, see above */
	APPEND_EXPR_FILTER,	  /* conditions above the join */
	APPEND_NEXPRS
} ModelAppendExpr;

/* the integers of custom_private */
typedef enum ModelAppendPrivate
{
	APPEND_PRIVATE_JOINTYPE,
	APPEND_PRIVATE_NBELOW, /* columns of the plan below */
	APPEND_NPRIVATE
} ModelAppendPrivate;

/* a member of the Append */
typedef struct AppendBranch
{
	ExprState  *found;
	ExprState **columns;
} AppendBranch;

typedef struct ModelAppendState
{
	CustomScanState css;
	PlanState	   *below;
	JoinType		jointype;
	int				nbelow;
	int				ncolumns;
	int				nbranches;
	AppendBranch   *branches;
	ExprState	   *filter;
	int				next; /* the branch to look at next */
	bool			any;  /* has the current row found a member? */
} ModelAppendState;

static void model_append_begin(CustomScanState *node, EState *estate,
							   int eflags);
static TupleTableSlot *model_append_exec(CustomScanState *node);
static void model_append_end(CustomScanState *node);
static void model_append_rescan(CustomScanState *node);
static void model_append_explain(CustomScanState *node, List *ancestors,
								 ExplainState *es);

const CustomScanMethods model_append_scan_methods = {
	.CustomName = "Model Append",
	.CreateCustomScanState = model_append_create_state,
};

static const CustomExecMethods model_append_exec_methods = {
	.CustomName = "Model Append",
	.BeginCustomScan = model_append_begin,
	.ExecCustomScan = model_append_exec,
	.EndCustomScan = model_append_end,
	.ReScanCustomScan = model_append_rescan,
	.ExplainCustomScan = model_append_explain,
};

/* ---- planning ---- */

/* Custom path callback: the plan node. */
static Plan *
plan_model_append(PlannerInfo *root, RelOptInfo *joinrel, CustomPath *path,
				  List *tlist, List *clauses, List *custom_plans)
{
	ModelJoinPath  *append = (ModelJoinPath *) path;
	ModelJoinShape *shape = append->shape;
	Relids			relids = shape->inner->relids;
	Plan		   *below = linitial(custom_plans);
	CustomScan	   *scan = makeNode(CustomScan);
	List		   *exprs = NIL;
	ListCell	   *cell;

	foreach(cell, below->targetlist)
		exprs = lappend(exprs,
						model_replace_row_identity(
							(Node *) lfirst_node(TargetEntry, cell)->expr,
							root));
	exprs = list_concat(exprs, shape->columns);
	foreach(cell, exprs)
		scan->custom_scan_tlist =
			lappend(scan->custom_scan_tlist,
					makeTargetEntry(copyObject(lfirst(cell)),
									foreach_current_index(cell) + 1, NULL,
									false));
	scan->custom_exprs = (List *)
		model_use_scan_tuple((Node *) list_make2(shape->branches,
												 append->filter),
							 relids, scan->custom_scan_tlist);
	Assert(list_length(scan->custom_exprs) == APPEND_NEXPRS);
	scan->custom_private = list_make2_int((int) shape->jointype,
										  list_length(below->targetlist));
	Assert(list_length(scan->custom_private) == APPEND_NPRIVATE);
	scan->custom_plans = custom_plans;
	scan->scan.plan.targetlist = (List *)
		model_replace_row_identity((Node *) tlist, root);
	scan->flags = path->flags;
	scan->methods = &model_append_scan_methods;
	return &scan->scan.plan;
}

const CustomPathMethods model_append_path_methods = {
	.CustomName = "Model Append",
	.PlanCustomPath = plan_model_append,
};

/* ---- execution ---- */

/* Custom scan callback: the state node. */
Node *
model_append_create_state(CustomScan *plan)
{
	ModelAppendState *state = (ModelAppendState *)
		newNode(sizeof(ModelAppendState), T_CustomScanState);

	state->css.methods = &model_append_exec_methods;
	return (Node *) state;
}

/* Prepare the expressions of a member. */
static void
begin_branch(AppendBranch *branch, List *exprs, PlanState *parent)
{
	ListCell *cell;
	int		  column = 0;

	branch->found = ExecInitQual(list_make1(linitial(exprs)), parent);
	branch->columns = palloc(sizeof(ExprState *) * list_length(exprs));
	for_each_from(cell, exprs, 1)
		branch->columns[column++] = ExecInitExpr(lfirst(cell), parent);
}

/* Custom scan callback: start. */
static void
model_append_begin(CustomScanState *node, EState *estate, int eflags)
{
	ModelAppendState *state = (ModelAppendState *) node;
	CustomScan		 *plan = (CustomScan *) node->ss.ps.plan;
	List	 *branches = list_nth(plan->custom_exprs, APPEND_EXPR_BRANCHES);
	ListCell *cell;

	state->jointype = list_nth_int(plan->custom_private,
								   APPEND_PRIVATE_JOINTYPE);
	state->nbelow = list_nth_int(plan->custom_private, APPEND_PRIVATE_NBELOW);
	state->ncolumns = list_length(plan->custom_scan_tlist) - state->nbelow;
	state->below = ExecInitNode(linitial(plan->custom_plans), estate, eflags);
	node->custom_ps = list_make1(state->below);
	state->nbranches = list_length(branches);
	state->branches = palloc(sizeof(AppendBranch) * state->nbranches);
	foreach(cell, branches)
		begin_branch(&state->branches[foreach_current_index(cell)],
					 lfirst(cell), &node->ss.ps);
	state->filter = ExecInitQual(list_nth(plan->custom_exprs,
										  APPEND_EXPR_FILTER),
								 &node->ss.ps);
	state->next = state->nbranches;
	state->any = true;
}

/* Take the next row from below into the scan tuple; false after the last. */
static bool
next_row(ModelAppendState *state)
{
	TupleTableSlot *slot = state->css.ss.ss_ScanTupleSlot;
	TupleTableSlot *row = ExecProcNode(state->below);

	if (TupIsNull(row))
		return false;
	slot_getallattrs(row);
	ExecClearTuple(slot);
	memcpy(slot->tts_values, row->tts_values, sizeof(Datum) * state->nbelow);
	memcpy(slot->tts_isnull, row->tts_isnull, sizeof(bool) * state->nbelow);
	memset(slot->tts_isnull + state->nbelow, true,
		   sizeof(bool) * state->ncolumns);
	ExecStoreVirtualTuple(slot);
	state->next = 0;
	state->any = false;
	return true;
}

/* Compute the columns of the Append for a member. */
static void
fill_columns(ModelAppendState *state, AppendBranch *branch)
{
	ExprContext	   *econtext = state->css.ss.ps.ps_ExprContext;
	TupleTableSlot *slot = state->css.ss.ss_ScanTupleSlot;

	for (int i = 0; i < state->ncolumns; i++)
		slot->tts_values[state->nbelow + i] =
			ExecEvalExprSwitchContext(branch->columns[i], econtext,
									  &slot->tts_isnull[state->nbelow + i]);
}

/*
 * Bring the scan tuple to the next row of the join that the current row from
 * below gives; false if there is none.
 */
static bool
next_match(ModelAppendState *state)
{
	ExprContext	   *econtext = state->css.ss.ps.ps_ExprContext;
	TupleTableSlot *slot = state->css.ss.ss_ScanTupleSlot;
	bool			unmatched;

	while (state->next < state->nbranches)
	{
		AppendBranch *branch = &state->branches[state->next++];

		if (!ExecQual(branch->found, econtext))
			continue;
		state->any = true;
		if (state->jointype == JOIN_SEMI || state->jointype == JOIN_ANTI)
			state->next = state->nbranches;
		if (state->jointype == JOIN_ANTI)
			return false;
		fill_columns(state, branch);
		return true;
	}
	unmatched = !state->any && IS_OUTER_JOIN(state->jointype);
	state->any = true;
	if (unmatched)
		memset(slot->tts_isnull + state->nbelow, true,
			   sizeof(bool) * state->ncolumns);
	return unmatched;
}

/* Custom scan callback: the next row of the join. */
static TupleTableSlot *
model_append_exec(CustomScanState *node)
{
	ModelAppendState *state = (ModelAppendState *) node;
	ExprContext		 *econtext = node->ss.ps.ps_ExprContext;
	ProjectionInfo	 *projection = node->ss.ps.ps_ProjInfo;

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		ResetExprContext(econtext);
		econtext->ecxt_scantuple = node->ss.ss_ScanTupleSlot;
		if (!next_match(state))
		{
			if (!next_row(state))
				return NULL;
			continue;
		}
		if (ExecQual(state->filter, econtext))
			return projection ? ExecProject(projection)
							  : node->ss.ss_ScanTupleSlot;
		InstrCountFiltered1(node, 1);
	}
}

/* Custom scan callback: start over. */
static void
model_append_rescan(CustomScanState *node)
{
	ModelAppendState *state = (ModelAppendState *) node;

	state->next = state->nbranches;
	state->any = true;
	/* core leaves the children of a custom scan to us */
	if (node->ss.ps.chgParam)
		UpdateChangedParamSet(state->below, node->ss.ps.chgParam);
	if (state->below->chgParam == NULL)
		ExecReScan(state->below);
}

/* Custom scan callback: the end, also early. */
static void
model_append_end(CustomScanState *node)
{
	ExecEndNode(((ModelAppendState *) node)->below);
}

/* Custom scan callback: EXPLAIN. */
static void
model_append_explain(CustomScanState *node, List *ancestors, ExplainState *es)
{
	ModelAppendState *state = (ModelAppendState *) node;
	CustomScan		 *plan = (CustomScan *) node->ss.ps.plan;

	model_explain_filter(list_nth(plan->custom_exprs, APPEND_EXPR_FILTER),
						 &node->ss.ps, ancestors, es);
	ExplainPropertyText("Join Type", model_explain_join_type(state->jointype),
						es);
	ExplainPropertyInteger("Members", NULL, state->nbranches, es);
}
