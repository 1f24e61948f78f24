"""Give the area of triangles from their sides."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Heron's formula, in Kahan's stable arrangement."""

    def execute(self, requests: list) -> list:
        """Answer each request: sides FP64[n, 3] to area FP64[n]; NaN where no triangle has such sides."""
        return [answer(request) for request in requests]


def answer(request: object) -> object:
    """Compute the areas of one request."""
    sides = pb_utils.get_input_tensor_by_name(request, "sides").as_numpy()
    return pb_utils.InferenceResponse([pb_utils.Tensor("area", area(sides))])


def area(sides: np.ndarray) -> np.ndarray:
    """Apply W. Kahan, "Miscalculating Area and Angles of a Needle-like Triangle", section 2."""
    c, b, a = np.sort(sides, axis=1).T
    with np.errstate(invalid="ignore"):
        return np.sqrt((a + (b + c)) * (c - (a - b)) * (c + (a - b)) * (a + (b - c))) / 4
