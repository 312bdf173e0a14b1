"""Several models of one network, trained from different seeds, as one: their mean, and how far they are apart [1]_.

References
----------
.. [1] Lakshminarayanan, Pritzel and Blundell, "Simple and scalable predictive uncertainty estimation using deep
   ensembles", NeurIPS 2017, arXiv:1612.01474.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from stm_models.errors import InputError
from stm_models.networks.base import Network
from stm_models.networks.map_network import MapNetwork
from stm_models.networks.model import Model

__all__ = ["Ensemble", "MapEnsemble", "members_of", "together"]


class Ensemble(Network):
    """The mean of what its members answer, in units of the spread of the targets that all of them were trained on.

    Each member standardises the images by itself.

    Parameters
    ----------
    members : sequence of Model
        Of one network, with one scale of the targets; see `together`.
    """

    standardised = False

    def __init__(self, members: Sequence[Model]) -> None:
        first = members[0].network
        super().__init__(first.in_shape, first.outputs, first.options)
        self.members = nn.ModuleList(members)

    def features(self, x: Tensor) -> Tensor:
        """Return the first member's (B, F) features of images ``x`` (B, C, H, W).

        Those of all members together depend on one another so closely that distances among them are mostly rounding.
        """
        return members_of(self)[0].features(x)

    def noise(self, x: Tensor) -> Tensor:
        """Return the first member's measures of the noise: what they see of it is the image's."""
        return members_of(self)[0].noise(x)

    def spread(self, x: Tensor) -> Tensor:
        """Return the (B, T) standard deviation (n - 1) of the members' standardised targets of images ``x``."""
        return _deviation(self._each(x))

    def cam_layers(self) -> list[nn.Module]:
        """Return the layers of all members."""
        return [layer for one in members_of(self) for layer in one.network.cam_layers()]

    def no_cam(self) -> str:
        """Return why the members have no `cam_layer`; empty where they have one."""
        return members_of(self)[0].network.no_cam()

    def as_map(self, found: Tensor) -> Tensor:
        """Return what one of `cam_layers` gives as (B, F, h, w)."""
        return members_of(self)[0].network.as_map(found)

    def forward(self, x: Tensor) -> Tensor:
        """Return the (B, T) standardised targets of images ``x`` (B, C, H, W), in the images' unit."""
        return self._each(x).mean(dim=0)

    def _each(self, x: Tensor) -> Tensor:
        return torch.stack([one.network(one.standardise(x)) for one in members_of(self)])


class MapEnsemble(MapNetwork):
    """The mean of the scores that its members give each pixel.

    Parameters
    ----------
    members : sequence of Model
        Of one network that answers with a map; see `together`.
    """

    def __init__(self, members: Sequence[Model]) -> None:
        first = cast(MapNetwork, members[0].network)
        super().__init__(first.in_shape, first.outputs, first.options)
        self.members = nn.ModuleList(members)

    def trunk(self, x: Tensor) -> Tensor:
        """Return the first member's (B, F, H, W) features of every pixel of images ``x`` (B, C, H, W)."""
        return self._networks()[0].trunk(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean (B, 1, H, W) of the members' logits of images ``x`` (B, C, H, W)."""
        return torch.stack([one(x) for one in self._networks()]).mean(dim=0)

    def answer(self, x: Tensor) -> Tensor:
        """Return the mean of the members' scores: (B, 1, H, W), between 0 and 1, for images ``x`` (B, C, H, W)."""
        return torch.stack([one.answer(x) for one in self._networks()]).mean(dim=0)

    def spread(self, x: Tensor) -> Tensor:
        """Return the standard deviation (n - 1) of the members' scores: (B, 1, H, W) for images ``x`` (B, C, H, W)."""
        return _deviation(torch.stack([one.answer(x) for one in self._networks()]))

    def _networks(self) -> list[MapNetwork]:
        return [cast(MapNetwork, one.network) for one in members_of(self)]


def together(members: Sequence[Model]) -> Model:
    """Return models as one whose answers are their mean.

    Parameters
    ----------
    members : sequence of Model
        At least two of one network and one form of images, trained on the same targets.

    Raises
    ------
    InputError
        Naming what is different, or when there are too few.
    """
    if len(members) < 2:
        raise InputError(f"an ensemble of {len(members)} model: expected at least 2")
    first, *others = members
    for number, other in enumerate(others, 2):
        for what, its, wanted in (
            ("network", type(other.network).__name__, type(first.network).__name__),
            ("form of images (C, H, W)", other.network.in_shape, first.network.in_shape),
            ("number of targets", other.network.outputs, first.network.outputs),
            ("options of the network", other.network.options, first.network.options),
            ("mean of the targets", other.target_mean.tolist(), first.target_mean.tolist()),
            ("spread of the targets", other.target_scale.tolist(), first.target_scale.tolist()),
        ):
            if its != wanted:
                raise InputError(
                    f"member {number} of the ensemble has {what} {its}, the first one {wanted}: "
                    "expected models that differ by the seed of their training alone"
                )
    kind = MapEnsemble if isinstance(first.network, MapNetwork) else Ensemble
    made = Model.blank(kind(members))
    made.target_mean.copy_(first.target_mean)
    made.target_scale.copy_(first.target_scale)
    return made.train(first.training)


def members_of(network: Network) -> list[Model]:
    """Return the models that an ensemble is made of; none of another network."""
    return [cast(Model, one) for one in network.members] if isinstance(network, (Ensemble, MapEnsemble)) else []


def _deviation(each: Tensor) -> Tensor:
    """Return the standard deviation (n - 1) over the first axis."""
    return (each - each.mean(dim=0)).square().sum(dim=0).div(len(each) - 1).sqrt()
