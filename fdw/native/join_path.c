/*-------------------------------------------------------------------------
 *
 * join_path.c
 *	  When the planner uses a Model Join.
 *
 * The join hook sees every pair (outer, inner) of relations that the planner
 * considers.  Where the inner one consists of models whose inputs are bound
 * (see join_levels.c), each path of the outer side gets Model Joins above it:
 * the outer rows come in their order, and each finds at most one row of each
 * model.
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
#include "optimizer/tlist.h"
#include "utils/lsyscache.h"

static set_join_pathlist_hook_type previous_join_hook = NULL;
static set_rel_pathlist_hook_type  previous_rel_hook = NULL;
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
	ListCell *cell;

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
	List	 *clauses = extra->restrictlist;
	List	 *moved = NIL;
	ListCell *cell;

	*param_info = NULL;
	if (bms_is_empty(required))
		return NIL;
	*param_info = get_joinrel_parampathinfo(root, joinrel, outer,
											least_parameterised(rel),
											extra->sjinfo, required, &clauses);
	foreach(cell, model_order_quals(clauses))
		if (!list_member_ptr(extra->restrictlist, lfirst(cell)))
			moved = lappend(moved, lfirst_node(RestrictInfo, cell)->clause);
	return moved;
}

/*
 * Cost a Model Join over "outer", all of whose processes together give "rows"
 * rows.
 *
 * Workers divide the outer plan's work among them but not the server's: each
 * is charged for all rows' inference, and for its own start.
 */
void
model_cost_join(Path *path, Path *outer, ModelTable *table, double rows)
{
	double	  requests = Max(1, ceil(rows / table->batch_size));
	QualCost *target = &path->pathtarget->cost;
	Cost	  start = outer->startup_cost + target->startup +
		(path->parallel_aware ? MODEL_WORKER_COST : 0);

	path->startup_cost = start + MODEL_REQUEST_COST +
		Min(rows, MODEL_FIRST_BATCH) * table->row_cost;
	path->total_cost = start + outer->total_cost - outer->startup_cost +
		requests * MODEL_REQUEST_COST + rows * table->row_cost +
		path->rows * target->per_tuple;
}

/* Cost a Model Append over "below". */
static void
cost_model_append(Path *path, Path *below, int nmembers)
{
	QualCost *target = &path->pathtarget->cost;

	path->startup_cost = below->startup_cost + target->startup;
	path->total_cost = below->total_cost + target->startup +
		below->rows * nmembers * cpu_tuple_cost +
		path->rows * target->per_tuple;
}

/* What a node that has another above it gives: the outer columns and more. */
static PathTarget *
level_target(PlannerInfo *root, RelOptInfo *joinrel, Path *outer,
			 ModelJoinShape *shape, int number)
{
	PathTarget *target = copy_pathtarget(outer->pathtarget);

	add_new_columns_to_pathtarget(target,
								  model_level_reads(shape, joinrel, number));
	return set_pathtarget_cost_width(root, target);
}

/* Does the node at the top of a shape have this number? */
static bool
is_top(ModelJoinShape *shape, int number)
{
	return number == list_length(shape->levels) - (shape->append ? 0 : 1);
}

/* How a level joins. */
static JoinType
level_jointype(ModelJoinShape *shape, int number)
{
	if (shape->append)
		return JOIN_LEFT;
	if (is_top(shape, number))
		return shape->jointype;
	return IS_OUTER_JOIN(shape->jointype) ? JOIN_LEFT : JOIN_INNER;
}

/*
 * Put one node of a shape above "outer": a level's Model Join, or the Model
 * Append.  "share" is the part of the rows that a process sees.
 *
 * Only over a partial path may it run in workers: a whole Model Join in each
 * of them would ask once per worker.
 */
