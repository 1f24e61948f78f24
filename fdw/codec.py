"""Columns to tensors and back. No I/O.

Columns are what the C library hands over and takes (see fdw.host): for the fixed-width kinds a buffer of native
values, for 's' and 'b' a pair (offsets, data). Tensors are raw little-endian bytes as the Open Inference Protocol's
raw contents hold them, row after row; elements of BYTES tensors carry a 4-byte length each.

The float path is the hot one: ten columns of 4096 float64 become one FP32[4096, 10] in some 30 microseconds.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
import numpy.typing as npt

from fdw.errors import InvalidText, MalformedReply, ValueOutOfRange
from fdw.signature import Feed, Fetch, Pick, is_scalar, shape_text

Buffer = Union[bytes, memoryview]
Array = npt.NDArray[Any]
# One buffer for the fixed-width kinds; offsets and data for 's' and 'b'.
InputColumn = Any
# values, offsets (for 's' and 'b', int64, rows + 1 of them), nulls (uint8, 1 = NULL)
OutputColumn = Tuple[Union[bytes, Array], Optional[Array], Optional[Array]]

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
    ValueOutOfRange (22003), naming the column, for a value that the dtype cannot hold. NaN and infinities pass;
    -0.0 becomes 0.0, because the two are equal in SQL.
    """
    own = [columns[position] for position in feed.columns]
    if feed.dtype == "BYTES":
        return EncodedTensor(feed, _encode_strings(feed, rows, own))
    arrays = [np.frombuffer(column, KIND_NUMPY[kind]) for column, kind in zip(own, feed.kinds)]
    return EncodedTensor(feed, _PACKERS.get(feed.dtype, _pack_integers)(feed, rows, arrays))


@dataclass(frozen=True)
class EncodedTensor:
    """One input tensor of a batch, to be cut into requests.

    ``data`` has a row of elements per row; for a BYTES tensor it is the pieces of its contents, two per element.
    """

    feed: Feed
    data: Union[Array, List[bytes]]

    def rows(self, first: int, last: int) -> Buffer:
        """Return rows first to last (exclusive) as raw contents; of an array, without a copy."""
        if isinstance(self.data, list):
            step = 2 * len(self.feed.columns)
            return b"".join(self.data[first * step : last * step])
        return self.data[first:last].reshape(-1).view(np.uint8).data


def _pack_floats(feed: Feed, rows: int, columns: Sequence[Array]) -> Array:
    """Pack float64 columns into FP32, FP16 or FP64, watching the processor's overflow flag instead of the values."""
    packed = np.empty((rows, len(columns)), DTYPE_NUMPY[feed.dtype])
    with np.errstate(over="raise", under="ignore", invalid="ignore"):
        for position, column in enumerate(columns):
            try:
                packed[:, position] = column
            except FloatingPointError:
                raise _out_of_range(feed.names[position], feed.dtype) from None
    _clear_minus_zero(packed)
    return packed


def _clear_minus_zero(packed: Array) -> None:
    if packed.dtype.itemsize == 2:  # numpy's half arithmetic is slow
        bits = packed.view("<u2")
        bits[bits == 0x8000] = 0
        return
    with np.errstate(invalid="ignore"):  # signalling NaN
        np.add(packed, 0.0, out=packed)


def _pack_bfloat16(feed: Feed, rows: int, columns: Sequence[Array]) -> Array:
    """Pack float64 columns into BF16: the upper half of float32, rounded once, half to even."""
    packed = np.empty((rows, len(columns)), "<u2")
    for position, column in enumerate(columns):
        bits = _bfloat16_bits(column)
        if np.any(((bits & 0x7FFF) == 0x7F80) & np.isfinite(column)):
            raise _out_of_range(feed.names[position], feed.dtype)
        packed[:, position] = bits
    _clear_minus_zero(packed)
    return packed


def _bfloat16_bits(column: Array) -> Array:
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
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


def _pack_integers(feed: Feed, rows: int, columns: Sequence[Array]) -> Array:
    packed = np.empty((rows, len(columns)), DTYPE_NUMPY[feed.dtype])
    limits = np.iinfo(packed.dtype)
    for position, column in enumerate(columns):
        narrows = not np.can_cast(column.dtype, packed.dtype)
        if narrows and (column.min() < limits.min or column.max() > limits.max):
            raise _out_of_range(feed.names[position], feed.dtype)
        packed[:, position] = column
    return packed


_PACKERS: Dict[str, Callable[[Feed, int, Sequence[Array]], Array]] = {
    "FP16": _pack_floats,
    "FP32": _pack_floats,
    "FP64": _pack_floats,
    "BF16": _pack_bfloat16,
}


def _encode_strings(feed: Feed, rows: int, columns: Sequence[InputColumn]) -> List[bytes]:
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
    """An output tensor as a server sent it: ``raw`` contents, or ``items`` of typed contents."""

    name: str
    dtype: str
    shape: Tuple[int, ...]
    raw: Optional[bytes]
    items: Optional[Sequence[Any]] = None

    @property
    def size(self) -> int:
        """Bytes of the contents; of typed ones, what they would take as raw contents."""
        if self.raw is not None:
            return len(self.raw)
        if self.dtype == "BYTES":
            return sum(4 + len(item) for item in self.items or ())
        return len(self.items or ()) * np.dtype(DTYPE_NUMPY.get(self.dtype, "u1")).itemsize


