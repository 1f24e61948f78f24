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
 * An array crosses as its elements, which lie one after the other in a buffer
 * of their kind, and its dimensions; lower bounds and NULLs do not.
 *
 * A column whose own type differs from that natural type is converted by
 * PostgreSQL's assignment cast.
 *
 *-------------------------------------------------------------------------
 */
#include "model_fdw.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "common/shortest_dec.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"

typedef struct ModelKind
{
	char kind;
	Oid	 type;
	int	 width; /* bytes in the buffer, 0: variable */
} ModelKind;

// clang-format off
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
// clang-format on

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

/* The natural SQL type of a kind, or of arrays of it. */
Oid
model_kind_type(char kind, bool array)
{
	Oid type = find_kind(kind)->type;

	return array ? get_array_type(type) : type;
}

/* The bytes that an element takes in a buffer; 0: it varies. */
int
model_kind_width(char kind)
{
	return find_kind(kind)->width;
}

/* Is a Datum of the natural type nothing but the value in the buffer? */
bool
model_column_plain(ModelColumn *column)
{
	const ModelKind *found = find_kind(column->kind);

	return !column->array && found->width > 0 && found->type != NUMERICOID &&
		found->width <= (int) sizeof(Datum);
}

/*
 * The cast from a type to another of the only column of a slot, which is given
 * as the outer tuple; NULL if there is none.
 */
static Node *
find_cast(ModelColumn *column, Oid from, Oid to, int32 typmod, Var **var)
{
	Node *cast;

	*var = makeVar(OUTER_VAR, 1, from, -1, get_typcollation(from), 0);
	cast = coerce_to_target_type(NULL, (Node *) *var, from, to, typmod,
								 COERCION_ASSIGNMENT, COERCE_IMPLICIT_CAST,
								 -1);
	/* a type that carries a document, such as jsonb, is read from text */
	if (cast == NULL && !column->input &&
		(from == TEXTOID || from == TEXTARRAYOID))
		cast = coerce_to_target_type(NULL, (Node *) *var, from, to, typmod,
									 COERCION_EXPLICIT, COERCE_IMPLICIT_CAST,
									 -1);
	return cast;
}

/*
 * Say why values of the column's type cannot become the natural one's, or the
 * reverse; NULL: they can.
 */
ModelMisfit *
model_cast_misfit(ModelColumn *column)
{
	Oid			 from = column->input ? column->typid : column->natural;
	Oid			 to = column->input ? column->natural : column->typid;
	int32		 typmod = column->input ? -1 : column->typmod;
	ModelMisfit *misfit;
	Var			*var;

	if (find_cast(column, from, to, typmod, &var) != NULL)
		return NULL;
	misfit = palloc(sizeof(ModelMisfit));
	misfit->sqlstate = ERRCODE_FDW_INVALID_DATA_TYPE;
	misfit->message = psprintf("%s column \"%s\" cannot have type %s",
							   column->input ? "input" : "output",
							   column->name, format_type_be(column->typid));
	misfit->detail = psprintf("Type %s has no assignment cast to type %s.",
							  format_type_be(from), format_type_be(to));
	misfit->type = format_type_be(column->natural);
	misfit->hint = psprintf("Use type %s.", misfit->type);
	return misfit;
}

/* Build such a cast; NULL where none is needed. */
static ExprState *
build_cast(ModelColumn *column, Oid from, Oid to, int32 typmod,
		   PlanState *parent, TupleTableSlot **slot)
{
	TupleDesc desc;
	Var		 *var;
	Node	 *cast;

	if (from == to && typmod < 0)
		return NULL;
	cast = find_cast(column, from, to, typmod, &var);
	if (cast == NULL)
		model_raise_misfit(model_cast_misfit(column));
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
	Datum			result;

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
	input->plain = input->convert == NULL && model_column_plain(column);
	if (input->width == 0 || column->array)
		initStringInfo(&input->bytes);
	if (column->array)
		initStringInfo(&input->borders);
}

/* Is there one value per row in "values", or are there offsets? */
static bool
has_values(ModelInput *input)
{
	return input->width > 0 && !input->column->array;
}

/* Replace a buffer by one for more rows; nothing is kept. */
static void *
renew(void *buffer, Size size, MemoryContext context)
{
	if (buffer)
		pfree(buffer);
	return MemoryContextAllocHuge(context, size);
}

