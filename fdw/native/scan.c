/*-------------------------------------------------------------------------
 *
 * scan.c
 *	  Foreign scan: a model asked by constants, parameters and lists.
 *
 * The scan's rows are the cross product of the inputs' values: one each for
 * an equality, several for a list, each of them once.  As the inner side of a
 * nested loop it sends one request per outer row; the Model Join is there to
 * make that unnecessary, and costs less.
 *
 *-------------------------------------------------------------------------
 */
#include "model_fdw.h"

#include <math.h>

#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/appendinfo.h"
#include "optimizer/cost.h"
#include "optimizer/joininfo.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"
#include "rewrite/rewriteManip.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/selfuncs.h"
#include "utils/typcache.h"

/* the values of one input during a scan */
typedef struct ScanValues
{
	Datum		   *values;
	int				n;
	int				next; /* position in the cross product */
	ModelAssignment assignment;
} ScanValues;

struct ModelScanState
{
	ModelTable	 *table;
	ModelStream	 *stream;
	ScanState	 *ss;
	List		 *exprs;   /* the plan's lists, see ScanExpr ... */
	List		 *private; /* ... and ScanPrivate */
	List		 *unbound; /* integers: attnums of inputs without a value */
	ScanBarrier	  barrier;
	AttrNumber	  barred;
	int			  ninputs;
	AttrNumber	 *inputs;
	bool		 *lists;
	ScanValues	 *values;
	List		 *value_states; /* ExprStates */
	ExprState	 *before;
	ExprState	 *recheck;
	List		 *outputs; /* integers: attnums, in the stream's order */
	MemoryContext context; /* the values of this rescan */
	bool		  started; /* have the values been computed? */
	int			  row;	   /* next row of the current batch */
};

/* ---- planning ---- */

/* How many rows do the relation's own conditions ask for? */
static double
estimate_rows(PlannerInfo *root, ModelBindings *bindings)
{
	double	  rows = 1;
	ListCell *value;
	ListCell *list;

	forboth(value, bindings->values, list, bindings->lists)
		if (lfirst_int(list))
#if PG_VERSION_NUM >= 170000
			rows *= estimate_array_length(root, lfirst(value));
#else
			rows *= estimate_array_length(lfirst(value));
#endif
	return clamp_row_est(rows);
}

/*
 * A partition has no rows outside its bound, but a model would answer any
 * inputs: make the bound a condition like those of the query.
 */
static void
add_partition_bound(PlannerInfo *root, RelOptInfo *rel, Oid relid)
{
	Relation  table = table_open(relid, NoLock);
	List	 *bound = table->rd_rel->relispartition
		? RelationGetPartitionQual(table)
		: NIL;
	ListCell *cell;

	table_close(table, NoLock);
	bound = (List *) expression_planner((Expr *) bound);
	ChangeVarNodes((Node *) bound, 1, rel->relid, 0);
	foreach(cell, bound)
		rel->baserestrictinfo =
			lappend(rel->baserestrictinfo,
					make_simple_restrictinfo(root, lfirst(cell)));
}

/* FDW callback: describe the table and estimate its rows. */
static void
scan_rel_size(PlannerInfo *root, RelOptInfo *rel, Oid relid)
{
	ModelTable	 *table = model_table_of(rel, relid);
	ModelBindings bindings;

	add_partition_bound(root, rel, relid);
	rel->tuples = 1;
	rel->rows = 1;
	if (model_bind(root, rel, table, NULL, NIL, true, &bindings))
		rel->rows = estimate_rows(root, &bindings);
}

/*
 * Is a value a column of an outer query's row?  Asked while paths are made:
 * the outer query's list of such parameters does not live longer.
 */
static bool
reads_outer_query(Node *node, PlannerInfo *root)
{
	ListCell *cell;

	if (node == NULL)
		return false;
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_EXEC)
	{
		foreach(cell, root->parent_root ? root->parent_root->plan_params : NIL)
			if (((PlannerParamItem *) lfirst(cell))->paramId ==
				((Param *) node)->paramid)
				return true;
		return false;
	}
	return expression_tree_walker(node, reads_outer_query, root);
}

/* What keeps conditions of an outer query from reaching this relation? */
static ScanBarrier
find_barrier(PlannerInfo *root, RelOptInfo *rel)
{
	Query	 *query = root->parse;
	ListCell *cell;

	if (root->parent_root == NULL)
		return BARRIER_NONE;
	if (query->limitCount || query->limitOffset)
		return BARRIER_LIMIT;
	if (query->distinctClause)
		return BARRIER_DISTINCT;
	if (query->groupClause || query->groupingSets || query->hasAggs)
		return BARRIER_GROUP;
	if (query->windowClause)
		return BARRIER_WINDOW;
	/* a subquery that does read the outer row just lacks a condition */
	foreach(cell, rel->baserestrictinfo)
		if (reads_outer_query((Node *) lfirst_node(RestrictInfo, cell)->clause,
							  root))
			return BARRIER_NONE;
	foreach(cell, root->parent_root->parse->rtable)
		if (lfirst_node(RangeTblEntry, cell)->security_barrier)
			return BARRIER_SECURITY;
	return root->parent_root->parse->cteList ? BARRIER_CTE : BARRIER_NONE;
}

