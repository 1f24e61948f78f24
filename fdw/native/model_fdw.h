/*-------------------------------------------------------------------------
 *
 * model_fdw.h
 *	  Everything that the files of the library share.
 *
 * The library knows SQL types and buffers; tensors, protocols and servers
 * are Python's (package fdw, reached only through fdw/host.py).
 *
 *-------------------------------------------------------------------------
 */
#ifndef MODEL_FDW_H
#define MODEL_FDW_H

/* Python.h wants to be first; it and postgres.h disagree on a few macros */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#undef _POSIX_C_SOURCE
#undef _XOPEN_SOURCE
#undef HAVE_STRERROR
#undef HAVE_TZNAME

#include "postgres.h"

#include "commands/explain.h"
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif
#include "executor/executor.h"
#include "fmgr.h"
#include "foreign/fdwapi.h"
#include "nodes/extensible.h"
#include "nodes/pathnodes.h"
#include "port/atomics.h"
#include "portability/instr_time.h"
#include "utils/array.h"

/* before 15, every custom node was taken to project */
#ifndef CUSTOMPATH_SUPPORT_PROJECTION
#define CUSTOMPATH_SUPPORT_PROJECTION 0
#endif

/* limits of the settings; the table options' limits are in fdw/options.py */
#define MODEL_FIRST_BATCH  64 /* rows of a scan's first batch */
#define MODEL_BATCH_GROWTH 4  /* factor from one batch to the next */

/*
 * Costs.  A request costs MODEL_REQUEST_COST, a row in it the table's
 * "row_cost".  One request per outer row must lose to the Model Join whatever
 * Memoize hopes for, and a scan that cannot run must lose to everything.
 */
#define MODEL_REQUEST_COST	   200.0
#define MODEL_PER_ROW_COST	   1e10
#define MODEL_WORKER_COST	   25000.0 /* a worker imports Python's modules */
#define MODEL_UNBOUND_COST	   1e25
#define MODEL_UNBOUND_DISABLED 1000000

/* ---- module.c ---- */

/* planner hooks that see a model's relation, bits */
#define MODEL_HOOK_INFO 1
#define MODEL_HOOK_REL	2
#define MODEL_HOOK_JOIN 4

extern bool	 model_fdw_enable_model_join;
extern char *model_fdw_python_path;
extern void model_check_hooks(int hooks, int expected);

/* ---- python.c: the embedded interpreter ---- */

/* the functions of fdw/host.py, the only ones that C calls */
typedef enum HostFunction
{
	HOST_VALIDATE,
	HOST_VALIDATE_TABLE,
	HOST_DESCRIBE,
	HOST_OPEN,
	HOST_SUBMIT,
	HOST_POLL,
	HOST_COLLECT,
	HOST_CANCEL,
	HOST_CLOSE,
	HOST_TRAFFIC,
	HOST_STATISTICS,
	HOST_IMPORT_SCHEMA,
	HOST_CHECK,
	HOST_NFUNCTIONS
} HostFunction;

extern void model_python_preload(void);
extern void model_python_start(void);
extern PyObject *model_python_call(HostFunction function, const char *format,
								   ...);
extern PyObject *model_python_json(const char *json);
extern PyObject *model_python_finish(PyObject *ticket);
extern void model_python_drop(PyObject *object, HostFunction function);
extern void model_python_release(PyObject *object);
extern void model_python_release_buffers(Py_buffer *views, int nviews);
extern void model_python_view(PyObject *object, Py_buffer *view);
extern char *model_python_string(PyObject *object);
extern void model_python_raise(void) __attribute__((noreturn));

/* ---- options.c: catalogs to JSON, for Python ---- */

extern void model_json_string(StringInfo json, const char *string);
extern void model_json_options(StringInfo json, List *options);
extern void model_json_server(StringInfo json, Oid serverid);
extern List *model_user_mapping_options(Oid userid, Oid serverid);

/* ---- table.c: what a foreign table says about its model ---- */

