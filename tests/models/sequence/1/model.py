"""Add up the numbers of a sequence."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """y is the sum of every x since the sequence began."""

    def initialize(self, args: dict) -> None:
        """Begin without any sequence."""
        self.totals: dict[int, np.ndarray] = {}

    def execute(self, requests: list) -> list:
        """Answer each request: x FP64[n, 1] to y FP64[n, 1]."""
        return [self.answer(request) for request in requests]

    def answer(self, request: object) -> object:
        """Add one request to its sequence."""
        x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
        starts = pb_utils.get_input_tensor_by_name(request, "START").as_numpy().any()
        key = request.correlation_id()
        self.totals[key] = x if starts else self.totals.get(key, 0.0) + x
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", self.totals[key])])