/* Why is an input not bound?  What the error's detail and hint will say. */
static void
find_obstacle(PlannerInfo *root, RelOptInfo *rel, ModelBindings *bindings)
{
	ListCell *cell;

	bindings->barrier = find_barrier(root, rel);
	if (bindings->barrier != BARRIER_NONE)
		return;
	foreach(cell, bindings->unbound)
	{
		bindings->barrier = model_find_obstacle(root, rel, lfirst_int(cell));
		bindings->barred = lfirst_int(cell);
		if (bindings->barrier != BARRIER_NONE)
			return;
	}
	bindings->barred = 0;
}

/* Add the path of a scan, whose inputs "bindings" gives or fails to give. */
static void
add_scan_path(PlannerInfo *root, RelOptInfo *rel, ModelBindings *bindings,
			  Relids required)
{
	ModelTable	  *table = rel->fdw_private;
	ModelBindings *kept = palloc(sizeof(ModelBindings));
	double		   rows = rel->rows;
	Cost		   startup = MODEL_REQUEST_COST;
	ForeignPath	  *path;

	*kept = *bindings;
	kept->per_row = !bms_is_empty(required) ||
		reads_outer_query((Node *) bindings->values, root);
	if (bindings->unbound && bindings->barrier == BARRIER_NONE)
		find_obstacle(root, rel, kept);
	if (bindings->unbound)
		startup = MODEL_UNBOUND_COST;
	else if (!bms_is_empty(bindings->relids))
	{
		rows = estimate_rows(root, bindings);
		startup = MODEL_PER_ROW_COST;
	}
	/* a path that needs more relations is only kept if it looks cheaper */
	if (rel->reloptkind == RELOPT_OTHER_MEMBER_REL)
		startup *= pow(0.9, bms_num_members(required));
	path = create_foreignscan_path(root, rel, NULL, rows,
#if PG_VERSION_NUM >= 180000
								   bindings->unbound ? MODEL_UNBOUND_DISABLED
													 : 0,
#endif
								   startup,
								   startup * 1.01 + rows * table->row_cost,
								   NIL, required, NULL,
#if PG_VERSION_NUM >= 170000
								   NIL,
#endif
								   list_make1(kept));
	/* as a whole inner side it would ask once per worker */
	path->path.parallel_safe = false;
	add_path(rel,
			 model_is_adopted(rel) ? model_adopted_path(path) : (Path *) path);
}

/* All relations of those sets that have none of "without". */
static Relids
union_without(List *sets, Relids without)
{
	Relids	  all = NULL;
	ListCell *cell;

	foreach(cell, sets)
		if (!bms_overlap(lfirst(cell), without))
			all = bms_add_members(all, lfirst(cell));
#ifdef MODEL_FDW_BREAK_SOURCES
	/* a defect for the tests to find: outer joins stay without relations */
	all = NULL;
	foreach(cell, sets)
		all = bms_add_members(all, lfirst(cell));
	all = bms_difference(all, without);
#endif
	return all;
}

/*
 * Add sets of sources without other models, and without each of them: two
 * models that share an input must not wait for each other.
 *
 * From 16 on a set also names outer joins, those above the relations whose
 * columns a condition reads.  Without such a relation the join must not stay
 * behind, so whole sets are left out rather than the models in them.
 */
static void
add_sources_without_models(PlannerInfo *root, Relids all, List **sources)
{
	List  *sets = list_copy(*sources);
	Relids models = NULL;
	int	   relid = -1;

	while ((relid = bms_next_member(all, relid)) >= 0)
	{
		RelOptInfo *rel = root->simple_rel_array[relid];

		if (rel == NULL || !model_is_table(rel))
			continue;
		models = bms_add_member(models, relid);
		*sources = lappend(*sources,
						   union_without(sets, bms_make_singleton(relid)));
	}
	if (!bms_is_empty(models))
		*sources = lcons(union_without(sets, models), *sources);
}

/*
 * Collect the join conditions that may bind inputs, and the sets of relations
 * that they read; the last one is that of all.
 */
static List *
join_clauses(PlannerInfo *root, RelOptInfo *rel, ModelTable *table,
			 List **sources)
{
	List	 *candidates = list_copy(rel->joininfo);
	List	 *clauses = NIL;
	Relids	  all = NULL;
	ListCell *cell;

	for (int i = 0; i < table->ncolumns; i++)
		if (table->columns[i].input)
			candidates =
				list_concat(candidates,
							model_implied_clauses(root, rel,
												  table->columns[i].attnum,
												  rel->lateral_referencers));
	foreach(cell, candidates)
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, cell);
		Relids		  others;

		if (!join_clause_is_movable_to(rinfo, rel))
			continue;
		clauses = lappend(clauses, rinfo);
		others = bms_difference(rinfo->clause_relids, rel->relids);
		all = bms_add_members(all, others);
		*sources = lappend(*sources, others);
	}
	add_sources_without_models(root, all, sources);
	*sources = lappend(*sources, all);
	return clauses;
}

