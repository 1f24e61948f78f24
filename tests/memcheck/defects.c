/*
 * Errors in the use of memory, for the test that valgrind finds them.
 */
#include "postgres.h"

#include "fmgr.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(overflow);
PG_FUNCTION_INFO_V1(use_after_free);
PG_FUNCTION_INFO_V1(uninitialised);
PG_FUNCTION_INFO_V1(correct);

/* Write one byte beyond an allocation. */
Datum
overflow(PG_FUNCTION_ARGS)
{
	volatile char *bytes = palloc(10);

	bytes[10] = 1;
	PG_RETURN_BOOL(true);
}

/* Read memory that was freed. */
Datum
use_after_free(PG_FUNCTION_ARGS)
{
	volatile char *bytes = palloc0(10);

	pfree((void *) bytes);
	PG_RETURN_BOOL(bytes[0] == 1);
}

/* Decide by what nobody has written. */
Datum
uninitialised(PG_FUNCTION_ARGS)
{
	volatile char *bytes = palloc(10);

	if (bytes[3] == 1)
		elog(DEBUG1, "one");
	PG_RETURN_BOOL(true);
}

/* Do nothing wrong. */
Datum
correct(PG_FUNCTION_ARGS)
{
	volatile char *bytes = palloc0(10);

	PG_RETURN_BOOL(bytes[9] == 1);
}
