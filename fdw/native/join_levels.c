/*-------------------------------------------------------------------------
 *
 * join_levels.c
 *	  Which models a join asks, in which order, under which conditions.
 *
 * The inner side of a join that can be batched is one of these:
 *
 *	  a model: one level, a Model Join over the outer rows
 *
 *	  an inner join of models, "c LEFT JOIN (m1 JOIN m2)": a level for each,
 *	  one over the other.  A row that finds no m1 is not sent to m2, and one
 *	  that finds no m2 loses what m1 answered.
 *
 *	  an Append of models, a UNION ALL or foreign partitions: a level for each
 *	  member, a left join, and a Model Append on top that makes a row of each
 *	  answer (see append.c).
 *
 * A level's inputs come from the outer rows and from the levels below it.
 *
 *-------------------------------------------------------------------------
 */
#include "model_fdw.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/appendinfo.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/restrictinfo.h"

/* ---- one level ---- */

/*
 * Add a level for a model, if "clauses" and its own conditions bind its
 * inputs to columns of the available relations.
 */
static ModelJoinLevel *
add_level(PlannerInfo *root, RelOptInfo *rel, Relids available, List *clauses,
		  SpecialJoinInfo *sjinfo, ModelJoinShape *shape)
{
	ModelJoinLevel *level = palloc0(sizeof(ModelJoinLevel));

	if (!bms_is_subset(rel->lateral_relids, available) ||
		!model_bind(root, rel, rel->fdw_private, available, clauses, false,
					&level->bindings))
		return NULL;
	level->rel = rel;
	model_split_quals(root, rel, &level->bindings,
					  list_concat_copy(rel->baserestrictinfo, clauses),
					  &level->before, &level->after);
	level->match = clauselist_selectivity(root,
										  list_concat_copy(level->before,
														   level->after),
										  0, JOIN_INNER, sjinfo);
	shape->levels = lappend(shape->levels, level);
	return level;
}

/*
 * The condition that a row has found this level's model, or NULL: an input of
 * an answered row is never NULL.
 */
static Node *
found_model(ModelJoinLevel *level)
{
	NullTest	*test = makeNode(NullTest);
	ModelColumn *column;

	if (level->bindings.attnums == NIL)
		return NULL;
	column = model_table_column(level->rel->fdw_private,
								linitial_int(level->bindings.attnums));
	test->arg = (Expr *) makeVar(level->rel->relid, column->attnum,
								 column->typid, column->typmod,
								 column->collation, 0);
	test->nulltesttype = IS_NOT_NULL;
	test->location = -1;
	return (Node *) test;
}

/* ---- an inner join of models ---- */

/* Is the relation an inner join of nothing but models? */
static bool
is_group(PlannerInfo *root, RelOptInfo *rel)
{
	int		  relid = -1;
	ListCell *cell;

	if (rel->reloptkind != RELOPT_JOINREL)
		return false;
	while ((relid = bms_next_member(rel->relids, relid)) >= 0)
	{
		RelOptInfo *member = root->simple_rel_array[relid];

		if (member == NULL || !model_is_table(member) ||
			member->fdw_private == NULL)
			return false;
	}
	foreach(cell, root->join_info_list)
	{
		SpecialJoinInfo *sjinfo = lfirst(cell);

		if (bms_is_subset(sjinfo->min_lefthand, rel->relids) &&
			bms_is_subset(sjinfo->min_righthand, rel->relids))
			return false;
	}
	return true;
}

/* The conditions among "clauses" that read no other relations than these. */
static List *
clauses_within(List *clauses, Relids relids)
{
	List	 *within = NIL;
	ListCell *cell;

	foreach(cell, clauses)
		if (bms_is_subset(lfirst_node(RestrictInfo, cell)->clause_relids,
						  relids))
			within = lappend(within, lfirst(cell));
	return within;
}

/* The conditions between a model and those of its group that come before. */
static List *
group_clauses(PlannerInfo *root, RelOptInfo *rel, Relids before)
{
	Relids	  joined = bms_union(before, rel->relids);
	List	 *clauses = NIL;
	ListCell *cell;

	if (bms_is_empty(before))
		return NIL;
	foreach(cell, rel->joininfo)
		if (bms_is_subset(lfirst_node(RestrictInfo, cell)->required_relids,
						  joined))
			clauses = lappend(clauses, lfirst(cell));
	return list_concat(clauses,
					   generate_join_implied_equalities(root, joined, before,
#if PG_VERSION_NUM >= 160000
														rel, NULL));
#else
														rel));