/*
 * Grow a set of relations by all that join conditions connect with it, the
 * model left out.
 */
static Relids
connected_relations(PlannerInfo *root, RelOptInfo *model, int start)
{
	Relids connected = bms_make_singleton(start);
	bool   grown = true;

	while (grown)
	{
		int relid = -1;

		grown = false;
		while ((relid = bms_next_member(root->all_baserels, relid)) >= 0)
		{
			int other = -1;

			if (bms_is_member(relid, connected) || relid == (int) model->relid)
				continue;
			while ((other = bms_next_member(connected, other)) >= 0)
				if (have_relevant_joinclause(root, find_base_rel(root, relid),
											 find_base_rel(root, other)))
				{
					connected = bms_add_member(connected, relid);
					grown = true;
					break;
				}
		}
	}
	return connected;
}

/*
 * Where the inputs come from relations that nothing else joins, the planner
 * would not join these first, and the model would be asked row by row.  It
 * does consider such joins for a placeholder that several relations compute,
 * so give it one; nothing needs its value.
 */
static void
request_source_join(PlannerInfo *root, RelOptInfo *rel, Relids sources)
{
	PlaceHolderInfo *info;

	sources = bms_intersect(sources, root->all_baserels);
	if (bms_num_members(sources) < 2 ||
		bms_is_subset(sources,
					  connected_relations(root, rel,
										  bms_next_member(sources, -1))))
		return;
	info = makeNode(PlaceHolderInfo);
	info->phid = ++root->glob->lastPHId;
	/* with the model itself, or it would count as computable before a scan */
	info->ph_eval_at = bms_add_member(sources, rel->relid);
	root->placeholder_list = lappend(root->placeholder_list, info);
}

/* The relation of which a member's rows are a part. */
static RelOptInfo *
top_parent(PlannerInfo *root, RelOptInfo *rel)
{
	return find_base_rel(root, bms_singleton_member(rel->top_parent_relids));
}

/* Add a scan that other relations parameterise, unless it is "known". */
static void
add_parameterised_path(PlannerInfo *root, RelOptInfo *rel,
					   ModelBindings *bindings, Relids sources, List **known)
{
	Relids	  required = bms_union(sources, rel->lateral_relids);
	ListCell *cell;

	if (bms_is_empty(required))
		return;
	foreach(cell, *known)
		if (bms_equal(lfirst(cell), required))
			return;
	*known = lappend(*known, required);
	add_scan_path(root, rel, bindings, required);
}

/*
 * All relations whose columns conditions compare with those of a member's
 * parent: a set that serves every member, whichever conditions it uses.
 */
static Relids
parent_sources(PlannerInfo *root, RelOptInfo *rel)
{
	Index		parent = root->append_rel_array[rel->relid]->parent_relid;
	RelOptInfo *parent_rel = find_base_rel(root, parent);
	Relids		sources = NULL;
	ListCell   *cell;
	ListCell   *lc;

	foreach(cell, parent_rel->joininfo)
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, cell);

		if (join_clause_is_movable_to(rinfo, parent_rel))
			sources = bms_add_members(sources, rinfo->clause_relids);
	}
	foreach(cell, root->eq_classes)
	{
		EquivalenceClass *class = lfirst(cell);

		if (!bms_is_member(parent, class->ec_relids))
			continue;
		foreach(lc, class->ec_members)
		{
			EquivalenceMember *member = lfirst(lc);

			if (!member->em_is_child &&
				!bms_is_member(parent, member->em_relids))
				sources = bms_add_members(sources, member->em_relids);
		}
	}
	return bms_del_member(sources, parent);
}

/*
 * FDW callback: one path for constants and parameters, or one that raises
 * "not bound", and the parameterised ones for joins that cannot be batched.
 *
 * The members of an Append can only be parameterised all alike, so a member
 * has a path for each set of relations, also if it needs fewer.
 */
static void
scan_paths(PlannerInfo *root, RelOptInfo *rel, Oid relid)
{
	ModelTable	 *table = rel->fdw_private;
	bool		  member = rel->reloptkind == RELOPT_OTHER_MEMBER_REL;
	ModelBindings bindings;
	ModelBindings best;
	List		 *sources = NIL;
	List		 *known = NIL;
	List		 *clauses;
	ListCell	 *cell;

	if (model_bind(root, rel, table, NULL, NIL, true, &bindings) && !member)
	{
		add_scan_path(root, rel, &bindings, rel->lateral_relids);
		return;
	}
	clauses = join_clauses(root, rel, table, &sources);
	if (member)
		sources = lappend(sources, parent_sources(root, rel));
	/* the error names inputs that no join binds either, if there are any */
	if (!model_bind(root, rel, table, llast(sources), clauses, true, &best))
		bindings.unbound = best.unbound;
	else
	{
		request_source_join(root, member ? top_parent(root, rel) : rel,
							best.relids);
		if (bms_num_members(root->all_baserels) >
			Min(join_collapse_limit, from_collapse_limit))
			bindings.barrier = BARRIER_JOIN_ORDER;
	}
	add_scan_path(root, rel, &bindings, rel->lateral_relids);
	foreach(cell, sources)
	{
		if (!model_bind(root, rel, table, lfirst(cell), clauses, true,
						&bindings))
			continue;
		add_parameterised_path(root, rel, &bindings, bindings.relids, &known);
		if (member)
			add_parameterised_path(root, rel, &bindings, lfirst(cell), &known);
	}
}

