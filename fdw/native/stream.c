/*-------------------------------------------------------------------------
 *
 * stream.c
 *	  Batches in flight: the part that scan and Model Join share.
 *
 * The life of a batch:
 *
 *	  free --fill()--> filled --submit--> in flight --finish--> current --> free
 *
 * The ring holds one batch more than may be in flight: the current one, whose
 * rows the node is returning.  Batches are answered in the order in which
 * they were sent, so the order of the outer rows is kept.  The first batch is
 * small and travels alone, later ones grow, and so does the number in flight:
 * a LIMIT that is soon satisfied sends little.
 *
 * Whatever ends the query, the reset callback on the executor's memory
 * context cancels what is in flight.
 *
 *-------------------------------------------------------------------------
 */
#include "model_fdw.h"

#include "miscadmin.h"
#include "utils/memutils.h"

/* Drop what a batch holds in Python; cancels it if it is in flight. */
static void
batch_release(ModelBatch *batch, int noutputs)
{
	PyObject *ticket = batch->ticket;
	PyObject *result = batch->result;

	batch->ticket = NULL;
	batch->result = NULL;
	model_python_drop(ticket, HOST_CANCEL);
	if (result == NULL)
		return;
	for (int i = 0; i < noutputs; i++)
	{
		ModelOutput *output = &batch->outputs[i];

		model_python_release_buffers(output->views, output->nviews);
		output->nviews = 0;
	}
	model_python_release(result);
}

/* Cancel everything and start over. */
void
model_stream_reset(ModelStream *stream)
{
	for (int i = 0; i < stream->nring; i++)
		batch_release(&stream->ring[i], stream->noutputs);
	stream->head = 0;
	stream->in_flight = 0;
	stream->current = NULL;
	stream->exhausted = false;
	stream->depth = 1;
	stream->target = Min(MODEL_FIRST_BATCH, stream->table->batch_size);
}

/* Cancel everything and close the session. */
void
model_stream_close(ModelStream *stream)
{
	PyObject *session = stream->session;
	PyObject *ticket = stream->ticket;

	model_stream_reset(stream);
	stream->session = NULL;
	stream->ticket = NULL;
	model_python_drop(ticket, HOST_CLOSE);
	model_python_drop(session, HOST_CLOSE);
}

static void
stream_reset_callback(void *arg)
{
	model_stream_close(arg);
}

/* The column that a plan calls an input or an output. */
static ModelColumn *
planned_column(ModelTable *table, AttrNumber attnum, bool input)
{
	ModelColumn *column = model_table_column(table, attnum);

	/* roles that come from the server's metadata can change unnoticed */
	if (column == NULL || column->input != input)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("model \"%s\" has changed since the query was planned",
						table->model),
				 errhint("Run the query again.")));
	return column;
}

/*
 * Make a stream in the executor's memory context.
 *
 * "inputs" and "outputs" are integer lists of column numbers: the bound
 * inputs in the order of model_stream_add()'s values, and the outputs that
 * somebody reads.  Nothing is sent yet.
 */
ModelStream *
model_stream_create(ModelTable *table, List *inputs, List *outputs,
					PlanState *parent)
{
	MemoryContext context = parent->state->es_query_cxt;
	MemoryContext old = MemoryContextSwitchTo(context);
	ModelStream	 *stream = palloc0(sizeof(ModelStream));
	ListCell	 *cell;

	stream->table = table;
	stream->context = context;
	stream->measure = parent->state->es_instrument != 0;
	stream->inputs = palloc0(sizeof(ModelInput) * (list_length(inputs) + 1));
	foreach(cell, inputs)
		model_input_init(&stream->inputs[stream->ninputs++],
						 planned_column(table, lfirst_int(cell), true),
						 parent);
	stream->outputs = palloc0(sizeof(ModelColumn *) *
							  (list_length(outputs) + 1));
	stream->conversions = palloc0(sizeof(ModelConversion) *
								  (list_length(outputs) + 1));
	foreach(cell, outputs)
	{
		int i = stream->noutputs++;

		stream->outputs[i] = planned_column(table, lfirst_int(cell), false);
		model_conversion_init(&stream->conversions[i], stream->outputs[i],
							  table->name, parent);
	}
	stream->nring = table->max_in_flight + 1;
	stream->ring = palloc0(sizeof(ModelBatch) * stream->nring);
	for (int i = 0; i < stream->nring; i++)
	{
		ModelBatch *batch = &stream->ring[i];

		batch->context = AllocSetContextCreate(context, "model batch",
											   ALLOCSET_DEFAULT_SIZES);
		batch->outputs = palloc0(sizeof(ModelOutput) * (stream->noutputs + 1));
		for (int j = 0; j < stream->noutputs; j++)
		{
			batch->outputs[j].column = stream->outputs[j];
			batch->outputs[j].width =
				model_kind_width(stream->outputs[j]->kind);
		}
	}
	model_stream_reset(stream);
	stream->callback.func = stream_reset_callback;
	stream->callback.arg = stream;
	MemoryContextRegisterResetCallback(context, &stream->callback);
	MemoryContextSwitchTo(old);
	return stream;
}

