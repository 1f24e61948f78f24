"""Estimate how likely a customer leaves; nobody is older than 150."""

import numpy as np
import triton_python_backend_utils as pb_utils

WEIGHTS = np.array([-0.05, 0.002, 0.01], np.float32)


class TritonPythonModel:
    """Tensor probability is a logistic function of (tenure, spend, age)."""

    def execute(self, requests: list) -> list:
        """Answer each request: x FP32 [n, 3] to probability FP32 [n, 1]."""
        return [answer(request) for request in requests]


def answer(request: object) -> object:
    """Score the customers of one request, or refuse it."""
    x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
    if (x[:, 2] > 150).any():
        return pb_utils.InferenceResponse(error=pb_utils.TritonError("nobody is older than 150"))
    scores = 1 / (1 + np.exp(-(x @ WEIGHTS)))
    return pb_utils.InferenceResponse([pb_utils.Tensor("probability", scores.reshape(-1, 1).astype(np.float32))])
