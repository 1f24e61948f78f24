"""A model's inputs and outputs, and which column is which slot of which tensor. No I/O, no numpy.

Dtypes are the names of the Open Inference Protocol (FP32, INT64, BYTES, ...). Shapes are tuples of dimensions, -1 for
a variable one; a *row shape* is a shape without the batch dimension.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Sequence

from fdw.errors import ModelFdwError, UnboundInput, Unsupported, WrongDtype, WrongTensor
from fdw.options import Column, Table

INPUT = "i"
OUTPUT = "o"

ROLE_NAMES = {INPUT: "input", OUTPUT: "output"}


@dataclass(frozen=True)
class Dtype:
    """How a tensor's elements appear in SQL.

    ``input_kind`` and ``output_kind`` are the seam's codes of the natural SQL type in each role; ``item_bytes`` is the
    size of one element on the wire, 0 for BYTES.
    """

    input_kind: str
    output_kind: str
    item_bytes: int


# Used by IMPORT, describe and the codec alike. Floats of up to 32 bits are taken as double precision, so that every
# numeric column compares with them, and shown as real.
DTYPES: dict[str, Dtype] = {
    "BOOL": Dtype("?", "?", 1),
    "INT8": Dtype("h", "h", 1),
    "INT16": Dtype("h", "h", 2),
    "INT32": Dtype("i", "i", 4),
    "INT64": Dtype("q", "q", 8),
    "UINT8": Dtype("h", "h", 1),
    "UINT16": Dtype("i", "i", 2),
    "UINT32": Dtype("q", "q", 4),
    "UINT64": Dtype("Q", "Q", 8),
    "FP16": Dtype("d", "f", 2),
    "BF16": Dtype("d", "f", 2),
    "FP32": Dtype("d", "f", 4),
    "FP64": Dtype("d", "d", 8),
    "BYTES": Dtype("s", "s", 0),
}

KIND_TYPES: dict[str, str] = {
    "?": "boolean",
    "h": "smallint",
    "i": "integer",
    "q": "bigint",
    "Q": "numeric(20)",
    "f": "real",
    "d": "double precision",
    "s": "text",
    "b": "bytea",
}


# An array's kind is this and the kind of its elements.
ARRAY = "["

# What a PostgreSQL array can have.
MAX_DIMENSIONS = 6


def kind_of(dtype: str, role: str, column_type: str = "text") -> str:
    """Return the seam's kind for one element of a dtype in a role; BYTES is 'b' for a bytea column, else 's'."""
    entry = DTYPES[dtype]
    kind = entry.input_kind if role == INPUT else entry.output_kind
    return "b" if kind == "s" and column_type == "bytea" else kind


def array_kind_of(dtype: str, role: str, column_type: str) -> str:
    """Return the seam's kind for a whole vector or N-dimensional tensor.

    Arrays of floats cross as what the column has, real or double precision, so that nothing is converted twice. A type
    that is no array, such as pgvector's, has casts from and to real[].
    """
    kind = kind_of(dtype, role, column_type.removesuffix("[]"))
    if role == INPUT and kind == "d" and (column_type == "real[]" or not column_type.endswith("[]")):
        kind = "f"
    elif role == OUTPUT and kind == "f" and column_type == "double precision[]":
        kind = "d"
    return ARRAY + kind


def kind_type(kind: str) -> str:
    """Return the SQL type of a kind."""
    if kind.startswith(ARRAY):
        return f"{KIND_TYPES[kind[1:]].removesuffix('(20)')}[]"
    return KIND_TYPES[kind]


def sql_type(dtype: str, role: str, array: bool = False) -> str:
    """Return the natural SQL type of one element, or of a whole vector or N-dimensional tensor."""
    kind = kind_of(dtype, role)
    return kind_type(ARRAY + kind if array else kind)