#endif
}

/* Add a level for a model of a group; false: its inputs are not bound yet. */
static bool
add_group_level(PlannerInfo *root, RelOptInfo *rel, Relids outer,
				Relids before, List **clauses, SpecialJoinInfo *sjinfo,
				ModelJoinShape *shape)
{
	Relids available = bms_union(outer, before);
	List  *here = clauses_within(*clauses, bms_union(available, rel->relids));
	ModelJoinLevel *below = shape->levels ? llast(shape->levels) : NULL;
	bool			guarded = below && IS_OUTER_JOIN(shape->jointype);
	ModelJoinLevel *level;

	if (guarded && found_model(below) == NULL)
		return false;
	level = add_level(root, rel, available,
					  list_concat_copy(here, group_clauses(root, rel, before)),
					  sjinfo, shape);
	if (level == NULL)
		return false;
	*clauses = list_difference_ptr(*clauses, here);
	/* what found nothing below is not sent */
	if (guarded)
		level->before = lcons(found_model(below), level->before);
	return true;
}

/* Add the levels of an inner join of models, each as soon as it is bound. */
static bool
add_group(PlannerInfo *root, RelOptInfo *outer, List *clauses,
		  SpecialJoinInfo *sjinfo, ModelJoinShape *shape)
{
	Relids before = NULL;
	bool   progress = true;

	while (progress && !bms_equal(before, shape->inner->relids))
	{
		int relid = -1;

		progress = false;
		while ((relid = bms_next_member(shape->inner->relids, relid)) >= 0)
			if (!bms_is_member(relid, before) &&
				add_group_level(root, root->simple_rel_array[relid],
								outer->relids, before, &clauses, sjinfo,
								shape))
			{
				before = bms_add_member(before, relid);
				progress = true;
			}
	}
	return progress && clauses == NIL;
}

/* ---- an Append of models ---- */

/*
 * Collect the members of an Append, each as the list of the AppendRelInfos
 * that lead to it; false: there are others than models.
 */
static bool
collect_members(PlannerInfo *root, RelOptInfo *parent, List *appinfos,
				List **members)
{
	ListCell *cell;

	foreach(cell, root->append_rel_list)
	{
		AppendRelInfo *appinfo = lfirst(cell);
		RelOptInfo	  *rel = root->simple_rel_array[appinfo->child_relid];
		List		  *chain;

		if (appinfo->parent_relid != parent->relid)
			continue;
		if (rel == NULL)
			return false;
		if (IS_DUMMY_REL(rel))
			continue;
		chain = lappend(list_copy(appinfos), appinfo);
		if (root->simple_rte_array[rel->relid]->inh)
		{
			if (!collect_members(root, rel, chain, members))
				return false;
		}
		else if (model_is_member(rel))
			*members = lappend(*members, chain);
		else
			return false;
	}
	return true;
}

/* The members of an Append of models, see collect_members(); else NIL. */
static List *
append_members(PlannerInfo *root, RelOptInfo *rel)
{
	List *members = NIL;

	if (rel->reloptkind != RELOPT_BASEREL ||
		!root->simple_rte_array[rel->relid]->inh ||
		!collect_members(root, rel, NIL, &members))
		return NIL;
	return members;
}

/* Is the relation an Append of nothing but models? */
bool
model_is_append(PlannerInfo *root, RelOptInfo *rel)
{
	return append_members(root, rel) != NIL;
}

/* Bring an expression on the parent's columns to a member. */
static Node *
member_expression(PlannerInfo *root, Node *node, List *appinfos)
{
	ListCell *cell;

	foreach(cell, appinfos)
	{
		AppendRelInfo *appinfo = lfirst(cell);

		node = adjust_appendrel_attrs(root, node, 1, &appinfo);
	}
	return node;
}

/* How a member computes one of the columns of the Append. */
static Node *
member_column(PlannerInfo *root, Node *column, List *appinfos)
{
	if (IsA(column, PlaceHolderVar))
		column = (Node *) ((PlaceHolderVar *) column)->phexpr;
	else
	{
		column = copyObject(column);
#if PG_VERSION_NUM >= 160000
		/* below the join nothing has made it nullable */
		((Var *) column)->varnullingrels = NULL;
#endif
	}
	return member_expression(root, column, appinfos);
}

