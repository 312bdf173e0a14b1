"""A BentoML service as its documentation writes one: arrays as JSON."""

import bentoml
import numpy as np
from session import session


@bentoml.service(workers=1, metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Peer:
    """Predicts."""

    def __init__(self) -> None:
        self.session = session()

    @bentoml.api
    def predict(self, image: np.ndarray) -> np.ndarray:
        """Predict."""
        return self.session.run(["prediction"], {"image": image.astype(np.float32)})[0]
