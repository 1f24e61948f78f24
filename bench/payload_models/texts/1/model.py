"""Return every text unchanged."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """copy is text."""

    def execute(self, requests: list) -> list:
        """Answer each request: text BYTES[n, 1] to copy BYTES[n, 1]."""
        return [pb_utils.InferenceResponse([copy(request)]) for request in requests]


def copy(request: object) -> object:
    """Copy the texts of one request."""
    return pb_utils.Tensor("copy", pb_utils.get_input_tensor_by_name(request, "text").as_numpy())
