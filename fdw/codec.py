"""Columns to tensors and back. No I/O.

Columns are what the C library hands over and takes (see fdw.host): for the fixed-width kinds a buffer of native
values, for 's' and 'b' a pair (offsets, data). Tensors are raw little-endian bytes as the Open Inference Protocol's
raw contents hold them, row after row; elements of BYTES tensors carry a 4-byte length each.

The float path is the hot one: ten columns of 4096 float64 become one FP32[4096, 10] in some 30 microseconds.
"""

from __future__ import annotations

import codecs
import math
import struct
import sys
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import numpy.typing as npt

from fdw.errors import ANSWER, InvalidText, MalformedReply, OversizedMessage, ValueOutOfRange, WrongShape
from fdw.options import MAX_DIMENSION
from fdw.signature import ARRAY, MAX_DIMENSIONS, Feed, Fetch, Pick, is_scalar, kind_type, shape_text
from fdw.tickets import GO_ON, Steps

Buffer = Union[bytes, memoryview]
Array = npt.NDArray[Any]
# One buffer for the fixed-width kinds; offsets and data for 's' and 'b'; elements (either of these), starts and
# dimensions for arrays.
InputColumn = Any


class OutputColumn(NamedTuple):
    """A column of answers, in the form that fdw.host.submit describes."""

    values: Union[bytes, bytearray, Array]
    offsets: Optional[Array] = None
    nulls: Optional[Array] = None
    starts: Optional[Array] = None
    dimensions: Optional[Array] = None


assert sys.byteorder == "little", "raw contents are little-endian, and so must this machine be"

# The seam's kinds as numpy types, native byte order.
KIND_NUMPY: Dict[str, str] = {"?": "u1", "h": "i2", "i": "i4", "q": "i8", "Q": "u8", "f": "f4", "d": "f8"}

# Tensor elements as numpy types, little-endian. BF16 has none of its own and is handled as its bits.
DTYPE_NUMPY: Dict[str, str] = {
    "BOOL": "u1",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "FP16": "<f2",
    "BF16": "<u2",
    "FP32": "<f4",
    "FP64": "<f8",
}

# The largest finite values of the float types, for messages.
_LARGEST: Dict[str, str] = {"FP16": "65504", "BF16": "3.3895314e+38", "FP32": "3.4028235e+38"}


def _out_of_range(name: str, dtype: str) -> ValueOutOfRange:
    if dtype in _LARGEST:
        low, high = f"-{_LARGEST[dtype]}", _LARGEST[dtype]
    else:
        limits = np.iinfo(DTYPE_NUMPY[dtype])
        low, high = str(limits.min), str(limits.max)
    return ValueOutOfRange(f'value out of range for input column "{name}"', f"{dtype} takes {low} to {high}.")


# ---------------------------------------------------------------- columns to tensors


def encode(feed: Feed, rows: int, columns: Sequence[InputColumn]) -> EncodedTensor:
    """Pack the columns of one input tensor.

    ``columns`` are all bound columns of the scan, ``rows`` values each; the feed says which are its own. Raises
    ValueOutOfRange (22003) for a value that the dtype cannot hold and WrongShape (2202E) for an array that the tensor
    does not take, both naming the column. NaN and infinities pass; the -0.0 of a scalar becomes 0.0, because the two
    are equal in SQL.
    """
    own = [columns[position] for position in feed.columns]
    if feed.is_array:
        return _encode_array(feed, rows, *own[0])
    width = len(own)
    if feed.dtype == "BYTES":
        return EncodedTensor(feed, _string_pieces(rows, own), _even_starts(rows, width), None)
    packed = np.empty((rows, width), DTYPE_NUMPY[feed.dtype])
    values = [np.frombuffer(column, KIND_NUMPY[kind]) for column, kind in zip(own, feed.kinds)]
    _write_elements(packed.T, values, feed)
    if feed.dtype in _FLOATS:
        _clear_minus_zero(packed)
    return EncodedTensor(feed, packed.reshape(-1), _even_starts(rows, width), None)