/* one column of a model table, dropped columns left out */
typedef struct ModelColumn
{
	AttrNumber attnum;
	char	  *name;
	bool	   input;	 /* an input, else an output */
	bool	   optional; /* an input that may stay unbound */
	char	   kind;	 /* how values cross the seam, see columns.c */
	bool	   array;	 /* ... as elements of arrays */
	Oid		   typid;	 /* the column's own type */
	int32	   typmod;
	Oid		   collation;
	Oid		   natural; /* the SQL type of the kind, or its array */
} ModelColumn;

/* why a column's type does not suit its tensor */
typedef struct ModelMisfit
{
	int	  sqlstate;
	char *message;
	char *detail; /* or NULL */
	char *hint;
	char *type; /* the type that suits, as DDL takes it */
} ModelMisfit;

typedef struct ModelTable
{
	Oid			 relid;
	Oid			 userid; /* whose user mapping is used */
	char		*name;
	int			 ncolumns;
	ModelColumn *columns; /* in the order of attnum */
	int			 batch_size;
	int			 max_in_flight;
	double		 row_cost;
	char		*model;
	char		*version; /* empty: the server's choice */
	char		*endpoint;
	bool		 batched; /* does a request take several rows? */
	int			 hooks;	  /* planning: the MODEL_HOOKs that have seen it */
} ModelTable;

extern ModelTable *model_table_describe(Oid relid, Oid userid);
extern ModelTable *model_table_of(RelOptInfo *rel, Oid relid);
extern char *model_table_json(Oid relid, Oid userid);
extern ModelColumn *model_table_column(ModelTable *table, AttrNumber attnum);
extern void model_read_column(ModelColumn *column, TupleDesc desc,
							  PyObject *entry);
extern ModelMisfit *model_equality_misfit(ModelColumn *column,
										  const char  *table);
extern void model_raise_misfit(ModelMisfit *misfit) __attribute__((noreturn));
extern void model_refuse_system_column(AttrNumber attnum, bool member);
extern FdwRoutine *model_routine(void);
extern bool model_is_table(RelOptInfo *rel);
extern bool model_is_member(RelOptInfo *rel);
extern bool model_is_server(Oid wrapperid, List *options);
extern bool model_is_foreign_table(Oid relid);

/* ---- columns.c: Datums to typed buffers and back ---- */

/* a row's number of dimensions, and each of them */
#define MODEL_ROW_DIMENSIONS (1 + MAXDIM)

/* one input column of a batch that is being filled */
typedef struct ModelInput
{
	ModelColumn	   *column;
	int				width;		/* bytes an element, 0: variable */
	bool			plain;		/* the Datum's low bytes are the value */
	int				capacity;	/* rows that "values" has room for */
	char		   *values;		/* the values or, if variable or arrays, ... */
	int64		   *offsets;	/* ... nrows + 1 offsets in the same place */
	StringInfoData	bytes;		/* ... into these: strings, or elements */
	StringInfoData	borders;	/* int64: offsets of the strings in arrays */
	int32		   *dimensions; /* MODEL_ROW_DIMENSIONS for each array */
	ExprState	   *convert;	/* column's type to natural, NULL: the same */
	TupleTableSlot *slot;		/* the value that convert reads */
} ModelInput;

/* one output column of an answered batch */
typedef struct ModelOutput
{
	ModelColumn *column;
	int			 width;
	Py_buffer	 views[5];
	int			 nviews;
	const char	*values;
	const int64 *offsets;	 /* NULL: fixed width */
	const uint8 *nulls;		 /* NULL: no value is missing */
	const int64 *starts;	 /* of arrays: the number of the first element */
	const int32 *dimensions; /* of arrays: ndim of them for each */
	int			 ndim;
	bool		 plain; /* the value's bytes are the Datum's low ones */
} ModelOutput;

/* what an error while a column is converted is told to be about */
typedef struct ModelColumnContext
{
	const char *table;
	const char *column;
	bool		output;
} ModelColumnContext;

/* natural type to column's type, for one output column */
typedef struct ModelConversion
{
	ExprState		  *state; /* NULL: the same type */
	TupleTableSlot	  *slot;
	ModelColumnContext context;
} ModelConversion;