@dataclass(frozen=True)
class TensorSpec:
    """A tensor as the model's metadata declares it; the shape holds the batch dimension, if there is one.

    ``optional``: it need not be sent; ``omittable``: a table need not have a column for it. ``column`` and ``type``:
    the name and the SQL type of an imported column, where they are not what follows from the tensor's.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    optional: bool = False
    omittable: bool = False
    column: str = ""
    type: str = ""


@dataclass(frozen=True)
class Model:
    """What a server tells about a model.

    ``batched``: the first dimension of every tensor is the batch. ``max_batch_size``: rows of one request at most, 0
    where the server sets no limit. ``parameters``: the string parameters of the model's configuration. ``idempotent``:
    a request may be made again when it is not known whether the first one was served. ``silent``: the roles of which
    the server declares no tensors; what a table's columns declare counts there (see complete()).
    """

    name: str
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batched: bool
    max_batch_size: int
    decoupled: bool = False
    sequence: bool = False
    parameters: tuple[tuple[str, str], ...] = ()
    idempotent: bool = True
    silent: frozenset[str] = frozenset()

    def tensors(self, role: str) -> tuple[TensorSpec, ...]:
        """Return the inputs or the outputs."""
        return self.inputs if role == INPUT else self.outputs

    def row_shape(self, spec: TensorSpec) -> tuple[int, ...]:
        """Return a tensor's shape for one row."""
        return spec.shape[1:] if self.batched else spec.shape


def is_batched(max_batch_size: int, tensors: Sequence[TensorSpec]) -> bool:
    """Tell whether the first dimension is the batch.

    It is when the model's configuration says max_batch_size > 0, or when the first dimension of every tensor is -1.
    """
    return max_batch_size > 0 or all(spec.shape[:1] == (-1,) for spec in tensors)


def complete(table: Table, model: Model) -> Model:
    """Take from a table's columns what the server does not tell of a model's tensors; raises WrongTensor (HV005)."""
    if not model.silent:
        return model
    found = {
        role: _declared_tensors(table, model, role) if role in model.silent else model.tensors(role)
        for role in ROLE_NAMES
    }
    batched = is_batched(model.max_batch_size, found[INPUT] + found[OUTPUT])
    return replace(model, inputs=found[INPUT], outputs=found[OUTPUT], batched=batched)


def _declared_tensors(table: Table, model: Model, role: str) -> tuple[TensorSpec, ...]:
    """Read the tensors of a role off the columns, in their order; each must be fully declared by one of its columns."""
    groups: dict[str, list[Column]] = {}
    for column in table.columns:
        options = column.options
        tensor = options.input if role == INPUT else options.output
        tied = options.input or options.output or options.error or _is_named(column, model)
        if not tied:
            silent = (name for code, name in ROLE_NAMES.items() if code in model.silent)
            raise _undeclared(table, model, column, " or ".join(f'"{name}"' for name in silent))
        if tensor:
            groups.setdefault(tensor, []).append(column)
    return tuple(_declared_tensor(table, model, name, columns) for name, columns in groups.items())


def _declared_tensor(table: Table, model: Model, name: str, columns: Sequence[Column]) -> TensorSpec:
    said = [column.options for column in columns]
    dtype = next((options.dtype for options in said if options.dtype), None)
    shape = next((options.shape for options in said if options.shape is not None), None)
    if dtype is None or shape is None:
        lacking = [f'"{option}"' for option, value in (("dtype", dtype), ("shape", shape)) if value is None]
        raise _undeclared(table, model, columns[0], " and ".join(lacking))
    return TensorSpec(name, dtype, shape, optional=any(options.optional for options in said))


def _is_named(column: Column, model: Model) -> bool:
    """Tell whether a column has the name of a tensor that the server declares."""
    specs = [spec for role in ROLE_NAMES if role not in model.silent for spec in model.tensors(role)]
    return _find(specs, column.name) is not None


def silence(model: Model) -> str:
    """Say what a server does not tell of a model."""
    roles = [name for role, name in ROLE_NAMES.items() if role in model.silent]
    which = f"{roles[0]} tensors" if len(roles) == 1 else "tensors"
    return f'model "{model.name}" declares no {which}'


def _undeclared(table: Table, model: Model, column: Column, options: str) -> WrongTensor:
    return WrongTensor(
        f"{_column_name(table, column)} lacks option {options}, and {silence(model)}",
        "What the columns declare counts where the model server is silent.",
        f"Set {options}.",
    )


