"""Return every input unchanged."""

import triton_python_backend_utils as pb_utils

DTYPES = (
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "fp16",
    "fp32",
    "fp64",
    "bytes",
)


class TritonPythonModel:
    """out_<dtype> is in_<dtype>."""

    def execute(self, requests: list) -> list:
        """Answer each request: in_<dtype> [n, 1] to out_<dtype> [n, 1]."""
        return [answer(request) for request in requests]


def answer(request: object) -> object:
    """Copy the tensors of one request."""
    return pb_utils.InferenceResponse([copy(request, dtype) for dtype in DTYPES])


def copy(request: object, dtype: str) -> object:
    """Give the input of a dtype back as the output of that dtype."""
    values = pb_utils.get_input_tensor_by_name(request, f"in_{dtype}").as_numpy()
    return pb_utils.Tensor(f"out_{dtype}", values)
