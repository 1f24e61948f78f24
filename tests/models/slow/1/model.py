"""Double a number, slowly."""

import json
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """y = 2x, after a pause of the config parameter "delay_ms"."""

    def initialize(self, args: dict) -> None:
        """Read the pause from the model's configuration."""
        parameters = json.loads(args["model_config"])["parameters"]
        self.delay_s = int(parameters["delay_ms"]["string_value"]) / 1000

    def execute(self, requests: list) -> list:
        """Answer each request: x FP64[n, 1] to y FP64[n, 1]."""
        return [self.answer(request) for request in requests]

    def answer(self, request: object) -> object:
        """Wait, then double the numbers of one request."""
        time.sleep(self.delay_s)
        x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", 2 * x)])