def shape_text(shape: Sequence[int]) -> str:
    """Write a shape as option "shape" takes it: [-1,30]."""
    return f"[{','.join(str(dimension) for dimension in shape)}]"


def check_supported(model: Model) -> None:
    """Refuse models that are no tables: decoupled (streaming) and sequence models (0A000)."""
    if model.decoupled:
        raise Unsupported(
            f'model "{model.name}" is decoupled, which is not supported',
            "A decoupled model answers any number of responses to a request, so its answers are no rows of the inputs.",
        )
    if model.sequence:
        raise Unsupported(
            f'model "{model.name}" is a sequence model, which is not supported',
            "A sequence model keeps state between requests, so its answers depend on more than the inputs.",
        )


@dataclass(frozen=True)
class Slot:
    """The place of a column in the model: one tensor, or element ``index`` (from 1) of a vector tensor.

    The kind tells whether the column is an array; ``batched``, whether the tensor's first dimension is the batch. The
    column for the server's message is an output of no tensor.
    """

    column: Column
    role: str
    tensor: str
    index: int | None
    dtype: str
    kind: str
    optional: bool
    batched: bool

    @property
    def attnum(self) -> int:
        """The column's number in the table."""
        return self.column.attnum


def is_self_described(table: Table) -> bool:
    """Tell whether the columns' options say everything that planning needs, so that no server is asked."""
    return all(is_described(column) for column in table.columns)


def is_described(column: Column) -> bool:
    """Tell whether a column's options say its role, tensor, dtype and shape, or that it is tied to none."""
    options = column.options
    if options.error:
        return True
    return bool((options.input or options.output) and options.dtype) and options.shape is not None


def has_error_column(table: Table) -> bool:
    """Tell whether a row that the server refuses is an answer, and not the end of the statement."""
    return any(column.options.error for column in table.columns)


def describe(table: Table, model: Model | None) -> tuple[Slot, ...]:
    """Tie each column to its tensor, in the order of the table's columns.

    Without a model the columns' own options are believed (see is_self_described). With one, the options are checked
    against it: WrongTensor (HV005) for names and indexes, WrongDtype (HV004) for dtype and shape.
    """
    if model is None:
        batched = all((column.options.shape or ())[:1] == (-1,) for column in table.columns if not column.options.error)
        return tuple(_believe(column, batched) for column in table.columns)
    check_supported(model)
    model = complete(table, model)
    slots = tuple(tie(table, column, model) for column in table.columns)
    _check_order(table, slots, model)
    return slots


def _error_slot(column: Column) -> Slot:
    return Slot(column, OUTPUT, "", None, "BYTES", "s", False, True)


def _believe(column: Column, batched: bool) -> Slot:
    options = column.options
    if options.error:
        return _error_slot(column)
    role = INPUT if options.input else OUTPUT
    tensor, dtype, shape = options.input or options.output, options.dtype, options.shape
    assert tensor is not None
    assert dtype is not None
    assert shape is not None
    kind = column_kind(column, role, dtype, shape[1:] if batched else shape)
    return Slot(column, role, tensor, options.index, dtype, kind, options.optional, batched)


def column_kind(column: Column, role: str, dtype: str, row_shape: Sequence[int]) -> str:
    """Return the kind of a column: of an array where it is tied to a whole vector or N-dimensional tensor.

    So it is for a tensor of one element, if the column has an array's type.
    """
    whole = not is_scalar(row_shape) or (len(row_shape) > 0 and column.type.endswith("[]"))
    if column.options.index is None and whole:
        return array_kind_of(dtype, role, column.type)
    return kind_of(dtype, role, column.type)


def qualified_name(table: Table) -> str:
    """Write a table's name as SQL, with its schema where that is known."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in (table.schema, table.name) if part)


def check_hint(table: Table) -> str:
    """Write the hint that leads to model_fdw_check(); where the host does not tell the table's name, to an import."""
    if not table.schema:
        return "Import the foreign table again, or correct the column's options."
    name = f"{_identifier(table.schema)}.{_identifier(table.name)}".replace("'", "''")
    return f"\"SELECT * FROM model_fdw_check('{name}')\" shows what differs, and the statements that cure it."


