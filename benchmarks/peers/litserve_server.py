"""LitServe as its documentation shows: JSON in and out; with batches its idle worker would take half a processor."""

import litserve as ls
import numpy as np
from model import arguments, open_session, run

FILE, HTTP_PORT, _ = arguments()


class Digits(ls.LitAPI):
    """Reads digits."""

    def setup(self, device):  # noqa: ARG002  LitServe's own signature
        """Open the model."""
        self.session = open_session(FILE)

    def decode_request(self, request):
        """Return one image."""
        return np.array(request["image"], np.uint8)

    def predict(self, image):
        """Return the probabilities."""
        return run(self.session, image[None])[1][0]

    def encode_response(self, output):
        """Return one answer."""
        return {"probabilities": output.tolist()}


if __name__ == "__main__":
    api = Digits()
    ls.LitServer(api, accelerator="cpu", workers_per_device=1).run(
        port=HTTP_PORT, generate_client_file=False, log_level="warning", num_api_servers=1
    )