static Path *
add_node(PlannerInfo *root, RelOptInfo *joinrel, Path *outer,
		 ModelJoinShape *shape, int number, double share, bool partial)
{
	ModelJoinPath  *join = palloc0(sizeof(ModelJoinPath));
	Path		   *path = &join->path.path;
	bool			append = number == list_length(shape->levels);
	ModelJoinLevel *level = append ? NULL : list_nth(shape->levels, number);

	join->shape = shape;
	join->number = number;
	NodeSetTag(path, T_CustomPath);
	path->pathtype = T_CustomScan;
	path->parent = joinrel;
	path->parallel_safe = partial;
	path->parallel_aware = partial && !append;
	path->parallel_workers = partial ? outer->parallel_workers : 0;
	/* workers deliver no common order, so promise none */
	path->pathkeys = partial ? NIL : outer->pathkeys;
	join->path.flags = CUSTOMPATH_SUPPORT_PROJECTION;
	join->path.custom_paths = list_make1(outer);
	join->path.methods = append ? &model_append_path_methods
								: &model_join_path_methods;
	path->pathtarget = joinrel->reltarget;
	path->rows = clamp_row_est(joinrel->rows * share);
	if (!is_top(shape, number))
	{
		path->pathtarget = level_target(root, joinrel, outer, shape, number);
		path->rows = outer->rows;
		if (level_jointype(shape, number) == JOIN_INNER)
			path->rows = clamp_row_est(path->rows * level->match);
	}
#if PG_VERSION_NUM >= 180000
	path->disabled_nodes = outer->disabled_nodes;
#endif
	if (append)
		cost_model_append(path, outer, number);
	else
		model_cost_join(path, outer, level->rel->fdw_private,
						partial ? outer->rows / share : outer->rows);
	return path;
}

/* Make the path of a join over one path of the outer side. */
static Path *
make_join_path(PlannerInfo *root, RelOptInfo *joinrel, Path *outer,
			   ModelJoinShape *shape, JoinPathExtraData *extra, bool partial)
{
	double		   share = outer->rows / outer->parent->rows;
	ParamPathInfo *param_info;
	List *moved = moved_clauses(root, joinrel, outer, shape->inner,
								bms_copy(PATH_REQ_OUTER(outer)), extra,
								&param_info);
	Path *path = outer;

	for (int number = 0; path == outer || !is_top(shape, number - 1); number++)
	{
		path = add_node(root, joinrel, path, shape, number, share, partial);
		path->param_info = param_info;
	}
	((ModelJoinPath *) path)->filter = list_concat(moved, shape->filter);
	return model_wrap_row_identity(path);
}

/* Add a join over every path of the outer side. */
static void
add_join_paths(PlannerInfo *root, RelOptInfo *joinrel, RelOptInfo *outer,
			   ModelJoinShape *shape, JoinPathExtraData *extra)
{
	ListCell *cell;

	foreach(cell, outer->pathlist)
	{
		Path *path = lfirst(cell);

		if (!bms_overlap(PATH_REQ_OUTER(path), shape->inner->relids))
			add_path(joinrel,
					 make_join_path(root, joinrel, path, shape, extra, false));
	}
	if (!joinrel->consider_parallel || !bms_is_empty(joinrel->lateral_relids))
		return;
	foreach(cell, outer->partial_pathlist)
	{
		Path *path = lfirst(cell);

		if (PATH_REQ_OUTER(path) == NULL)
			add_partial_path(joinrel,
							 make_join_path(root, joinrel, path, shape, extra,
											true));
	}
}

/*
 * Estimate the rows of the join: at most one row of a model per outer row,
 * times what the remaining conditions let through.
 */
static double
estimate_rows(PlannerInfo *root, ModelJoinShape *shape, double outer_rows,
			  SpecialJoinInfo *sjinfo)
{
	double match = shape->append ? 0 : 1;
	double filter = clauselist_selectivity(root, shape->filter, 0, JOIN_INNER,
										   sjinfo);
	ListCell *cell;

	foreach(cell, shape->levels)
	{
		ModelJoinLevel *level = lfirst(cell);

		match = shape->append ? match + level->match : match * level->match;
	}
	switch (shape->jointype)
	{
		case JOIN_LEFT:
			match = Max(match, 1);
			break;
		case JOIN_SEMI:
			match = Min(match, 1);
			break;
		case JOIN_ANTI:
			match = 1 - Min(match, 1);
			break;
		default:
			break;
	}
	return clamp_row_est(outer_rows * match * filter);
}

/* Note that a hook has been called for a model's relation. */
static void
note_hook(RelOptInfo *rel, int hook)
{
	if ((model_is_table(rel) || model_is_member(rel)) && rel->fdw_private)
		((ModelTable *) rel->fdw_private)->hooks |= hook;
}

