/*-------------------------------------------------------------------------
 *
 * binding.c
 *	  Which conditions of a query give the inputs of a model their values.
 *
 * An equality "column = value" binds the column, as does "column IN (list)"
 * on a scan.  A cast that the parser put on the column is looked through: the
 * value is assigned to the column's type, and the condition is checked once
 * more, before the row is sent, with the value that the column got.  A float
 * becomes numeric in the node, by model_assign(): PostgreSQL's own cast would
 * not give the numeric that equals it.
 *
 *-------------------------------------------------------------------------
 */
#include "model_fdw.h"

#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/paths.h"
#include "optimizer/restrictinfo.h"
#include "access/sysattr.h"
#include "parser/parse_coerce.h"
#include "utils/lsyscache.h"

/*
 * Is the operand a column of the relation, perhaps under casts that the
 * parser added?  "cast" is set where such a cast changes the value.
 */
static Var *
operand_column(Node *operand, Index relid, bool *cast)
{
	for (;;)
	{
		if (IsA(operand, RelabelType))
			operand = (Node *) ((RelabelType *) operand)->arg;
		else if (IsA(operand, FuncExpr) &&
				 ((FuncExpr *) operand)->funcformat == COERCE_IMPLICIT_CAST &&
				 list_length(((FuncExpr *) operand)->args) == 1)
		{
			*cast = true;
			operand = linitial(((FuncExpr *) operand)->args);
		}
		else
			break;
	}
	if (IsA(operand, Var) && ((Var *) operand)->varno == relid &&
		((Var *) operand)->varattno > 0 && ((Var *) operand)->varlevelsup == 0)
		return (Var *) operand;
	return NULL;
}

/* Does this member of an equivalence class stand for the column? */
bool
model_binds_column(RelOptInfo *rel, EquivalenceMember *member,
				   AttrNumber attnum)
{
	bool cast = false;
	Var *var = operand_column((Node *) member->em_expr, rel->relid, &cast);

	return var && var->varattno == attnum;
}

/*
 * Is the operator an equality?  Some, such as pgvector's, are members of a
 * btree family without being marked as good for merge joins.
 */
static bool
is_equality(Oid operator, Oid type)
{
	return op_mergejoinable(operator, type) ||
		get_mergejoin_opfamilies(operator) != NIL;
}

/*
 * Is the condition a boolean column, its negation, or one of them IS TRUE?
 * The planner has made the first two of "column = true" or "column = false",
 * so return this constant.
 */
static Expr *
boolean_value(Expr *clause, RelOptInfo *rel, AttrNumber attnum)
{
	bool negated = is_notclause(clause);
	Var *var = (Var *) (negated ? get_notclausearg(clause) : clause);

	if (IsA(clause, BooleanTest) &&
		(((BooleanTest *) clause)->booltesttype == IS_TRUE ||
		 ((BooleanTest *) clause)->booltesttype == IS_FALSE))
	{
		negated = ((BooleanTest *) clause)->booltesttype == IS_FALSE;
		var = (Var *) ((BooleanTest *) clause)->arg;
	}
	if (IsA(var, Var) && var->varno == rel->relid && var->varattno == attnum &&
		var->varlevelsup == 0)
		return (Expr *) makeBoolConst(!negated, false);
	return NULL;
}

/* Is the condition "column = value"?  Then return the value. */
static Expr *
equality_value(Expr *clause, RelOptInfo *rel, AttrNumber attnum, bool *cast)
{
	OpExpr *op = (OpExpr *) clause;

	*cast = false;
	if (!IsA(clause, OpExpr) || list_length(op->args) != 2 ||
		!is_equality(op->opno, exprType(linitial(op->args))))
		return boolean_value(clause, rel, attnum);
	for (int side = 0; side < 2; side++)
	{
		Var *var;

		*cast = false;
		var = operand_column(list_nth(op->args, side), rel->relid, cast);
		if (var && var->varattno == attnum)
			return list_nth(op->args, 1 - side);
	}
	return NULL;
}

/* Is the condition "column = ANY (array)"?  Then return the array. */
static Expr *
list_value(Expr *clause, RelOptInfo *rel, AttrNumber attnum, bool *cast)
{
	ScalarArrayOpExpr *op = (ScalarArrayOpExpr *) clause;
	Var				  *var;

	if (!IsA(clause, ScalarArrayOpExpr) || !op->useOr ||
		!is_equality(op->opno, exprType(linitial(op->args))))
		return NULL;
	*cast = false;
	var = operand_column(linitial(op->args), rel->relid, cast);
	return var && var->varattno == attnum ? lsecond(op->args) : NULL;
}

