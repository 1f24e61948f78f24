/*-------------------------------------------------------------------------
 *
 * python.c
 *	  The embedded Python interpreter: start, call, wait.
 *
 * Rules, each of which was learnt from a crash or a hang:
 *
 * - Every entry blocks signals, so that threads which gRPC makes inherit the
 *   mask and no PostgreSQL signal handler runs in one of them.  Objects are
 *   made inside only: making one may collect garbage, which runs Python code
 *   and closes channels.  What is outside may be looked at, not made.
 * - The backend holds the GIL always, but for the wait in event_wait() and
 *   the moment in which close() lets threads end: functions of other
 *   languages (plpython) expect to own it.
 * - No PostgreSQL error crosses a Python frame: a Python exception is copied
 *   into the plain struct "failure" first and raised when Python is left.
 * - Python never waits for the network.  C waits on the backend's latch and
 *   on an eventfd that Python's callbacks write, and checks for interrupts.
 *
 *-------------------------------------------------------------------------
 */
#include "model_fdw.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "mb/pg_wchar.h"
#include "nodes/parsenodes.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"

/* a Python exception on its way to ereport() */
typedef struct HostFailure
{
	char sqlstate[6];
	char message[2048];
	char detail[2048];
	char hint[2048];
} HostFailure;

// clang-format off
static const char *const host_function_names[HOST_NFUNCTIONS] = {
	[HOST_VALIDATE] = "validate",
	[HOST_VALIDATE_TABLE] = "validate_table",
	[HOST_DESCRIBE] = "describe",
	[HOST_OPEN] = "open",
	[HOST_SUBMIT] = "submit",
	[HOST_POLL] = "poll",
	[HOST_COLLECT] = "collect",
	[HOST_CANCEL] = "cancel",
	[HOST_CLOSE] = "close",
	[HOST_TRAFFIC] = "traffic",
	[HOST_STATISTICS] = "statistics",
	[HOST_IMPORT_SCHEMA] = "import_schema",
	[HOST_CHECK] = "check",
};
// clang-format on

static PyObject	  *host_functions[HOST_NFUNCTIONS];
static PyObject	  *json_loads = NULL;
static bool		   host_started = false;
static int		   host_event_fd = -1;
static HostFailure failure;
static sigset_t	   saved_mask;

/* Block signals; every use of Python stands between enter and leave. */
static void
python_enter(void)
{
	sigset_t mask;

	sigfillset(&mask);
	/* these are raised by the thread's own fault, and then end it anyway */
	sigdelset(&mask, SIGSEGV);
	sigdelset(&mask, SIGBUS);
	sigdelset(&mask, SIGFPE);
	sigdelset(&mask, SIGILL);
	sigdelset(&mask, SIGTRAP);
	sigdelset(&mask, SIGABRT);
	pthread_sigmask(SIG_SETMASK, &mask, &saved_mask);
}

/* Unblock signals. */
static void
python_leave(void)
{
	pthread_sigmask(SIG_SETMASK, &saved_mask, NULL);
}

/* Copy an attribute of an exception, or nothing if it has no such text. */
static void
copy_text(PyObject *object, char *buffer, size_t size)
{
	Py_ssize_t	length;
	const char *text;

	buffer[0] = '\0';
	if (object == NULL || !PyUnicode_Check(object))
		return;
	text = PyUnicode_AsUTF8AndSize(object, &length);
	if (text == NULL)
	{
		PyErr_Clear();
		return;
	}
	if ((size_t) length >= size)
		length = pg_encoding_mbcliplen(PG_UTF8, text, length, size - 1);
	memcpy(buffer, text, length);
	buffer[length] = '\0';
}

/* Copy a named attribute of an exception. */
static void
copy_attribute(PyObject *exception, const char *name, char *buffer,
			   size_t size)
{
	PyObject *value = PyObject_GetAttrString(exception, name);

	if (value == NULL)
		PyErr_Clear();
	copy_text(value, buffer, size);
	Py_XDECREF(value);
}

