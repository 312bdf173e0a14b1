"""Losses between standardised targets, and between logits and maps of impurities."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from stm_models.errors import InputError, unknown

__all__ = ["LOSSES", "confidence", "focal_heat", "loss_function", "pixel_entropy"]


def focal_heat(logits: Tensor, targets: Tensor) -> Tensor:
    """Focal cross entropy of sigmoid(logits) and a heat map, over the number of impurities: () float32.

    Parameters
    ----------
    logits : (B, 1, H, W) floating
    targets : (B, 2, H, W) floating
        Heat, 1 at an impurity and falling to 0 around it; 1 at each impurity's nearest pixel, 0 elsewhere.

    Notes
    -----
    The sum of (heat - p)² times the cross entropy of heat and p, as in arXiv:2006.04388 (Eq. 3). It is zero where
    p is the heat everywhere, so that a peak's shape tells where between the pixels it lies; the loss of CenterNet
    (arXiv:1904.07850), which knows nearest pixels alone, places them less well.
    """
    heat, pixel = _maps(logits, targets)
    weight = (heat - logits.sigmoid()).square()
    entropy = functional.binary_cross_entropy_with_logits(logits, heat, reduction="none")
    return (weight * entropy).sum() / pixel.sum().clamp_min(1.0)


def pixel_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of the softmax over all pixels, the loss of arXiv:2006.15898 (Eq. 2): () float32.

    Parameters
    ----------
    logits : (B, 1, H, W) floating
    targets : (B, 2, H, W) floating
        As in `focal_heat`; of N impurities in a map each pixel is expected with probability 1/N.

    Notes
    -----
    The mean over the maps; one without impurities counts as zero.
    """
    _, pixel = _maps(logits, targets)
    expected = pixel.flatten(1)
    expected = expected / expected.sum(dim=1, keepdim=True).clamp_min(1.0)
    return -(expected * functional.log_softmax(logits.flatten(1), dim=1)).sum(dim=1).mean()


def confidence(logits: Tensor) -> Tensor:
    """Mean over the maps of the entropy of the softmax over all pixels: (), nats; ``logits`` (B, 1, H, W).

    The regularisation of arXiv:2006.15898 (Eq. 4) on maps without labels: small where few pixels hold the answer.
    """
    logarithm = functional.log_softmax(logits.flatten(1), dim=1)
    return -(logarithm.exp() * logarithm).sum(dim=1).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": functional.mse_loss,
    "huber": functional.huber_loss,
    "l1": functional.l1_loss,
    "focal_heat": focal_heat,
    "pixel_entropy": pixel_entropy,
}


def loss_function(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a loss by its name.

    ``mse``, ``huber`` and ``l1`` map (prediction (B, T), target (B, T)) to (); ``focal_heat`` and ``pixel_entropy``
    map (logits (B, 1, H, W), target (B, 2, H, W)) to ().

    Raises
    ------
    InputError
        For another name.
    """
    if name not in LOSSES:
        raise unknown("loss", name, LOSSES)
    return LOSSES[name]


def _maps(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    shape = tuple(logits.shape)
    if len(shape) != 4 or shape[1] != 1 or tuple(targets.shape) != (shape[0], 2, *shape[2:]):
        raise InputError(
            f"logits have shape {shape} and targets {tuple(targets.shape)}: expected (B, 1, H, W) and (B, 2, H, W); "
            "take a loss that fits the network"
        )
    return targets[:, :1], targets[:, 1:]