/* Does the cast keep every value that it accepts equal to what it was? */
static bool
cast_is_exact(Oid from, Oid to)
{
	bool from_integer = from == INT2OID || from == INT4OID || from == INT8OID;
	bool to_integer = to == INT2OID || to == INT4OID || to == INT8OID;

	return (from_integer && to_integer) ||
		(from == FLOAT4OID && to == FLOAT8OID);
}

/*
 * Assign a value to the column's type, or leave that to the node.  Returns
 * NULL if there is no such cast; "exact" tells whether the result certainly
 * equals the value.
 */
static Expr *
assign_value(Expr *value, ModelColumn *column, bool list, bool *exact)
{
	Oid	  from = exprType((Node *) value);
	bool  later = model_assigns(column, list ? get_element_type(from) : from);
	Oid	  type = later ? FLOAT8OID : column->typid;
	Oid	  to = list ? get_array_type(type) : type;
	Node *cast;

	*exact = false;
	if (!OidIsValid(to))
		return NULL;
	cast = coerce_to_target_type(NULL, (Node *) value, from, to,
								 later ? -1 : column->typmod,
								 COERCION_ASSIGNMENT, COERCE_IMPLICIT_CAST,
								 -1);
	if (cast == NULL)
		return NULL;
	if (later)
		return (Expr *) cast;
	*exact = cast == (Node *) value ||
		(IsA(cast, RelabelType) && ((RelabelType *) cast)->arg == value) ||
		(column->typmod < 0 && cast_is_exact(from, to));
	/* not folded, even if constant: it may fail, and that names the column */
	return (Expr *) cast;
}

/* What a search for the binding of one column carries. */
typedef struct ColumnSearch
{
	PlannerInfo *root;
	RelOptInfo	*rel;
	ModelColumn *column;
	Relids		 available; /* relations whose columns a value may read */
	bool		 allow_lists;
	/* the result */
	Expr		 *value;
	bool		  list;
	RestrictInfo *rinfo;
	bool		  exact;
} ColumnSearch;

/* Try one condition; true if it binds the column. */
static bool
try_clause(ColumnSearch *search, RestrictInfo *rinfo)
{
	AttrNumber attnum = search->column->attnum;
	bool	   cast;
	bool	   list = false;
	Expr	  *value;

	value = equality_value(rinfo->clause, search->rel, attnum, &cast);
	if (value == NULL && search->allow_lists)
	{
		value = list_value(rinfo->clause, search->rel, attnum, &cast);
		list = true;
	}
	if (value == NULL ||
		!bms_is_subset(pull_varnos(search->root, (Node *) value),
					   search->available))
		return false;
	search->value = assign_value(value, search->column, list, &search->exact);
	if (search->value == NULL)
		return false;
	/* a volatile value is evaluated once, so it cannot be checked again */
	search->exact = (search->exact && !cast) ||
		contain_volatile_functions((Node *) value);
	search->list = list;
	search->rinfo = rinfo;
	return true;
}

/* The first condition of a list that binds the column. */
static bool
try_clauses(ColumnSearch *search, List *clauses)
{
	ListCell *cell;

	foreach(cell, clauses)
		if (try_clause(search, lfirst_node(RestrictInfo, cell)))
			return true;
	return false;
}

/* What the planner's callback looks for. */
static bool
match_member(PlannerInfo *root, RelOptInfo *rel, EquivalenceClass *ec,
			 EquivalenceMember *em, void *arg)
{
	return model_binds_column(rel, em, *(AttrNumber *) arg);
}

/* The equalities on a column that equivalence classes imply. */
List *
model_implied_clauses(PlannerInfo *root, RelOptInfo *rel, AttrNumber attnum,
					  Relids prohibited)
{
	if (!rel->has_eclass_joins)
		return NIL;
	return generate_implied_equalities_for_column(root, rel, match_member,
												  &attnum, prohibited);
}

/* Search all conditions for a binding of a column, equalities before lists. */
static bool
search_clauses(ColumnSearch *search, List *clauses, bool allow_lists)
{
	search->allow_lists = false;
	for (;;)
	{
		if (try_clauses(search, search->rel->baserestrictinfo) ||
			try_clauses(search, clauses) ||
			(!bms_is_empty(search->available) &&
			 try_clauses(search,
						 model_implied_clauses(search->root, search->rel,
											   search->column->attnum, NULL))))
			return true;
		if (search->allow_lists || !allow_lists)
			return false;
		search->allow_lists = true;
	}
}