/* a bound value that the node itself brings to the type of its column */
typedef struct ModelAssignment
{
	bool			needed;
	ExprState	   *state; /* numeric to column's type, NULL: the same */
	TupleTableSlot *slot;
} ModelAssignment;

extern bool model_assigns(ModelColumn *column, Oid type);
extern void model_assignment_init(ModelAssignment *assignment,
								  ModelColumn *column, Node *value,
								  PlanState *parent);
extern Datum model_assign(ModelAssignment *assignment, Datum value,
						  ExprContext *econtext, bool *isnull);
extern ModelMisfit *model_cast_misfit(ModelColumn *column);
extern void model_column_error_context(void *arg);
extern Oid model_kind_type(char kind, bool array);
extern bool model_column_plain(ModelColumn *column);
extern int model_kind_width(char kind);
extern void model_input_init(ModelInput *input, ModelColumn *column,
							 PlanState *parent);
extern void model_input_reserve(ModelInput *input, int capacity,
								MemoryContext context);
extern PyObject *model_input_view(ModelInput *input, int nrows);
extern void model_input_append(ModelInput *input, int row, Datum value,
							   ExprContext *econtext, const char *table);
extern void model_conversion_init(ModelConversion *conversion,
								  ModelColumn *column, const char *table,
								  PlanState *parent);
extern void model_output_parse(ModelOutput *output, PyObject *result,
							   int nrows);
extern Datum model_output_datum(ModelOutput		*output,
								ModelConversion *conversion, int row,
								ExprContext *econtext, bool *isnull);

/* ---- stream.c: batches in flight ---- */

typedef struct ModelBatch
{
	int			  nrows;   /* rows sent */
	PyObject	 *ticket;  /* in flight */
	PyObject	 *result;  /* answered */
	ModelOutput	 *outputs; /* one per wanted output */
	MemoryContext context; /* what the caller keeps of its own rows */
	void		 *rows;	   /* the caller's rows */
} ModelBatch;

/* what EXPLAIN ANALYZE shows; times in microseconds */
typedef enum ModelCounter
{
	COUNT_BATCHES,
	COUNT_ROWS_SENT,
	COUNT_LARGEST_BATCH,
	COUNT_ROWS_UNMATCHED, /* a NULL input or a condition on inputs */
	COUNT_BYTES_SENT,	  /* of tensors */
	COUNT_BYTES_RECEIVED,
	COUNT_GATHER_TIME, /* outer rows, inputs, buffers */
	COUNT_SUBMIT_TIME, /* tensors, sending */
	COUNT_WAIT_TIME,   /* for the server */
	COUNT_DECODE_TIME, /* answers to columns */
	NCOUNTERS
} ModelCounter;

/* the counters of all parallel workers, in shared memory */
typedef struct SharedCounters
{
	pg_atomic_uint64 values[NCOUNTERS];
} SharedCounters;

/* the server's own times for the model, all clients; microseconds */
typedef struct ServerTimes
{
	bool  known;
	int64 queue;
	int64 compute;
} ServerTimes;

typedef struct ModelStream
{
	ModelTable		*table;
	int				 ninputs;
	ModelInput		*inputs; /* the buffers of the batch being filled */
	int				 noutputs;
	ModelColumn	   **outputs;
	ModelConversion *conversions;
	PyObject		*session; /* NULL until the first batch */
	PyObject		*ticket;  /* of the session being opened */
	ModelBatch		*ring;
	int				 nring;
	int				 head; /* the oldest in flight */
	int				 in_flight;
	int				 depth;		/* allowed in flight, grows to the maximum */
	int				 target;	/* rows of the next batch, grows */
	int				 nrows;		/* rows in the buffers */
	Size			 bytes;		/* of strings and arrays in the buffers */
	Size			 reserved;	/* memory of the batch before its first row */
	ModelBatch		*current;	/* the batch whose rows are being returned */
	bool			 exhausted; /* no further rows to send */
	int64			 counters[NCOUNTERS];
	SharedCounters	*shared;  /* where a parallel worker counts, too */
	bool			 measure; /* will EXPLAIN ANALYZE ask? */
	ServerTimes		 start;	  /* ... then these are of the start */
	MemoryContext	 context;
	MemoryContextCallback callback;
} ModelStream;