def decode(fetch: Fetch, model_name: str, rows: int, batched: bool, tensor: Tensor) -> List[Tuple[Pick, OutputColumn]]:
    """Verify one output tensor of a reply and take its wanted columns.

    Checks dtype, shape, the number of rows and of elements, and the length of the contents. Raises MalformedReply
    (HV00M) for any mismatch: nothing is invented.
    """
    width = _verify(fetch, model_name, rows, batched, tensor)
    if fetch.dtype == "BYTES":
        strings = _strings_of(fetch, model_name, rows * width, tensor)
        return [(pick, _string_column(pick, strings[pick.element :: width])) for pick in fetch.picks]
    elements = _elements_of(fetch, model_name, rows * width, tensor).reshape(rows, width)
    return [(pick, (_to_kind(elements[:, pick.element], fetch.dtype, pick.kind), None, None)) for pick in fetch.picks]


def _malformed(fetch: Fetch, model_name: str, detail: str) -> MalformedReply:
    return MalformedReply(
        f'model "{model_name}" sent a malformed reply',
        f'Output tensor "{fetch.tensor}" {detail}.',
    )


def missing_output(fetch: Fetch, model_name: str) -> MalformedReply:
    """Build the error for an output that was requested and is not in the reply."""
    return _malformed(fetch, model_name, "is missing")


def _verify(fetch: Fetch, model_name: str, rows: int, batched: bool, tensor: Tensor) -> int:
    """Check dtype and shape; return the number of elements per row."""
    if tensor.dtype != fetch.dtype:
        raise _malformed(fetch, model_name, f"has dtype {tensor.dtype} instead of {fetch.dtype}")
    row_shape = tensor.shape
    if batched:
        if tensor.shape[:1] != (rows,):
            raise _malformed(fetch, model_name, f"has shape {shape_text(tensor.shape)} for {rows} rows")
        row_shape = tensor.shape[1:]
    if not _fits(row_shape, fetch.row_shape):
        expected = f"{shape_text(row_shape)} per row instead of {shape_text(fetch.row_shape)}"
        raise _malformed(fetch, model_name, f"has shape {expected}")
    width = 1
    for dimension in row_shape:
        width *= dimension
    needed = max((pick.element + 1 for pick in fetch.picks), default=0)
    if width < needed:
        raise _malformed(fetch, model_name, f"has {width} elements per row, and element {needed} is asked for")
    return width


def _fits(actual: Sequence[int], expected: Sequence[int]) -> bool:
    """Compare row shapes. A scalar may come as [] or [1]; -1 stands for any length."""
    if is_scalar(actual) and is_scalar(expected):
        return True
    return len(actual) == len(expected) and all(e in (-1, a) and a >= 0 for a, e in zip(actual, expected))


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


def _to_kind(elements: Array, dtype: str, kind: str) -> Array:
    """Return elements as a contiguous array of the kind's native type; no copy where none is needed."""
    if dtype == "BF16":
        elements = (elements.astype(np.uint32) << 16).view(np.float32)
    elif dtype == "BOOL":
        elements = elements != 0
    with np.errstate(invalid="ignore"):  # signalling NaN
        native: Array = np.ascontiguousarray(elements, KIND_NUMPY[kind])
        return native


_LENGTH = struct.Struct("<I")


def _strings_of(fetch: Fetch, model_name: str, count: int, tensor: Tensor) -> Sequence[bytes]:
    if tensor.raw is None:
        items = tensor.items or ()
        if len(items) != count:
            raise _malformed(fetch, model_name, f"holds {len(items)} elements instead of {count}")
        return items
    raw, end = tensor.raw, len(tensor.raw)
    strings: List[bytes] = []
    position = 0
    # The length of a string is known only once the one before it is read, so this loop cannot be a numpy one.
    for _ in range(count):
        start = position + 4
        if start > end:
            raise _malformed(fetch, model_name, f"holds {len(strings)} elements instead of {count}")
        position = start + _LENGTH.unpack_from(raw, position)[0]
        strings.append(raw[start:position])
    if position != end:
        raise _malformed(fetch, model_name, f"holds {end} bytes, which are not {count} elements")
    return strings


def unpack_strings(raw: Buffer) -> List[bytes]:
    """Cut the raw contents of a BYTES tensor of our own making into its elements."""
    strings, position = [], 0
    while position < len(raw):
        start = position + 4
        position = start + _LENGTH.unpack_from(raw, position)[0]
        strings.append(bytes(raw[start:position]))
    return strings


def _string_column(pick: Pick, strings: Sequence[bytes]) -> OutputColumn:
    offsets = np.zeros(len(strings) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, strings), np.int64, len(strings)), out=offsets[1:])
    data = b"".join(strings)
    if pick.kind == "s":
        _check_text(pick, data, offsets)
    return data, offsets, None


def _check_text(pick: Pick, data: bytes, offsets: Array) -> None:
    """Refuse what PostgreSQL's text cannot hold: bytes that are no UTF-8, and zero bytes."""
    problem = "a zero byte" if b"\0" in data else None
    if not data.isascii():
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
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
            "Declare the column as bytea.",
        )


def join_columns(parts: Sequence[OutputColumn]) -> OutputColumn:
    """Put the pieces of one output column, from several requests, together in order."""
    if len(parts) == 1:
        return parts[0]
    if parts[0][1] is None:
        return np.concatenate([values for values, _, _ in parts]), None, None
    data = b"".join(bytes(values) for values, _, _ in parts)
    lengths = np.concatenate([np.diff(offsets) for _, offsets, _ in parts if offsets is not None])
    return data, np.append(np.zeros(1, np.int64), np.cumsum(lengths)), None