def _column_name(table: Table, column: Column) -> str:
    return f'column "{column.name}" of foreign table "{table.name}"'


def _quoted(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f'"{spec.name}"' for spec in specs) or "none"


def _find(specs: Sequence[TensorSpec], name: str) -> TensorSpec | None:
    return next((spec for spec in specs if spec.name == name), None)


def _find_explicit(column: Column, model: Model, role: str, name: str) -> TensorSpec:
    spec = _find(model.tensors(role), name)
    if spec is None:
        raise WrongTensor(
            f'model "{model.name}" has no {ROLE_NAMES[role]} tensor "{name}"',
            f'Option "{ROLE_NAMES[role]}" of column "{column.name}" names it.',
            f"The model's {ROLE_NAMES[role]} tensors are: {_quoted(model.tensors(role))}.",
        )
    return spec


def find_tensor(table: Table, column: Column, model: Model) -> tuple[str, TensorSpec]:
    """Return the role and tensor of a column: by option "input" or "output", else by its own name."""
    if column.options.input:
        return INPUT, _find_explicit(column, model, INPUT, column.options.input)
    if column.options.output:
        return OUTPUT, _find_explicit(column, model, OUTPUT, column.options.output)
    as_input, as_output = _find(model.inputs, column.name), _find(model.outputs, column.name)
    if as_input and as_output:
        raise WrongTensor(
            f"{_column_name(table, column)} is ambiguous",
            f'Model "{model.name}" has both an input and an output tensor of this name.',
            'Set column option "input" or "output".',
        )
    if as_input:
        return INPUT, as_input
    if as_output:
        return OUTPUT, as_output
    raise WrongTensor(
        f'{_column_name(table, column)} matches no tensor of model "{model.name}"',
        f"The model's input tensors are: {_quoted(model.inputs)}; its output tensors are: {_quoted(model.outputs)}.",
        'Set column option "input" or "output" to a tensor\'s name.',
    )


def tie(table: Table, column: Column, model: Model) -> Slot:
    """Tie a column to its tensor, after checking all that its options say; raises as describe()."""
    if column.options.error:
        return _error_slot(column)
    role, spec = find_tensor(table, column, model)
    check_dtype(model, role, spec)
    _check_declared(table, column, model, role, spec)
    check_index(table, column, model, role, spec)
    kind = column_kind(column, role, spec.dtype, model.row_shape(spec))
    optional = role == INPUT and spec.optional
    return Slot(column, role, spec.name, column.options.index, spec.dtype, kind, optional, model.batched)


def check_dtype(model: Model, role: str, spec: TensorSpec) -> None:
    """Refuse a tensor of a dtype that has no SQL type (0A000)."""
    if spec.dtype not in DTYPES:
        raise Unsupported(
            f'dtype "{spec.dtype}" of {ROLE_NAMES[role]} tensor "{spec.name}" of model "{model.name}" is not supported'
        )


def _check_declared(table: Table, column: Column, model: Model, role: str, spec: TensorSpec) -> None:
    """Compare options "dtype" and "shape" with the model: it may have changed since the table was made."""
    declared, actual = [], []
    if column.options.dtype not in (None, spec.dtype):
        declared.append(f"dtype {column.options.dtype}")
        actual.append(f"dtype {spec.dtype}")
    if column.options.shape not in (None, spec.shape):
        declared.append(f"shape {shape_text(column.options.shape or ())}")
        actual.append(f"shape {shape_text(spec.shape)}")
    if declared:
        raise WrongDtype(
            f'{_column_name(table, column)} does not match model "{model.name}"',
            f"The column declares {' and '.join(declared)}; "
            f'{ROLE_NAMES[role]} tensor "{spec.name}" has {" and ".join(actual)}.',
            check_hint(table),
        )


# A model's parameter that names the elements of a vector, separated by commas, is called this and the tensor.
NAMES_PARAMETER = "columns."


def element_names(model: Model, spec: TensorSpec) -> list[str] | None:
    """Return the names that the model's configuration gives to a vector's elements; None: it gives none.

    An empty list stands for names that cannot be read.
    """
    value = dict(model.parameters).get(NAMES_PARAMETER + spec.name)
    if value is None:
        return None
    names = [name.strip() for name in value.split(",")]
    return names if all(names) and len(set(names)) == len(names) else []