/*
 * Fills the batch with the caller's next rows (model_stream_add() for those
 * that are to be sent).  Returns false when there was none; sets
 * stream->exhausted when there will be none after these.
 */
typedef bool (*ModelFill)(void *state, ModelBatch *batch);

extern ModelStream *model_stream_create(ModelTable *table, List *inputs,
										List *outputs, PlanState *parent);
extern int model_stream_add(ModelStream *stream, Datum *values,
							ExprContext *econtext);
extern void model_stream_reserve(ModelStream *stream, ModelBatch *batch);
extern bool model_stream_full(ModelStream *stream, ModelBatch *batch);
extern ModelBatch *model_stream_next(ModelStream *stream, ModelFill fill,
									 void *state);
extern Datum model_stream_output(ModelStream *stream, ModelBatch *batch,
								 int output, int row, ExprContext *econtext,
								 bool *isnull);
extern void model_count(int64 *counters, ModelCounter counter, int64 value);
extern void model_stream_count(ModelStream *stream, ModelCounter counter,
							   int64 value);
extern ServerTimes model_stream_server_times(ModelStream *stream);
extern void model_stream_reset(ModelStream *stream);
extern void model_stream_close(ModelStream *stream);

/* ---- binding.c: which conditions give the inputs their values ---- */

/* what keeps an outer query's conditions from a scan in a subquery */
typedef enum ScanBarrier
{
	BARRIER_NONE, /* the scan is in no subquery */
	BARRIER_LIMIT,
	BARRIER_DISTINCT,
	BARRIER_GROUP,
	BARRIER_WINDOW,
	BARRIER_SECURITY,
	BARRIER_CTE,
	/* what else keeps a condition from binding an input */
	BARRIER_ROWS,
	BARRIER_OR,
	BARRIER_NOT_DISTINCT,
	BARRIER_SELF,
	BARRIER_FULL_JOIN,
	BARRIER_OUTER_JOIN,
	BARRIER_JOIN_ORDER
} ScanBarrier;

typedef struct ModelBindings
{
	List	  *attnums; /* integers: the bound inputs, table order */
	List	  *values;	/* expressions, cast to the columns' types, or
						 * floats for model_assign() */
	List	  *lists;	/* integers: 1 where the value is an array */
	List	  *exact;	/* RestrictInfos that hold by the binding */
	Relids	   relids;	/* relations that the values read */
	List	  *unbound; /* integers: the required inputs without a value */
	bool	   per_row; /* a scan that runs once per outer row */
	int		   barrier; /* a ScanBarrier: why nothing else may bind ... */
	AttrNumber barred;	/* ... this input, or 0: any */
} ModelBindings;

extern bool model_bind(PlannerInfo *root, RelOptInfo *rel, ModelTable *table,
					   Relids available, List *clauses, bool allow_lists,
					   ModelBindings *bindings);
extern ScanBarrier model_find_obstacle(PlannerInfo *root, RelOptInfo *rel,
									   AttrNumber attnum);
extern bool model_binds_column(RelOptInfo *rel, EquivalenceMember *member,
							   AttrNumber attnum);
extern Index model_security_level(RestrictInfo *rinfo);
extern List *model_order_quals(List *quals);
extern void model_split_quals(PlannerInfo *root, RelOptInfo *rel,
							  ModelBindings *bindings, List *quals,
							  List **before, List **after);
extern List *model_implied_clauses(PlannerInfo *root, RelOptInfo *rel,
								   AttrNumber attnum, Relids prohibited);

/* ---- scan.c, import.c: the foreign data wrapper ---- */

/* the lists of a scan's fdw_exprs or custom_exprs */
typedef enum ScanExpr
{
	SCAN_EXPR_VALUES,  /* one per bound input, or an array of them */
	SCAN_EXPR_BEFORE,  /* conditions checked before a row is sent */
	SCAN_EXPR_RECHECK, /* conditions that hold by the bindings */
	SCAN_NEXPRS
} ScanExpr;