def _encode_array(feed: Feed, rows: int, elements: InputColumn, starts: Buffer, dimensions: Buffer) -> EncodedTensor:
    """Pack a column of whole arrays: a row's elements are those from starts[row] to starts[row + 1]."""
    bounds = np.frombuffer(starts, np.int64)
    shapes = _array_shapes(feed, np.frombuffer(dimensions, np.int32).reshape(rows, 1 + MAX_DIMENSIONS))
    count = int(bounds[-1])
    if feed.dtype == "BYTES":
        return EncodedTensor(feed, _string_pieces(count, [elements]), bounds.copy(), shapes)
    packed = np.empty(count, DTYPE_NUMPY[feed.dtype])
    _write_elements([packed], [np.frombuffer(elements, KIND_NUMPY[feed.kinds[0][1:]])], feed)
    return EncodedTensor(feed, packed, bounds.copy(), shapes)


def _array_shapes(feed: Feed, dimensions: Array) -> Array:
    """Check the dimensions of arrays against the tensor's row shape; return one shape per row.

    An empty array has no dimensions in PostgreSQL: it is taken for one whose variable dimensions are 0.
    """
    expected = np.array(feed.row_shape, np.int64)
    counts, shapes = dimensions[:, 0], dimensions[:, 1 : 1 + len(expected)].copy()
    shapes[counts == 0] = np.maximum(expected, 0)
    wrong = np.any((expected >= 0) & (shapes != expected), axis=1)
    wrong |= np.where(counts == 0, np.all(expected > 0), counts != len(expected))
    if np.any(wrong):
        first = dimensions[np.argmax(wrong)].tolist()
        raise WrongShape(
            f'array does not fit input column "{feed.names[0]}"',
            f"The array has shape {shape_text(first[1 : 1 + first[0]])}; "
            f'tensor "{feed.tensor}" takes {shape_text(feed.row_shape)}.',
        )
    return shapes


def _even_starts(rows: int, width: int) -> Array:
    return np.arange(rows + 1, dtype=np.int64) * width


# Some rows of a batch: a slice without step, or their numbers.
Selection = Union[slice, Array]


@dataclass(frozen=True)
class EncodedTensor:
    """One input tensor of a batch, to be cut into requests.

    ``data``: the elements, row after row; for a BYTES tensor the pieces of its contents, two per element. ``starts``:
    which element each row begins with, one more than there are rows. ``shapes``: [rows, dimensions], None where all
    rows have the feed's row shape.
    """

    feed: Feed
    data: Union[Array, List[bytes]]
    starts: Array
    shapes: Optional[Array]

    @property
    def varies(self) -> bool:
        """Tell whether not all rows have one shape."""
        return self.shapes is not None and bool(np.any(self.shapes != self.shapes[0]))

    def row_shape(self, selection: Selection) -> Tuple[int, ...]:
        """Return the shape of the selected rows, which is one."""
        if self.shapes is None:
            return self.feed.row_shape
        return tuple(self.shapes[selection][0].tolist())

    def rows(self, selection: Selection) -> Buffer:
        """Return the selected rows as raw contents; of a slice of numbers, without a copy."""
        if isinstance(selection, slice):
            elements: Any = slice(int(self.starts[selection.start]), int(self.starts[selection.stop]))
        else:
            elements = _ranges(self.starts[selection], np.diff(self.starts)[selection])
        if not isinstance(self.data, list):
            contents: memoryview = self.data[elements].view(np.uint8).data
            return contents
        if isinstance(elements, slice):
            return b"".join(self.data[2 * elements.start : 2 * elements.stop])
        return b"".join(piece for element in elements.tolist() for piece in self.data[2 * element : 2 * element + 2])


def _ranges(starts: Array, lengths: Array) -> Array:
    """Return the numbers start, start + 1, ... of several ranges, one after the other."""
    if not len(lengths):
        return np.zeros(0, np.int64)
    ends = np.cumsum(lengths)
    numbers: Array = np.arange(ends[-1]) + np.repeat(starts - ends + lengths, lengths)
    return numbers