/* Turn the pending Python exception into "failure". */
static void
fetch_failure(void)
{
	PyObject *type;
	PyObject *value;
	PyObject *traceback;

	memset(&failure, 0, sizeof(failure));
	PyErr_Fetch(&type, &value, &traceback);
	PyErr_NormalizeException(&type, &value, &traceback);
	if (value)
		copy_attribute(value, "sqlstate", failure.sqlstate,
					   sizeof(failure.sqlstate));
	if (strlen(failure.sqlstate) == 5)
	{
		copy_attribute(value, "message", failure.message,
					   sizeof(failure.message));
		copy_attribute(value, "detail", failure.detail,
					   sizeof(failure.detail));
		copy_attribute(value, "hint", failure.hint, sizeof(failure.hint));
	}
	else if (type && PyErr_GivenExceptionMatches(type, PyExc_MemoryError))
	{
		/* as PostgreSQL says it */
		strlcpy(failure.sqlstate, "53200", sizeof(failure.sqlstate));
		strlcpy(failure.message, "out of memory", sizeof(failure.message));
		strlcpy(failure.detail, "Failed in the model engine, in Python.",
				sizeof(failure.detail));
	}
	else
	{
		/* not one of ours: a defect, so say what it was */
		PyObject *text = value ? PyObject_Str(value) : NULL;

		if (text == NULL)
			PyErr_Clear();
		strlcpy(failure.sqlstate, "XX000", sizeof(failure.sqlstate));
		strlcpy(failure.message, "unexpected error in the model engine",
				sizeof(failure.message));
		copy_text(text, failure.hint, sizeof(failure.hint));
		snprintf(failure.detail, sizeof(failure.detail), "%s: %s.",
				 type ? ((PyTypeObject *) type)->tp_name : "exception",
				 failure.hint);
		failure.hint[0] = '\0';
		Py_XDECREF(text);
	}
	Py_XDECREF(type);
	Py_XDECREF(value);
	Py_XDECREF(traceback);
	PyErr_Clear();
}

/* The text in the server's encoding, in a form that cannot fail. */
static const char *
failure_text(char *text)
{
	if (GetDatabaseEncoding() != PG_UTF8)
		for (char *c = text; *c; c++)
			if (IS_HIGHBIT_SET(*c))
				*c = '?';
	return text;
}

/* Where Python packages are looked for, for those who may read the setting. */
static int
detail_searched(const char *sqlstate)
{
	if (strcmp(sqlstate, "58P01") != 0 || !IsTransactionState() ||
		!superuser())
		return 0;
	return errdetail(
		"The directories of \"model_fdw.python_path\" are \"%s\".",
		model_fdw_python_path);
}

/* Raise the failure that Python left behind. */
void
model_python_raise(void)
{
	const char *state = failure.sqlstate;

	ereport(ERROR,
			(errcode(MAKE_SQLSTATE(state[0], state[1], state[2],
								   state[3], state[4])),
			 errmsg_internal("%s", failure_text(failure.message)),
			 failure.detail[0] ?
			 errdetail_internal("%s", failure_text(failure.detail)) :
			 detail_searched(state),
			 failure.hint[0] ?
			 errhint("%s", failure_text(failure.hint)) : 0));
}

/*
 * Built-in module "plpy" for a plpython3 that is loaded after us: it adds the
 * name too late for an interpreter that already runs, so it is resolved here.
 */
static PyObject *
resolve_plpy(void)
{
	typedef PyObject *(*ModuleInit)(void);
	ModuleInit init = (ModuleInit) dlsym(RTLD_DEFAULT, "PyInit_plpy");

	if (init)
		return init();
	PyErr_SetString(PyExc_ImportError, "plpython3 is not loaded");
	return NULL;
}

/* The contents of a file; NULL if it cannot be read. */
static StringInfo
read_file(const char *path)
{
	StringInfo contents;
	FILE	  *file = AllocateFile(path, PG_BINARY_R);
	size_t	   n;

	if (file == NULL)
		return NULL;
	contents = makeStringInfo();
	do
	{
		enlargeStringInfo(contents, BLCKSZ);
		n = fread(contents->data + contents->len, 1, BLCKSZ, file);
		contents->len += n;
	}
	while (n > 0);
	FreeFile(file);
	return contents;
}

/* does plpython3 suit us? */
typedef enum PlPython
{
	PLPYTHON_NONE, /* it is not installed */
	PLPYTHON_SAME, /* it is for the Python that we are for */
	PLPYTHON_OTHER
} PlPython;

