/*-------------------------------------------------------------------------
 *
 * module.c
 *	  Loading of the library: settings, planner hooks, the handler.
 *
 * The handler's call loads the library, and the planner calls the handler
 * before it plans a join, so the hooks need no preload setting.
 *
 * Some libraries set planner hooks without calling those that were there
 * before.  Preloaded, ours are therefore set when all libraries have been
 * loaded, whatever their order; and a model's scan that comes to be planned
 * without them says so.
 *
 *-------------------------------------------------------------------------
 */
#include "model_fdw.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);
PG_FUNCTION_INFO_V1(model_fdw_handler);

bool  model_fdw_enable_model_join = true;
char *model_fdw_python_path = NULL;

static shmem_startup_hook_type previous_startup_hook = NULL;
static bool					   hooks_installed = false;
static bool					   preloaded = false;

/* Install the planner hooks, once: a crash starts shared memory anew. */
static void
install_hooks(void)
{
	if (hooks_installed)
		return;
	model_join_path_init();
	model_subquery_init();
	hooks_installed = true;
}

/* Hook: shared memory starts, after all libraries have been loaded. */
static void
startup_hook(void)
{
	if (previous_startup_hook)
		previous_startup_hook();
	install_hooks();
}

/*
 * Warn, once a session, of a library that keeps our planner hooks from being
 * called.  "hooks" are those that have seen the table, "expected" those that
 * should have.
 */
void
model_check_hooks(int hooks, int expected)
{
	static bool warned = false;
	int			missing = expected & ~hooks;
	const char *name;

	if (missing == 0 || warned)
		return;
	warned = true;
	if (missing & MODEL_HOOK_JOIN)
		name = "set_join_pathlist_hook";
	else if (missing & MODEL_HOOK_REL)
		name = "set_rel_pathlist_hook";
	else
		name = "get_relation_info_hook";
	ereport(WARNING,
			(errmsg("another library keeps model_fdw from planning joins"),
			 errdetail("It has set planner hook \"%s\" and does not call the one that was set before.",
					   name),
			 preloaded ? 0 :
			 errhint("Add \"model_fdw\" to \"shared_preload_libraries\" and restart the server.")));
}

/* Define the settings and install the planner hooks. */
void
_PG_init(void)
{
	DefineCustomBoolVariable(
		"model_fdw.enable_model_join",
		"Enables the planner's use of Model Join plans.",
		"When off, a join with a model table sends one request per outer row.",
		&model_fdw_enable_model_join, true, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable(
		"model_fdw.python_path",
		"Directories, separated by colons, that hold the Python packages of model_fdw.",
		"Read when a session first uses a model.", &model_fdw_python_path,
		MODEL_FDW_PYTHON_PATH, PGC_SUSET, GUC_SUPERUSER_ONLY, NULL, NULL,
		NULL);
#if PG_VERSION_NUM >= 150000
	MarkGUCPrefixReserved("model_fdw");
#else
	EmitWarningsOnPlaceholders("model_fdw");
#endif
	RegisterCustomScanMethods(&model_join_scan_methods);
	RegisterCustomScanMethods(&model_append_scan_methods);
	RegisterCustomScanMethods(&model_adopted_scan_methods);
	preloaded = process_shared_preload_libraries_in_progress;
	if (!preloaded)
	{
		install_hooks();
		return;
	}
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_hook;
	model_python_preload();
}

/* SQL function: the callbacks of the foreign data wrapper. */
Datum
model_fdw_handler(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	model_scan_routine(routine);
	routine->ImportForeignSchema = model_import_foreign_schema;
	PG_RETURN_POINTER(routine);
}