def group_rows(tensors: Sequence[EncodedTensor]) -> Optional[List[Array]]:
    """Return the numbers of the rows of each shape, if rows of a batch have different ones; else None."""
    shapes = [tensor.shapes for tensor in tensors if tensor.shapes is not None and tensor.varies]
    if not shapes:
        return None
    _, groups = np.unique(np.concatenate(shapes, axis=1), axis=0, return_inverse=True)
    groups = groups.reshape(-1)
    ordered = np.argsort(groups, kind="stable")
    return np.split(ordered, np.flatnonzero(np.diff(groups[ordered])) + 1)


_FLOATS = ("FP16", "BF16", "FP32", "FP64")


def _write_elements(targets: Iterable[Array], columns: Sequence[Array], feed: Feed) -> None:
    """Write the values of a feed's columns as elements of its dtype, each column to its own target."""
    write = _WRITERS.get(feed.dtype, _write_integers)
    with np.errstate(over="raise", under="ignore", invalid="ignore"):
        for name, target, values in zip(feed.names, targets, columns):
            try:
                write(target, values)
            except (FloatingPointError, OverflowError):
                raise _out_of_range(name, feed.dtype) from None


def _write_floats(target: Array, values: Array) -> None:
    """Convert to FP32, FP16 or FP64, watching the processor's overflow flag instead of the values."""
    target[...] = values


def _write_bfloat16(target: Array, values: Array) -> None:
    """Convert to BF16: the upper half of float32, rounded once, half to even."""
    bits = _bfloat16_bits(values)
    if np.any(((bits & 0x7FFF) == 0x7F80) & np.isfinite(values)):
        raise OverflowError
    target[...] = bits


