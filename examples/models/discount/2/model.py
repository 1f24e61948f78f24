"""Lower a price: version 2, a quarter off."""

import triton_python_backend_utils as pb_utils

RATE = 0.25


class TritonPythonModel:
    """The same rate off every price."""

    def execute(self, requests: list) -> list:
        """Answer each request: price FP64[n, 1] to discounted FP64[n, 1]."""
        return [answer(request) for request in requests]


def answer(request: object) -> object:
    """Discount the prices of one request."""
    price = pb_utils.get_input_tensor_by_name(request, "price").as_numpy()
    return pb_utils.InferenceResponse([pb_utils.Tensor("discounted", price * (1.0 - RATE))])