/*
 * Make a Python list of the inputs' column numbers; like the other makers for
 * model_python_call(), NULL with an exception set on failure.
 */
static PyObject *
make_input_attnums(void *arg)
{
	ModelStream *stream = arg;
	PyObject	*list = PyList_New(stream->ninputs);

	for (int i = 0; list && i < stream->ninputs; i++)
		PyList_SetItem(list, i,
					   PyLong_FromLong(stream->inputs[i].column->attnum));
	return list;
}

/* Make a Python list of the outputs' column numbers. */
static PyObject *
make_output_attnums(void *arg)
{
	ModelStream *stream = arg;
	PyObject	*list = PyList_New(stream->noutputs);

	for (int i = 0; list && i < stream->noutputs; i++)
		PyList_SetItem(list, i, PyLong_FromLong(stream->outputs[i]->attnum));
	return list;
}

/* Ask the server for its counters, if it has any. */
static ServerTimes
read_server_times(ModelStream *stream)
{
	ServerTimes times = {0};
	PyObject   *result;

	stream->ticket = model_python_call(HOST_STATISTICS, "(O)",
									   stream->session);
	result = model_python_finish(stream->ticket);
	model_python_release(stream->ticket);
	stream->ticket = NULL;
	if (PyTuple_Check(result))
	{
		times.known = true;
		times.queue = PyLong_AsLongLong(PyTuple_GetItem(result, 0));
		times.compute = PyLong_AsLongLong(PyTuple_GetItem(result, 1));
	}
	model_python_release(result);
	return times;
}

/* What the server's counters have grown by since the session was opened. */
ServerTimes
model_stream_server_times(ModelStream *stream)
{
	ServerTimes times = {0};

	if (stream->session == NULL || !stream->start.known)
		return times;
	times = read_server_times(stream);
	times.queue -= stream->start.queue;
	times.compute -= stream->start.compute;
	return times;
}

/* Count the bytes of an answered batch. */
static void
count_traffic(ModelStream *stream)
{
	PyObject *result = model_python_call(HOST_TRAFFIC, "(O)", stream->session);
	int64	  sent = PyLong_AsLongLong(PyTuple_GetItem(result, 0));
	int64	  received = PyLong_AsLongLong(PyTuple_GetItem(result, 1));

	model_stream_count(stream, COUNT_BYTES_SENT,
					   sent - stream->counters[COUNT_BYTES_SENT]);
	model_stream_count(stream, COUNT_BYTES_RECEIVED,
					   received - stream->counters[COUNT_BYTES_RECEIVED]);
	model_python_release(result);
}

/* Make the list of the kinds of the inputs, then of the outputs. */
static PyObject *
make_kinds(void *arg)
{
	ModelStream *stream = arg;
	int			 n = stream->ninputs + stream->noutputs;
	PyObject	*list = PyList_New(n);

	for (int i = 0; list && i < n; i++)
	{
		ModelColumn *column = i < stream->ninputs
			? stream->inputs[i].column
			: stream->outputs[i - stream->ninputs];
		char		 kind[] = {'[', column->kind};
		PyObject	*text;

		text = PyUnicode_FromStringAndSize(kind + !column->array,
										   1 + column->array);
		if (text == NULL)
			Py_CLEAR(list);
		else
			PyList_SetItem(list, i, text);
	}
	return list;
}

