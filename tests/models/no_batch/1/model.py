"""Add three numbers, one triple a request."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """y is the sum of x."""

    def execute(self, requests: list) -> list:
        """Answer each request: x FP64[3] to y FP64[1]."""
        return [answer(request) for request in requests]


def answer(request: object) -> object:
    """Add the numbers of one request."""
    x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
    return pb_utils.InferenceResponse([pb_utils.Tensor("y", x.sum(keepdims=True))])