/*
 * Which Python is plpython3 for?  The name of the libpython that a library
 * needs is among its strings.
 */
static PlPython
find_plpython(void)
{
	char	   name[32];
	StringInfo contents;
	char	  *found;

	contents = read_file(psprintf("%s/plpython3%s", pkglib_path, DLSUFFIX));
	if (contents == NULL)
		return PLPYTHON_NONE;
	snprintf(name, sizeof(name), "libpython%d.%d", PY_MAJOR_VERSION,
			 PY_MINOR_VERSION);
	found = memmem(contents->data, contents->len, name, strlen(name));
	return found && !isdigit((unsigned char) found[strlen(name)])
		? PLPYTHON_SAME
		: PLPYTHON_OTHER;
}

/*
 * In the place of libpython's function, for libraries that are loaded after
 * us: plpython3 calls it first of all.  The calls of one that is for another
 * Python reach our libpython, where they would end the process.
 */
PGDLLEXPORT int
PyImport_AppendInittab(const char *name, PyObject *(*init)(void) )
{
	typedef int (*AppendInittab)(const char *, PyObject *(*)(void) );
	AppendInittab append = (AppendInittab) dlsym(RTLD_NEXT,
												 "PyImport_AppendInittab");

	if (strcmp(name, "plpy") == 0 && init != resolve_plpy &&
		find_plpython() == PLPYTHON_OTHER)
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("plpython3 is for another Python than model_fdw, which this session has loaded"),
				 errdetail("model_fdw was built for Python %s.", PY_VERSION),
				 errhint("Use them in different sessions, or install model_fdw with the Python of plpython3.")));
	return append(name, init);
}

#if PY_VERSION_HEX >= 0x030C0000

/* Is plpython3 there for our Python, which nobody has started yet? */
static bool
plpython_must_start(void)
{
	return !Py_IsInitialized() && find_plpython() == PLPYTHON_SAME;
}

/* plpython3's function that runs a DO block; NULL if it cannot be loaded. */
static PGFunction
load_plpython(void)
{
	PGFunction	  function = NULL;
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		function = load_external_function("plpython3",
										  "plpython3_inline_handler", true,
										  NULL);
	}
	PG_CATCH();
	{
		/* what cannot be loaded now cannot be later, and does no harm */
		MemoryContextSwitchTo(context);
		FlushErrorState();
		function = NULL;
	}
	PG_END_TRY();
	return function;
}

/*
 * Let plpython3 start Python, where it is installed: from 3.12 on, its adding
 * of module "plpy" to an interpreter that runs aborts the process.  Loading
 * it is not enough, it starts Python with its first code.
 */
static void
let_plpython_start(void)
{
	InlineCodeBlock *code = makeNode(InlineCodeBlock);
	PGFunction		 function = plpython_must_start() ? load_plpython() : NULL;

	code->source_text = "pass";
	code->atomic = true;
	if (function)
		DirectFunctionCall1(function, PointerGetDatum(code));
}

#endif

/*
 * Is the Python that another language has started the one that we were built
 * for?  Else set "failure": the two lay out objects differently.
 */
static bool
check_version(void)
{
	const char *version = Py_GetVersion();
	char		ours[32];

	snprintf(ours, sizeof(ours), "%d.%d.", PY_MAJOR_VERSION, PY_MINOR_VERSION);
	if (strncmp(version, ours, strlen(ours)) == 0)
		return true;
	memset(&failure, 0, sizeof(failure));
	strlcpy(failure.sqlstate, "58000", sizeof(failure.sqlstate));
	strlcpy(failure.message,
			"another language has started another Python in this session",
			sizeof(failure.message));
	snprintf(failure.detail, sizeof(failure.detail),
			 "It is Python %.*s, and model_fdw was built for Python %s.",
			 (int) strcspn(version, " "), version, PY_VERSION);
	strlcpy(
		failure.hint,
		"Use them in different sessions, or install model_fdw with the Python of the other language.",
		sizeof(failure.hint));
	return false;
}

/*
 * Start the interpreter, unless another language already has.  Returns false,
 * with "failure" set, if that is not possible.
 */
