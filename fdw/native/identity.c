/*-------------------------------------------------------------------------
 *
 * identity.c
 *	  Row identity columns of partitioned and inherited targets.
 *
 * An UPDATE, DELETE or MERGE of such a table tells the rows of its members
 * apart by columns without a table, Vars of varno ROWID_VAR.  Core replaces
 * them below the Append of the members, and the nodes above it copy them by
 * their position.  In the scan tuple of a custom node they must not be: setrefs
 * asserts it, and EXPLAIN has no name for them.  There the column of one of
 * the members takes their place.
 *
 * A node above, however, looks for the column without a table.  So our node
 * gets an Append of one, which has it, and which setrefs removes.
 *
 *-------------------------------------------------------------------------
 */
#include "model_fdw.h"

#include "nodes/nodeFuncs.h"

/* Does the target hold row identity columns? */
bool
model_has_row_identity(PathTarget *target)
{
	ListCell *cell;

	foreach(cell, target->exprs)
		if (IsA(lfirst(cell), Var) &&
			lfirst_node(Var, cell)->varno == ROWID_VAR)
			return true;
	return false;
}

/* Put an Append of one above a path of ours that has such columns. */
Path *
model_wrap_row_identity(Path *path)
{
	AppendPath *append;

	if (!IsA(path, CustomPath) || !model_has_row_identity(path->pathtarget))
		return path;
	append = makeNode(AppendPath);
	append->path = *path;
	append->path.type = T_AppendPath;
	append->path.pathtype = T_Append;
	/* an ordered Append would look for its columns in the plan below */
	append->path.pathkeys = NIL;
	append->subpaths = list_make1(path);
	append->first_partial_path = 1;
	append->limit_tuples = -1;
	return &append->path;
}

/* Replace row identity columns by those of a member, for a plan of ours. */
Node *
model_replace_row_identity(Node *node, PlannerInfo *root)
{
#ifdef MODEL_FDW_BREAK_IDENTITY
	/* a defect for the tests to find: these columns stay in scan tuples */
	return node;
#endif
	if (node == NULL)
		return NULL;
	if (IsA(node, Var) && ((Var *) node)->varno == ROWID_VAR)
	{
		Var				   *var = (Var *) copyObject(node);
		RowIdentityVarInfo *info = list_nth_node(RowIdentityVarInfo,
												 root->row_identity_vars,
												 var->varattno - 1);

		var->varno = bms_next_member(info->rowidrels, -1);
		var->varattno = info->rowidvar->varattno;
		var->varnosyn = 0;
		var->varattnosyn = 0;
		return (Node *) var;
	}
	return expression_tree_mutator(node, model_replace_row_identity, root);
}