/* The outputs among the columns that somebody reads, as attnums. */
static List *
outputs_read(ModelTable *table, Bitmapset *attnums)
{
	List *outputs = NIL;
	bool  whole = bms_is_member(0 - FirstLowInvalidHeapAttributeNumber,
								attnums);

	for (int i = 0; i < table->ncolumns; i++)
	{
		ModelColumn *column = &table->columns[i];
		int member = column->attnum - FirstLowInvalidHeapAttributeNumber;

		if (!column->input && (whole || bms_is_member(member, attnums)))
			outputs = lappend_int(outputs, column->attnum);
	}
	return outputs;
}

/* Refuse columns that only stored rows have; attnums as of pull_varattnos(). */
static void
refuse_system_columns(Bitmapset *attnums, bool member)
{
	int attnum = -1;

	while ((attnum = bms_next_member(attnums, attnum)) >= 0)
		model_refuse_system_column(attnum + FirstLowInvalidHeapAttributeNumber,
								   member);
}

/*
 * Make the lists of a path's plan (ScanExpr, ScanPrivate).  "clauses" are
 * RestrictInfos; "quals" receives the conditions that the node itself checks.
 */
void
model_scan_lists(PlannerInfo *root, RelOptInfo *rel, ModelBindings *bindings,
				 List *clauses, List **quals, List **exprs, List **private)
{
	ModelTable *table = rel->fdw_private;
	Bitmapset  *attnums = NULL;
	List	   *before = NIL;
	List	   *after = NIL;
	List	   *header;
	ListCell   *cell;
	int			hooks = MODEL_HOOK_REL;

	/* a member is joined as its parent, and described too late for the first */
	if (!model_is_member(rel))
		hooks |= MODEL_HOOK_INFO;
	if (!model_is_member(rel) && !bms_is_empty(bindings->relids) &&
		model_fdw_enable_model_join)
		hooks |= MODEL_HOOK_JOIN;
	model_check_hooks(table->hooks, hooks);
	model_split_quals(root, rel, bindings, clauses, &before, &after);
	if (bindings->unbound)
	{
		after = list_concat(before, after);
		before = NIL;
	}
	pull_varattnos((Node *) rel->reltarget->exprs, rel->relid, &attnums);
	foreach(cell, clauses)
		pull_varattnos((Node *) lfirst_node(RestrictInfo, cell)->clause,
					   rel->relid, &attnums);
	refuse_system_columns(attnums, model_is_member(rel));
	header = list_make4_int((int) rel->userid, bindings->per_row,
							bindings->barrier, bindings->barred);
	Assert(list_length(header) == SCAN_NHEADER);
	*quals = after;
	*exprs = list_make3(copyObject(bindings->values), before,
						extract_actual_clauses(bindings->exact, false));
	Assert(list_length(*exprs) == SCAN_NEXPRS);
	*private = list_make5(header, bindings->attnums, bindings->lists,
						  outputs_read(table, attnums), bindings->unbound);
	Assert(list_length(*private) == SCAN_NPRIVATE);
}

/* FDW callback: the plan of a path. */
static ForeignScan *
scan_plan(PlannerInfo *root, RelOptInfo *rel, Oid relid, ForeignPath *path,
		  List *tlist, List *clauses, Plan *outer_plan)
{
	List *quals;
	List *exprs;
	List *private;

	model_scan_lists(root, rel, linitial(path->fdw_private), clauses, &quals,
					 &exprs, &private);
	return make_foreignscan(tlist, quals, rel->relid, exprs, private, NIL, NIL,
							outer_plan);
}

/* Bring an expression on a partitioned table's columns to a partition. */
static List *
child_expressions(PlannerInfo *root, List *exprs, RelOptInfo *child)
{
#if PG_VERSION_NUM >= 160000
	return (List *) adjust_appendrel_attrs_multilevel(root, (Node *) exprs,
													  child,
													  child->top_parent);
#else
	return (List *)
		adjust_appendrel_attrs_multilevel(root, (Node *) exprs, child->relids,
										  child->top_parent_relids);
#endif
}

/*
 * FDW callback: in a partitionwise join the values come from a partition, not
 * from the whole table.  The conditions are copied as well, so that those
 * that hold by the binding are not recognised and checked once more.
 */
