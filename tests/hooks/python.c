/*
 * A library that looks as if another language had started another Python:
 * loaded first, it answers the calls that ask.
 */
#include "postgres.h"
#include "fmgr.h"

PG_MODULE_MAGIC;

int			Py_IsInitialized(void);
const char *Py_GetVersion(void);

int
Py_IsInitialized(void)
{
	return 1;
}

const char *
Py_GetVersion(void)
{
	return "3.1.4 (main, Jun 11 2011, 12:00:00) [GCC]";
}
