"""ResNet-18, -34, -50 and -101 of torchvision; the comparators of arXiv 2602.18890."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from stm_models.errors import InputError
from stm_models.networks import start_weights
from stm_models.networks.backbone import Backbone, BackboneOptions
from stm_models.networks.base import NetworkOptions
from stm_models.search import Choice, Range, Space

__all__ = ["RESNETS", "ResNet", "ResNetOptions"]


class ResNetOptions(BackboneOptions):
    """Options of `ResNet`; unit-norm features are the paper's."""

    normalise: bool = True


class ResNet(Backbone):
    """torchvision's network up to the global mean; published weights of the stem are averaged over colours."""

    Options: ClassVar[type[NetworkOptions]] = ResNetOptions
    cam_refusal = ""
    space: ClassVar[Space] = {"dropout": Range(0.0, 0.5), "normalise": Choice((True, False))}

    @classmethod
    def build(cls, in_shape: tuple[int, int, int]) -> nn.Module:
        """Return the network for images of ``in_shape``, any size."""
        body = _torchvision().get_model(cls.name, weights=None)
        old = body.conv1
        body.conv1 = nn.Conv2d(
            in_shape[0], old.out_channels, old.kernel_size, old.stride, old.padding, bias=False
        )  # fmt: skip
        nn.init.kaiming_normal_(body.conv1.weight, mode="fan_out", nonlinearity="relu")
        body.fc = nn.Identity()
        return body

    @classmethod
    def published(cls) -> list[str]:
        """Return torchvision's default."""
        return [_torchvision().get_model_weights(cls.name).DEFAULT.name]

    def download(self, in_shape: tuple[int, int, int]) -> tuple[nn.Module, dict[str, Any]]:
        """Return the network with torchvision's default weights."""
        body = self.body
        try:
            published = _torchvision().get_model_weights(self.name).DEFAULT
            state = published.get_state_dict(progress=False, check_hash=True)
        except Exception as error:  # the hub fails in many ways
            raise self.no_download(error) from error
        heads, stems = self.layers()
        start_weights.lay(state, body, heads=heads, stems=stems, where=f"torchvision's weights {published}")
        return body, {"pretrained": str(published)}

    def cam_layer(self) -> nn.Module:
        """Return the last stage."""
        return self.body.layer4

    def layers(self) -> tuple[list[str], Mapping[str, Callable[[Tensor, int], Tensor]]]:
        """Return torchvision's names of the head and of the stem."""
        return ["fc"], {"conv1": start_weights.average_stem}


def _torchvision() -> Any:
    try:
        import torchvision.models
    except ImportError as error:
        raise InputError(
            f"this network needs torchvision, which does not work here ({error}): install stm-lab[train], "
            "with torch and torchvision of the same build"
        ) from error
    return torchvision.models


RESNETS: dict[str, type[ResNet]] = {
    name: type(f"ResNet{depth}", (ResNet,), {"name": name, "__module__": __name__, "__doc__": f"ResNet-{depth}."})
    for depth in (18, 34, 50, 101)
    for name in [f"resnet{depth}"]
}
