"""Multiply a number by 0 to 383."""

import numpy as np
import triton_python_backend_utils as pb_utils

FACTORS = np.arange(384, dtype=np.float32)


class TritonPythonModel:
    """v is x times every factor."""

    def execute(self, requests: list) -> list:
        """Answer each request: x FP32[n, 1] to v FP32[n, 384]."""
        return [pb_utils.InferenceResponse([multiply(request)]) for request in requests]


def multiply(request: object) -> object:
    """Multiply the numbers of one request."""
    return pb_utils.Tensor("v", pb_utils.get_input_tensor_by_name(request, "x").as_numpy() * FACTORS)
