"""Cut the fraction off a number."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """t is s without its fraction."""

    def execute(self, requests: list) -> list:
        """Answer each request: s FP64[n, 1] to t INT64[n, 1]."""
        return [answer(request) for request in requests]


def answer(request: object) -> object:
    """Cut the numbers of one request."""
    s = pb_utils.get_input_tensor_by_name(request, "s").as_numpy()
    return pb_utils.InferenceResponse([pb_utils.Tensor("t", np.trunc(s).astype(np.int64))])