List *
model_scan_reparameterize(PlannerInfo *root, List *private, RelOptInfo *child)
{
	ModelBindings *bindings = palloc(sizeof(ModelBindings));

	*bindings = *(ModelBindings *) linitial(private);
	bindings->values = child_expressions(root, bindings->values, child);
	bindings->exact = child_expressions(root, bindings->exact, child);
	return list_make1(bindings);
}

/* FDW callback: a scan may run in a worker (see add_scan_path()). */
static bool
scan_parallel_safe(PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte)
{
	return true;
}

/* ---- execution ---- */

/* Start a scan; nothing is sent before the first row is asked for. */
ModelScanState *
model_scan_begin(ScanState *ss, List *exprs, List *private, int eflags)
{
	ModelScanState *state = palloc0(sizeof(ModelScanState));
	List		   *header = list_nth(private, SCAN_PRIVATE_HEADER);
	List		   *inputs = list_nth(private, SCAN_PRIVATE_INPUTS);
	List		   *lists = list_nth(private, SCAN_PRIVATE_LISTS);

	state->ss = ss;
	state->exprs = exprs;
	state->private = private;
	state->table =
		model_table_describe(RelationGetRelid(ss->ss_currentRelation),
							 (Oid) list_nth_int(header, SCAN_HEADER_USERID));
	state->unbound = list_nth(private, SCAN_PRIVATE_UNBOUND);
	state->barrier = list_nth_int(header, SCAN_HEADER_BARRIER);
	state->barred = list_nth_int(header, SCAN_HEADER_BARRED);
	state->outputs = list_nth(private, SCAN_PRIVATE_OUTPUTS);
	state->ninputs = list_length(inputs);
	state->inputs = palloc(sizeof(AttrNumber) * (state->ninputs + 1));
	state->lists = palloc(sizeof(bool) * (state->ninputs + 1));
	state->values = palloc0(sizeof(ScanValues) * (state->ninputs + 1));
	for (int i = 0; i < state->ninputs; i++)
	{
		state->inputs[i] = list_nth_int(inputs, i);
		state->lists[i] = list_nth_int(lists, i) != 0;
	}
	if (state->unbound || (eflags & EXEC_FLAG_EXPLAIN_ONLY))
		return state;
	state->value_states = ExecInitExprList(list_nth(exprs, SCAN_EXPR_VALUES),
										   &ss->ps);
	for (int i = 0; i < state->ninputs; i++)
		model_assignment_init(&state->values[i].assignment,
							  model_table_column(state->table,
												 state->inputs[i]),
							  list_nth(list_nth(exprs, SCAN_EXPR_VALUES), i),
							  &ss->ps);
	state->before = ExecInitQual(list_nth(exprs, SCAN_EXPR_BEFORE), &ss->ps);
	state->recheck = ExecInitQual(list_nth(exprs, SCAN_EXPR_RECHECK), &ss->ps);
	state->context = AllocSetContextCreate(CurrentMemoryContext,
										   "model scan values",
										   ALLOCSET_SMALL_SIZES);
	state->stream = model_stream_create(state->table, inputs, state->outputs,
										&ss->ps);
	return state;
}

/* Write something of each unbound input, with a separator between them. */
static char *
each_unbound(ModelScanState *state, bool quote, const char *prefix,
			 const char *suffix, const char *separator)
{
	StringInfoData text;
	ListCell	  *cell;

	initStringInfo(&text);
	foreach(cell, state->unbound)
	{
		const char *name =
			model_table_column(state->table, lfirst_int(cell))->name;

		appendStringInfo(&text, "%s%s%s%s",
						 foreach_current_index(cell) > 0 ? separator : "",
						 prefix, quote ? quote_identifier(name) : name,
						 suffix);
	}
	return text.data;
}

/* The hint of the error below: a form of the query that binds. */
static int
hint_unbound(ModelScanState *state)
{
	const char *table = quote_identifier(state->table->name);
	char	   *names = each_unbound(state, true, "", "", ", ");
	const char *barred = state->barred
		? quote_identifier(model_table_column(state->table, state->barred)
							   ->name)
		: "";

	switch (state->barrier)
	{
		case BARRIER_ROWS:
			return errhint(
				"Join the values instead, as in \"JOIN (VALUES (...), (...)) AS v (%s) USING (%s)\".",
				names, names);
		case BARRIER_OR:
			return errhint("Write \"%s IN (..., ...)\" instead.", barred);
		case BARRIER_NOT_DISTINCT:
			return errhint("Write \"%s = ...\" instead.", barred);
		case BARRIER_FULL_JOIN:
			return errhint(
				"Use LEFT JOIN, with the model table on the right side.");
		case BARRIER_OUTER_JOIN:
			return errhint("Exchange the two sides, or use JOIN.");
		case BARRIER_JOIN_ORDER:
			return errhint(
				"Write table \"%s\" after those that give its inputs, or raise \"join_collapse_limit\" and \"from_collapse_limit\".",
				state->table->name);
		default:
			break;
	}
	if (list_length(state->unbound) == 1)
		return errhint(
			"Give it a value with an equality, such as \"WHERE %s = ...\" or \"JOIN ... ON %s.%s = ...\".",
			names, table, names);
	return errhint(
		"Give each of them a value with an equality, such as \"WHERE %s\" or \"JOIN ... USING (%s)\".",
		each_unbound(state, true, "", " = ...", " AND "), names);
}

