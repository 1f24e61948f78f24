/*-------------------------------------------------------------------------
 *
 * explain.c
 *	  What EXPLAIN shows of a scan or a Model Join.
 *
 *-------------------------------------------------------------------------
 */
#include "model_fdw.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/ruleutils.h"

/* The name of a join type. */
const char *
model_explain_join_type(JoinType jointype)
{
	static const char *const names[] = {
		[JOIN_INNER] = "Inner",
		[JOIN_LEFT] = "Left",
		[JOIN_SEMI] = "Semi",
		[JOIN_ANTI] = "Anti",
	};

	return names[jointype];
}

/* Show the model, its version, the endpoint and how rows are sent. */
void
model_explain_table(ModelTable *table, ExplainState *es)
{
	ExplainPropertyText("Model", table->model, es);
	if (table->version[0])
		ExplainPropertyText("Version", table->version, es);
	ExplainPropertyText("Endpoint", table->endpoint, es);
	ExplainPropertyInteger("Batch Size", NULL, table->batch_size, es);
	if (!table->batched)
		ExplainPropertyText("Requests",
							"one per row (the model has no batch dimension)",
							es);
}

/*
 * Turn the parameters that other nodes set into numbers: of a foreign scan,
 * EXPLAIN does not tell the nodes above it, and a parameter that ruleutils.c
 * cannot trace is a failed assertion from 17 on.  "known" are the others.
 */
static Node *
number_params(Node *node, List **known)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, SubPlan))
		*known = list_concat(*known, ((SubPlan *) node)->paramIds);
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_EXEC &&
		!list_member_int(*known, ((Param *) node)->paramid))
	{
		Param *number = copyObject((Param *) node);

		number->paramkind = PARAM_EXTERN;
		return (Node *) number;
	}
	return expression_tree_mutator(node, number_params, known);
}

/* Write an expression of a node; "ancestors" are NIL for a foreign scan. */
static char *
deparse(Node *node, PlanState *planstate, List *ancestors, ExplainState *es)
{
	bool	  prefix = es->verbose || list_length(es->rtable) > 1;
	List	 *known = NIL;
	ListCell *cell;

	foreach(cell, planstate->plan->initPlan)
		known = list_concat(known, lfirst_node(SubPlan, cell)->setParam);
	if (ancestors == NIL)
		node = number_params(node, &known);
	return deparse_expression(node,
							  set_deparse_context_plan(es->deparse_cxt,
													   planstate->plan,
													   ancestors),
							  prefix, false);
}

/* with more inputs than this, only VERBOSE and other formats show them all */
#define MODEL_BINDINGS_SHOWN 8

/* Show which expression gives each input its value. */
void
model_explain_bindings(ModelTable *table, List *attnums, List *values,
					   PlanState *planstate, List *ancestors, ExplainState *es)
{
	List	 *texts = NIL;
	ListCell *attnum;
	ListCell *value;

	forboth(attnum, attnums, value, values)
	{
		ModelColumn *column = model_table_column(table, lfirst_int(attnum));

		if (!es->verbose && es->format == EXPLAIN_FORMAT_TEXT &&
			list_length(attnums) > MODEL_BINDINGS_SHOWN &&
			list_length(texts) == MODEL_BINDINGS_SHOWN - 5)
		{
			texts = lappend(texts,
							psprintf("... and %d more",
									 list_length(attnums) -
										 list_length(texts)));
			break;
		}
		texts = lappend(texts,
						psprintf("%s = %s", quote_identifier(column->name),
								 deparse(lfirst(value), planstate, ancestors,
										 es)));
	}
	ExplainPropertyList("Bindings", texts, es);
}

/* Is one of the parameters, a list of them, in the set? */
static bool
has_parameter(Bitmapset *set, List *paramids)
{
	ListCell *cell;

	foreach(cell, paramids)
		if (bms_is_member(lfirst_int(cell), set))
			return true;
	return false;
}

/*
 * Is a node started anew for each row of another: in a subquery or on the
 * inner side of a nested loop that hands it a parameter?
 */
