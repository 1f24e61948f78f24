"""Combine two numbers linearly."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """s = 2a + 3b and d = a - b."""

    def execute(self, requests: list) -> list:
        """Answer each request: a, b FP64[n, 1] to s, d FP64[n, 1]."""
        return [answer(request) for request in requests]


def answer(request: object) -> object:
    """Combine the numbers of one request."""
    a = pb_utils.get_input_tensor_by_name(request, "a").as_numpy()
    b = pb_utils.get_input_tensor_by_name(request, "b").as_numpy()
    return pb_utils.InferenceResponse([pb_utils.Tensor("s", 2 * a + 3 * b), pb_utils.Tensor("d", a - b)])
