/*-------------------------------------------------------------------------
 *
 * join_path.c
 *	  When the planner uses a Model Join.
 *
 * The join hook sees every pair (outer, inner) of relations that the planner
 * considers.  Where the inner one is a model table and the conditions bind
 * all its inputs, each path of the outer side gets a Model Join above it: the
 * outer rows come in their order, and each finds at most one model row.
 *
 * Plan shape:
 *
 *	  Custom Scan (Model Join)
 *		-> any plan that gives the outer rows
 *
 * scanrelid is 0; custom_scan_tlist holds the outer plan's columns, then the
 * model's columns that somebody reads, then placeholders that must be
 * computed before null-extension.  The other lists are described in
 * model_fdw.h (ModelJoinExpr, ModelJoinPrivate).
 *
 *-------------------------------------------------------------------------
 */
#include "model_fdw.h"

#include "access/sysattr.h"
#include "catalog/pg_am_d.h"
#include "commands/defrem.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/placeholder.h"
#include "optimizer/plancat.h"
#include "optimizer/restrictinfo.h"
#include "utils/lsyscache.h"

/* a path of the Model Join; the lists are of bare expressions */
typedef struct ModelJoinPath
{
	CustomPath	path;
	RelOptInfo *rel;			/* the model's */
	JoinType	jointype;
	ModelBindings bindings;
	List	   *before;			/* join conditions, checked before sending */
	List	   *after;			/* join conditions that read the answer */
	List	   *filter;			/* conditions above the join */
} ModelJoinPath;

static set_join_pathlist_hook_type previous_join_hook = NULL;
static set_rel_pathlist_hook_type previous_rel_hook = NULL;
static get_relation_info_hook_type previous_info_hook = NULL;

static Plan *plan_model_join(PlannerInfo *root, RelOptInfo *joinrel,
							 CustomPath *path, List *tlist, List *clauses,
							 List *custom_plans);

static const CustomPathMethods model_join_path_methods = {
	.CustomName = "Model Join",
	.PlanCustomPath = plan_model_join,
};

/* ---- paths ---- */

/* The model's path that needs least from other relations. */
static Path *
least_parameterised(RelOptInfo *rel)
{
	ListCell   *cell;

	foreach(cell, rel->pathlist)
		if (bms_equal(PATH_REQ_OUTER((Path *) lfirst(cell)),
					  rel->lateral_relids))
			return lfirst(cell);
	return linitial(rel->pathlist);
}

/*
 * Conditions that the planner moves into a parameterised join: those of the
 * parameterisation that the join's own list does not have.
 */
static List *
moved_clauses(PlannerInfo *root, RelOptInfo *joinrel, Path *outer,
			  RelOptInfo *rel, Relids required, JoinPathExtraData *extra,
			  ParamPathInfo **param_info)
{
	List	   *clauses = extra->restrictlist;
	List	   *moved = NIL;
	ListCell   *cell;

	*param_info = NULL;
	if (bms_is_empty(required))
		return NIL;
	*param_info = get_joinrel_parampathinfo(root, joinrel, outer,
											least_parameterised(rel),
											extra->sjinfo, required,
											&clauses);
	foreach(cell, clauses)
		if (!list_member_ptr(extra->restrictlist, lfirst(cell)))
			moved = lappend(moved,
							lfirst_node(RestrictInfo, cell)->clause);
	return moved;
}

/*
 * Cost a Model Join over "outer".
 *
 * Workers divide the outer plan's work among them but not the server's: each
 * is charged for all rows' inference, and for its own start.
 */
static void
cost_model_join(Path *path, Path *outer, ModelTable *table)
{
	double		rows = path->parallel_aware ? outer->parent->rows : outer->rows;
	double		requests = Max(1, ceil(rows / table->batch_size));
	QualCost   *target = &path->pathtarget->cost;
	Cost		start = outer->startup_cost + target->startup +
		(path->parallel_aware ? MODEL_WORKER_COST : 0);

	path->startup_cost = start + MODEL_REQUEST_COST +
		Min(rows, MODEL_FIRST_BATCH) * table->row_cost;
	path->total_cost = start + outer->total_cost - outer->startup_cost +
		requests * MODEL_REQUEST_COST + rows * table->row_cost +
		path->rows * target->per_tuple;
#if PG_VERSION_NUM >= 180000
	path->disabled_nodes = outer->disabled_nodes;
#endif
}

/*
 * Make the path of a Model Join over one path of the outer side.
 *
 * Only over a partial path may it run in workers: a whole Model Join in each
 * of them would ask once per worker.
 */