static bool
start_interpreter(void)
{
	PyConfig config;
	PyStatus status;

	if (Py_IsInitialized())
		return check_version();
	PyImport_AppendInittab("plpy", resolve_plpy);

	/* isolated: the environment of the server's start must not steer it */
	PyConfig_InitIsolatedConfig(&config);
	config.install_signal_handlers = 0;
	status = PyConfig_SetBytesString(&config, &config.home,
									 MODEL_FDW_PYTHON_HOME);
	if (!PyStatus_Exception(status))
		status = Py_InitializeFromConfig(&config);
	PyConfig_Clear(&config);
	if (!PyStatus_Exception(status))
		return true;
	memset(&failure, 0, sizeof(failure));
	strlcpy(failure.sqlstate, "58000", sizeof(failure.sqlstate));
	snprintf(failure.message, sizeof(failure.message),
			 "could not start Python from \"%s\"", MODEL_FDW_PYTHON_HOME);
	snprintf(failure.detail, sizeof(failure.detail), "%s.",
			 status.err_msg ? status.err_msg : "The reason is not known");
	return false;
}

/*
 * Put our package directories in front of sys.path, with their .pth files
 * honoured, and return the module fdw.host, or NULL with an exception set.
 */
static PyObject *
import_host(void)
{
	static const char *const setup =
		"import site, sys\n"
		"def add(path):\n"
		"    known = list(sys.path)\n"
		"    for directory in path.split(':'):\n"
		"        if directory and directory not in known:\n"
		"            site.addsitedir(directory)\n"
		"    new = [p for p in sys.path if p not in known]\n"
		"    sys.path[:] = new + known\n";
	PyObject *globals = PyDict_New();
	PyObject *result = NULL;
	PyObject *host = NULL;

	if (globals == NULL)
		return NULL;
	if (PyDict_SetItemString(globals, "__builtins__", PyEval_GetBuiltins()) ==
		0)
		result = PyRun_String(setup, Py_file_input, globals, globals);
	if (result)
	{
		PyObject *add = PyDict_GetItemString(globals, "add");

		Py_DECREF(result);
		result = PyObject_CallFunction(add, "s",
									   model_fdw_python_path
										   ? model_fdw_python_path
										   : "");
	}
	if (result)
	{
		Py_DECREF(result);
		host = PyImport_ImportModule("fdw.host");
	}
	Py_DECREF(globals);
	return host;
}

/*
 * Tell the host our eventfd and version, and find its functions; -1 on an
 * exception.
 */
static int
bind_host(PyObject *host)
{
	PyObject *json;
	PyObject *result;

	/* first: a package of another version may lack what follows */
	result = PyObject_CallMethod(host, "start", "is", host_event_fd,
								 MODEL_FDW_VERSION);
	if (result == NULL)
		return -1;
	Py_DECREF(result);
	for (int i = 0; i < HOST_NFUNCTIONS; i++)
	{
		Py_XDECREF(host_functions[i]);
		host_functions[i] = PyObject_GetAttrString(host,
												   host_function_names[i]);
		if (host_functions[i] == NULL)
			return -1;
	}
	json = PyImport_ImportModule("json");
	if (json == NULL)
		return -1;
	json_loads = PyObject_GetAttrString(json, "loads");
	Py_DECREF(json);
	return json_loads ? 0 : -1;
}

/* Say which package is missing and where it was sought. */
static void
explain_missing_package(void)
{
	PyObject *type;
	PyObject *value;
	PyObject *traceback;
	char	  name[64];

	if (!PyErr_ExceptionMatches(PyExc_ImportError))
	{
		fetch_failure();
		return;
	}
	PyErr_Fetch(&type, &value, &traceback);
	PyErr_NormalizeException(&type, &value, &traceback);
	memset(&failure, 0, sizeof(failure));
	strlcpy(failure.sqlstate, "58P01", sizeof(failure.sqlstate));
	copy_attribute(value, "name", name, sizeof(name));
	snprintf(failure.message, sizeof(failure.message),
			 "could not import Python package \"%s\"", name[0] ? name : "fdw");
	snprintf(
		failure.hint, sizeof(failure.hint),
		"Install model_fdw with pip into a directory that setting \"model_fdw.python_path\" names.");
	Py_XDECREF(type);
	Py_XDECREF(value);
	Py_XDECREF(traceback);
}

