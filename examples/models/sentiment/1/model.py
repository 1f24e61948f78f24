"""Tell praise from blame: the weights beside this file were trained by examples/train.py."""

import json
import math
import re
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

WORD = re.compile(r"[a-z']+")


def terms(text: str) -> set[str]:
    """List the words and the pairs of neighbouring words of a text."""
    words = WORD.findall(text.lower())
    return {*words, *map(" ".join, zip(words, words[1:]))}


class TritonPythonModel:
    """One weight per term; label is "positive" or "negative", score the probability of "positive"."""

    def initialize(self, args: dict) -> None:
        """Read the intercept and the weight of every known term."""
        stored = json.loads(Path(__file__).with_name("weights.json").read_text())
        self.intercept: float = stored["intercept"]
        self.weights: dict[str, float] = stored["weights"]

    def execute(self, requests: list) -> list:
        """Answer each request: text BYTES[n, 1] to label BYTES[n, 1] and score FP32[n, 1]."""
        return [self.answer(request) for request in requests]

    def answer(self, request: object) -> object:
        """Score the texts of one request."""
        texts = pb_utils.get_input_tensor_by_name(request, "text").as_numpy()
        scores = np.array([self.score(text) for text in texts.ravel()], np.float32).reshape(-1, 1)
        labels = np.where(scores >= 0.5, b"positive", b"negative").astype(np.object_)
        return pb_utils.InferenceResponse([pb_utils.Tensor("label", labels), pb_utils.Tensor("score", scores)])

    def score(self, text: bytes) -> float:
        """Give the probability that a text is positive."""
        # Sorted: the order of a set differs between processes, and with it the last bit of a sum.
        known = sorted(terms(text.decode()) & self.weights.keys())
        logit = self.intercept + sum(self.weights[term] for term in known)
        return 1.0 / (1.0 + math.exp(-logit))
