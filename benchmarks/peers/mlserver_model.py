"""A runtime for MLServer, as its documentation shows; batching and parallel workers off, which is its best here."""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from model import NAMES, open_session, run


class Digits(MLModel):
    """Reads digits."""

    async def load(self) -> bool:
        """Open the model."""
        self.session = open_session(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request."""
        images = NumpyCodec.decode_input(payload.inputs[0]).astype(np.uint8)
        found = zip(NAMES, run(self.session, images), strict=True)
        outputs = [NumpyCodec.encode_output(name, each) for name, each in found]
        return InferenceResponse(model_name=self.name, outputs=outputs)