/* Planner hook: add Model Joins to a join relation. */
static void
join_hook(PlannerInfo *root, RelOptInfo *joinrel, RelOptInfo *outer,
		  RelOptInfo *inner, JoinType jointype, JoinPathExtraData *extra)
{
	ModelJoinShape *shape;

	if (previous_join_hook)
		previous_join_hook(root, joinrel, outer, inner, jointype, extra);
	note_hook(outer, MODEL_HOOK_JOIN);
	note_hook(inner, MODEL_HOOK_JOIN);
	if (!model_fdw_enable_model_join ||
		(jointype != JOIN_INNER && jointype != JOIN_LEFT &&
		 jointype != JOIN_SEMI && jointype != JOIN_ANTI &&
		 jointype != JOIN_UNIQUE_OUTER))
		return;

	shape = model_join_shape(root, joinrel, outer, inner,
							 jointype == JOIN_UNIQUE_OUTER ? JOIN_INNER
														   : jointype,
							 extra);
	if (shape == NULL)
		return;
	if (jointype == JOIN_UNIQUE_OUTER)
	{
		/* "(p.x, p.y) IN (SELECT ...)": each row of the list once */
		Path *unique = (Path *) create_unique_path(root, outer,
												   outer->cheapest_total_path,
												   extra->sjinfo);

		if (unique)
			add_path(joinrel,
					 make_join_path(root, joinrel, unique, shape, extra,
									false));
		return;
	}
	joinrel->rows = estimate_rows(root, shape, outer->rows, extra->sjinfo);
	add_join_paths(root, joinrel, outer, shape, extra);
}

#if PG_VERSION_NUM >= 180000
/* An Append of one member does not inherit that the member is disabled. */
static void
disable_appends(List *paths)
{
	ListCell *cell;

	foreach(cell, paths)
	{
		AppendPath *append = lfirst(cell);
		Path	   *member;

		if (!IsA(append, AppendPath) || list_length(append->subpaths) != 1)
			continue;
		member = linitial(append->subpaths);
		if (member->disabled_nodes >= MODEL_UNBOUND_DISABLED)
			append->path.disabled_nodes = member->disabled_nodes;
	}
}
#endif

/*
 * Planner hook: up to 16, core passes over the join hook where a join has
 * conditions without columns.  The Model Join checks these itself, so they
 * may as well count as ordinary ones.
 */
static void
rel_hook(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte)
{
	ListCell *cell;

	if (previous_rel_hook)
		previous_rel_hook(root, rel, rti, rte);
	note_hook(rel, MODEL_HOOK_REL);
#if PG_VERSION_NUM >= 180000
	disable_appends(rel->pathlist);
#endif
	if (!model_fdw_enable_model_join ||
		(!model_is_table(rel) && !model_is_append(root, rel)))
		return;
	foreach(cell, rel->joininfo)
		lfirst_node(RestrictInfo, cell)->pseudoconstant = false;
}

/* Describe one key column of the index below; false: it has no equality. */
static bool
set_index_key(IndexOptInfo *index, int key, ModelColumn *column)
{
	Oid	 opclass = GetDefaultOpClass(getBaseType(column->typid), BTREE_AM_OID);
	Var *var;

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
	int			  n = 0;

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

/*
 * Planner hook: plan Multicorn's model tables as ours, and tell the planner
 * that a model's inputs are unique.
 */
static void
info_hook(PlannerInfo *root, Oid relid, bool inhparent, RelOptInfo *rel)
{
	if (previous_info_hook)
		previous_info_hook(root, relid, inhparent, rel);
	if (!inhparent)
		model_adopt(rel);
	if (!inhparent && model_is_table(rel))
		add_unique_index(rel, model_table_of(rel, relid));
	note_hook(rel, MODEL_HOOK_INFO);
}

/* Custom path callback: the plan node. */
static Plan *
plan_model_join(PlannerInfo *root, RelOptInfo *joinrel, CustomPath *path,
				List *tlist, List *clauses, List *custom_plans)
{
	ModelJoinPath  *join = (ModelJoinPath *) path;
	ModelJoinShape *shape = join->shape;
	ModelJoinLevel *level = list_nth(shape->levels, join->number);
	bool			top = is_top(shape, join->number);
	ModelTable	   *table = level->rel->fdw_private;
	ModelJoinParts	parts = {
		.relid = table->relid,
		.userid = level->rel->userid,
		.varno = level->rel->relid,
		.member = shape->append,
		.jointype = level_jointype(shape, join->number),
		.attnums = level->bindings.attnums,
		.values = level->bindings.values,
		.before = level->before,
		.after = level->after,
		.filter = join->filter,
		.level = (top ? joinrel->reltarget : path->path.pathtarget)->exprs,
		.placeholders = top ? shape->inner->reltarget->exprs : NIL,
	};

	for (int i = 0; i < join->number && !shape->append; i++)
		parts.group = bms_union(parts.group,
								((ModelJoinLevel *) list_nth(shape->levels, i))
									->rel->relids);
	return model_join_make_plan(root, &parts, linitial(custom_plans), tlist,
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
