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
	Relids relids; /* the models' */
	List  *tlist;  /* custom_scan_tlist */
} ScanTupleContext;

/* The mutator of model_use_scan_tuple(). */
static Node *
use_scan_tuple(Node *node, ScanTupleContext *context)
{
	ListCell *cell;

	if (node == NULL)
		return NULL;
	foreach(cell, context->tlist)
	{
		Node *entry = (Node *) lfirst_node(TargetEntry, cell)->expr;

		if (IsA(node, Var) && IsA(entry, Var) &&
			((Var *) node)->varno == ((Var *) entry)->varno &&
			((Var *) node)->varattno == ((Var *) entry)->varattno &&
			bms_is_member(((Var *) node)->varno, context->relids))
			return (Node *) copyObject(entry);
		if (IsA(node, PlaceHolderVar) && IsA(entry, PlaceHolderVar) &&
			((PlaceHolderVar *) node)->phid ==
				((PlaceHolderVar *) entry)->phid)
			return (Node *) copyObject(entry);
	}
	return expression_tree_mutator(node, use_scan_tuple, context);
}

/*
 * Replace the models' columns and placeholders by the scan tuple's own
 * mention of them: below the join they are not marked as nullable by it, and
 * setrefs compares these marks.
 */
Node *
model_use_scan_tuple(Node *node, Relids relids, List *tlist)
{
	ScanTupleContext context = {relids, tlist};

	return use_scan_tuple(node, &context);
}

/* Is the placeholder in the list? */
static bool
has_placeholder(List *list, PlaceHolderVar *node)
{
	ListCell *cell;

	foreach(cell, list)
	{
		PlaceHolderVar *phv = lfirst(cell);

		if (IsA(phv, PlaceHolderVar) && phv->phid == node->phid)
			return true;
	}
	return false;
}

/* Is the column in the list? */
static bool
has_column(List *list, Var *node)
{
	ListCell *cell;

	foreach(cell, list)
	{
		Var *var = lfirst(cell);

		if (IsA(var, Var) && var->varno == node->varno &&
			var->varattno == node->varattno)
			return true;
	}
	return false;
}

/*
 * Collect the columns and placeholders that expressions read.  What the
 * placeholders of "below" read themselves is added to "inside".
 */
static void
pull_level(List *exprs, List *below, List **reads, List **inside)
{
	List	 *vars = pull_var_clause((Node *) exprs,
									 PVC_RECURSE_AGGREGATES |
										 PVC_RECURSE_WINDOWFUNCS |
										 PVC_INCLUDE_PLACEHOLDERS);
	ListCell *cell;

	foreach(cell, vars)
	{
		PlaceHolderVar *phv = lfirst(cell);

		if (IsA(phv, Var))
		{
			if (!has_column(*reads, lfirst(cell)))
				*reads = lappend(*reads, phv);
		}
		else if (!has_placeholder(below, phv))
			pull_level(list_make1(phv->phexpr), below, reads, inside);
		else if (!has_placeholder(*reads, phv))
		{
			*reads = lappend(*reads, phv);
			*inside = lappend(*inside, phv->phexpr);
		}
	}
}

/*
 * What expressions read of the scan tuple, each column and placeholder once.
 * "below" has the placeholders that are computed before null-extension; what
 * these read comes last, for it bears the marks of the level below.
 */
List *
model_pull_reads(List *exprs, List *below)
{
	List *reads = NIL;

	while (exprs != NIL)
	{
		List *inside = NIL;

		pull_level(exprs, below, &reads, &inside);
		exprs = inside;
	}
	return reads;
}