static bool
runs_per_row(Plan *plan, List *ancestors)
{
	ListCell *cell;

	foreach(cell, ancestors)
	{
		Node	 *above = lfirst(cell);
		ListCell *param;

		if (IsA(above, SubPlan) &&
			has_parameter(plan->extParam, ((SubPlan *) above)->parParam))
			return true;
		if (!IsA(above, NestLoop))
			continue;
		if (innerPlan(above) == plan)
			return true;
		foreach(param, ((NestLoop *) above)->nestParams)
			if (bms_is_member(lfirst_node(NestLoopParam, param)->paramno,
							  plan->extParam))
				return true;
	}
	return false;
}

/* Show that a Model Join sends requests for each row of a node above it. */
void
model_explain_requests(ModelTable *table, Plan *plan, List *ancestors,
					   ExplainState *es)
{
	if (table->batched && runs_per_row(plan, ancestors))
		ExplainPropertyText("Requests", "at least one per outer row", es);
}

/* Show a list of conditions, if there are any. */
void
model_explain_quals(const char *label, List *quals, PlanState *planstate,
					List *ancestors, ExplainState *es)
{
	if (quals != NIL)
		ExplainPropertyText(label,
							deparse((Node *) make_ands_explicit(quals),
									planstate, ancestors, es),
							es);
}

/*
 * Show a node's filter and what it removed, as core does of a plan's "qual".
 * There, core would not tell one relation's columns from another's: it thinks
 * of a custom scan as one of one relation.
 */
void
model_explain_filter(List *filter, PlanState *planstate, List *ancestors,
					 ExplainState *es)
{
	Instrumentation *instrument = planstate->instrument;

	model_explain_quals("Filter", filter, planstate, ancestors, es);
	if (filter != NIL && es->analyze && instrument &&
		(instrument->nfiltered1 > 0 || es->format != EXPLAIN_FORMAT_TEXT))
		ExplainPropertyFloat("Rows Removed by Filter", NULL,
							 instrument->nloops > 0
								 ? instrument->nfiltered1 / instrument->nloops
								 : 0,
							 0, es);
}

/*
 * Show what was sent and, with timing, where the time went.  "server" are the
 * server's own counters, which do not tell one client from another.
 */
void
model_explain_counters(int64 *counters, ServerTimes server, ExplainState *es)
{
	typedef struct LabelledCounter
	{
		const char	*label;
		ModelCounter counter;
	} LabelledCounter;

	// clang-format off
	static const LabelledCounter counts[] = {
		{"Batches", COUNT_BATCHES},
		{"Rows Sent", COUNT_ROWS_SENT},
		{"Largest Batch", COUNT_LARGEST_BATCH},
		{"Rows Not Sent", COUNT_ROWS_UNMATCHED},
		{"Bytes Sent", COUNT_BYTES_SENT},
		{"Bytes Received", COUNT_BYTES_RECEIVED},
	};
	static const LabelledCounter times[] = {
		{"Gather Time", COUNT_GATHER_TIME},
		{"Submit Time", COUNT_SUBMIT_TIME},
		{"Wait Time", COUNT_WAIT_TIME},
		{"Decode Time", COUNT_DECODE_TIME},
	};
	// clang-format on

	if (!es->analyze)
		return;
	for (int i = 0; i < lengthof(counts); i++)
	{
		int64 value = counters[counts[i].counter];

		if (value > 0 || counts[i].counter != COUNT_ROWS_UNMATCHED ||
			es->format != EXPLAIN_FORMAT_TEXT)
			ExplainPropertyInteger(counts[i].label, NULL, value, es);
	}
	if (!es->timing)
		return;
	for (int i = 0; i < lengthof(times); i++)
		ExplainPropertyFloat(times[i].label, "ms",
							 counters[times[i].counter] / 1000.0, 3, es);
	if (!server.known)
		return;
	ExplainPropertyFloat("Server-Wide Queue Time", "ms", server.queue / 1000.0,
						 3, es);
	ExplainPropertyFloat("Server-Wide Compute Time", "ms",
						 server.compute / 1000.0, 3, es);
}