/* the lists of integers of a scan's fdw_private or custom_private */
typedef enum ScanPrivate
{
	SCAN_PRIVATE_HEADER,  /* see ScanHeader */
	SCAN_PRIVATE_INPUTS,  /* attnums of the bound inputs */
	SCAN_PRIVATE_LISTS,	  /* 1 where the value is an array */
	SCAN_PRIVATE_OUTPUTS, /* attnums of the outputs that are read */
	SCAN_PRIVATE_UNBOUND, /* attnums of required inputs without a value */
	SCAN_NPRIVATE
} ScanPrivate;

typedef enum ScanHeader
{
	SCAN_HEADER_USERID,
	SCAN_HEADER_PER_ROW, /* 1 if each outer row sends a request */
	SCAN_HEADER_BARRIER, /* a ScanBarrier ... */
	SCAN_HEADER_BARRED,	 /* ... and the attnum that it is about, or 0 */
	SCAN_NHEADER
} ScanHeader;

typedef struct ModelScanState ModelScanState;

extern void model_scan_routine(FdwRoutine *routine);
extern List *model_scan_reparameterize(PlannerInfo *root, List *private,
									   RelOptInfo *child);
extern void model_scan_lists(PlannerInfo *root, RelOptInfo *rel,
							 ModelBindings *bindings, List *clauses,
							 List **quals, List **exprs, List **private);
extern ModelScanState *model_scan_begin(ScanState *ss, List *exprs,
										List *private, int eflags);
extern TupleTableSlot *model_scan_next(ModelScanState *state);
extern bool model_scan_recheck(ModelScanState *state, TupleTableSlot *slot);
extern void model_scan_restart(ModelScanState *state);
extern void model_scan_end(ModelScanState *state);
extern void model_scan_explain(ModelScanState *state, ExplainState *es);
extern List *model_import_foreign_schema(ImportForeignSchemaStmt *stmt,
										 Oid					  serverid);

/* ---- multicorn.c: model tables of Multicorn ---- */

extern const CustomScanMethods model_adopted_scan_methods;
extern void model_adopt(RelOptInfo *rel);
extern bool model_is_adopted(RelOptInfo *rel);
extern Path *model_adopted_path(ForeignPath *scan);
extern bool model_scan_plan(Plan *plan, List **exprs, List **private);

/* ---- join_levels.c: the models that a join asks, one after the other ---- */

/* one model of a join */
typedef struct ModelJoinLevel
{
	RelOptInfo	 *rel;
	ModelBindings bindings;
	List		 *before;	/* join conditions, checked before sending */
	List		 *after;	/* join conditions that read the answer */
	double		  match;	/* estimated share of rows that find an answer */
	List		 *appinfos; /* of a member of an Append: from its parent */
} ModelJoinLevel;

/* what a join does with its inner side */
typedef struct ModelJoinShape
{
	RelOptInfo *inner;
	JoinType	jointype;
	List	   *levels;	  /* ModelJoinLevels, the first to be asked first */
	bool		append;	  /* each level gives rows of its own */
	List	   *columns;  /* then the Vars and PlaceHolderVars they give */
	List	   *branches; /* and how: custom_exprs of a Model Append */
	List	   *filter;	  /* conditions above the join */
} ModelJoinShape;

/* a path of one of a shape's nodes */
typedef struct ModelJoinPath
{
	CustomPath		path;
	ModelJoinShape *shape;
	int				number; /* a level's, or after the last: the Append's */
	List		   *filter; /* of the topmost node: what it checks at last */
} ModelJoinPath;

extern ModelJoinShape *model_join_shape(PlannerInfo *root, RelOptInfo *joinrel,
										RelOptInfo *outer, RelOptInfo *inner,
										JoinType		   jointype,
										JoinPathExtraData *extra);
extern List *model_level_reads(ModelJoinShape *shape, RelOptInfo *joinrel,
							   int number);
extern bool model_is_append(PlannerInfo *root, RelOptInfo *rel);

/* ---- identity.c: row identity columns of partitioned targets ---- */

extern bool model_has_row_identity(PathTarget *target);
extern Path *model_wrap_row_identity(Path *path);
extern Node *model_replace_row_identity(Node *node, PlannerInfo *root);