/* The detail of the error below: why conditions that are there do not bind. */
static int
detail_unbound(ModelScanState *state)
{
	static const char *const barriers[] = {
		[BARRIER_LIMIT] = "has LIMIT or OFFSET",
		[BARRIER_DISTINCT] = "has DISTINCT",
		[BARRIER_GROUP] = "has GROUP BY or an aggregate",
		[BARRIER_WINDOW] = "has a window function",
		[BARRIER_SECURITY] = "is a security barrier",
		[BARRIER_CTE] = "is a materialized CTE",
	};
	static const char *const obstacles[] = {
		[BARRIER_ROWS] = "stands under OR, as it does in a list of rows",
		[BARRIER_OR] = "consists of equalities under OR",
		[BARRIER_NOT_DISTINCT] = "is IS NOT DISTINCT FROM, true for two NULLs",
		[BARRIER_SELF] = "takes the value from the table itself",
		[BARRIER_FULL_JOIN] =
			"is that of a FULL JOIN, which keeps all rows of the table",
		[BARRIER_OUTER_JOIN] =
			"is that of an outer join that keeps all rows of the table",
	};

	if (state->barrier == BARRIER_NONE)
		return 0;
	if (state->barrier == BARRIER_JOIN_ORDER)
		return errdetail(
			"The conditions are there, but the query joins more relations than \"join_collapse_limit\" or \"from_collapse_limit\" lets the planner reorder.");
	if (state->barrier < BARRIER_ROWS)
		return errdetail(
			"Conditions from outside do not reach the table: the view or subquery that reads it %s.",
			barriers[state->barrier]);
	return errdetail("A condition on column \"%s\" does not bind it: it %s.",
					 model_table_column(state->table, state->barred)->name,
					 obstacles[state->barrier]);
}

/* Raise the error of a scan that has no value for some of its inputs. */
static void
raise_unbound(ModelScanState *state)
{
	bool  one = list_length(state->unbound) == 1;
	char *names = each_unbound(state, false, "\"", "\"", ", ");

	ereport(ERROR,
			(errcode(ERRCODE_FDW_UNABLE_TO_CREATE_EXECUTION),
			 one ? errmsg("input column %s of foreign table \"%s\" is not bound",
						  names, state->table->name)
				 : errmsg("input columns %s of foreign table \"%s\" are not bound",
						  names, state->table->name),
			 detail_unbound(state), hint_unbound(state)));
}

/* Sort positions by the values that they stand for, equal ones in order. */
typedef struct SortContext
{
	Datum		   *values;
	TypeCacheEntry *type;
	Oid				collation;
} SortContext;

static int
compare_positions(const void *left, const void *right, void *arg)
{
	SortContext *context = arg;
	int			 l = *(const int *) left;
	int			 r = *(const int *) right;
	int			 order;

	order = DatumGetInt32(FunctionCall2Coll(&context->type->cmp_proc_finfo,
											context->collation,
											context->values[l],
											context->values[r]));
	return order != 0 ? order : (l > r) - (l < r);
}

/* Keep the first of equal values, in their order. */
static int
remove_duplicates(Datum *values, int n, ModelColumn *column)
{
	SortContext context;
	int		   *order = palloc(sizeof(int) * (n + 1));
	bool	   *repeated = palloc0(n + 1);
	int			kept = 0;

	context.values = values;
	context.collation = column->collation;
	context.type = lookup_type_cache(column->typid, TYPECACHE_CMP_PROC_FINFO);
	for (int i = 0; i < n; i++)
		order[i] = i;
	if (OidIsValid(context.type->cmp_proc_finfo.fn_oid))
	{
		qsort_arg(order, n, sizeof(int), compare_positions, &context);
		for (int i = 1; i < n; i++)
			repeated[order[i]] =
				DatumGetInt32(FunctionCall2Coll(&context.type->cmp_proc_finfo,
												context.collation,
												values[order[i - 1]],
												values[order[i]])) == 0;
	}
	for (int i = 0; i < n; i++)
		if (!repeated[i])
			values[kept++] = values[i];
	return kept;
}

/* A value as one of its column's type, which the current context keeps. */
static Datum
assign_value(ScanValues *values, Datum value, ModelColumn *column,
			 ExprContext *econtext, bool *isnull)
{
	int16 length;
	bool  byval;

	value = model_assign(&values->assignment, value, econtext, isnull);
	if (*isnull)
		return value;
	get_typlenbyval(column->typid, &length, &byval);
	return datumCopy(value, byval, length);
}

