/*-------------------------------------------------------------------------
 *
 * columns.c
 *	  Datums to typed buffers and back.
 *
 * How a column's values cross the seam is its "kind", one character that
 * Python chooses from the tensor's dtype:
 *
 *	  ?  boolean, one byte		f  real
 *	  h  smallint				d  double precision
 *	  i  integer				s  text, UTF-8
 *	  q  bigint					b  bytea
 *	  Q  numeric(20), as an unsigned 64-bit integer
 *
 * A column whose own type differs from that natural type is converted by
 * PostgreSQL's assignment cast.
 *
 *-------------------------------------------------------------------------
 */
#include "model_fdw.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"

typedef struct ModelKind
{
	char		kind;
	Oid			type;
	int			width;			/* bytes in the buffer, 0: variable */
} ModelKind;

static const ModelKind model_kinds[] = {
	{'?', BOOLOID, 1},
	{'h', INT2OID, 2},
	{'i', INT4OID, 4},
	{'q', INT8OID, 8},
	{'Q', NUMERICOID, 8},
	{'f', FLOAT4OID, 4},
	{'d', FLOAT8OID, 8},
	{'s', TEXTOID, 0},
	{'b', BYTEAOID, 0},
};

/* Find the table's line of a kind. */
static const ModelKind *
find_kind(char kind)
{
	for (int i = 0; i < lengthof(model_kinds); i++)
		if (model_kinds[i].kind == kind)
			return &model_kinds[i];
	elog(ERROR, "unknown kind \"%c\" of a model's column", kind);
	return NULL;
}

/* The natural SQL type of a kind. */
Oid
model_kind_type(char kind)
{
	return find_kind(kind)->type;
}

/* The bytes that a value takes in a buffer; 0: it varies. */
int
model_kind_width(char kind)
{
	return find_kind(kind)->width;
}

/* Is a Datum of the kind nothing but the value in the buffer? */
bool
model_kind_plain(char kind)
{
	const ModelKind *found = find_kind(kind);

	return found->width > 0 && found->type != NUMERICOID &&
		found->width <= (int) sizeof(Datum);
}

/*
 * The cast from a type to another of the only column of a slot, which is given
 * as the outer tuple; NULL if there is none.
 */
static Node *
find_cast(ModelColumn *column, Oid from, Oid to, int32 typmod, Var **var)
{
	CoercionContext context = COERCION_ASSIGNMENT;

	/* a type that carries a document, such as jsonb, is read from text */
	if (!column->input && from == TEXTOID)
		context = COERCION_EXPLICIT;
	*var = makeVar(OUTER_VAR, 1, from, -1, get_typcollation(from), 0);
	return coerce_to_target_type(NULL, (Node *) *var, from, to, typmod,
								 context, COERCE_IMPLICIT_CAST, -1);
}

/* Can values of the natural type become the column's, or the reverse? */
bool
model_has_cast(ModelColumn *column)
{
	Var		   *var;

	if (column->input)
		return find_cast(column, column->typid, column->natural, -1,
						 &var) != NULL;
	return find_cast(column, column->natural, column->typid, column->typmod,
					 &var) != NULL;
}

/* Refuse a column whose type has no such cast. */
void
model_raise_no_cast(ModelColumn *column)
{
	Oid			from = column->input ? column->typid : column->natural;
	Oid			to = column->input ? column->natural : column->typid;

	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
			 errmsg("%s column \"%s\" cannot have type %s",
					column->input ? "input" : "output", column->name,
					format_type_be(column->typid)),
			 errdetail("Type %s has no assignment cast to type %s.",
					   format_type_be(from), format_type_be(to)),
			 errhint("Use type %s.", format_type_be(column->natural))));
}

/* Build such a cast; NULL where none is needed. */
static ExprState *
build_cast(ModelColumn *column, Oid from, Oid to, int32 typmod,
		   PlanState *parent, TupleTableSlot **slot)
{
	TupleDesc	desc;
	Var		   *var;
	Node	   *cast;

	if (from == to && typmod < 0)
		return NULL;
	cast = find_cast(column, from, to, typmod, &var);
	if (cast == NULL)
		model_raise_no_cast(column);
	/* a cast that only changes the label costs nothing: leave it out */
	if (cast == (Node *) var ||
		(IsA(cast, RelabelType) &&
		 ((RelabelType *) cast)->arg == (Expr *) var))
		return NULL;
	fix_opfuncids(cast);
	desc = CreateTemplateTupleDesc(1);
	TupleDescInitEntry(desc, 1, "value", from, -1, 0);
	*slot = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	return ExecInitExpr((Expr *) cast, parent);
}

