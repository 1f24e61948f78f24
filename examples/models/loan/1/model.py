"""Decide on a loan by a few plain rules."""

import numpy as np
import triton_python_backend_utils as pb_utils

BASE_RATE = 4.0
SURCHARGE = {b"house": 0.0, b"car": 1.5, b"education": 0.5}
OTHER_PURPOSE = 3.0


class TritonPythonModel:
    """The first rule that refuses gives the reason."""

    def execute(self, requests: list) -> list:
        """Answer each request.

        Inputs, all [n, 1]: income FP64 and debts INT64 in the same currency, age INT32 in years,
        employed BOOL, purpose BYTES. Outputs: approved BOOL, rate FP32 in per cent, reason BYTES.
        """
        return [answer(request) for request in requests]


def answer(request: object) -> object:
    """Decide on all applications of one request."""
    income, age, employed, purpose, debts = (
        pb_utils.get_input_tensor_by_name(request, name).as_numpy()
        for name in ("income", "age", "employed", "purpose", "debts")
    )
    ratio = debts / np.maximum(income, 1.0)
    refusals = [age < 18, ~employed & (income < 20_000), ratio > 0.5]
    reasons = [b"applicant is a minor", b"no sufficient income", b"debts exceed half the income"]
    reason = np.select(refusals, reasons, b"all rules passed").astype(np.object_)
    approved = ~np.logical_or.reduce(refusals)
    surcharge = np.vectorize(lambda name: SURCHARGE.get(name, OTHER_PURPOSE), [np.float64])(purpose)
    rate = np.where(approved, BASE_RATE + surcharge + 4.0 * ratio, 0.0).astype(np.float32)
    return pb_utils.InferenceResponse(
        [
            pb_utils.Tensor("approved", approved),
            pb_utils.Tensor("rate", rate),
            pb_utils.Tensor("reason", reason),
        ]
    )
