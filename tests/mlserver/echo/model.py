"""Answers every input as an output of its name and "_out"."""

from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput


class Echo(MLModel):
    async def load(self):
        return True

    async def predict(self, payload):
        wanted = [output.name for output in payload.outputs or []]
        outputs = [
            ResponseOutput(name=f"{i.name}_out", datatype=i.datatype, shape=i.shape, data=i.data)
            for i in payload.inputs
            if not wanted or f"{i.name}_out" in wanted
        ]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