/* ---- append.c: the Model Append ---- */

extern const CustomPathMethods model_append_path_methods;
extern const CustomScanMethods model_append_scan_methods;
extern Node *model_append_create_state(CustomScan *plan);

/* ---- join_path.c, join_plan.c, join_exec.c: the Model Join ---- */

/* what a Model Join's plan is made of; lists of bare expressions */
typedef struct ModelJoinParts
{
	Oid		 relid;	 /* the model table ... */
	Oid		 userid; /* ... as whom, InvalidOid: the current user */
	Index	 varno;	 /* its columns' varno */
	bool	 member; /* is it a member of an Append? */
	Relids	 group;	 /* relations that match with it or not at all */
	JoinType jointype;
	List	*attnums;	   /* integers: the bound inputs */
	List	*values;	   /* their values */
	List	*before;	   /* join conditions, checked before sending */
	List	*after;		   /* join conditions that read the answer */
	List	*filter;	   /* conditions above the join */
	List	*level;		   /* what is read of the join's result */
	List	*placeholders; /* PlaceHolderVars that the model may compute */
	SubPlan *subquery;	   /* the subquery that the join replaces, or NULL */
	Expr	*answer;	   /* its value where a model row is found */
} ModelJoinParts;

extern Plan *model_join_make_plan(PlannerInfo *root, ModelJoinParts *parts,
								  Plan *outer, List *tlist, uint32 flags);
extern List *model_pull_reads(List *exprs, List *below);
extern Node *model_use_scan_tuple(Node *node, Relids relids, List *tlist);

/* the lists of a Model Join's custom_exprs */
typedef enum ModelJoinExpr
{
	JOIN_EXPR_VALUES,		/* one per bound input, of the column's type */
	JOIN_EXPR_BEFORE,		/* conditions checked before a row is sent */
	JOIN_EXPR_AFTER,		/* join conditions that read outputs */
	JOIN_EXPR_PLACEHOLDERS, /* computed before null-extension */
	JOIN_EXPR_GATE,			/* conditions without columns: all or nothing */
	JOIN_EXPR_FILTER,		/* conditions above the join */
	JOIN_NEXPRS
} ModelJoinExpr;

/* the lists of integers of a Model Join's custom_private */
typedef enum ModelJoinPrivate
{
	JOIN_PRIVATE_HEADER,  /* relid, userid, join type, outer columns */
	JOIN_PRIVATE_INPUTS,  /* attnums of the bound inputs */
	JOIN_PRIVATE_COLUMNS, /* attnums of the model's columns in the tuple */
	JOIN_PRIVATE_GROUP,	  /* outer columns that are NULL without a match */
	JOIN_NPRIVATE
} ModelJoinPrivate;

typedef enum ModelJoinHeader
{
	JOIN_HEADER_RELID,
	JOIN_HEADER_USERID,
	JOIN_HEADER_JOINTYPE,
	JOIN_HEADER_NOUTER,
	JOIN_NHEADER
} ModelJoinHeader;

extern const CustomScanMethods model_join_scan_methods;
extern void model_cost_join(Path *path, Path *outer, ModelTable *table,
							double rows);
extern void model_join_path_init(void);
extern Node *model_join_create_state(CustomScan *plan);

/* ---- subquery.c: scalar subqueries as Model Joins ---- */

extern void model_subquery_init(void);

/* ---- explain.c ---- */

extern const char *model_explain_join_type(JoinType jointype);
extern void model_explain_table(ModelTable *table, ExplainState *es);
extern void model_explain_bindings(ModelTable *table, List *attnums,
								   List *values, PlanState *planstate,
								   List *ancestors, ExplainState *es);
extern void model_explain_requests(ModelTable *table, Plan *plan,
								   List *ancestors, ExplainState *es);
extern void model_explain_quals(const char *label, List *quals,
								PlanState *planstate, List *ancestors,
								ExplainState *es);
extern void model_explain_filter(List *filter, PlanState *planstate,
								 List *ancestors, ExplainState *es);
extern void model_explain_counters(int64 *counters, ServerTimes times,
								   ExplainState *es);

#endif /* MODEL_FDW_H */
