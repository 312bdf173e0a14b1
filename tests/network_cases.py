"""Networks by name for tests: those that the data tell something get it here."""

from stm_models.networks import registry

OPTIONS = {"lattice": {"vectors": [[5.0, 0.0], [2.5, 4.33]], "pixel": [1.0, 1.0], "peak": 0.9}}
"""What a data set would say of the images, for any of at least 16 x 16 pixels."""


def create(name, in_shape, outputs, options=None, **more):
    """`registry.create` with what the network has to know."""
    return registry.create(name, in_shape, outputs, {**OPTIONS.get(name, {}), **(options or {})}, **more)