/* Run such a cast. */
static Datum
run_cast(ExprState *state, TupleTableSlot *slot, Datum value,
		 ExprContext *econtext, bool *isnull)
{
	TupleTableSlot *saved = econtext->ecxt_outertuple;
	Datum		result;

	ExecClearTuple(slot);
	slot->tts_values[0] = value;
	slot->tts_isnull[0] = false;
	ExecStoreVirtualTuple(slot);
	econtext->ecxt_outertuple = slot;
	result = ExecEvalExprSwitchContext(state, econtext, isnull);
	econtext->ecxt_outertuple = saved;
	return result;
}

/* Prepare an input column, in the current memory context. */
void
model_input_init(ModelInput *input, ModelColumn *column, PlanState *parent)
{
	input->column = column;
	input->width = model_kind_width(column->kind);
	input->convert = build_cast(column, column->typid, column->natural, -1,
								parent, &input->slot);
	input->plain = input->convert == NULL && model_kind_plain(column->kind);
	if (input->width == 0)
		initStringInfo(&input->bytes);
}

/* Empty the buffer and make room for "capacity" rows. */
void
model_input_reserve(ModelInput *input, int capacity, MemoryContext context)
{
	Size		width = input->width > 0 ? input->width : sizeof(int64);
	Size		size = width * (capacity + 1);

	if (capacity > input->capacity)
	{
		if (input->values)
			pfree(input->values);
		input->values = NULL;
		input->values = MemoryContextAllocHuge(context, size);
		input->capacity = capacity;
	}
	if (input->width == 0)
	{
		input->offsets = (int64 *) input->values;
		input->offsets[0] = 0;
		resetStringInfo(&input->bytes);
	}
}

/* Error context callback: name the input column. */
void
model_input_error_context(void *arg)
{
	ModelInputContext *context = arg;

	errcontext("input column \"%s\" of foreign table \"%s\"",
			   context->column, context->table);
}

/* An unsigned 64-bit integer from a numeric. */
static uint64
numeric_to_uint64(Datum value, ModelColumn *column)
{
	char	   *text = DatumGetCString(DirectFunctionCall1(numeric_out, value));
	char	   *end;
	uint64		result;

	errno = 0;
	result = strtoull(text, &end, 10);
	if (*end == '.')
		end += 1 + strspn(end + 1, "0");
	if (errno != 0 || *end != '\0' || !isdigit((unsigned char) *text))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("value out of range for input column \"%s\"",
						column->name),
				 errdetail("UINT64 takes 0 to 18446744073709551615.")));
	pfree(text);
	return result;
}

/* A numeric from an unsigned 64-bit integer. */
static Datum
uint64_to_numeric(uint64 value)
{
	char		text[32];

	if (value <= PG_INT64_MAX)
		return NumericGetDatum(int64_to_numeric((int64) value));
	snprintf(text, sizeof(text), UINT64_FORMAT, value);
	return DirectFunctionCall3(numeric_in, CStringGetDatum(text),
							   ObjectIdGetDatum(InvalidOid),
							   Int32GetDatum(-1));
}

/* Append a text or bytea value to a column of variable width. */
static void
append_bytes(ModelInput *input, int row, Datum value)
{
	struct varlena *packed = PG_DETOAST_DATUM_PACKED(value);
	char	   *data = VARDATA_ANY(packed);
	int			length = VARSIZE_ANY_EXHDR(packed);

	if (input->column->kind == 's' && GetDatabaseEncoding() != PG_UTF8)
	{
		char	   *utf8 = pg_server_to_any(data, length, PG_UTF8);

		if (utf8 != data)
		{
			data = utf8;
			length = strlen(utf8);
		}
	}
	appendBinaryStringInfo(&input->bytes, data, length);
	input->offsets[row + 1] = input->bytes.len;
}

/* Write a value of the natural type to its place in the buffer. */
static void
write_value(ModelInput *input, int row, Datum value)
{
	switch (input->column->kind)
	{
		case '?':
			((uint8 *) input->values)[row] = DatumGetBool(value);
			break;
		case 'h':
			((int16 *) input->values)[row] = DatumGetInt16(value);
			break;
		case 'i':
			((int32 *) input->values)[row] = DatumGetInt32(value);
			break;
		case 'q':
			((int64 *) input->values)[row] = DatumGetInt64(value);
			break;
		case 'Q':
			((uint64 *) input->values)[row] =
				numeric_to_uint64(value, input->column);
			break;
		case 'f':
			((float4 *) input->values)[row] = DatumGetFloat4(value);
			break;
		case 'd':
			((float8 *) input->values)[row] = DatumGetFloat8(value);
			break;
		default:
			append_bytes(input, row, value);
			break;
	}
}

/*
 * Put a value of the column's type, not NULL, into a row of the buffer.
 * Conversions use the per-tuple memory of "econtext".
 */