/* Empty the buffer and make room for "capacity" rows. */
void
model_input_reserve(ModelInput *input, int capacity, MemoryContext context)
{
	Size   width = has_values(input) ? input->width : sizeof(int64);
	Size   rows = (Size) capacity + 1;
	char  *values = input->values;
	int32 *dimensions = input->dimensions;

	if (capacity > input->capacity)
	{
		input->capacity = 0;
		input->values = NULL;
		input->values = renew(values, width * rows, context);
		input->dimensions = NULL;
		if (input->column->array)
			input->dimensions = renew(dimensions,
									  sizeof(int32) * MODEL_ROW_DIMENSIONS *
										  rows,
									  context);
		input->capacity = capacity;
	}
	if (has_values(input))
		return;
	input->offsets = (int64 *) input->values;
	input->offsets[0] = 0;
	resetStringInfo(&input->bytes);
	if (input->column->array)
	{
		resetStringInfo(&input->borders);
		appendBinaryStringInfo(&input->borders, (char *) input->offsets,
							   sizeof(int64));
	}
}

/* Python's view of some memory. */
static PyObject *
memory_view(void *memory, Size length)
{
	return PyMemoryView_FromMemory(memory, length, PyBUF_READ);
}

/*
 * Python's view of the first "nrows" rows: one buffer of values, or offsets
 * and bytes, or of arrays (elements, starts, dimensions).
 */
PyObject *
model_input_view(ModelInput *input, int nrows)
{
	Size	  offsets = sizeof(int64) * ((Size) nrows + 1);
	PyObject *elements;

	if (has_values(input))
		return memory_view(input->values, (Size) input->width * nrows);
	elements = memory_view(input->bytes.data, input->bytes.len);
	if (!input->column->array)
		return Py_BuildValue("(NN)", memory_view(input->values, offsets),
							 elements);
	if (input->width == 0)
		elements = Py_BuildValue("(NN)",
								 memory_view(input->borders.data,
											 input->borders.len),
								 elements);
	return Py_BuildValue("(NNN)", elements,
						 memory_view(input->values, offsets),
						 memory_view(input->dimensions,
									 sizeof(int32) * MODEL_ROW_DIMENSIONS *
										 nrows));
}

/* Error context callback: name the column. */
void
model_column_error_context(void *arg)
{
	ModelColumnContext *context = arg;

	if (context->output)
		errcontext("output column \"%s\" of foreign table \"%s\"",
				   context->column, context->table);
	else
		errcontext("input column \"%s\" of foreign table \"%s\"",
				   context->column, context->table);
}

/* An unsigned 64-bit integer from a numeric. */
static uint64
numeric_to_uint64(Datum value, ModelColumn *column)
{
	char  *text = DatumGetCString(DirectFunctionCall1(numeric_out, value));
	char  *end;
	uint64 result;

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
	char text[32];

	if (value <= PG_INT64_MAX)
		return NumericGetDatum(int64_to_numeric((int64) value));
	snprintf(text, sizeof(text), UINT64_FORMAT, value);
	return DirectFunctionCall3(numeric_in, CStringGetDatum(text),
							   ObjectIdGetDatum(InvalidOid),
							   Int32GetDatum(-1));
}

/*
 * Are values of this type taken as float8 and brought to the column's type by
 * model_assign()?  The parser casts a numeric column to float8 to compare it
 * with a float.  Going back, PostgreSQL's cast keeps 15 digits, so it would
 * miss the equal numeric.
 */
bool
model_assigns(ModelColumn *column, Oid type)
{
	return (type == FLOAT4OID || type == FLOAT8OID) &&
		getBaseType(column->typid) == NUMERICOID;
}

/* Prepare for what is left to do of assigning a bound value, or a list. */
void
model_assignment_init(ModelAssignment *assignment, ModelColumn *column,
					  Node *value, PlanState *parent)
{
	Oid type = exprType(value);
	Oid element = get_element_type(type);

	assignment->needed = model_assigns(column,
									   OidIsValid(element) ? element : type);
	if (assignment->needed)
		assignment->state = build_cast(column, NUMERICOID, column->typid,
									   column->typmod, parent,
									   &assignment->slot);
}

/*
 * The numeric that equals a float: the very number of a whole one, which is
 * somebody's key, else the one of the fewest digits.
 */
static Datum
float8_to_numeric(float8 value)
{
	char  shortest[DOUBLE_SHORTEST_DECIMAL_LEN];
	char *text = shortest;

	if (isfinite(value) && value == rint(value))
		text = psprintf("%.0f", value);
	else
		double_to_shortest_decimal_buf(value, shortest);
	return DirectFunctionCall3(numeric_in, CStringGetDatum(text),
							   ObjectIdGetDatum(InvalidOid),
							   Int32GetDatum(-1));
}