static Path *
make_join_path(PlannerInfo *root, RelOptInfo *joinrel, Path *outer,
			   ModelJoinPath *template, JoinPathExtraData *extra,
			   bool partial)
{
	ModelJoinPath *join = palloc(sizeof(ModelJoinPath));
	Path	   *path = &join->path.path;
	Relids		required = bms_copy(PATH_REQ_OUTER(outer));

	*join = *template;
	NodeSetTag(path, T_CustomPath);
	path->pathtype = T_CustomScan;
	path->parent = joinrel;
	path->pathtarget = joinrel->reltarget;
	join->filter = list_concat(moved_clauses(root, joinrel, outer, join->rel,
											 required, extra,
											 &path->param_info),
							   join->filter);
	path->parallel_safe = path->parallel_aware = partial;
	path->parallel_workers = partial ? outer->parallel_workers : 0;
	path->rows = clamp_row_est(joinrel->rows * outer->rows /
							   outer->parent->rows);
	/* workers deliver no common order, so promise none */
	path->pathkeys = partial ? NIL : outer->pathkeys;
	join->path.flags = CUSTOMPATH_SUPPORT_PROJECTION;
	join->path.custom_paths = list_make1(outer);
	join->path.methods = &model_join_path_methods;
	cost_model_join(path, outer, join->rel->fdw_private);
	return path;
}

/* Add a Model Join over every path of the outer side. */
static void
add_join_paths(PlannerInfo *root, RelOptInfo *joinrel, RelOptInfo *outer,
			   ModelJoinPath *join, JoinPathExtraData *extra)
{
	ListCell   *cell;

	foreach(cell, outer->pathlist)
	{
		Path	   *path = lfirst(cell);

		if (!bms_overlap(PATH_REQ_OUTER(path), join->rel->relids))
			add_path(joinrel, make_join_path(root, joinrel, path, join, extra,
											 false));
	}
	if (!joinrel->consider_parallel ||
		!bms_is_empty(joinrel->lateral_relids))
		return;
	foreach(cell, outer->partial_pathlist)
	{
		Path	   *path = lfirst(cell);

		if (PATH_REQ_OUTER(path) == NULL)
			add_partial_path(joinrel,
							 make_join_path(root, joinrel, path, join, extra,
											true));
	}
}

/*
 * Estimate the rows of the join: at most one model row per outer row, times
 * what the remaining conditions let through.
 */
static double
estimate_rows(PlannerInfo *root, ModelJoinPath *join, double outer_rows,
			  SpecialJoinInfo *sjinfo)
{
	List	   *quals = list_concat_copy(join->before, join->after);
	double		match = clauselist_selectivity(root, quals, 0, JOIN_INNER,
											   sjinfo);
	double		filter = clauselist_selectivity(root, join->filter, 0,
												JOIN_INNER, sjinfo);

	switch (join->jointype)
	{
		case JOIN_LEFT:
			match = 1;
			break;
		case JOIN_ANTI:
			match = 1 - match;
			break;
		default:
			break;
	}
	return clamp_row_est(outer_rows * match * filter);
}

/* Which of the join's conditions decide about a match? */
static List *
matching_clauses(List *clauses, JoinType jointype, RelOptInfo *joinrel,
				 List **filter)
{
	List	   *matching = NIL;
	ListCell   *cell;

	foreach(cell, clauses)
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, cell);

		if (IS_OUTER_JOIN(jointype) &&
			RINFO_IS_PUSHED_DOWN(rinfo, joinrel->relids))
			*filter = lappend(*filter, rinfo->clause);
		else
			matching = lappend(matching, rinfo);
	}
	return matching;
}

/* Planner hook: add Model Joins to a join relation. */
static void
join_hook(PlannerInfo *root, RelOptInfo *joinrel, RelOptInfo *outer,
		  RelOptInfo *inner, JoinType jointype, JoinPathExtraData *extra)
{
	ModelJoinPath join = {0};
	List	   *clauses;

	if (previous_join_hook)
		previous_join_hook(root, joinrel, outer, inner, jointype, extra);
	if (!model_fdw_enable_model_join || !model_is_table(inner) ||
		inner->fdw_private == NULL || inner->pathlist == NIL)
		return;
	if (jointype != JOIN_INNER && jointype != JOIN_LEFT &&
		jointype != JOIN_SEMI && jointype != JOIN_ANTI &&
		jointype != JOIN_UNIQUE_OUTER)
		return;
	if (!bms_is_subset(inner->lateral_relids, outer->relids))
		return;

	clauses = matching_clauses(extra->restrictlist, jointype, joinrel,
							   &join.filter);
	if (!model_bind(root, inner, inner->fdw_private, outer->relids, clauses,
					false, &join.bindings))
		return;
	join.rel = inner;
	join.jointype = jointype == JOIN_UNIQUE_OUTER ? JOIN_INNER : jointype;
	model_split_quals(root, inner, &join.bindings, inner->baserestrictinfo,
					  &join.before, &join.after);
	model_split_quals(root, inner, &join.bindings, clauses, &join.before,
					  &join.after);
	if (jointype == JOIN_UNIQUE_OUTER)
	{
		/* "(p.x, p.y) IN (SELECT ...)": each row of the list once */
		Path	   *unique = (Path *)
			create_unique_path(root, outer, outer->cheapest_total_path,
							   extra->sjinfo);

		if (unique)
			add_path(joinrel, make_join_path(root, joinrel, unique, &join,
											 extra, false));
		return;
	}
	joinrel->rows = estimate_rows(root, &join, outer->rows, extra->sjinfo);
	add_join_paths(root, joinrel, outer, &join, extra);
}