void
model_input_append(ModelInput *input, int row, Datum value,
				   ExprContext *econtext, const char *table)
{
	ErrorContextCallback callback;
	ModelInputContext context = {table, input->column->name};
	MemoryContext old;

	callback.callback = model_input_error_context;
	callback.arg = &context;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
	if (input->convert)
	{
		bool		isnull;

		value = run_cast(input->convert, input->slot, value, econtext,
						 &isnull);
		if (isnull)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("the cast of input column \"%s\" to type %s gave NULL",
							input->column->name,
							format_type_be(input->column->natural))));
	}
	write_value(input, row, value);
	MemoryContextSwitchTo(old);
	error_context_stack = callback.previous;
}

/* Prepare the conversion of an output column's values to its type. */
void
model_conversion_init(ModelConversion *conversion, ModelColumn *column,
					  PlanState *parent)
{
	conversion->state = build_cast(column, column->natural, column->typid,
								   column->typmod, parent,
								   &conversion->slot);
}

/* Take a view of an item of Python's result column, NULL for None. */
static const void *
take_view(ModelOutput *output, PyObject *object, Size length)
{
	Py_buffer  *view = &output->views[output->nviews];

	if (object == Py_None)
		return NULL;
	model_python_view(object, view);
	output->nviews++;
	if (view->len < 0 || (Size) view->len != length)
		elog(ERROR, "output column \"%s\" has %zd bytes where %zu were expected",
			 output->column->name, view->len, length);
	return view->buf;
}

/*
 * Take the buffers of one output column: (values, offsets, nulls).  The sizes
 * are checked here once more: a wrong one must never be read past its end.
 */
void
model_output_parse(ModelOutput *output, PyObject *result, int nrows)
{
	PyObject   *offsets;
	Py_buffer  *view;

	if (!PyTuple_Check(result) || PyTuple_Size(result) != 3)
		elog(ERROR, "output column \"%s\" has an unexpected form",
			 output->column->name);
	offsets = PyTuple_GetItem(result, 1);
	output->nulls = take_view(output, PyTuple_GetItem(result, 2), nrows);
	if (output->width > 0)
	{
		output->values = take_view(output, PyTuple_GetItem(result, 0),
								   (Size) nrows * output->width);
		return;
	}
	output->offsets = take_view(output, offsets,
								sizeof(int64) * ((Size) nrows + 1));
	if (output->offsets == NULL || output->offsets[0] != 0)
		elog(ERROR, "output column \"%s\" has no offsets",
			 output->column->name);
	for (int i = 0; i < nrows; i++)
		if (output->offsets[i + 1] < output->offsets[i])
			elog(ERROR, "output column \"%s\" has descending offsets",
				 output->column->name);
	view = &output->views[output->nviews];
	model_python_view(PyTuple_GetItem(result, 0), view);
	output->nviews++;
	if (view->len != output->offsets[nrows])
		elog(ERROR, "output column \"%s\" has %zd bytes where %lld were expected",
			 output->column->name, view->len,
			 (long long) output->offsets[nrows]);
	output->values = view->buf;
}

/* A varlena of one value of variable width. */
static Datum
bytes_datum(ModelOutput *output, int row)
{
	int64		start = output->offsets[row];
	int64		length = output->offsets[row + 1] - start;
	const char *data = output->values + start;

	if (length > MaxAllocSize - VARHDRSZ)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a value of output column \"%s\" is too long",
						output->column->name),
				 errdetail("It has %lld bytes.", (long long) length)));
	if (output->column->kind == 's')
	{
		/* also verifies: a server may send any bytes */
		char	   *text = pg_any_to_server(data, length, PG_UTF8);

		if (text != data)
			length = strlen(text);
		return PointerGetDatum(cstring_to_text_with_len(text, length));
	}
	return PointerGetDatum(cstring_to_text_with_len(data, length));
}

/* The Datum of the natural type at a row. */
static Datum
natural_datum(ModelOutput *output, int row)
{
	const char *values = output->values;

	switch (output->column->kind)
	{
		case '?':
			return BoolGetDatum(((const uint8 *) values)[row] != 0);
		case 'h':
			return Int16GetDatum(((const int16 *) values)[row]);
		case 'i':
			return Int32GetDatum(((const int32 *) values)[row]);
		case 'q':
			return Int64GetDatum(((const int64 *) values)[row]);
		case 'Q':
			return uint64_to_numeric(((const uint64 *) values)[row]);
		case 'f':
			return Float4GetDatum(((const float4 *) values)[row]);
		case 'd':
			return Float8GetDatum(((const float8 *) values)[row]);
		default:
			return bytes_datum(output, row);
	}
}

/* The value of an output column at a row, in per-tuple memory. */
Datum
model_output_datum(ModelOutput *output, ModelConversion *conversion, int row,
				   ExprContext *econtext, bool *isnull)
{
	MemoryContext old;
	Datum		value;

	*isnull = output->nulls && output->nulls[row];
	if (*isnull)
		return (Datum) 0;
	old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
	value = natural_datum(output, row);
	if (conversion->state)
		value = run_cast(conversion->state, conversion->slot, value,
						 econtext, isnull);
	MemoryContextSwitchTo(old);
	return value;
}
