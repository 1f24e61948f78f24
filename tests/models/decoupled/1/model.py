"""Answer every request twice."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """y = x, then y = 2x."""

    def execute(self, requests: list) -> None:
        """Stream the answers to each request: x FP64[n, 1] to y FP64[n, 1], twice."""
        for request in requests:
            stream(request)


def stream(request: object) -> None:
    """Send both answers to one request and close its stream."""
    x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
    sender = request.get_response_sender()
    sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("y", x)]))
    sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("y", 2 * x)]))
    sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
