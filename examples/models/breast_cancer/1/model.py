"""Score breast tumours: the weights beside this file were trained by examples/train.py."""

from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Logistic regression over standardised features."""

    def initialize(self, args: dict) -> None:
        """Read mean, scale, weights (each of 30) and the intercept."""
        with np.load(Path(__file__).with_name("weights.npz")) as stored:
            self.mean, self.scale = stored["mean"], stored["scale"]
            self.weights, self.intercept = stored["weights"], stored["intercept"]

    def execute(self, requests: list) -> list:
        """Answer each request: features FP32[n, 30] to probabilities FP32[n, 2]."""
        return [self.answer(request) for request in requests]

    def answer(self, request: object) -> object:
        """Compute one request in double precision, all rows at once."""
        features = pb_utils.get_input_tensor_by_name(request, "features").as_numpy()
        standardised = (features - self.mean) / self.scale
        # Not "@": a matrix product may round a row differently when its batch is longer.
        logit = (standardised * self.weights).sum(axis=1) + self.intercept
        benign = 1.0 / (1.0 + np.exp(-logit))
        probabilities = np.stack([1.0 - benign, benign], axis=1).astype(np.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("probabilities", probabilities)])
