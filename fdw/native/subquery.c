/*-------------------------------------------------------------------------
 *
 * subquery.c
 *	  Scalar subqueries over a model, as Model Joins.
 *
 *	  SELECT id, (SELECT score FROM churn WHERE tenure = c.tenure) FROM c
 *
 * The planner turns such a subquery into a SubPlan, a scan that runs once per
 * row.  Here the path that computes the SubPlan gets a Model Join below it,
 * whose scan tuple holds the SubPlan's value: setrefs then finds that
 * expression there, and the SubPlan itself is never run.
 *
 * This is done only where the value is computed for every row anyway: in the
 * select list, in the argument of an aggregate, or in a condition on one
 * relation; not under CASE, COALESCE, AND or OR, and not in a query with
 * LIMIT.  A correlated IN that is a condition by itself is treated alike, its
 * value being that of its comparison with the one row.  A subquery that could find more than one row (a list) stays as it
 * is, and so raises its error.
 *
 *-------------------------------------------------------------------------
 */
#include "model_fdw.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/planmain.h"
#include "optimizer/planner.h"
#include "optimizer/tlist.h"
#include "rewrite/rewriteManip.h"

/* the path of a Model Join that computes a subquery */
typedef struct SubqueryPath
{
	CustomPath	   path;
	ModelJoinParts parts;
} SubqueryPath;

static create_upper_paths_hook_type previous_upper_hook = NULL;
static set_rel_pathlist_hook_type	previous_rel_hook = NULL;

static Plan *plan_subquery_join(PlannerInfo *root, RelOptInfo *rel,
								CustomPath *path, List *tlist, List *clauses,
								List *custom_plans);

static const CustomPathMethods subquery_path_methods = {
	.CustomName = "Model Join",
	.PlanCustomPath = plan_subquery_join,
};

/* ---- which subqueries ---- */

/*
 * Collect the SubPlans that are computed whenever the expression is.  Only
 * nodes that evaluate all their arguments are looked into.
 */
static bool
collect_subplans(Node *node, List **subplans)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_SubPlan:
			if (((SubPlan *) node)->subLinkType == EXPR_SUBLINK)
				*subplans = list_append_unique(*subplans, node);
			return false;
		case T_List:
		case T_TargetEntry:
		case T_FuncExpr:
		case T_OpExpr:
		case T_DistinctExpr:
		case T_ScalarArrayOpExpr:
		case T_RelabelType:
		case T_CoerceViaIO:
		case T_ArrayExpr:
		case T_RowExpr:
		case T_NullTest:
		case T_BooleanTest:
			return expression_tree_walker(node, collect_subplans, subplans);
		default:
			return false;
	}
}

/* Collect those in the arguments of unfiltered aggregates, likewise. */
static bool
collect_aggregated(Node *node, List **subplans)
{
	if (node == NULL)
		return false;
	if (IsA(node, Aggref))
	{
		Aggref	 *aggref = (Aggref *) node;
		ListCell *cell;

		if (aggref->aggfilter == NULL)
			foreach(cell, aggref->args)
				collect_subplans((Node *) lfirst_node(TargetEntry, cell)->expr,
								 subplans);
		return false;
	}
	return expression_tree_walker(node, collect_aggregated, subplans);
}

/* what the mutator below replaces */
typedef struct ArgumentContext
{
	SubPlan *subplan;
	Node	*result; /* of the subquery, for the test of an IN */
	Index	 from;	 /* the model's varno in the subquery */
	Index	 to;	 /* and in the outer query */
} ArgumentContext;

/*
 * Bring an expression of the subquery to the outer query: parameters become
 * the expressions that they stand for.
 */