/* what build_scan_tlist() collects */
typedef struct ScanTupleBuilder
{
	PlannerInfo	   *root;
	ModelJoinParts *parts;
	List		   *tlist;
	List		   *attnums; /* integers: the model's columns, tlist's order */
	List *placeholders;		 /* PlaceHolderVars or the subquery, likewise */
	List *computations;		 /* how these are computed */
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

/* Add a column or a placeholder that somebody reads, if it is the model's. */
static void
add_read(ScanTupleBuilder *builder, Node *read)
{
	if (IsA(read, PlaceHolderVar))
	{
		builder->placeholders = lappend(builder->placeholders, read);
		builder->computations = lappend(builder->computations,
										((PlaceHolderVar *) read)->phexpr);
	}
	else if (((Var *) read)->varno == builder->parts->varno)
	{
		model_refuse_system_column(((Var *) read)->varattno,
								   builder->parts->member);
		add_scan_entry(builder, read);
		builder->attnums = lappend_int(builder->attnums,
									   ((Var *) read)->varattno);
	}
}

/*
 * Build the scan tuple.  What the join's own level reads comes first: its
 * marks are the ones that expressions above will be compared with.
 */
static void
build_scan_tlist(ScanTupleBuilder *builder, Plan *outer)
{
	ModelJoinParts *parts = builder->parts;
	List		   *exprs = list_concat_copy(parts->level, parts->filter);
	ListCell	   *cell;

	exprs = list_concat(list_concat(exprs, parts->before), parts->after);
	if (parts->subquery)
	{
		exprs = lappend(exprs, parts->answer);
		builder->placeholders = list_make1(parts->subquery);
		builder->computations = list_make1(parts->answer);
	}
	foreach(cell, outer->targetlist)
		add_scan_entry(builder,
					   model_replace_row_identity(
						   (Node *) lfirst_node(TargetEntry, cell)->expr,
						   builder->root));
	foreach(cell, model_pull_reads(exprs, parts->placeholders))
		add_read(builder, lfirst(cell));
	foreach(cell, builder->placeholders)
		add_scan_entry(builder, lfirst(cell));
}

/*
 * The outer columns, counted from 0, that are NULL where this model has no
 * answer: those of models that were asked before it for the same match.
 */
static List *
group_columns(ModelJoinParts *parts, List *tlist, int nouter)
{
	List	 *columns = NIL;
	ListCell *cell;

	if (IS_OUTER_JOIN(parts->jointype))
		foreach(cell, tlist)
		{
			Var *var = (Var *) lfirst_node(TargetEntry, cell)->expr;

			if (foreach_current_index(cell) < nouter && IsA(var, Var) &&
				bms_is_member(var->varno, parts->group))
				columns = lappend_int(columns, foreach_current_index(cell));
		}
	return columns;
}

/* Take the conditions that read no column out of "quals". */
static List *
extract_gate(List **quals)
{
	List	 *gate = NIL;
	List	 *others = NIL;
	ListCell *cell;

	foreach(cell, *quals)
	{
		Node *qual = lfirst(cell);

		if (!contain_var_clause(qual) && !contain_volatile_functions(qual))
			gate = lappend(gate, qual);
		else
			others = lappend(others, qual);
	}
	*quals = others;
	return gate;
}

/*
 * Replace placeholders that this node computes by what they are: neither what
 * is needed before the answer nor one another can read them.
 */
static Node *
inline_placeholders(Node *node, List *placeholders)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, PlaceHolderVar) &&
		has_placeholder(placeholders, (PlaceHolderVar *) node))
		return inline_placeholders((Node *) ((PlaceHolderVar *) node)->phexpr,
								   placeholders);
	return expression_tree_mutator(node, inline_placeholders, placeholders);
}

/*
 * Make the plan node.  "outer" gives the outer rows; the expressions are the
 * planner's, before setrefs.
 */
Plan *
model_join_make_plan(PlannerInfo *root, ModelJoinParts *parts, Plan *outer,
					 List *tlist, uint32 flags)
{
	CustomScan		*scan = makeNode(CustomScan);
	ScanTupleBuilder builder = {.root = root, .parts = parts};
	Relids relids = bms_add_member(bms_copy(parts->group), parts->varno);
	List  *before = list_copy(parts->before);
	List  *after = list_copy(parts->after);
	List  *filter = list_copy(parts->filter);
	List  *group;
	List  *gate;
	List  *early;
	List  *header;

	build_scan_tlist(&builder, outer);

	/* an inner join's conditions are all the same; a gate closes it whole */
	gate = extract_gate(&filter);
	if (parts->jointype == JOIN_INNER || parts->jointype == JOIN_SEMI)
	{
		gate = list_concat(gate, extract_gate(&before));
		filter = list_concat(after, filter);
		after = NIL;
	}

	early = (List *)
		inline_placeholders((Node *) list_make3(parts->values, before,
												builder.computations),
							builder.placeholders);
	scan->custom_exprs = list_make5(linitial(early), lsecond(early), after,
									lthird(early), gate);
	/* not the plan's "qual", see model_explain_filter() */
	scan->custom_exprs = lappend(scan->custom_exprs, filter);
	scan->custom_exprs = (List *)
		model_use_scan_tuple((Node *) scan->custom_exprs, relids,
							 builder.tlist);
	Assert(list_length(scan->custom_exprs) == JOIN_NEXPRS);
	header = list_make4_int((int) parts->relid, (int) parts->userid,
							(int) parts->jointype,
							list_length(outer->targetlist));
	Assert(list_length(header) == JOIN_NHEADER);
	group = group_columns(parts, builder.tlist,
						  list_length(outer->targetlist));
#ifdef MODEL_FDW_BREAK_GROUP
	/* a defect for the tests to find: row identity columns have no table */
	group = group_columns(parts, outer->targetlist,
						  list_length(outer->targetlist));
#endif
	scan->custom_private = list_make4(header, parts->attnums, builder.attnums,
									  group);
	Assert(list_length(scan->custom_private) == JOIN_NPRIVATE);
	scan->custom_scan_tlist = builder.tlist;
	scan->custom_plans = list_make1(outer);
	scan->scan.plan.targetlist = (List *)
		model_replace_row_identity((Node *) tlist, root);
	scan->flags = flags;
	scan->methods = &model_join_scan_methods;
	return &scan->scan.plan;
}