/* Open the session: the model is looked up and compared with the table. */
static void
open_session(ModelStream *stream)
{
	ModelTable *table = stream->table;
	PyObject   *dict;

	if (stream->session)
		return;
	dict = model_python_json(model_table_json(table->relid, table->userid));
	stream->ticket = model_python_call(HOST_OPEN, "(NO&O&O&)", dict,
									   make_input_attnums, stream,
									   make_output_attnums, stream, make_kinds,
									   stream);
	stream->session = model_python_finish(stream->ticket);
	model_python_release(stream->ticket);
	stream->ticket = NULL;
	if (stream->measure)
		stream->start = read_server_times(stream);
}

/* Make the list of the columns that a batch sends. */
static PyObject *
make_columns(void *arg)
{
	ModelStream *stream = arg;
	PyObject	*list = PyList_New(stream->ninputs);

	for (int i = 0; list && i < stream->ninputs; i++)
	{
		PyObject *view = model_input_view(&stream->inputs[i], stream->nrows);

		if (view == NULL)
			Py_CLEAR(list);
		else
			PyList_SetItem(list, i, view);
	}
	return list;
}

/* Raise a shared maximum. */
static void
share_maximum(pg_atomic_uint64 *shared, uint64 value)
{
	uint64 known = pg_atomic_read_u64(shared);

	while (known < value &&
		   !pg_atomic_compare_exchange_u64(shared, &known, value))
		;
}

/* Add to one of some counters; of the largest batch, keep the maximum. */
void
model_count(int64 *counters, ModelCounter counter, int64 value)
{
	if (counter == COUNT_LARGEST_BATCH)
		counters[counter] = Max(counters[counter], value);
	else
		counters[counter] += value;
}

/* Count for a stream, and for the parallel query that it is a part of. */
void
model_stream_count(ModelStream *stream, ModelCounter counter, int64 value)
{
	SharedCounters *shared = stream->shared;

	model_count(stream->counters, counter, value);
	if (shared == NULL)
		return;
	if (counter == COUNT_LARGEST_BATCH)
		share_maximum(&shared->values[counter], value);
	else
		pg_atomic_fetch_add_u64(&shared->values[counter], value);
}

/* Add the time since "start" to a counter and move "start" to now. */
static void
count_time(ModelStream *stream, ModelCounter counter, instr_time *start)
{
	instr_time now;
	instr_time passed;

	INSTR_TIME_SET_CURRENT(now);
	passed = now;
	INSTR_TIME_SUBTRACT(passed, *start);
	model_stream_count(stream, counter, INSTR_TIME_GET_MICROSEC(passed));
	*start = now;
}

/* Send the rows that the buffers hold. */
static void
submit(ModelStream *stream, ModelBatch *batch)
{
	open_session(stream);
	batch->ticket = model_python_call(HOST_SUBMIT, "(OiO&)", stream->session,
									  stream->nrows, make_columns, stream);
	model_stream_count(stream, COUNT_BATCHES, 1);
	model_stream_count(stream, COUNT_ROWS_SENT, batch->nrows);
	model_stream_count(stream, COUNT_LARGEST_BATCH, batch->nrows);
}

/* Fill and send the next batch; false when there are no more rows. */
static bool
fill_and_submit(ModelStream *stream, ModelFill fill, void *state)
{
	ModelBatch *batch;
	instr_time	start;
	bool		filled;

	batch = &stream->ring[(stream->head + stream->in_flight) % stream->nring];
	MemoryContextReset(batch->context);
	for (int i = 0; i < stream->ninputs; i++)
		model_input_reserve(&stream->inputs[i], stream->target,
							stream->context);
	stream->nrows = 0;
	stream->bytes = 0;
	INSTR_TIME_SET_CURRENT(start);
	filled = fill(state, batch);
	count_time(stream, COUNT_GATHER_TIME, &start);
	if (!filled)
		return false;
	batch->nrows = stream->nrows;
	if (batch->nrows > 0)
		submit(stream, batch);
	count_time(stream, COUNT_SUBMIT_TIME, &start);
	stream->in_flight++;
	stream->target = Min((int64) stream->target * MODEL_BATCH_GROWTH,
						 stream->table->batch_size);
	return true;
}