/*
 * In a child of the postmaster: let Python's own fork handlers run, so that
 * random numbers, locks and thread identities are the child's own.
 */
static void
after_fork(void)
{
	sigset_t mask = saved_mask;

	if (getppid() != PostmasterPid)
		return;
	python_enter();
	/* both halves: from 3.13 on, the second releases what the first takes */
	PyOS_BeforeFork();
	PyOS_AfterFork_Child();
	python_leave();
	saved_mask = mask;
}

/*
 * Import everything before the postmaster forks, so that a session's first
 * query need not.  No thread may exist before the fork, so nothing is
 * connected; and a server must start even if Python does not.
 */
void
model_python_preload(void)
{
	PyObject *host;
	PyObject *result = NULL;

#if PY_VERSION_HEX >= 0x030C0000
	if (plpython_must_start())
	{
		ereport(WARNING,
				(errmsg("could not preload the Python modules of model_fdw"),
				 errdetail("From Python 3.12 on, plpython3 must be the first to start Python, which it does in a session only.")));
		return;
	}
#endif
	python_enter();
	if (start_interpreter())
	{
		host = import_host();
		if (host)
			result = PyObject_CallMethod(host, "preload", NULL);
		Py_XDECREF(host);
		if (result == NULL)
			explain_missing_package();
		Py_XDECREF(result);
	}
	python_leave();
	if (Py_IsInitialized())
		pthread_atfork(NULL, NULL, after_fork);
	if (result == NULL)
		ereport(WARNING,
				(errmsg("could not preload the Python modules of model_fdw"),
				 errdetail_internal("%s.", failure.message),
				 failure.hint[0] ? errhint("%s", failure.hint) : 0));
}

/*
 * Start Python and the engine in this backend, once.
 *
 * A failed import may be cured while the session lives, so it is tried again
 * at the next use.  So is an interrupted start.
 */