/*
 * Planner hook: up to 16, core passes over the join hook where a join has
 * conditions without columns.  The Model Join checks these itself, so they
 * may as well count as ordinary ones.
 */
static void
rel_hook(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte)
{
	ListCell   *cell;

	if (previous_rel_hook)
		previous_rel_hook(root, rel, rti, rte);
	if (!model_fdw_enable_model_join || !model_is_table(rel))
		return;
	foreach(cell, rel->joininfo)
		lfirst_node(RestrictInfo, cell)->pseudoconstant = false;
}

/* Describe one key column of the index below; false: it has no equality. */
static bool
set_index_key(IndexOptInfo *index, int key, ModelColumn *column)
{
	Oid			opclass = GetDefaultOpClass(getBaseType(column->typid),
											BTREE_AM_OID);
	Var		   *var;

	if (!OidIsValid(opclass))
		return false;
	var = makeVar(index->rel->relid, column->attnum, column->typid,
				  column->typmod, column->collation, 0);
	index->indexkeys[key] = column->attnum;
	index->indexcollations[key] = column->collation;
	index->opfamily[key] = get_opclass_family(opclass);
	index->opcintype[key] = get_opclass_input_type(opclass);
	index->indextlist = lappend(index->indextlist,
								makeTargetEntry((Expr *) var, key + 1, NULL,
												false));
	return true;
}

/*
 * A model has at most one row per combination of inputs.  The planner learns
 * this from a unique index on them that does not exist: a left join whose
 * outputs nobody reads is removed, a semijoin becomes an inner join.
 */
static void
add_unique_index(RelOptInfo *rel, ModelTable *table)
{
	IndexOptInfo *index = makeNode(IndexOptInfo);
	int			n = 0;

	index->rel = rel;
	index->indexkeys = palloc0(sizeof(int) * table->ncolumns);
	index->indexcollations = palloc0(sizeof(Oid) * table->ncolumns);
	index->opfamily = palloc0(sizeof(Oid) * table->ncolumns);
	index->opcintype = palloc0(sizeof(Oid) * table->ncolumns);
	index->canreturn = palloc0(sizeof(bool) * table->ncolumns);
	for (int i = 0; i < table->ncolumns; i++)
		if (table->columns[i].input &&
			!set_index_key(index, n++, &table->columns[i]))
			return;
	if (n == 0)
		return;
	index->ncolumns = index->nkeycolumns = n;
	index->unique = index->immediate = true;
	index->hypothetical = true;
	index->relam = BTREE_AM_OID;
	index->pages = 1;
	index->tuples = 1;
	rel->indexlist = lappend(rel->indexlist, index);
}

/* Planner hook: tell the planner that a model's inputs are unique. */
static void
info_hook(PlannerInfo *root, Oid relid, bool inhparent, RelOptInfo *rel)
{
	if (previous_info_hook)
		previous_info_hook(root, relid, inhparent, rel);
	if (!inhparent && model_is_table(rel))
		add_unique_index(rel, model_table_of(rel, relid));
}

/* Custom path callback: the plan node. */
static Plan *
plan_model_join(PlannerInfo *root, RelOptInfo *joinrel, CustomPath *path,
				List *tlist, List *clauses, List *custom_plans)
{
	ModelJoinPath *join = (ModelJoinPath *) path;
	ModelTable *table = join->rel->fdw_private;
	ModelJoinParts parts = {
		.relid = table->relid,
		.userid = join->rel->userid,
		.varno = join->rel->relid,
		.jointype = join->jointype,
		.attnums = join->bindings.attnums,
		.values = join->bindings.values,
		.before = join->before,
		.after = join->after,
		.filter = join->filter,
		.level = joinrel->reltarget->exprs,
		.placeholders = join->rel->reltarget->exprs,
	};

	return model_join_make_plan(&parts, linitial(custom_plans), tlist,
								path->flags);
}

/* Install the hooks. */
void
model_join_path_init(void)
{
	previous_join_hook = set_join_pathlist_hook;
	set_join_pathlist_hook = join_hook;
	previous_rel_hook = set_rel_pathlist_hook;
	set_rel_pathlist_hook = rel_hook;
	previous_info_hook = get_relation_info_hook;
	get_relation_info_hook = info_hook;
}