def misplaced_elements(columns: Sequence[Column], model: Model, spec: TensorSpec) -> list[tuple[Column, int]]:
    """Find columns that show another element of a vector than the one that the model gives their name; and that one.

    The columns are those of the tensor. Whoever names a column like an element of the model means that element.
    """
    names = element_names(model, spec) or []
    elements = {name: number for number, name in enumerate(names, start=1)}
    return [
        (column, elements[column.name])
        for column in columns
        if column.options.index is not None and elements.get(column.name, column.options.index) != column.options.index
    ]


def _check_order(table: Table, slots: Sequence[Slot], model: Model) -> None:
    """Compare the names of a vector's elements with the model: it may have put them into another order."""
    for role, name in ROLE_NAMES.items():
        for spec in model.tensors(role):
            if element_names(model, spec) is None:
                continue
            columns = [slot.column for slot in slots if (slot.role, slot.tensor) == (role, spec.name)]
            for column, element in misplaced_elements(columns, model, spec):
                raise WrongDtype(
                    f'{_column_name(table, column)} does not match model "{model.name}"',
                    f'The column is element {column.options.index} of {name} tensor "{spec.name}"; '
                    f"the model gives its name to element {element}.",
                    check_hint(table),
                )


def difference(before: Model, after: Model) -> str:
    """Say, in a sentence, how a model differs from what it was: by the first of its tensors that does, if any."""
    for role, name in ROLE_NAMES.items():
        for spec in (*before.tensors(role), *after.tensors(role)):
            old, new = _find(before.tensors(role), spec.name), _find(after.tensors(role), spec.name)
            if old != new:
                return f'Its {name} tensor "{spec.name}" {_declaration(old, "was")}, and {_declaration(new, "is")} now.'
    return "Its configuration is another one."


def _declaration(spec: TensorSpec | None, verb: str) -> str:
    if spec is None:
        return f"{verb} not there"
    return f"{verb} {'optional ' if spec.optional else ''}{spec.dtype}{shape_text(spec.shape)}"


def is_scalar(row_shape: Sequence[int]) -> bool:
    """Tell whether a row holds one element: shape () or (1,), or (1, 1) and so on."""
    return all(dimension == 1 for dimension in row_shape)


def check_index(table: Table, column: Column, model: Model, role: str, spec: TensorSpec) -> None:
    """Refuse an element that a tensor does not have, and a whole tensor that no array can hold."""
    index, row_shape = column.options.index, model.row_shape(spec)
    tensor = f'{ROLE_NAMES[role]} tensor "{spec.name}" of model "{model.name}"'
    if index is None:
        if len(row_shape) > MAX_DIMENSIONS:
            raise Unsupported(
                f"{_column_name(table, column)} is tied to a tensor that has too many dimensions",
                f"The {tensor} has shape {shape_text(row_shape)} per row; an array has at most {MAX_DIMENSIONS} "
                "dimensions.",
            )
    elif len(row_shape) > 1 and not is_scalar(row_shape):
        raise Unsupported(
            f'option "index" of {_column_name(table, column)} picks from a tensor that is no vector',
            f"The {tensor} has shape {shape_text(row_shape)} per row.",
        )
    elif index > _width(row_shape) >= 0:
        raise WrongTensor(
            f'option "index" of {_column_name(table, column)} is out of range',
            f"The {tensor} has shape {shape_text(row_shape)} per row.",
            f"Valid values are between 1 and {_width(row_shape)}.",
        )


def _width(row_shape: Sequence[int]) -> int:
    """Return the number of elements of a row that is a scalar or a vector; -1: variable."""
    return row_shape[0] if row_shape else 1