static Node *
use_arguments(Node *node, ArgumentContext *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_EXEC)
	{
		ListCell *id;
		ListCell *arg;

		forboth(id, context->subplan->parParam, arg, context->subplan->args)
			if (lfirst_int(id) == ((Param *) node)->paramid)
				return copyObject(lfirst(arg));
		if (list_member_int(context->subplan->paramIds,
							((Param *) node)->paramid))
			return copyObject(context->result);
		return copyObject(node);
	}
	if (IsA(node, Var) && ((Var *) node)->varno == context->from)
	{
		Var *var = (Var *) copyObject(node);

		var->varno = context->to;
		var->varnosyn = 0;
		return (Node *) var;
	}
	return expression_tree_mutator(node, use_arguments, context);
}

/* Is the plan a scan of ours that finds at most one row?  Its lists, too. */
static bool
is_single_row_scan(Plan *plan, List **exprs, List **private)
{
	if (!model_scan_plan(plan, exprs, private) || plan->initPlan != NIL ||
		list_length(plan->targetlist) != 1)
		return false;
	return list_nth(*private, SCAN_PRIVATE_UNBOUND) == NIL &&
		!list_member_int(list_nth(*private, SCAN_PRIVATE_LISTS), 1);
}

/* Do these expressions hold a subquery of their own? */
static bool
contains_subplan(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, SubPlan) || IsA(node, AlternativeSubPlan))
		return true;
	return expression_tree_walker(node, contains_subplan, context);
}

/* The relation of a scan in the subquery, if it is a model table. */
static RelOptInfo *
model_of_scan(PlannerInfo *subroot, Scan *scan)
{
	Index relid = scan->scanrelid;

	if (relid >= subroot->simple_rel_array_size ||
		!model_is_table(subroot->simple_rel_array[relid]))
		return NULL;
	return subroot->simple_rel_array[relid];
}

/*
 * Give the outer query a range table entry for the model, so that EXPLAIN can
 * name its columns.  Permissions were and are checked for the subquery's.
 */
static Index
add_range_table_entry(PlannerInfo *root, RangeTblEntry *entry)
{
	RangeTblEntry *copy = copyObject(entry);

#if PG_VERSION_NUM >= 160000
	copy->perminfoindex = 0;
#else
	copy->requiredPerms = 0;
	copy->selectedCols = NULL;
#endif
	root->parse->rtable = lappend(root->parse->rtable, copy);
	return list_length(root->parse->rtable);
}

/*
 * Take a SubPlan apart into a Model Join, and return the model's table; NULL
 * if it is not one that can be replaced.
 */
static ModelTable *
split_subplan(PlannerInfo *root, SubPlan *subplan, ModelJoinParts *parts)
{
	Scan		   *scan;
	List		   *exprs;
	List		   *private;
	PlannerInfo	   *subroot;
	RelOptInfo	   *model;
	RangeTblEntry  *entry;
	TargetEntry	   *answer;
	ArgumentContext context;
	List		   *header;

	if ((subplan->subLinkType != EXPR_SUBLINK &&
		 subplan->subLinkType != ANY_SUBLINK) ||
		subplan->setParam != NIL || subplan->parParam == NIL ||
		subplan->useHashTable)
		return NULL;
	scan = list_nth(root->glob->subplans, subplan->plan_id - 1);
	subroot = list_nth(root->glob->subroots, subplan->plan_id - 1);
	if (!is_single_row_scan(&scan->plan, &exprs, &private))
		return NULL;
	model = model_of_scan(subroot, scan);
	answer = linitial_node(TargetEntry, scan->plan.targetlist);
	if (model == NULL || contains_subplan((Node *) exprs, NULL) ||
		contains_subplan((Node *) scan->plan.qual, NULL) ||
		contains_subplan((Node *) answer, NULL) ||
		contain_volatile_functions((Node *) subplan->args))
		return NULL;

	entry = subroot->simple_rte_array[model->relid];
	context.subplan = subplan;
	context.result = NULL;
	context.from = scan->scanrelid;
	context.to = add_range_table_entry(root, entry);
	header = list_nth(private, SCAN_PRIVATE_HEADER);
	memset(parts, 0, sizeof(*parts));
	parts->relid = entry->relid;
	parts->userid = (Oid) list_nth_int(header, SCAN_HEADER_USERID);
	parts->varno = context.to;
	parts->jointype = JOIN_LEFT;
	parts->attnums = list_nth(private, SCAN_PRIVATE_INPUTS);
	parts->values = (List *) use_arguments(list_nth(exprs, SCAN_EXPR_VALUES),
										   &context);
	parts->before = (List *) use_arguments(list_nth(exprs, SCAN_EXPR_BEFORE),
										   &context);
	parts->after = (List *) use_arguments((Node *) scan->plan.qual, &context);
	parts->subquery = subplan;
	parts->answer = (Expr *) use_arguments((Node *) answer->expr, &context);
	if (subplan->subLinkType == ANY_SUBLINK)
	{
		/* the comparison reads the outer query's columns already */
		context.result = (Node *) parts->answer;
		context.from = 0;
		parts->answer = (Expr *) use_arguments(subplan->testexpr, &context);
	}
	return model->fdw_private;
}

