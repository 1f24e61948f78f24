"""Negate a number under its own name."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """value is the opposite of value."""

    def execute(self, requests: list) -> list:
        """Answer each request: value FP64[n, 1] to value FP64[n, 1]."""
        return [answer(request) for request in requests]


def answer(request: object) -> object:
    """Negate the numbers of one request."""
    value = pb_utils.get_input_tensor_by_name(request, "value").as_numpy()
    return pb_utils.InferenceResponse([pb_utils.Tensor("value", -value)])