@dataclass(frozen=True)
class Feed:
    """One input tensor of a request and the columns that fill it.

    ``columns``: for each element of a row, in order, the position of its column among the bound ones; or the position
    of the one column that is a whole array. ``names`` are those columns' names, for errors; ``kinds`` their kinds.
    ``row_shape`` has variable dimensions (-1) only where an array gives them.
    """

    tensor: str
    dtype: str
    kinds: tuple[str, ...]
    row_shape: tuple[int, ...]
    columns: tuple[int, ...]
    names: tuple[str, ...]

    @property
    def is_array(self) -> bool:
        """Tell whether one column holds the whole tensor as an array."""
        return self.kinds[0].startswith(ARRAY)


@dataclass(frozen=True)
class Pick:
    """One wanted output column: ``element`` of a row (from 0), or all, as ``kind``; ``position`` among the wanted."""

    position: int
    element: int
    kind: str
    name: str

    @property
    def is_array(self) -> bool:
        """Tell whether the column holds the whole tensor as an array."""
        return self.kind.startswith(ARRAY)


@dataclass(frozen=True)
class Fetch:
    """One output tensor of a request, its row shape (-1: variable) and the columns taken from it, maybe none."""

    tensor: str
    dtype: str
    row_shape: tuple[int, ...]
    picks: tuple[Pick, ...]


@dataclass(frozen=True)
class Plan:
    """What a session sends and reads: made once, used for every batch.

    ``kinds`` are those of the wanted columns; at ``messages``, positions among these, go the server's messages.
    """

    model: Model
    feeds: tuple[Feed, ...]
    fetches: tuple[Fetch, ...]
    bound_count: int
    kinds: tuple[str, ...]
    messages: tuple[int, ...]

    @property
    def wanted_count(self) -> int:
        """The number of wanted columns."""
        return len(self.kinds)


def plan(table: Table, model: Model, bound: Sequence[int], wanted: Sequence[int], kinds: Sequence[str] = ()) -> Plan:
    """Plan the requests of a scan.

    ``bound`` are the attnums of the bound input columns in the order of submit's columns, ``wanted`` those of the
    outputs in the order of its results; with none wanted the smallest output is requested, because an empty list
    means "all" in the Open Inference Protocol and a row exists only if the server answered. ``kinds`` are those that
    the host uses for these columns, if it says so: WrongDtype (HV004) where the model gives them others.
    """
    model = complete(table, model)
    slots = describe(table, model)
    by_attnum = {slot.attnum: slot for slot in slots}
    for attnum, kind in zip([*bound, *wanted], kinds):
        if by_attnum[attnum].kind != kind:
            raise WrongDtype(
                f'{_column_name(table, by_attnum[attnum].column)} does not match model "{model.name}"',
                f"It was taken for {kind_type(kind)}, and the model has {kind_type(by_attnum[attnum].kind)}.",
                "Run the statement again, or import the foreign table again.",
            )
    bound_slots = [by_attnum[attnum] for attnum in bound]
    feeds = []
    for spec in model.inputs:
        own = [slot for slot in slots if slot.role == INPUT and slot.tensor == spec.name]
        feeding = {slot.attnum for slot in bound_slots} & {slot.attnum for slot in own}
        if feeding or not (spec.optional or (spec.omittable and not own)):
            feeds.append(_feed(table, model, spec, own, list(bound)))
    wanted_slots = [by_attnum[attnum] for attnum in wanted]
    return Plan(
        model,
        tuple(feeds),
        _fetches(model, wanted_slots),
        len(bound),
        tuple(slot.kind for slot in wanted_slots),
        tuple(position for position, slot in enumerate(wanted_slots) if slot.column.options.error),
    )


def _missing(table: Table, model: Model, spec: TensorSpec, element: int | None) -> ModelFdwError:
    quoted = spec.name.replace("'", "''")
    if element is None:
        return WrongTensor(
            f'foreign table "{table.name}" has no column for input tensor "{spec.name}" of model "{model.name}"',
            "The model requires it.",
            f"Add a column with OPTIONS (input '{quoted}').",
        )
    return WrongTensor(
        f'foreign table "{table.name}" has no column for element {element} of input tensor "{spec.name}" '
        f'of model "{model.name}"',
        f"The tensor has shape {shape_text(model.row_shape(spec))} per row; all elements of a vector must be bound.",
        f"Add a column with OPTIONS (input '{quoted}', index '{element}').",
    )