/* Take the elements of a list, without NULLs and repetitions. */
static void
read_list(ScanValues *values, Datum datum, ModelColumn *column,
		  ExprContext *econtext)
{
	ArrayType *array = DatumGetArrayTypeP(datum);
	int16	   length;
	bool	   byval;
	char	   align;
	bool	  *nulls;
	int		   n;
	int		   kept = 0;

	get_typlenbyvalalign(ARR_ELEMTYPE(array), &length, &byval, &align);
	deconstruct_array(array, ARR_ELEMTYPE(array), length, byval, align,
					  &values->values, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		Datum value = values->values[i];

		if (!nulls[i] && values->assignment.needed)
			value = assign_value(values, value, column, econtext, &nulls[i]);
		if (!nulls[i])
			values->values[kept++] = value;
	}
	values->n = remove_duplicates(values->values, kept, column);
}

/* Compute the inputs' values; false if there is none for one of them. */
static bool
compute_values(ModelScanState *state)
{
	ExprContext			*econtext = state->ss->ps.ps_ExprContext;
	MemoryContext		 old;
	bool				 any = true;
	ModelColumnContext	 context = {state->table->name, NULL};
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = model_column_error_context,
		.arg = &context,
	};

	error_context_stack = &callback;
	MemoryContextReset(state->context);
	old = MemoryContextSwitchTo(state->context);
	for (int i = 0; i < state->ninputs; i++)
	{
		ScanValues	*values = &state->values[i];
		ModelColumn *column = model_table_column(state->table,
												 state->inputs[i]);
		bool		 isnull;
		Datum		 value;

		context.column = column->name;
		value = ExecEvalExpr(list_nth(state->value_states, i), econtext,
							 &isnull);
		values->next = 0;
		values->n = 0;
		if (isnull)
			any = false;
		else if (state->lists[i])
			read_list(values, value, column, econtext);
		else
		{
			values->values = palloc(sizeof(Datum));
			values->values[0] = assign_value(values, value, column, econtext,
											 &isnull);
			values->n = isnull ? 0 : 1;
		}
		any = any && values->n > 0;
	}
	MemoryContextSwitchTo(old);
	error_context_stack = callback.previous;
	return any;
}

/* Put the bound inputs into the scan's slot, at the given positions. */
static void
fill_inputs(ModelScanState *state, TupleTableSlot *slot, int *positions)
{
	memset(slot->tts_isnull, true,
		   slot->tts_tupleDescriptor->natts * sizeof(bool));
	for (int i = 0; i < state->ninputs; i++)
	{
		int att = state->inputs[i] - 1;

		slot->tts_values[att] = state->values[i].values[positions[i]];
		slot->tts_isnull[att] = false;
	}
}

/* Step to the next member of the cross product; false after the last. */
static bool
advance(ModelScanState *state)
{
	for (int i = state->ninputs - 1; i >= 0; i--)
	{
		if (++state->values[i].next < state->values[i].n)
			return true;
		state->values[i].next = 0;
	}
	return false;
}

/* Fill a batch with the next members of the cross product. */
static bool
scan_fill(void *arg, ModelBatch *batch)
{
	ModelScanState *state = arg;
	ModelStream	   *stream = state->stream;
	ExprContext	   *econtext = state->ss->ps.ps_ExprContext;
	TupleTableSlot *slot = state->ss->ss_ScanTupleSlot;
	int				n = state->ninputs;
	Datum		   *datums;
	int			   *positions;

	if (!state->started && !compute_values(state))
	{
		stream->exhausted = true;
		return false;
	}
	state->started = true;
	datums = MemoryContextAlloc(batch->context, sizeof(Datum) * (n + 1));
	positions = MemoryContextAllocHuge(batch->context,
									   sizeof(int) * (Size) (n + 1) *
										   stream->target);
	batch->rows = positions;
	model_stream_reserve(stream, batch);
	while (stream->nrows < stream->target &&
		   (stream->nrows == 0 || !model_stream_full(stream, batch)))
	{
		CHECK_FOR_INTERRUPTS();
		ResetExprContext(econtext);
		for (int i = 0; i < n; i++)
		{
			positions[i] = state->values[i].next;
			datums[i] = state->values[i].values[positions[i]];
		}
		ExecClearTuple(slot);
		fill_inputs(state, slot, positions);
		ExecStoreVirtualTuple(slot);
		econtext->ecxt_scantuple = slot;
		if (ExecQual(state->before, econtext))
		{
			model_stream_add(stream, datums, econtext);
			positions += n;
		}
		else
			model_stream_count(stream, COUNT_ROWS_UNMATCHED, 1);
		if (!advance(state))
		{
			stream->exhausted = true;
			break;
		}
	}
	ExecClearTuple(slot);
	return stream->nrows > 0;
}