/* Wait for a batch's answer and take its columns. */
static void
finish(ModelStream *stream, ModelBatch *batch)
{
	instr_time start;
	PyObject  *ticket;

	if (batch->ticket == NULL)
		return; /* no row of it was to be sent */
	INSTR_TIME_SET_CURRENT(start);
	batch->result = model_python_finish(batch->ticket);
	ticket = batch->ticket;
	batch->ticket = NULL;
	model_python_release(ticket);
	count_time(stream, COUNT_WAIT_TIME, &start);
	if (stream->measure || stream->shared)
		count_traffic(stream);
	if (!PyList_Check(batch->result) ||
		PyList_Size(batch->result) != stream->noutputs)
		elog(ERROR, "unexpected number of output columns");
	for (int i = 0; i < stream->noutputs; i++)
	{
		ModelOutput *output = &batch->outputs[i];

		model_output_parse(output, PyList_GetItem(batch->result, i),
						   batch->nrows);
		output->plain = output->nulls == NULL &&
			stream->conversions[i].state == NULL &&
			model_column_plain(output->column);
	}
	count_time(stream, COUNT_DECODE_TIME, &start);
}

/*
 * Return the next answered batch, the caller's rows with it, or NULL after
 * the last.  Keeps as many batches in flight as it may.
 */
ModelBatch *
model_stream_next(ModelStream *stream, ModelFill fill, void *state)
{
	ModelBatch *batch;

	if (stream->current)
		batch_release(stream->current, stream->noutputs);
	stream->current = NULL;
	while (!stream->exhausted && stream->in_flight < stream->depth)
		if (!fill_and_submit(stream, fill, state))
			break;
	if (stream->in_flight == 0)
		return NULL;
	batch = &stream->ring[stream->head];
	stream->head = (stream->head + 1) % stream->nring;
	stream->in_flight--;
	/* current before it is finished: an error must release it as well */
	stream->current = batch;
	finish(stream, batch);
	stream->depth = Min(stream->depth + 1, stream->table->max_in_flight);
	return batch;
}

/* Store a value whose Datum holds nothing else; most inputs are such. */
static inline void
store_plain(ModelInput *input, int row, Datum value)
{
	switch (input->width)
	{
		case 8:
			((uint64 *) input->values)[row] = (uint64) value;
			break;
		case 4:
			((uint32 *) input->values)[row] = (uint32) value;
			break;
		case 2:
			((uint16 *) input->values)[row] = (uint16) value;
			break;
		default:
			((uint8 *) input->values)[row] = DatumGetBool(value);
			break;
	}
}

/* Fetch such a value. */
static inline Datum
fetch_plain(ModelOutput *output, int row)
{
	switch (output->width)
	{
		case 8:
			return (Datum) ((const uint64 *) output->values)[row];
		case 4:
			return Int32GetDatum(((const int32 *) output->values)[row]);
		case 2:
			return Int16GetDatum(((const int16 *) output->values)[row]);
		default:
			return BoolGetDatum(((const uint8 *) output->values)[row] != 0);
	}
}

/*
 * Add a row to the batch that is being filled: one value of the column's type
 * per input, none of them NULL.  Returns the row's number in the batch.
 */
int
model_stream_add(ModelStream *stream, Datum *values, ExprContext *econtext)
{
	int row = stream->nrows;

	for (int i = 0; i < stream->ninputs; i++)
	{
		ModelInput *input = &stream->inputs[i];
		Size		length = input->bytes.len + input->borders.len;

		if (input->plain)
		{
			store_plain(input, row, values[i]);
			continue;
		}
		model_input_append(input, row, values[i], econtext,
						   stream->table->name);
		stream->bytes += input->bytes.len + input->borders.len - length;
	}
	return stream->nrows++;
}

/*
 * Note what the batch's memory holds before the first row: only what rows add
 * counts for model_stream_full().
 */
void
model_stream_reserve(ModelStream *stream, ModelBatch *batch)
{
	stream->reserved = MemoryContextMemAllocated(batch->context, false);
}

/*
 * Should the batch be sent although it has fewer rows than it may have?  All
 * batches together keep to work_mem, wide rows make them short.
 */
bool
model_stream_full(ModelStream *stream, ModelBatch *batch)
{
	Size limit = work_mem * (Size) 1024 / stream->nring;
	Size used = MemoryContextMemAllocated(batch->context, false) -
		stream->reserved;

	return stream->bytes + used > limit;
}

/* The value of an output at a row of an answered batch. */
Datum
model_stream_output(ModelStream *stream, ModelBatch *batch, int output,
					int row, ExprContext *econtext, bool *isnull)
{
	ModelOutput *column = &batch->outputs[output];

	if (column->plain)
	{
		*isnull = false;
		return fetch_plain(column, row);
	}
	return model_output_datum(column, &stream->conversions[output], row,
							  econtext, isnull);
}
