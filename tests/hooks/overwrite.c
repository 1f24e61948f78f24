/*
 * A library that sets planner hooks and does not call those before it, as some
 * do, for the test that Model Joins are planned nevertheless.
 */
#include "postgres.h"

#include "fmgr.h"
#include "optimizer/paths.h"
#include "optimizer/plancat.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

/* Add no paths to a relation. */
static void
rel_hook(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte)
{
}

/* Add no paths to a join. */
static void
join_hook(PlannerInfo *root, RelOptInfo *joinrel, RelOptInfo *outer,
		  RelOptInfo *inner, JoinType jointype, JoinPathExtraData *extra)
{
}

/* Say nothing about a relation. */
static void
info_hook(PlannerInfo *root, Oid relid, bool inhparent, RelOptInfo *rel)
{
}

/* Overwrite the hooks. */
void
_PG_init(void)
{
	set_rel_pathlist_hook = rel_hook;
	set_join_pathlist_hook = join_hook;
	get_relation_info_hook = info_hook;
}
