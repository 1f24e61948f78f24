"""Add a bias that may be left out."""

import triton_python_backend_utils as pb_utils

DEFAULT_BIAS = 100.0


class TritonPythonModel:
    """y = x + bias, 100 where the request has no bias."""

    def execute(self, requests: list) -> list:
        """Answer each request: x FP64[n, 1], optionally bias FP64[n, 1], to y FP64[n, 1]."""
        return [answer(request) for request in requests]


def answer(request: object) -> object:
    """Add the bias of one request."""
    x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
    bias = pb_utils.get_input_tensor_by_name(request, "bias")
    y = x + (DEFAULT_BIAS if bias is None else bias.as_numpy())
    return pb_utils.InferenceResponse([pb_utils.Tensor("y", y)])
