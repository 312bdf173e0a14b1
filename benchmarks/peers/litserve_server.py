"""A LitServe server as its documentation writes one: arrays as JSON."""

import sys

import litserve
import numpy as np
from session import session


class Peer(litserve.LitAPI):
    """Predicts."""

    def setup(self, device):
        """Open the model."""
        self.session = session()

    def decode_request(self, request):
        """Read the array."""
        return np.asarray(request["image"], np.float32)

    def predict(self, image):
        """Predict."""
        return self.session.run(["prediction"], {"image": image})[0]

    def encode_response(self, prediction):
        """Write the array."""
        return {"prediction": prediction.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Peer(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="error"
    )
