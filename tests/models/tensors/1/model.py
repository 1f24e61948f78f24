"""Return every input unchanged, and as the bytes that it consists of."""

import ctypes
import math
import struct

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """out_<name> is in_<name>, whatever its shape; seen is the only input, each row in hexadecimal digits."""

    def execute(self, requests: list) -> list:
        """Answer each request with the tensors that it sent."""
        return [pb_utils.InferenceResponse(list(answers(request))) for request in requests]


def answers(request: object) -> object:
    """Give back what was sent, and show it if that is wanted."""
    for tensor in request.inputs():
        yield copy(tensor)
    if "seen" in request.requested_output_names():
        (tensor,) = request.inputs()
        yield pb_utils.Tensor("seen", np.array([[row.hex().encode()] for row in rows_of(tensor)], np.object_))


def copy(tensor: object) -> object:
    """Give an input back as an output; BF16 is no type of numpy's, so it takes another way."""
    name = "out_" + tensor.name().removeprefix("in_")
    if "bf16" in name:
        return pb_utils.Tensor.from_dlpack(name, tensor)
    return pb_utils.Tensor(name, tensor.as_numpy())


def rows_of(tensor: object) -> list:
    """Cut a tensor into the contents of its rows, in the protocol's form."""
    if "bf16" in tensor.name():
        return bfloat16_rows(tensor)
    array = tensor.as_numpy()
    if "bytes" in tensor.name():
        return [b"".join(struct.pack("<I", len(value)) + value for value in row.ravel()) for row in array]
    return [row.tobytes() for row in array]


class DLTensor(ctypes.Structure):
    """A tensor as DLPack describes it (https://github.com/dmlc/dlpack)."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("dtype", ctypes.c_uint8 * 4),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
    ]


def bfloat16_rows(tensor: object) -> list:
    """Read the memory of a tensor that numpy cannot show."""
    capsule = tensor.to_dlpack()
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    described = DLTensor.from_address(get_pointer(capsule, b"dltensor"))
    rows, *shape = described.shape[: described.ndim]
    size = 2 * math.prod(shape)
    contents = ctypes.string_at(described.data, rows * size) if size else b""
    return [contents[row * size : (row + 1) * size] for row in range(rows)]
