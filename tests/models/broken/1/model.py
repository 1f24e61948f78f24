"""Take square roots, and refuse what has none."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """y is the root of x."""

    def execute(self, requests: list) -> list:
        """Answer each request: x FP64[n, 1] to y FP64[n, 1], or an error where an x is negative."""
        return [answer(request) for request in requests]


def answer(request: object) -> object:
    """Take the roots of one request, or refuse all of it."""
    x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
    if (x < 0).any():
        return pb_utils.InferenceResponse(error=pb_utils.TritonError("x must not be negative"))
    return pb_utils.InferenceResponse([pb_utils.Tensor("y", x**0.5)])
