/*-------------------------------------------------------------------------
 *
 * module.c
 *	  Loading of the library: settings, planner hooks, the handler.
 *
 * The handler's call loads the library, and the planner calls the handler
 * before it plans a join, so the hooks need no preload setting.
 *
 *-------------------------------------------------------------------------
 */
#include "model_fdw.h"

#include "miscadmin.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);
PG_FUNCTION_INFO_V1(model_fdw_handler);

bool  model_fdw_enable_model_join = true;
char *model_fdw_python_path = NULL;

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
	model_join_path_init();
	model_subquery_init();
	if (process_shared_preload_libraries_in_progress)
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