/* ---- paths ---- */

/* Put a Model Join above a path, which adds the subquery's value to it. */
static Path *
add_subquery_join(Path *outer, ModelTable *table, ModelJoinParts *parts)
{
	SubqueryPath *join = palloc0(sizeof(SubqueryPath));
	Path		 *path = &join->path.path;
	PathTarget	 *target = copy_pathtarget(outer->pathtarget);

	add_column_to_pathtarget(target, (Expr *) parts->subquery, 0);
	/* the outer path has computed its own */
	target->cost.startup = target->cost.per_tuple = 0;
	NodeSetTag(path, T_CustomPath);
	path->pathtype = T_CustomScan;
	path->parent = outer->parent;
	path->pathtarget = target;
	path->param_info = outer->param_info;
	path->rows = outer->rows;
	path->pathkeys = outer->pathkeys;
	model_cost_join(path, outer, table, outer->rows);
#if PG_VERSION_NUM >= 180000
	path->disabled_nodes = outer->disabled_nodes;
#endif
	join->path.flags = CUSTOMPATH_SUPPORT_PROJECTION;
	join->path.custom_paths = list_make1(outer);
	join->path.methods = &subquery_path_methods;
	join->parts = *parts;
	return path;
}

/* Has this subquery's join been put under the path already? */
static bool
has_subquery_join(Path *path, SubPlan *subplan)
{
	/* see model_wrap_row_identity() */
	if (IsA(path, AppendPath) &&
		list_length(((AppendPath *) path)->subpaths) == 1)
		path = linitial(((AppendPath *) path)->subpaths);
	while (IsA(path, CustomPath) &&
		   ((CustomPath *) path)->methods == &subquery_path_methods)
	{
		if (((SubqueryPath *) path)->parts.subquery->plan_id ==
			subplan->plan_id)
			return true;
		path = linitial(((CustomPath *) path)->custom_paths);
	}
	return false;
}

/* what the walker below adds up */
typedef struct PriceContext
{
	List *batched; /* integers: plan_ids */
	Cost  price;
} PriceContext;

/* Add up what an evaluation was thought to pay for batched subqueries. */
static bool
add_prices(Node *node, PriceContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, SubPlan) &&
		list_member_int(context->batched, ((SubPlan *) node)->plan_id))
		context->price += ((SubPlan *) node)->per_call_cost;
	return expression_tree_walker(node, add_prices, context);
}

/*
 * Batch the subqueries among "subplans" below a node that computes "exprs".
 * "price" receives what each row was thought to pay for them there.
 */
