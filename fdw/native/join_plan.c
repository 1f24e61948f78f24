/*-------------------------------------------------------------------------
 *
 * join_plan.c
 *	  The plan node of a Model Join.
 *
 *	  Custom Scan (Model Join)
 *		-> any plan that gives the outer rows
 *
 * scanrelid is 0; custom_scan_tlist holds the outer plan's columns, then the
 * model's columns that somebody reads, then what must be computed before
 * null-extension: placeholders, or the subquery that the join replaces.  The
 * other lists are described in model_fdw.h (ModelJoinExpr, ModelJoinPrivate).
 *
 *-------------------------------------------------------------------------
 */
#include "model_fdw.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"

/* what the mutator below needs */
typedef struct ScanTupleContext
{
	Index		relid;			/* the model's */
	List	   *tlist;			/* custom_scan_tlist */
} ScanTupleContext;

/*
 * Replace the model's columns and placeholders by the scan tuple's own
 * mention of them: below the join they are not marked as nullable by it, and
 * setrefs compares these marks.
 */
static Node *
use_scan_tuple(Node *node, ScanTupleContext *context)
{
	ListCell   *cell;

	if (node == NULL)
		return NULL;
	foreach(cell, context->tlist)
	{
		Node	   *entry = (Node *) lfirst_node(TargetEntry, cell)->expr;

		if (IsA(node, Var) && IsA(entry, Var) &&
			((Var *) node)->varno == context->relid &&
			((Var *) entry)->varno == context->relid &&
			((Var *) node)->varattno == ((Var *) entry)->varattno)
			return (Node *) copyObject(entry);
		if (IsA(node, PlaceHolderVar) && IsA(entry, PlaceHolderVar) &&
			((PlaceHolderVar *) node)->phid ==
			((PlaceHolderVar *) entry)->phid)
			return (Node *) copyObject(entry);
	}
	return expression_tree_mutator(node, use_scan_tuple, context);
}

/* what build_scan_tlist() collects */
typedef struct ScanTupleBuilder
{
	ModelJoinParts *parts;
	List	   *tlist;
	List	   *attnums;		/* integers: the model's columns, tlist's order */
	List	   *placeholders;	/* PlaceHolderVars or the subquery, likewise */
	List	   *computations;	/* how these are computed */
} ScanTupleBuilder;

/* Add an expression to the scan tuple. */
static void
add_scan_entry(ScanTupleBuilder *builder, Node *expr)
{
	builder->tlist = lappend(builder->tlist,
							 makeTargetEntry((Expr *) copyObject(expr),
											 list_length(builder->tlist) + 1,
											 NULL, false));
}

/* Is the model's column in the scan tuple already? */
static bool
has_column(ScanTupleBuilder *builder, AttrNumber attnum)
{
	return list_member_int(builder->attnums, attnum);
}

/* Add a column of the model, once. */
static void
add_column(ScanTupleBuilder *builder, Var *var)
{
	if (var->varno != builder->parts->varno || has_column(builder, var->varattno))
		return;
	model_refuse_system_column(var->varattno);
	add_scan_entry(builder, (Node *) var);
	builder->attnums = lappend_int(builder->attnums, var->varattno);
}

/* Does the model's relation compute this placeholder? */
static bool
is_model_placeholder(ScanTupleBuilder *builder, PlaceHolderVar *node)
{
	ListCell   *cell;

	foreach(cell, builder->parts->placeholders)
	{
		PlaceHolderVar *phv = lfirst(cell);

		if (IsA(phv, PlaceHolderVar) &&
			phv->phid == node->phid)
			return true;
	}
	return false;
}

/* Add a placeholder of the model's relation, once. */
static void
add_placeholder(ScanTupleBuilder *builder, PlaceHolderVar *phv)
{
	ListCell   *cell;

	foreach(cell, builder->placeholders)
		if (lfirst_node(PlaceHolderVar, cell)->phid == phv->phid)
			return;
	builder->placeholders = lappend(builder->placeholders, phv);
	builder->computations = lappend(builder->computations, phv->phexpr);
}

/*
 * Collect what expressions read of the model: its columns, and placeholders
 * that it computes.  What placeholders read themselves is added to "inside".
 */