/*
 * Could some join of the query bind the column?  An optional input may only
 * stay unbound if none can: else the answer would depend on the join order.
 */
static bool
may_be_bound(PlannerInfo *root, RelOptInfo *rel, ModelColumn *column)
{
	ListCell *cell;
	bool	  cast;

	foreach(cell, rel->joininfo)
		if (equality_value(lfirst_node(RestrictInfo, cell)->clause, rel,
						   column->attnum, &cast))
			return true;
	return model_implied_clauses(root, rel, column->attnum, NULL) != NIL;
}

/*
 * Bind the inputs of a model's relation.
 *
 * "available" are the relations that values may read (NULL: none, a scan by
 * constants and parameters), "clauses" the join conditions that hold here.
 * Returns false, with "unbound" set, if required inputs have no value.
 */
bool
model_bind(PlannerInfo *root, RelOptInfo *rel, ModelTable *table,
		   Relids available, List *clauses, bool allow_lists,
		   ModelBindings *bindings)
{
	memset(bindings, 0, sizeof(*bindings));
	for (int i = 0; i < table->ncolumns; i++)
	{
		ModelColumn *column = &table->columns[i];
		ColumnSearch search = {root, rel, column, available};

		if (!column->input)
			continue;
		if (!search_clauses(&search, clauses, allow_lists))
		{
			if (!column->optional || may_be_bound(root, rel, column))
				bindings->unbound = lappend_int(bindings->unbound,
												column->attnum);
			continue;
		}
		bindings->attnums = lappend_int(bindings->attnums, column->attnum);
		bindings->values = lappend(bindings->values, search.value);
		bindings->lists = lappend_int(bindings->lists, search.list);
		if (search.exact)
			bindings->exact = lappend(bindings->exact, search.rinfo);
		bindings->relids = bms_add_members(bindings->relids,
										   pull_varnos(root,
													   (Node *) search.value));
	}
	return bindings->unbound == NIL;
}

/* Does the expression read a column of the relation? */
static bool
reads_column(Node *node, RelOptInfo *rel, AttrNumber attnum)
{
	Bitmapset *attnums = NULL;

	pull_varattnos(node, rel->relid, &attnums);
	return bms_is_member(attnum - FirstLowInvalidHeapAttributeNumber, attnums);
}

/* Is each arm of an OR an equality on the column, and on it alone? */
static bool
is_list_of_values(BoolExpr *clause, RelOptInfo *rel, AttrNumber attnum)
{
	ListCell *cell;
	bool	  cast;

	foreach(cell, clause->args)
		if (equality_value(lfirst(cell), rel, attnum, &cast) == NULL)
			return false;
	return true;
}

/*
 * Does a condition look as if it gave the column a value, and does not?  Of
 * an outer join's own conditions "kept" tells whether it keeps the relation's
 * rows.
 */
static ScanBarrier
obstacle_of(PlannerInfo *root, RelOptInfo *rel, AttrNumber attnum,
			Expr *clause, bool kept)
{
	bool  cast;
	Expr *value = equality_value(clause, rel, attnum, &cast);

	if (value)
	{
		ListCell *cell;

		if (bms_is_member(rel->relid, pull_varnos(root, (Node *) value)))
			return BARRIER_SELF;
		if (!kept)
			return BARRIER_NONE;
		foreach(cell, root->join_info_list)
		{
			SpecialJoinInfo *join = lfirst(cell);

			if (join->jointype == JOIN_FULL &&
				(bms_is_member(rel->relid, join->syn_lefthand) ||
				 bms_is_member(rel->relid, join->syn_righthand)))
				return BARRIER_FULL_JOIN;
		}
		return BARRIER_OUTER_JOIN;
	}
	if (!reads_column((Node *) clause, rel, attnum))
		return BARRIER_NONE;
	if (is_orclause(clause))
		return is_list_of_values((BoolExpr *) clause, rel, attnum)
			? BARRIER_OR
			: BARRIER_ROWS;
	if (is_notclause(clause) && IsA(get_notclausearg(clause), DistinctExpr))
		return BARRIER_NOT_DISTINCT;
	return BARRIER_NONE;
}