static Path *
batch_subplans(PlannerInfo *root, Path *outer, List *subplans, List *exprs,
			   Cost *price)
{
	PriceContext context = {NIL, 0};
	ListCell	*cell;

	foreach(cell, subplans)
	{
		SubPlan		  *subplan = lfirst_node(SubPlan, cell);
		ModelJoinParts parts;
		ModelTable	  *table;

		if (has_subquery_join(outer, subplan))
			continue;
		table = split_subplan(root, subplan, &parts);
		if (table == NULL)
			continue;
		outer = add_subquery_join(outer, table, &parts);
		context.batched = lappend_int(context.batched, subplan->plan_id);
	}
	add_prices((Node *) exprs, &context);
	*price = context.price;
	return model_wrap_row_identity(outer);
}

/* by how much batching has made a path cheaper */
typedef struct Saving
{
	Path *path;
	Cost  startup;
	Cost  total;
} Saving;

/* Take off a path's cost what need not be paid after its first row. */
static void
reduce_cost(Path *path, Cost saving)
{
	path->total_cost = Max(path->startup_cost, path->total_cost - saving);
}

/* Batch the subqueries that a node computes of its input's rows. */
static Path *
batch_input(PlannerInfo *root, Path *input, List *subplans, List *exprs,
			Saving *saving)
{
	Cost  price;
	Path *batched = batch_subplans(root, input, subplans, exprs, &price);

	saving->startup = input->startup_cost - batched->startup_cost;
	saving->total = input->total_cost - batched->total_cost +
		price * input->rows;
	return batched;
}

static Saving *batch_path(PlannerInfo *root, Path *path, List **savings);

/* Batch below all paths of an Append. */
static void
batch_members(PlannerInfo *root, List *subpaths, bool ordered, Saving *saving,
			  List **savings)
{
	ListCell *cell;

	foreach(cell, subpaths)
	{
		Saving *member = batch_path(root, lfirst(cell), savings);

		saving->total += member->total;
		if (ordered || foreach_current_index(cell) == 0)
			saving->startup += member->startup;
	}
}

/* Batch below a node that passes rows on. */
static void
batch_below(PlannerInfo *root, Path *path, Saving *saving, List **savings)
{
	Saving *below = batch_path(root, path, savings);

	saving->startup = below->startup;
	saving->total = below->total;
}

/*
 * Go down the paths that pass every row on, and batch what they compute.  A
 * path may be below several others.
 */
static Saving *
batch_path(PlannerInfo *root, Path *path, List **savings)
{
	List	 *subplans = NIL;
	Saving	 *saving;
	ListCell *cell;

	foreach(cell, *savings)
		if (((Saving *) lfirst(cell))->path == path)
			return lfirst(cell);
	saving = palloc0(sizeof(Saving));
	saving->path = path;
	*savings = lappend(*savings, saving);
	switch (nodeTag(path))
	{
		case T_ProjectionPath:
		{
			ProjectionPath *projection = (ProjectionPath *) path;
			List		   *exprs = path->pathtarget->exprs;

			collect_subplans((Node *) exprs, &subplans);
			projection->subpath = batch_input(root, projection->subpath,
											  subplans, exprs, saving);
			break;
		}
		case T_AggPath:
		{
			AggPath *agg = (AggPath *) path;
			List	*exprs = path->pathtarget->exprs;

			if (DO_AGGSPLIT_COMBINE(agg->aggsplit))
				break;
			collect_aggregated((Node *) exprs, &subplans);
			agg->subpath = batch_input(root, agg->subpath, subplans, exprs,
									   saving);
			if (agg->aggstrategy != AGG_SORTED)
				saving->startup = saving->total;
			break;
		}
		case T_AppendPath:
			batch_members(root, ((AppendPath *) path)->subpaths,
						  path->pathkeys != NIL, saving, savings);
			break;
		case T_MergeAppendPath:
			batch_members(root, ((MergeAppendPath *) path)->subpaths, true,
						  saving, savings);
			break;
		case T_SortPath:
			batch_below(root, ((SortPath *) path)->subpath, saving, savings);
			saving->startup = saving->total;
			break;
		case T_IncrementalSortPath:
			batch_below(root, ((SortPath *) path)->subpath, saving, savings);
			break;
		case T_LockRowsPath:
			batch_below(root, ((LockRowsPath *) path)->subpath, saving,
						savings);
			break;
		case T_ModifyTablePath:
			batch_below(root, ((ModifyTablePath *) path)->subpath, saving,
						savings);
			break;
		default:
			break;
	}
	path->startup_cost = Max(0, path->startup_cost - saving->startup);
	reduce_cost(path, saving->total);
	return saving;
}