def _bfloat16_bits(column: Array) -> Array:
    single = column.astype("<f4")
    bits = single.view("<u4")
    # Where float32 rounding made an exact half of what was not one, step back to the value's own side of it.
    halves = np.flatnonzero((bits & 0xFFFF) == 0x8000)
    if halves.size:
        excess = np.abs(single[halves].astype("f8")) - np.abs(column[halves])
        bits[halves[excess > 0]] -= np.uint32(1)
        bits[halves[excess < 0]] += np.uint32(1)
    rounded = (bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16
    return np.where(np.isnan(column), (bits >> 16) | 0x40, rounded).astype("<u2")


def _write_integers(target: Array, values: Array) -> None:
    limits = np.iinfo(target.dtype)
    narrows = not np.can_cast(values.dtype, target.dtype)
    if narrows and values.size and (values.min() < limits.min or values.max() > limits.max):
        raise OverflowError
    target[...] = values


_WRITERS: Dict[str, Callable[[Array, Array], None]] = {
    "FP16": _write_floats,
    "FP32": _write_floats,
    "FP64": _write_floats,
    "BF16": _write_bfloat16,
}


def _clear_minus_zero(packed: Array) -> None:
    if packed.dtype.itemsize == 2:  # numpy's half arithmetic is slow
        bits = packed.view("<u2")
        bits[bits == 0x8000] = 0
        return
    with np.errstate(invalid="ignore"):  # signalling NaN
        np.add(packed, 0.0, out=packed)


def _string_pieces(rows: int, columns: Sequence[InputColumn]) -> List[bytes]:
    """Lay strings out as length, bytes, length, bytes: row after row, and within a row column after column."""
    step = 2 * len(columns)
    pieces = [b""] * (rows * step)
    for position, (column_offsets, column_data) in enumerate(columns):
        offsets = np.frombuffer(column_offsets, np.int64)
        data = bytes(column_data)
        lengths = np.diff(offsets).astype("<u4").tobytes()
        bounds = offsets.tolist()
        pieces[2 * position :: step] = [lengths[at : at + 4] for at in range(0, 4 * rows, 4)]
        pieces[2 * position + 1 :: step] = [data[start:end] for start, end in zip(bounds, bounds[1:])]
    return pieces


# ---------------------------------------------------------------- tensors to columns


@dataclass(frozen=True)
class Tensor:
    """An output tensor as a server sent it: ``raw`` contents, or ``items`` of typed contents.

    Protocols that know more than tensors do: ``nulls`` (uint8, 1 = NULL, whatever the items say) of the rows, and
    ``lengths`` of rows that are vectors of any length each, whose elements the items are; -1 in the shape then.
    """

    name: str
    dtype: str
    shape: Tuple[int, ...]
    raw: Optional[bytes]
    items: Optional[Sequence[Any]] = None
    nulls: Optional[Array] = None
    lengths: Optional[Array] = None

    @property
    def size(self) -> int:
        """Bytes of the contents; of typed ones, what they would take as raw contents."""
        if self.raw is not None:
            return len(self.raw)
        if self.dtype == "BYTES":
            return sum(4 + len(item) for item in self.items or ())
        return len(self.items or ()) * np.dtype(DTYPE_NUMPY.get(self.dtype, "u1")).itemsize


def decode(
    fetch: Fetch, model_name: str, rows: int, batched: bool, tensor: Tensor, most_strings: int
) -> Steps[List[Tuple[Pick, OutputColumn]]]:
    """Verify one output tensor of a reply and take its wanted columns, in slices that look for interrupts.

    Checks dtype, shape, the number of rows and of elements, and the length of the contents. Raises MalformedReply
    (HV00M) for any mismatch: nothing is invented; and OversizedMessage (54000) for more than ``most_strings`` strings.
    """
    row_shape = _verify(fetch, model_name, rows, batched, tensor)
    width = math.prod(row_shape)
    count = rows * width if tensor.lengths is None else int(tensor.lengths.sum())
    elements: Any
    if fetch.dtype == "BYTES":
        elements = yield from _strings_of(fetch, model_name, count, tensor, most_strings)
    else:
        elements = _elements_of(fetch, model_name, count, tensor)
    columns = []
    for pick in fetch.picks:
        if tensor.lengths is not None:
            column = _ragged_column(fetch, pick, model_name, elements, tensor)
        elif pick.is_array:
            column = _with_shape(_column(fetch, pick, elements), rows, row_shape)
        else:
            column = _column(fetch, pick, _take(elements, slice(pick.element, None, width)))
            column = column._replace(nulls=tensor.nulls)
        if pick.kind[-1] == "s":
            yield from _check_text(pick, column)
        columns.append((pick, column))
    return columns


def _take(elements: Any, places: Any) -> Any:
    """Take some of the elements: of an array, or of the strings of a column."""
    if isinstance(elements, np.ndarray):
        return elements[places]
    if isinstance(places, slice) and places == slice(0, None, 1):
        return elements
    lengths = np.diff(elements.offsets)[places]
    data = np.frombuffer(elements.values, np.uint8)[_ranges(elements.offsets[:-1][places], lengths)]
    return OutputColumn(data.tobytes(), _offsets(lengths))


def _column(fetch: Fetch, pick: Pick, elements: Any) -> OutputColumn:
    """Make a column of elements; strings are one already."""
    return elements if fetch.dtype == "BYTES" else _fixed_column(fetch, pick, elements)


def _ragged_column(fetch: Fetch, pick: Pick, model_name: str, elements: Any, tensor: Tensor) -> OutputColumn:
    """Make a column of vectors of any length each, or of one element of each."""
    assert tensor.lengths is not None
    starts = _offsets(tensor.lengths)[:-1]
    if pick.is_array:
        dimensions = tensor.lengths.astype(np.int32).reshape(-1, 1)
        return _column(fetch, pick, elements)._replace(nulls=tensor.nulls, starts=starts, dimensions=dimensions)
    rows = len(starts)
    given = np.arange(rows) if tensor.nulls is None else np.flatnonzero(tensor.nulls == 0)
    if (tensor.lengths[given] <= pick.element).any():
        raise _malformed(fetch, model_name, f"has a row without element {pick.element + 1}")
    places = starts[given] + pick.element
    column = _column(fetch, pick, _take(elements, places))
    return column if tensor.nulls is None else spread(column, given, rows)


def _with_shape(elements: OutputColumn, rows: int, row_shape: Sequence[int]) -> OutputColumn:
    """Make a column of arrays, all of one shape, of the column of their elements."""
    dimensions = np.tile(np.array(row_shape, np.int32), (rows, 1))
    return elements._replace(starts=_even_starts(rows, math.prod(row_shape))[:rows], dimensions=dimensions)


def _malformed(fetch: Fetch, model_name: str, detail: str) -> MalformedReply:
    return MalformedReply(
        f'model "{model_name}" sent a malformed reply',
        f'Output tensor "{fetch.tensor}" {detail}.',
    )


def missing_output(fetch: Fetch, model_name: str) -> MalformedReply:
    """Build the error for an output that was requested and is not in the reply."""
    return _malformed(fetch, model_name, "is missing")


def _verify(fetch: Fetch, model_name: str, rows: int, batched: bool, tensor: Tensor) -> Sequence[int]:
    """Check dtype and shape; return the shape of a row."""
    if tensor.dtype != fetch.dtype:
        raise _malformed(fetch, model_name, f"has dtype {tensor.dtype} instead of {fetch.dtype}")
    row_shape = tensor.shape
    if batched:
        if tensor.shape[:1] != (rows,):
            raise _malformed(fetch, model_name, f"has shape {shape_text(tensor.shape)} for {rows} rows")
        row_shape = tensor.shape[1:]
    if tensor.lengths is not None and len(fetch.row_shape) == 1:
        return row_shape
    if not _fits(row_shape, fetch.row_shape):
        expected = f"{shape_text(row_shape)} per row instead of {shape_text(fetch.row_shape)}"
        raise _malformed(fetch, model_name, f"has shape {expected}")
    width = math.prod(row_shape)
    needed = max((pick.element + 1 for pick in fetch.picks if not pick.is_array), default=0)
    if width < needed:
        raise _malformed(fetch, model_name, f"has {width} elements per row, and element {needed} is asked for")
    # A scalar that comes as [] may be expected as [1].
    return row_shape if len(row_shape) == len(fetch.row_shape) else fetch.row_shape


def _fits(actual: Sequence[int], expected: Sequence[int]) -> bool:
    """Compare row shapes. A scalar may come as [] or [1]; -1 stands for any length that an array can have."""
    if is_scalar(actual) and is_scalar(expected):
        return True
    return len(actual) == len(expected) and all(
        e in (-1, a) and 0 <= a <= MAX_DIMENSION for a, e in zip(actual, expected)
    )


def _elements_of(fetch: Fetch, model_name: str, count: int, tensor: Tensor) -> Array:
    if tensor.raw is None:
        return _typed_elements(fetch, model_name, count, tensor.items or ())
    element = np.dtype(DTYPE_NUMPY[fetch.dtype])
    if len(tensor.raw) != count * element.itemsize:
        expected = f"{len(tensor.raw)} bytes instead of {count * element.itemsize}"
        raise _malformed(fetch, model_name, f"holds {expected}")
    return np.frombuffer(tensor.raw, element)


def _typed_elements(fetch: Fetch, model_name: str, count: int, items: Sequence[Any]) -> Array:
    if len(items) != count:
        raise _malformed(fetch, model_name, f"holds {len(items)} elements instead of {count}")
    element = np.dtype(DTYPE_NUMPY[fetch.dtype])
    if element.kind in "iu" and count:
        # Narrow integers travel in wider fields.
        limits = np.iinfo(element)
        if min(items) < limits.min or max(items) > limits.max:
            raise _malformed(fetch, model_name, f"holds a value out of the range of {fetch.dtype}")
    return np.fromiter(items, element, count)


def _fixed_column(fetch: Fetch, pick: Pick, elements: Any) -> OutputColumn:
    """Make a column of elements, contiguous and of the kind's native type; no copy where none is needed."""
    if fetch.dtype == "BF16":
        elements = (elements.astype(np.uint32) << 16).view(np.float32)
    elif fetch.dtype == "BOOL":
        elements = elements != 0
    with np.errstate(invalid="ignore"):  # signalling NaN
        return OutputColumn(np.ascontiguousarray(elements, KIND_NUMPY[pick.kind[-1]]))


_LENGTH = struct.Struct("<I")

# How much of an answer is decoded before whoever waits may look for interrupts: some 10 ms of work.
SLICE_STRINGS = 50_000
SLICE_BYTES = 4_000_000


def _strings_of(fetch: Fetch, model_name: str, count: int, tensor: Tensor, most_strings: int) -> Steps[OutputColumn]:
    """Take the strings of a BYTES tensor."""
    if count > most_strings:
        error = OversizedMessage(
            f'reply of model "{model_name}" holds too many strings',
            f'Output tensor "{fetch.tensor}" holds {count} of them, and {most_strings} are allowed.',
            'Raise server option "max_message_bytes", on which that depends.',
        )
        error.what = ANSWER
        raise error
    if tensor.raw is None:
        items = tensor.items or ()
        if len(items) != count:
            raise _malformed(fetch, model_name, f"holds {len(items)} elements instead of {count}")
        return OutputColumn(b"".join(items), _offsets(np.fromiter(map(len, items), np.int64, count)))
    raw, end = tensor.raw, len(tensor.raw)
    lengths = np.empty(count, np.int64)
    data = bytearray(max(0, end - 4 * count))
    position = written = 0
    for first in range(0, count, SLICE_STRINGS):
        if first:
            yield GO_ON
        strings: List[bytes] = []
        # The length of a string is known only once the one before it is read, so this loop cannot be a numpy one.
        for _ in range(min(SLICE_STRINGS, count - first)):
            start = position + 4
            if start > end:
                raise _malformed(fetch, model_name, f"holds {first + len(strings)} elements instead of {count}")
            position = start + _LENGTH.unpack_from(raw, position)[0]
            strings.append(raw[start:position])
        lengths[first : first + len(strings)] = np.fromiter(map(len, strings), np.int64, len(strings))
        block = b"".join(strings)
        data[written : written + len(block)] = block
        written += len(block)
    if position != end:
        raise _malformed(fetch, model_name, f"holds {end} bytes, which are not {count} elements")
    return OutputColumn(data, _offsets(lengths))


def unpack_strings(raw: Buffer) -> List[bytes]:
    """Cut the raw contents of a BYTES tensor of our own making into its elements."""
    strings, position = [], 0
    while position < len(raw):
        start = position + 4
        position = start + _LENGTH.unpack_from(raw, position)[0]
        strings.append(bytes(raw[start:position]))
    return strings


def _check_text(pick: Pick, column: OutputColumn) -> Steps[None]:
    """Refuse what PostgreSQL's text cannot hold: bytes that are no UTF-8, and zero bytes."""
    data, offsets = column.values, column.offsets
    assert offsets is not None
    assert not isinstance(data, np.ndarray)
    problem = "a zero byte" if b"\0" in data else None
    if not data.isascii():
        if not (yield from _is_utf8(data)):
            problem = "bytes that are not UTF-8"
        else:
            # Valid as a whole; each string must also begin at the first byte of a character.
            begins = np.frombuffer(data, np.uint8)[offsets[offsets < len(data)]]
            if np.any((begins & 0xC0) == 0x80):
                problem = "bytes that are not UTF-8"
    if problem:
        raise InvalidText(
            f'model answered {problem} for output column "{pick.name}"',
            None,
            f"Declare the column as {kind_type(pick.kind.replace('s', 'b'))}.",
        )


def _is_utf8(data: Union[bytes, bytearray]) -> Steps[bool]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    for first in range(0, len(data), SLICE_BYTES):
        if first:
            yield GO_ON
        try:
            decoder.decode(data[first : first + SLICE_BYTES], first + SLICE_BYTES >= len(data))
        except UnicodeDecodeError:
            return False
    return True


def join_columns(parts: Sequence[OutputColumn], order: Optional[Array] = None) -> OutputColumn:
    """Put the pieces of one output column, from several requests, together.

    ``order``: the place of each row in the result; in the order of the pieces unless given.
    """
    column = parts[0] if len(parts) == 1 else _concatenate(parts)
    if order is None:
        return column
    source = np.argsort(order)
    nulls = None if column.nulls is None else column.nulls[source]
    if column.starts is not None and column.dimensions is not None:
        return column._replace(nulls=nulls, starts=column.starts[source], dimensions=column.dimensions[source])
    if column.offsets is None:
        return OutputColumn(np.asarray(column.values)[source], None, nulls)
    lengths = np.diff(column.offsets)[source]
    data = np.frombuffer(column.values, np.uint8)[_ranges(column.offsets[:-1][source], lengths)]
    return OutputColumn(data, _offsets(lengths), nulls)


def spread(column: OutputColumn, places: Array, rows: int) -> OutputColumn:
    """Lay a column out over more rows: its values at ``places``, which ascend, and NULL elsewhere."""
    nulls = np.ones(rows, np.uint8)
    nulls[places] = 0 if column.nulls is None else column.nulls
    if column.starts is not None and column.dimensions is not None:
        starts = np.zeros(rows, np.int64)
        dimensions = np.zeros((rows, column.dimensions.shape[1]), np.int32)
        starts[places], dimensions[places] = column.starts, column.dimensions
        return column._replace(nulls=nulls, starts=starts, dimensions=dimensions)
    if column.offsets is not None:
        lengths = np.zeros(rows, np.int64)
        lengths[places] = np.diff(column.offsets)
        return OutputColumn(column.values, _offsets(lengths), nulls)
    values = np.zeros(rows, np.asarray(column.values).dtype)
    values[places] = column.values
    return OutputColumn(values, None, nulls)


def no_values(kind: str) -> OutputColumn:
    """Return a column of a kind without a row."""
    element = kind.lstrip(ARRAY)
    column = (
        OutputColumn(np.empty(0, KIND_NUMPY[element]))
        if element in KIND_NUMPY
        else OutputColumn(b"", np.zeros(1, np.int64))
    )
    if kind == element:
        return column
    return column._replace(starts=np.empty(0, np.int64), dimensions=np.empty((0, 1), np.int32))


def text_column(texts: Sequence[str]) -> OutputColumn:
    """Make an 's' column; a zero byte, which PostgreSQL's text cannot hold, becomes a question mark."""
    encoded = [text.replace("\0", "?").encode("utf-8", "replace") for text in texts]
    return OutputColumn(b"".join(encoded), _offsets(np.array([len(text) for text in encoded], np.int64)))


def _concatenate(parts: Sequence[OutputColumn]) -> OutputColumn:
    starts, dimensions, nulls = None, None, None
    if any(part.nulls is not None for part in parts):
        nulls = np.concatenate(
            [np.zeros(_rows(part), np.uint8) if part.nulls is None else part.nulls for part in parts]
        )
    if parts[0].starts is not None:
        sizes = [_elements(part) for part in parts]
        bases = _offsets(np.array(sizes, np.int64))
        starts = np.concatenate([part.starts + base for part, base in zip(parts, bases) if part.starts is not None])
        dimensions = np.concatenate([part.dimensions for part in parts if part.dimensions is not None])
    if parts[0].offsets is None:
        return OutputColumn(np.concatenate([part.values for part in parts]), None, nulls, starts, dimensions)
    data = b"".join(bytes(part.values) for part in parts)
    lengths = np.concatenate([np.diff(part.offsets) for part in parts if part.offsets is not None])
    return OutputColumn(data, _offsets(lengths), nulls, starts, dimensions)


def _elements(column: OutputColumn) -> int:
    return len(column.values) if column.offsets is None else len(column.offsets) - 1


def _rows(column: OutputColumn) -> int:
    return _elements(column) if column.starts is None else len(column.starts)


def _offsets(lengths: Array) -> Array:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