/* Assign a bound value, which is not NULL, to its column's type. */
Datum
model_assign(ModelAssignment *assignment, Datum value, ExprContext *econtext,
			 bool *isnull)
{
	MemoryContext old;

	*isnull = false;
	if (!assignment->needed)
		return value;
	old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
	value = float8_to_numeric(DatumGetFloat8(value));
	MemoryContextSwitchTo(old);
	return assignment->state ? run_cast(assignment->state, assignment->slot,
										value, econtext, isnull)
							 : value;
}

/* Append the bytes of a text or bytea value. */
static void
append_bytes(ModelInput *input, Datum value)
{
	struct varlena *packed = PG_DETOAST_DATUM_PACKED(value);
	char		   *data = VARDATA_ANY(packed);
	int				length = VARSIZE_ANY_EXHDR(packed);

	if (input->column->kind == 's' && GetDatabaseEncoding() != PG_UTF8)
	{
		char *utf8 = pg_server_to_any(data, length, PG_UTF8);

		if (utf8 != data)
		{
			data = utf8;
			length = strlen(utf8);
		}
	}
	appendBinaryStringInfo(&input->bytes, data, length);
}

/* Append elements that are no plain copies of an array's memory. */
static void
append_elements(ModelInput *input, ArrayType *array)
{
	Datum *elements;
	int	   nelements;

	deconstruct_array(array, model_kind_type(input->column->kind, false), -1,
					  false, TYPALIGN_INT, &elements, NULL, &nelements);
	for (int i = 0; i < nelements; i++)
	{
		if (input->column->kind == 'Q')
		{
			uint64 number = numeric_to_uint64(elements[i], input->column);

			appendBinaryStringInfo(&input->bytes, (char *) &number,
								   sizeof(number));
		}
		else
		{
			int64 end;

			append_bytes(input, elements[i]);
			end = input->bytes.len;
			appendBinaryStringInfo(&input->borders, (char *) &end,
								   sizeof(end));
		}
	}
}

/* Append an array. */
static void
append_array(ModelInput *input, int row, Datum value)
{
	ArrayType *array = DatumGetArrayTypeP(value);
	int32	  *dimensions = input->dimensions + row * MODEL_ROW_DIMENSIONS;
	int		   nelements = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));

	if (array_contains_nulls(array))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("array for input column \"%s\" contains a NULL element",
						input->column->name),
				 errhint("Replace it, for instance with array_replace().")));
	memset(dimensions, 0, sizeof(int32) * MODEL_ROW_DIMENSIONS);
	dimensions[0] = ARR_NDIM(array);
	memcpy(dimensions + 1, ARR_DIMS(array), sizeof(int32) * ARR_NDIM(array));
	if (input->width > 0 && input->column->kind != 'Q')
		appendBinaryStringInfo(&input->bytes, ARR_DATA_PTR(array),
							   nelements * input->width);
	else
		append_elements(input, array);
	input->offsets[row + 1] = input->offsets[row] + nelements;
}