/* May subqueries of this query be batched at all? */
static bool
may_batch(PlannerInfo *root)
{
	Query *query = root->parse;

	return model_fdw_enable_model_join && query->hasSubLinks &&
		root->glob->subplans != NIL && query->limitCount == NULL &&
		query->limitOffset == NULL && !query->hasTargetSRFs;
}

/* Planner hook: the paths of a query are complete. */
static void
upper_hook(PlannerInfo *root, UpperRelationKind stage, RelOptInfo *input_rel,
		   RelOptInfo *output_rel, void *extra)
{
	List	 *savings = NIL;
	ListCell *cell;

	if (previous_upper_hook)
		previous_upper_hook(root, stage, input_rel, output_rel, extra);
	if (stage != UPPERREL_FINAL || !may_batch(root))
		return;
	foreach(cell, output_rel->pathlist)
		batch_path(root, lfirst(cell), &savings);
}

/* The highest security level of conditions that are not leakproof. */
static Index
highest_level(List *clauses)
{
	Index	  level = 0;
	ListCell *cell;

	foreach(cell, clauses)
		level = Max(level,
					model_security_level(lfirst_node(RestrictInfo, cell)));
	return level;
}

/*
 * The relation's conditions that hold subqueries which can be batched, and
 * these subqueries.
 *
 * The Model Join checks such a condition after all others.  A condition that
 * must come before another, for row-level security, is left where it is;
 * "level" receives the security level of the others.
 */
static List *
conditions_with_subplans(RelOptInfo *rel, List **subplans, Index *level)
{
	List	 *conditions = NIL;
	ListCell *cell;

	*level = highest_level(rel->baserestrictinfo);
	foreach(cell, rel->baserestrictinfo)
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, cell);
		int			  known = list_length(*subplans);

		if (rinfo->security_level < *level)
			continue;
		collect_subplans((Node *) rinfo->clause, subplans);
		/* an IN that finds no row is false; only here NULL is as good */
		if (IsA(rinfo->clause, SubPlan) &&
			((SubPlan *) rinfo->clause)->subLinkType == ANY_SUBLINK)
			*subplans = lappend(*subplans, rinfo->clause);
		if (list_length(*subplans) > known)
			conditions = lappend(conditions, rinfo->clause);
	}
	return conditions;
}

/* The relation's target and what the conditions read besides. */
static PathTarget *
target_with_conditions(PlannerInfo *root, RelOptInfo *rel, List *conditions)
{
	PathTarget *target = copy_pathtarget(rel->reltarget);

	add_new_columns_to_pathtarget(
		target,
		pull_var_clause((Node *) conditions,
						PVC_RECURSE_AGGREGATES | PVC_RECURSE_WINDOWFUNCS |
							PVC_INCLUDE_PLACEHOLDERS));
	return set_pathtarget_cost_width(root, target);
}

/* For how many tuples does a scan pay for its conditions? */
static double
tuples_checked(RelOptInfo *rel, Path *path)
{
	Selectivity selectivity;
	Cost		cost;

	if (IsA(path, IndexPath))
		selectivity = ((IndexPath *) path)->indexselectivity;
	else if (IsA(path, BitmapHeapPath))
		cost_bitmap_tree_node(((BitmapHeapPath *) path)->bitmapqual, &cost,
							  &selectivity);
	else
		selectivity = 1;
	return clamp_row_est(selectivity * rel->tuples);
}