/* Why does no condition bind the column?  BARRIER_NONE: none seems to. */
ScanBarrier
model_find_obstacle(PlannerInfo *root, RelOptInfo *rel, AttrNumber attnum)
{
	List	 *clauses = list_concat_copy(rel->baserestrictinfo, rel->joininfo);
	ListCell *cell;

	foreach(cell, clauses)
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, cell);
		ScanBarrier	  found = obstacle_of(root, rel, attnum, rinfo->clause,
										  bms_is_member(rel->relid,
														rinfo->outer_relids));

		if (found != BARRIER_NONE)
			return found;
	}
	return BARRIER_NONE;
}

/* Does the expression read a placeholder that the relation computes? */
static bool
reads_placeholder(Node *node, Index relid)
{
	List	 *vars = pull_var_clause(node,
									 PVC_RECURSE_AGGREGATES |
										 PVC_RECURSE_WINDOWFUNCS |
										 PVC_INCLUDE_PLACEHOLDERS);
	ListCell *cell;

	foreach(cell, vars)
		if (IsA(lfirst(cell), PlaceHolderVar) &&
			bms_is_member(relid, lfirst_node(PlaceHolderVar, cell)->phrels))
			return true;
	return false;
}

/* May a condition be checked before the row is sent? */
static bool
needs_no_answer(Node *clause, RelOptInfo *rel, ModelBindings *bindings)
{
	Bitmapset *attnums = NULL;
	int		   member = -1;

	if (contain_volatile_functions(clause) ||
		reads_placeholder(clause, rel->relid))
		return false;
	pull_varattnos(clause, rel->relid, &attnums);
	while ((member = bms_next_member(attnums, member)) >= 0)
		if (!list_member_int(bindings->attnums,
							 member + FirstLowInvalidHeapAttributeNumber))
			return false;
	return true;
}

/*
 * Does a condition hold by the binding itself?  The planner may have derived
 * one equality twice, with its sides exchanged.
 */
static bool
holds_by_binding(ModelBindings *bindings, RestrictInfo *rinfo)
{
	ListCell *cell;

	foreach(cell, bindings->exact)
	{
		RestrictInfo *exact = lfirst_node(RestrictInfo, cell);

		if (exact == rinfo ||
			(exact->parent_ec != NULL &&
			 exact->parent_ec == rinfo->parent_ec &&
			 exact->left_em == rinfo->right_em &&
			 exact->right_em == rinfo->left_em))
			return true;
	}
	return false;
}

/* The security level below which a condition may not be checked. */
Index
model_security_level(RestrictInfo *rinfo)
{
	return rinfo->leakproof ? 0 : rinfo->security_level;
}

/*
 * RestrictInfos in an order in which they may be checked: no function of a
 * user sees a row before a policy of row-level security has passed it, unless
 * it is leakproof.  Else the order is kept.
 */
List *
model_order_quals(List *quals)
{
	List	 *ordered = NIL;
	ListCell *cell;

#ifdef MODEL_FDW_BREAK_ORDER
	/* a defect for the tests to find: policies come in any order */
	return quals;
#endif
	foreach(cell, quals)
	{
		Index level = model_security_level(lfirst_node(RestrictInfo, cell));
		int	  position = list_length(ordered);

		/* behind its equals, which list_sort() would not promise */
		while (position > 0 &&
			   level <
				   model_security_level(list_nth_node(RestrictInfo, ordered,
													  position - 1)))
			position--;
		ordered = list_insert_nth(ordered, position, lfirst(cell));
	}
	return ordered;
}

/*
 * Sort conditions into those that can be checked before a row is sent and
 * those that read the answer; what holds by the binding itself is left out.
 * A condition that must wait for one of a lower security level comes after
 * the answer if that one does, so take all conditions in one call.
 * Takes RestrictInfos, gives bare expressions in the order of checking.
 */
void
model_split_quals(PlannerInfo *root, RelOptInfo *rel, ModelBindings *bindings,
				  List *quals, List **before, List **after)
{
	Index	  lowest = PG_UINT32_MAX; /* security level in "after" */
	ListCell *cell;

	*before = *after = NIL;
	foreach(cell, model_order_quals(quals))
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, cell);

		if (holds_by_binding(bindings, rinfo))
			continue;
		if (model_security_level(rinfo) <= lowest &&
			needs_no_answer((Node *) rinfo->clause, rel, bindings))
			*before = lappend(*before, rinfo->clause);
		else
		{
			*after = lappend(*after, rinfo->clause);
			lowest = Min(lowest, rinfo->security_level);
		}
	}
}