void
model_python_start(void)
{
	PyObject *host;
	int		  bound = -1;
	bool	  started;

	if (host_started)
		return;
	if (host_event_fd < 0)
	{
		host_event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		if (host_event_fd < 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not create an event descriptor: %m")));
		/* it stays open, so that files must do with one less */
		ReserveExternalFD();
	}
#if PY_VERSION_HEX >= 0x030C0000
	let_plpython_start();
#endif
	python_enter();
	started = start_interpreter();
	python_leave();
	if (!started)
		model_python_raise();
	CHECK_FOR_INTERRUPTS();
	python_enter();
	host = import_host();
	if (host)
		bound = bind_host(host);
	Py_XDECREF(host);
	if (bound < 0)
		explain_missing_package();
	python_leave();
	if (bound < 0)
		model_python_raise();
	host_started = true;
}

/*
 * Call a function of the host.  Steals "args", which may be NULL if building
 * it failed.  Returns a new reference, or NULL with "failure" set.
 */
static PyObject *
invoke(HostFunction function, PyObject *args)
{
	PyObject *result = NULL;

	if (args)
		result = PyObject_Call(host_functions[function], args, NULL);
	Py_XDECREF(args);
	if (result == NULL)
		fetch_failure();
	return result;
}

/*
 * Call a function of the host, with arguments as Py_BuildValue() takes them: a
 * tuple, "N" for what it steals, "O&" for a function that makes the object.
 * Raises what it raises.
 */
PyObject *
model_python_call(HostFunction function, const char *format, ...)
{
	PyObject *result;
	va_list	  values;

	python_enter();
	va_start(values, format);
	result = invoke(function, Py_VaBuildValue(format, values));
	va_end(values);
	python_leave();
	if (result == NULL)
		model_python_raise();
	return result;
}

/* Parse JSON text (server encoding) into Python's dicts and lists. */
PyObject *
model_python_json(const char *json)
{
	PyObject *result;
	char	 *utf8 = pg_server_to_any(json, strlen(json), PG_UTF8);

	python_enter();
	result = PyObject_CallFunction(json_loads, "s", utf8);
	if (result == NULL)
		fetch_failure();
	python_leave();
	if (result == NULL)
		model_python_raise();
	return result;
}

/*
 * Wait until Python has written the eventfd, the latch is set or "timeout_ms"
 * is over (-1: never), then serve interrupts.
 *
 * This is the only place in C that gives the GIL away.  Nothing in here but
 * WaitLatchOrSocket() runs without it, and the postmaster's death is handled
 * only after it is back: exit callbacks may release Python objects.
 */
static void
event_wait(long timeout_ms)
{
	int events = WL_LATCH_SET | WL_SOCKET_READABLE | WL_POSTMASTER_DEATH;
	volatile int   rc = 0;
	uint64		   count;
	PyThreadState *thread;

	if (timeout_ms >= 0)
		events |= WL_TIMEOUT;
	thread = PyEval_SaveThread();
	PG_TRY();
	{
		rc = WaitLatchOrSocket(MyLatch, events, host_event_fd, timeout_ms,
							   PG_WAIT_EXTENSION);
	}
	PG_FINALLY();
	{
		PyEval_RestoreThread(thread);
	}
	PG_END_TRY();

	if (rc & WL_POSTMASTER_DEATH)
		proc_exit(1);
	if (rc & WL_SOCKET_READABLE)
	{
		/* one read takes the whole count; EAGAIN means that it was taken */
		if (read(host_event_fd, &count, sizeof(count)) < 0 &&
			errno != EAGAIN && errno != EINTR)
			elog(ERROR, "could not read the event descriptor: %m");
	}
	if (rc & WL_LATCH_SET)
		ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* Ask a ticket how long it may be left alone; 0: it is finished. */
static long
poll_ticket(PyObject *ticket)
{
	PyObject *result;
	long	  timeout_ms = -1;

	python_enter();
	result = invoke(HOST_POLL, Py_BuildValue("(O)", ticket));
	if (result)
		timeout_ms = PyLong_AsLong(result);
	Py_XDECREF(result);
	python_leave();
	if (result == NULL)
		model_python_raise();
	return timeout_ms;
}

/*
 * Wait for a ticket and return its result.  The ticket stays the caller's: it
 * must be dropped also when this raises or is interrupted.
 */
PyObject *
model_python_finish(PyObject *ticket)
{
	long timeout_ms;

	/* an interrupt that came earlier must not wait for the first event */
	CHECK_FOR_INTERRUPTS();
	while ((timeout_ms = poll_ticket(ticket)) != 0)
		event_wait(timeout_ms);
	return model_python_call(HOST_COLLECT, "(O)", ticket);
}

/*
 * Cancel or close an object and drop our reference.  Never raises: it is
 * called while a transaction is cleaned up.
 */
void
model_python_drop(PyObject *object, HostFunction function)
{
	PyObject *result;

	if (object == NULL)
		return;
	python_enter();
	result = PyObject_CallFunctionObjArgs(host_functions[function], object,
										  NULL);
	if (result == NULL)
		PyErr_Clear();
	Py_XDECREF(result);
	Py_DECREF(object);
	python_leave();
}

/* Drop a reference. */
void
model_python_release(PyObject *object)
{
	if (object == NULL)
		return;
	python_enter();
	Py_DECREF(object);
	python_leave();
}

/* Release buffers that model_python_view() took. */
void
model_python_release_buffers(Py_buffer *views, int nviews)
{
	if (nviews == 0)
		return;
	python_enter();
	for (int i = 0; i < nviews; i++)
		PyBuffer_Release(&views[i]);
	python_leave();
}

/* Take a read-only view of an object's bytes. */
void
model_python_view(PyObject *object, Py_buffer *view)
{
	int rc;

	python_enter();
	rc = PyObject_GetBuffer(object, view, PyBUF_SIMPLE);
	if (rc < 0)
		fetch_failure();
	python_leave();
	if (rc < 0)
		model_python_raise();
}

/* A palloc'd copy of a Python string, in the server's encoding. */
char *
model_python_string(PyObject *object)
{
	Py_ssize_t	length;
	const char *utf8 = PyUnicode_AsUTF8AndSize(object, &length);
	char	   *text;

	if (utf8 == NULL)
	{
		python_enter();
		fetch_failure();
		python_leave();
		model_python_raise();
	}
	text = pg_any_to_server(utf8, length, PG_UTF8);
	return text == utf8 ? pstrdup(text) : text;
}