def _feed(table: Table, model: Model, spec: TensorSpec, slots: Sequence[Slot], bound: list[int]) -> Feed:
    """Lay the columns of one input tensor out as the elements of a row, none missing, none twice."""
    row_shape = model.row_shape(spec)
    if not slots:
        raise _missing(table, model, spec, None)
    array = next((slot for slot in slots if slot.kind.startswith(ARRAY)), None)
    if array is not None:
        return _array_feed(table, model, spec, array, slots, bound)
    elements: dict[int, Slot] = {}
    for slot in slots:
        element = slot.index or 1
        if element in elements:
            both = f'Both are element {element} of input tensor "{spec.name}" of model "{model.name}".'
            raise _fed_twice(table, elements[element], slot, both)
        elements[element] = slot
    # A row of variable length is as long as the table says.
    width = max(elements) if _width(row_shape) < 0 else _width(row_shape)
    for element in range(1, width + 1):
        if element not in elements:
            raise _missing(table, model, spec, element)
        if elements[element].attnum not in bound:
            raise unbound(table.name, elements[element].column.name)
    ordered = [elements[element] for element in range(1, width + 1)]
    return Feed(
        tensor=spec.name,
        dtype=spec.dtype,
        kinds=tuple(slot.kind for slot in ordered),
        row_shape=(width,) if row_shape == (-1,) else row_shape,
        columns=tuple(bound.index(slot.attnum) for slot in ordered),
        names=tuple(slot.column.name for slot in ordered),
    )


def _array_feed(
    table: Table, model: Model, spec: TensorSpec, array: Slot, slots: Sequence[Slot], bound: list[int]
) -> Feed:
    """Take a whole input tensor from one column."""
    for slot in slots:
        if slot is not array:
            whole = f'Column "{array.column.name}" is the whole of input tensor "{spec.name}" of model "{model.name}".'
            raise _fed_twice(table, array, slot, whole)
    if array.attnum not in bound:
        raise unbound(table.name, array.column.name)
    position = bound.index(array.attnum)
    return Feed(spec.name, spec.dtype, (array.kind,), model.row_shape(spec), (position,), (array.column.name,))


def _fed_twice(table: Table, first: Slot, second: Slot, detail: str) -> WrongTensor:
    return WrongTensor(
        f'columns "{first.column.name}" and "{second.column.name}" of foreign table "{table.name}" feed the same input',
        detail,
        'Correct option "input" or "index" of one of them.',
    )


def _identifier(name: str) -> str:
    """Quote an SQL identifier where that is needed."""
    return name if re.fullmatch("[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'


def unbound(table_name: str, column_name: str) -> UnboundInput:
    """Build the error of a scan that lacks an equality on an input column; the C library has the same text."""
    table, column = _identifier(table_name), _identifier(column_name)
    return UnboundInput(
        f'input column "{column_name}" of foreign table "{table_name}" is not bound',
        None,
        f'Give it a value with an equality, such as "WHERE {column} = ..." or "JOIN ... ON {table}.{column} = ...".',
    )


def _fetches(model: Model, wanted: Sequence[Slot]) -> tuple[Fetch, ...]:
    names = {slot.tensor for slot in wanted if not slot.column.options.error}
    specs = [spec for spec in model.outputs if spec.name in names]
    if not specs and model.outputs:
        specs = [min(model.outputs, key=lambda spec: _row_bytes(model, spec))]
    return tuple(
        Fetch(
            spec.name,
            spec.dtype,
            model.row_shape(spec),
            tuple(
                Pick(position, (slot.index or 1) - 1, slot.kind, slot.column.name)
                for position, slot in enumerate(wanted)
                if slot.tensor == spec.name and not slot.column.options.error
            ),
        )
        for spec in specs
    )


def _row_bytes(model: Model, spec: TensorSpec) -> int:
    """Estimate a row's size in bytes; 64 for a string and for a variable dimension, for want of better."""
    size = DTYPES[spec.dtype].item_bytes if spec.dtype in DTYPES else 0
    size = size or 64
    for dimension in model.row_shape(spec):
        size *= 64 if dimension < 0 else dimension
    return size