static void
collect_reads(ScanTupleBuilder *builder, List *exprs, List **inside)
{
	List	   *vars = pull_var_clause((Node *) exprs,
									   PVC_RECURSE_AGGREGATES |
									   PVC_RECURSE_WINDOWFUNCS |
									   PVC_INCLUDE_PLACEHOLDERS);
	ListCell   *cell;

	foreach(cell, vars)
	{
		PlaceHolderVar *phv = lfirst(cell);

		if (IsA(phv, Var))
		{
			add_column(builder, lfirst(cell));
			continue;
		}
		if (is_model_placeholder(builder, phv))
			add_placeholder(builder, phv);
		*inside = lappend(*inside, phv->phexpr);
	}
}

/*
 * Build the scan tuple.  What the join's own level reads comes first: its
 * marks are the ones that expressions above will be compared with.  Join
 * conditions and the insides of placeholders are of the level below.
 */
static void
build_scan_tlist(ScanTupleBuilder *builder, Plan *outer)
{
	ModelJoinParts *parts = builder->parts;
	List	   *inside = NIL;
	ListCell   *cell;

	foreach(cell, outer->targetlist)
		add_scan_entry(builder,
					   (Node *) lfirst_node(TargetEntry, cell)->expr);
	collect_reads(builder, parts->level, &inside);
	collect_reads(builder, parts->filter, &inside);
	collect_reads(builder, parts->before, &inside);
	collect_reads(builder, parts->after, &inside);
	if (parts->subquery)
	{
		inside = lappend(inside, parts->answer);
		builder->placeholders = list_make1(parts->subquery);
		builder->computations = list_make1(parts->answer);
	}
	while (inside != NIL)
	{
		List	   *exprs = inside;

		inside = NIL;
		collect_reads(builder, exprs, &inside);
	}
	foreach(cell, builder->placeholders)
		add_scan_entry(builder, lfirst(cell));
}

/* Take the conditions that read no column out of "quals". */
static List *
extract_gate(List **quals)
{
	List	   *gate = NIL;
	List	   *others = NIL;
	ListCell   *cell;

	foreach(cell, *quals)
	{
		Node	   *qual = lfirst(cell);

		if (!contain_var_clause(qual) && !contain_volatile_functions(qual))
			gate = lappend(gate, qual);
		else
			others = lappend(others, qual);
	}
	*quals = others;
	return gate;
}

/*
 * Make the plan node.  "outer" gives the outer rows; the expressions are the
 * planner's, before setrefs.
 */
Plan *
model_join_make_plan(ModelJoinParts *parts, Plan *outer, List *tlist,
					 uint32 flags)
{
	CustomScan *scan = makeNode(CustomScan);
	ScanTupleBuilder builder = {.parts = parts};
	ScanTupleContext context;
	List	   *before = list_copy(parts->before);
	List	   *after = list_copy(parts->after);
	List	   *filter = list_copy(parts->filter);
	List	   *gate;
	List	   *header;

	build_scan_tlist(&builder, outer);

	/* an inner join's conditions are all the same; a gate closes it whole */
	gate = extract_gate(&filter);
	if (parts->jointype == JOIN_INNER || parts->jointype == JOIN_SEMI)
	{
		gate = list_concat(gate, extract_gate(&before));
		filter = list_concat(after, filter);
		after = NIL;
	}

	context.relid = parts->varno;
	context.tlist = builder.tlist;
	scan->custom_exprs = list_make5(parts->values, before, after,
									builder.computations, gate);
	scan->custom_exprs = (List *) use_scan_tuple((Node *) scan->custom_exprs,
												 &context);
	Assert(list_length(scan->custom_exprs) == JOIN_NEXPRS);
	header = list_make4_int((int) parts->relid, (int) parts->userid,
							(int) parts->jointype,
							list_length(outer->targetlist));
	Assert(list_length(header) == JOIN_NHEADER);
	scan->custom_private = list_make3(header, parts->attnums,
									  builder.attnums);
	Assert(list_length(scan->custom_private) == JOIN_NPRIVATE);
	scan->custom_scan_tlist = builder.tlist;
	scan->custom_plans = list_make1(outer);
	scan->scan.plan.targetlist = tlist;
	scan->scan.plan.qual =
		(List *) use_scan_tuple((Node *) filter, &context);
	scan->flags = flags;
	scan->methods = &model_join_scan_methods;
	return &scan->scan.plan;
}