/*
 * Put Model Joins above a path of a relation, the topmost of which checks the
 * conditions; or return the path, if no subquery can be batched.
 */
static Path *
batch_conditions(PlannerInfo *root, RelOptInfo *rel, Path *path,
				 PathTarget *target, List *conditions, List *subplans)
{
	double		checked = tuples_checked(rel, path);
	double		rows = path->rows;
	PathTarget *narrow = path->pathtarget;
	Path	   *outer;
	Path	   *joined;
	Cost		price;

	/*
	 * The scan itself gives the columns: a Result that is put above it for a
	 * condition without columns could not project what the scan leaves out.
	 */
	if (is_projection_capable_path(path))
		path->pathtarget = target;
	/* all rows that the other conditions let through are sent */
	path->rows = Min(checked,
					 clamp_row_est(rows /
								   clauselist_selectivity(root, conditions, 0,
														  JOIN_INNER, NULL)));
	outer = (Path *) create_projection_path(root, rel, path, target);
	/* that function expects to be used above all joins only */
	outer->param_info = path->param_info;
	joined = batch_subplans(root, outer, subplans, conditions, &price);
	if (joined == outer)
	{
		path->pathtarget = narrow;
		path->rows = rows;
		return path;
	}
	((SubqueryPath *) joined)->parts.filter = conditions;
	joined->pathtarget = rel->reltarget;
	joined->rows = rows;
	reduce_cost(path, price * checked);
	reduce_cost(outer, price * checked);
	for (Path *node = joined; node != outer;
		 node = linitial(((CustomPath *) node)->custom_paths))
		reduce_cost(node, price * checked);
	return joined;
}

/* Planner hook: the paths of a relation are complete. */
static void
rel_hook(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte)
{
	List	   *subplans = NIL;
	List	   *conditions;
	PathTarget *target;
	Index		level;
	ListCell   *cell;

	if (previous_rel_hook)
		previous_rel_hook(root, rel, rti, rte);
	if (!may_batch(root) || rte->inh || model_is_table(rel))
		return;
	conditions = conditions_with_subplans(rel, &subplans, &level);
	if (conditions == NIL)
		return;
	target = target_with_conditions(root, rel, conditions);
	foreach(cell, rel->pathlist)
	{
		ParamPathInfo *param_info = ((Path *) lfirst(cell))->param_info;

		/* the path checks join conditions, too: not before these, if they leak */
		if (param_info == NULL ||
			highest_level(param_info->ppi_clauses) <= level)
			lfirst(cell) = batch_conditions(root, rel, lfirst(cell), target,
											conditions, subplans);
	}
}

/* Take the conditions that a Model Join checks out of the plan below it. */
static void
remove_conditions(Plan *plan, List *conditions)
{
	while (plan)
	{
		plan->qual = list_difference(plan->qual, conditions);
		if (IsA(plan, CustomScan) && ((CustomScan *) plan)->custom_plans)
			plan = linitial(((CustomScan *) plan)->custom_plans);
		else
			plan = plan->lefttree;
	}
}

/* Custom path callback: the plan node. */
static Plan *
plan_subquery_join(PlannerInfo *root, RelOptInfo *rel, CustomPath *path,
				   List *tlist, List *clauses, List *custom_plans)
{
	remove_conditions(linitial(custom_plans),
					  ((SubqueryPath *) path)->parts.filter);
	return model_join_make_plan(root, &((SubqueryPath *) path)->parts,
								linitial(custom_plans), tlist, path->flags);
}

/* Install the hooks. */
void
model_subquery_init(void)
{
	previous_upper_hook = create_upper_paths_hook;
	create_upper_paths_hook = upper_hook;
	previous_rel_hook = set_rel_pathlist_hook;
	set_rel_pathlist_hook = rel_hook;
}