/* Write a value of the natural type to its place in the buffer. */
static void
write_value(ModelInput *input, int row, Datum value)
{
	if (input->column->array)
	{
		append_array(input, row, value);
		return;
	}
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
			((uint64 *) input->values)[row] = numeric_to_uint64(value,
																input->column);
			break;
		case 'f':
			((float4 *) input->values)[row] = DatumGetFloat4(value);
			break;
		case 'd':
			((float8 *) input->values)[row] = DatumGetFloat8(value);
			break;
		default:
			append_bytes(input, value);
			input->offsets[row + 1] = input->bytes.len;
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
	ModelColumnContext	 context = {table, input->column->name};
	MemoryContext		 old;

	callback.callback = model_column_error_context;
	callback.arg = &context;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
	if (input->convert)
	{
		bool isnull;

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
					  const char *table, PlanState *parent)
{
	conversion->context.table = table;
	conversion->context.column = column->name;
	conversion->context.output = true;
	conversion->state = build_cast(column, column->natural, column->typid,
								   column->typmod, parent, &conversion->slot);
}

/* Take a view of an item of Python's result column; NULL for None. */
static Py_buffer *
take_view(ModelOutput *output, PyObject *result, int item)
{
	PyObject  *object = PyTuple_GetItem(result, item);
	Py_buffer *view = &output->views[output->nviews];

	if (object == Py_None)
		return NULL;
	model_python_view(object, view);
	output->nviews++;
	return view;
}

/* The same of an item that must be there and have a certain length. */
static const void *
take_exact_view(ModelOutput *output, PyObject *result, int item, Size length)
{
	Py_buffer *view = take_view(output, result, item);

	if (view == NULL || (Size) view->len != length)
		elog(ERROR,
			 "output column \"%s\" has %zd bytes where %zu were expected",
			 output->column->name, view ? view->len : -1, length);
	return view->buf;
}

/* Take the values of a column, or the elements of arrays; -1: any number. */
static int64
take_values(ModelOutput *output, PyObject *result, int64 nvalues)
{
	Py_buffer *view;

	if (output->width > 0)
	{
		view = take_view(output, result, 0);
		if (view == NULL || view->len % output->width != 0 ||
			(nvalues >= 0 && view->len / output->width != nvalues))
			elog(ERROR, "output column \"%s\" has an unexpected size",
				 output->column->name);
		output->values = view->buf;
		return view->len / output->width;
	}
	view = take_view(output, result, 1);
	if (view == NULL || view->len < (Py_ssize_t) sizeof(int64) ||
		(nvalues >= 0 && view->len / sizeof(int64) != nvalues + 1))
		elog(ERROR, "output column \"%s\" has no offsets",
			 output->column->name);
	output->offsets = view->buf;
	nvalues = view->len / sizeof(int64) - 1;
	for (int64 i = 0; i < nvalues; i++)
		if (output->offsets[i + 1] < output->offsets[i])
			elog(ERROR, "output column \"%s\" has descending offsets",
				 output->column->name);
	if (output->offsets[0] != 0)
		elog(ERROR, "output column \"%s\" has unexpected offsets",
			 output->column->name);
	output->values = take_exact_view(output, result, 0,
									 output->offsets[nvalues]);
	return nvalues;
}

/* Take where arrays begin and their dimensions. */
static void
take_dimensions(ModelOutput *output, PyObject *result, int nrows,
				int64 nelements)
{
	Py_buffer *view;
	Size	   row_size = sizeof(int32) * nrows;

	output->starts = take_exact_view(output, result, 3, sizeof(int64) * nrows);
	view = take_view(output, result, 4);
	if (view == NULL || view->len % row_size != 0 ||
		view->len / row_size > MAXDIM)
		elog(ERROR, "output column \"%s\" has unexpected dimensions",
			 output->column->name);
	output->dimensions = view->buf;
	output->ndim = view->len / row_size;
	for (int row = 0; row < nrows; row++)
	{
		int size = ArrayGetNItems(output->ndim,
								  output->dimensions +
									  (Size) row * output->ndim);

		if (output->starts[row] < 0 || size > nelements - output->starts[row])
			elog(ERROR, "output column \"%s\" lacks elements",
				 output->column->name);
	}
}

/*
 * Take the buffers of one output column: (values, offsets, nulls, starts,
 * dimensions).  The sizes are checked here once more: a wrong one must never
 * be read past its end.
 */
void
model_output_parse(ModelOutput *output, PyObject *result, int nrows)
{
	int64 nvalues;

	if (!PyTuple_Check(result) || PyTuple_Size(result) != 5)
		elog(ERROR, "output column \"%s\" has an unexpected form",
			 output->column->name);
	output->nulls = NULL;
	if (PyTuple_GetItem(result, 2) != Py_None)
		output->nulls = take_exact_view(output, result, 2, nrows);
	nvalues = take_values(output, result, output->column->array ? -1 : nrows);
	if (output->column->array)
		take_dimensions(output, result, nrows, nvalues);
}

/* A varlena of one value of variable width. */
static Datum
bytes_datum(ModelOutput *output, int64 i)
{
	int64		start = output->offsets[i];
	int64		length = output->offsets[i + 1] - start;
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
		char *text = pg_any_to_server(data, length, PG_UTF8);

		if (text != data)
			length = strlen(text);
		return PointerGetDatum(cstring_to_text_with_len(text, length));
	}
	return PointerGetDatum(cstring_to_text_with_len(data, length));
}

/* The Datum of a value, or of an element of an array. */
static Datum
value_datum(ModelOutput *output, int64 i)
{
	const char *values = output->values;

	switch (output->column->kind)
	{
		case '?':
			return BoolGetDatum(((const uint8 *) values)[i] != 0);
		case 'h':
			return Int16GetDatum(((const int16 *) values)[i]);
		case 'i':
			return Int32GetDatum(((const int32 *) values)[i]);
		case 'q':
			return Int64GetDatum(((const int64 *) values)[i]);
		case 'Q':
			return uint64_to_numeric(((const uint64 *) values)[i]);
		case 'f':
			return Float4GetDatum(((const float4 *) values)[i]);
		case 'd':
			return Float8GetDatum(((const float8 *) values)[i]);
		default:
			return bytes_datum(output, i);
	}
}

