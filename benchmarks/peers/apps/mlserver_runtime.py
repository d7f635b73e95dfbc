"""One model as a runtime of MLServer, which is a server of several models."""

import work
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Runtime(MLModel):
    """Whole batches come as one request."""

    async def load(self) -> bool:
        """Load."""
        self.model = work.Model(self.name)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The outputs."""
        rows = self.model.run(NumpyCodec.decode_input(payload.inputs[0]).astype("float32"))
        outputs = [NumpyCodec.encode_output("y", rows)]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