/* Collect the columns that the Append gives. */
static void
collect_columns(RelOptInfo *joinrel, ModelJoinShape *shape)
{
	List *reads = model_pull_reads(list_concat_copy(joinrel->reltarget->exprs,
													shape->filter),
								   shape->inner->reltarget->exprs);
	ListCell *cell;

	foreach(cell, reads)
		if (IsA(lfirst(cell), PlaceHolderVar) ||
			lfirst_node(Var, cell)->varno == shape->inner->relid)
			shape->columns = lappend(shape->columns, lfirst(cell));
}

/* Add a level, and the rows that it gives, for a member of an Append. */
static bool
add_member(PlannerInfo *root, RelOptInfo *outer, List *clauses, List *appinfos,
		   SpecialJoinInfo *sjinfo, ModelJoinShape *shape)
{
	AppendRelInfo  *last = llast(appinfos);
	RelOptInfo	   *rel = root->simple_rel_array[last->child_relid];
	List		   *branch = NIL;
	ModelJoinLevel *level;
	ListCell	   *cell;

	clauses = (List *) member_expression(root, (Node *) clauses, appinfos);
	level = add_level(root, rel, outer->relids, clauses, sjinfo, shape);
	if (level == NULL || level->bindings.attnums == NIL)
		return false;
	branch = list_make1(found_model(level));
	foreach(cell, shape->columns)
		branch = lappend(branch, member_column(root, lfirst(cell), appinfos));
	shape->branches = lappend(shape->branches, branch);
	return true;
}

/* Add the levels of an Append of models. */
static bool
add_append(PlannerInfo *root, RelOptInfo *joinrel, RelOptInfo *outer,
		   List *clauses, List *members, SpecialJoinInfo *sjinfo,
		   ModelJoinShape *shape)
{
	ListCell *cell;

	shape->append = true;
	collect_columns(joinrel, shape);
	foreach(cell, members)
		if (!add_member(root, outer, clauses, lfirst(cell), sjinfo, shape))
			return false;
	return true;
}

/* ---- all of them ---- */

/* Which of the join's conditions decide about a match? */
static List *
matching_clauses(List *clauses, JoinType jointype, RelOptInfo *joinrel,
				 List **filter)
{
	List	 *matching = NIL;
	ListCell *cell;

	foreach(cell, model_order_quals(clauses))
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

/*
 * Find the levels of a join with "inner"; NULL if it cannot be batched.
 */
ModelJoinShape *
model_join_shape(PlannerInfo *root, RelOptInfo *joinrel, RelOptInfo *outer,
				 RelOptInfo *inner, JoinType jointype,
				 JoinPathExtraData *extra)
{
	bool  table = model_is_table(inner) && inner->fdw_private;
	bool  group = !table && is_group(root, inner);
	List *members = table || group ? NIL : append_members(root, inner);
	ModelJoinShape *shape;
	List		   *clauses;
	bool			bound;

	if (!(table || group || members != NIL) || inner->pathlist == NIL ||
		!bms_is_subset(inner->lateral_relids, outer->relids) ||
		model_has_row_identity(inner->reltarget))
		return NULL;
	shape = palloc0(sizeof(ModelJoinShape));
	shape->inner = inner;
	shape->jointype = jointype;
	clauses = matching_clauses(extra->restrictlist, jointype, joinrel,
							   &shape->filter);
	if (table)
		bound = add_level(root, inner, outer->relids, clauses, extra->sjinfo,
						  shape) != NULL;
	else if (group)
		bound = add_group(root, outer, clauses, extra->sjinfo, shape);
	else
		bound = add_append(root, joinrel, outer, clauses, members,
						   extra->sjinfo, shape);
	return bound ? shape : NULL;
}

/* What is read of a level's rows above it. */
List *
model_level_reads(ModelJoinShape *shape, RelOptInfo *joinrel, int number)
{
	List *exprs = list_concat_copy(joinrel->reltarget->exprs, shape->filter);
	List *reads = NIL;
	ModelJoinLevel *level = list_nth(shape->levels, number);
	ListCell	   *cell;

	foreach(cell, shape->branches)
		exprs = list_concat(exprs, lfirst(cell));
	for_each_from(cell, shape->levels, number + 1)
	{
		ModelJoinLevel *above = lfirst(cell);

		exprs = list_concat(exprs, above->bindings.values);
		exprs = list_concat(exprs, above->before);
		exprs = list_concat(exprs, above->after);
	}
	foreach(cell, model_pull_reads(exprs, shape->inner->reltarget->exprs))
		if (IsA(lfirst(cell), Var) &&
			lfirst_node(Var, cell)->varno == level->rel->relid)
			reads = lappend(reads, lfirst(cell));
	return reads;
}