/* An array whose elements take so many bytes, without them. */
static ArrayType *
make_array(ModelOutput *output, Size data, int *dimensions, int *bounds)
{
	Size	   size = ARR_OVERHEAD_NONULLS(output->ndim) + data;
	ArrayType *array;

	if (!AllocSizeIsValid(size))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a value of output column \"%s\" is too long",
						output->column->name),
				 errdetail("It has %zu bytes.", data)));
	array = palloc(size);
	SET_VARSIZE(array, size);
	array->ndim = output->ndim;
	array->dataoffset = 0;
	array->elemtype = model_kind_type(output->column->kind, false);
	memcpy(ARR_DIMS(array), dimensions, sizeof(int) * output->ndim);
	memcpy(ARR_LBOUND(array), bounds, sizeof(int) * output->ndim);
	return array;
}

/* An array of fixed-width elements: a copy of their memory. */
static ArrayType *
copy_array(ModelOutput *output, int64 start, int nelements, int *dimensions,
		   int *bounds)
{
	Size	   data = (Size) nelements * output->width;
	ArrayType *array = make_array(output, data, dimensions, bounds);

	memcpy(ARR_DATA_PTR(array), output->values + start * output->width, data);
	return array;
}

/*
 * An array of strings that need no conversion, written in place: a Datum and
 * an allocation for each of millions would take many times their size.
 */
static ArrayType *
write_strings(ModelOutput *output, int64 start, int nelements, int *dimensions,
			  int *bounds)
{
	const int64 *offsets = output->offsets + start;
	Size		 data = 0;
	ArrayType	*array;
	char		*place;

	for (int i = 0; i < nelements; i++)
		data += INTALIGN(VARHDRSZ + (offsets[i + 1] - offsets[i]));
	array = make_array(output, data, dimensions, bounds);
	place = ARR_DATA_PTR(array);
	for (int i = 0; i < nelements; i++)
	{
		Size length = offsets[i + 1] - offsets[i];
		Size whole = INTALIGN(VARHDRSZ + length);

		/* there may be millions of them in one row */
		CHECK_FOR_INTERRUPTS();
		if (output->column->kind == 's')
			pg_verify_mbstr(PG_UTF8, output->values + offsets[i], length,
							false);
		SET_VARSIZE(place, VARHDRSZ + length);
		memcpy(VARDATA(place), output->values + offsets[i], length);
		memset(place + VARHDRSZ + length, 0, whole - VARHDRSZ - length);
		place += whole;
	}
	return array;
}

/* The array at a row. */
static Datum
array_datum(ModelOutput *output, int row)
{
	Oid	   type = model_kind_type(output->column->kind, false);
	int	   ndim = output->ndim;
	int	  *dimensions = (int *) output->dimensions + (Size) row * ndim;
	int	   nelements = ArrayGetNItems(ndim, dimensions);
	int64  start = output->starts[row];
	int	   bounds[MAXDIM] = {1, 1, 1, 1, 1, 1};
	Datum *elements;

	StaticAssertStmt(MAXDIM == 6, "bounds of all dimensions are set");
	if (nelements == 0)
		return PointerGetDatum(construct_empty_array(type));
	if (output->width > 0 && output->column->kind != 'Q')
		return PointerGetDatum(copy_array(output, start, nelements, dimensions,
										  bounds));
	if (output->width == 0 &&
		(output->column->kind == 'b' || GetDatabaseEncoding() == PG_UTF8))
		return PointerGetDatum(write_strings(output, start, nelements,
											 dimensions, bounds));
	elements = MemoryContextAllocHuge(CurrentMemoryContext,
									  sizeof(Datum) * nelements);
	for (int i = 0; i < nelements; i++)
	{
		/* there may be millions of them in one row */
		CHECK_FOR_INTERRUPTS();
		elements[i] = value_datum(output, start + i);
	}
	return PointerGetDatum(construct_md_array(elements, NULL, ndim, dimensions,
											  bounds, type, -1, false,
											  TYPALIGN_INT));
}

/* The value of an output column at a row, in per-tuple memory. */
Datum
model_output_datum(ModelOutput *output, ModelConversion *conversion, int row,
				   ExprContext *econtext, bool *isnull)
{
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = model_column_error_context,
		.arg = &conversion->context,
	};
	MemoryContext old;
	Datum		  value;

	*isnull = output->nulls && output->nulls[row];
	if (*isnull)
		return (Datum) 0;
	error_context_stack = &callback;
	old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
	value = output->column->array ? array_datum(output, row)
								  : value_datum(output, row);
	if (conversion->state)
		value = run_cast(conversion->state, conversion->slot, value, econtext,
						 isnull);
	MemoryContextSwitchTo(old);
	error_context_stack = callback.previous;
	return value;
}