/* The next row; an empty slot after the last. */
TupleTableSlot *
model_scan_next(ModelScanState *state)
{
	TupleTableSlot *slot = state->ss->ss_ScanTupleSlot;
	ExprContext	   *econtext = state->ss->ps.ps_ExprContext;
	ModelBatch	   *batch;
	ListCell	   *cell;
	int				output = 0;
	int				row;

	ExecClearTuple(slot);
	if (state->unbound)
		raise_unbound(state);
	batch = state->stream->current;
	if (batch == NULL || state->row >= batch->nrows)
	{
		batch = model_stream_next(state->stream, scan_fill, state);
		state->row = 0;
		if (batch == NULL)
			return slot;
	}
	row = state->row++;
	fill_inputs(state, slot,
				(int *) batch->rows + (Size) row * state->ninputs);
	foreach(cell, state->outputs)
	{
		int att = lfirst_int(cell) - 1;

		slot->tts_values[att] = model_stream_output(state->stream, batch,
													output++, row, econtext,
													&slot->tts_isnull[att]);
	}
	return ExecStoreVirtualTuple(slot);
}

/*
 * Another transaction has changed the outer row, and the scan is run again
 * for its new version.  "slot" holds the answer for the old one, so ask anew;
 * where a list gave the input, its element is not known here.
 */
bool
model_scan_recheck(ModelScanState *state, TupleTableSlot *slot)
{
	ExprContext *econtext = state->ss->ps.ps_ExprContext;
	bool		 list = false;

	for (int i = 0; i < state->ninputs; i++)
		list = list || state->lists[i];
	if (!list)
	{
		TupleTableSlot *answer;

		model_scan_restart(state);
		answer = model_scan_next(state);
		if (TupIsNull(answer))
			return false;
		if (answer != slot)
			ExecCopySlot(slot, answer);
	}
	econtext->ecxt_scantuple = slot;
	return ExecQual(state->recheck, econtext) &&
		ExecQual(state->before, econtext);
}

/* Start over with new parameters. */
void
model_scan_restart(ModelScanState *state)
{
	if (state->stream)
		model_stream_reset(state->stream);
	state->started = false;
}

/* The end, also early. */
void
model_scan_end(ModelScanState *state)
{
	if (state && state->stream)
		model_stream_close(state->stream);
}

/* EXPLAIN. */
void
model_scan_explain(ModelScanState *state, ExplainState *es)
{
	PlanState *planstate = &state->ss->ps;

	model_explain_table(state->table, es);
	if (state->unbound)
	{
		List	 *names = NIL;
		ListCell *cell;

		foreach(cell, state->unbound)
			names = lappend(names,
							model_table_column(state->table, lfirst_int(cell))
								->name);
		ExplainPropertyList("Unbound Inputs", names, es);
		return;
	}
	model_explain_bindings(state->table,
						   list_nth(state->private, SCAN_PRIVATE_INPUTS),
						   list_nth(state->exprs, SCAN_EXPR_VALUES), planstate,
						   NIL, es);
	if (state->table->batched &&
		list_nth_int(list_nth(state->private, SCAN_PRIVATE_HEADER),
					 SCAN_HEADER_PER_ROW))
		ExplainPropertyText("Requests", "one per outer row", es);
	model_explain_quals("Input Filter",
						list_nth(state->exprs, SCAN_EXPR_BEFORE), planstate,
						NIL, es);
	if (state->stream)
		model_explain_counters(state->stream->counters,
							   model_stream_server_times(state->stream), es);
}

/* FDW callback: start. */
static void
scan_begin(ForeignScanState *node, int eflags)
{
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;

	node->fdw_state = model_scan_begin(&node->ss, plan->fdw_exprs,
									   plan->fdw_private, eflags);
}

/* FDW callback: the next row. */
static TupleTableSlot *
scan_iterate(ForeignScanState *node)
{
	return model_scan_next(node->fdw_state);
}

/* FDW callback: does the row hold for the new version of the outer row? */
static bool
scan_recheck(ForeignScanState *node, TupleTableSlot *slot)
{
	return model_scan_recheck(node->fdw_state, slot);
}

/* FDW callback: start over with new parameters. */
static void
scan_rescan(ForeignScanState *node)
{
	model_scan_restart(node->fdw_state);
}

/* FDW callback: the end, also early. */
static void
scan_end(ForeignScanState *node)
{
	model_scan_end(node->fdw_state);
}

/* FDW callback: EXPLAIN. */
static void
scan_explain(ForeignScanState *node, ExplainState *es)
{
	model_scan_explain(node->fdw_state, es);
}

/* Fill in the callbacks of plain scans. */
void
model_scan_routine(FdwRoutine *routine)
{
	routine->GetForeignRelSize = scan_rel_size;
	routine->GetForeignPaths = scan_paths;
	routine->GetForeignPlan = scan_plan;
	routine->IsForeignScanParallelSafe = scan_parallel_safe;
	routine->ReparameterizeForeignPathByChild = model_scan_reparameterize;
	routine->BeginForeignScan = scan_begin;
	routine->IterateForeignScan = scan_iterate;
	routine->RecheckForeignScan = scan_recheck;
	routine->ReScanForeignScan = scan_rescan;
	routine->EndForeignScan = scan_end;
	routine->ExplainForeignScan = scan_explain;
}
