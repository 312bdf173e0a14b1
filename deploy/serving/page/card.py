"""What a model says about itself, for people: what it is, what it was made from, and what it must not be used for."""

from __future__ import annotations

from typing import Any

from deploy.model.metadata import ModelMetadata
from deploy.model.session import Session
from stm_models.tasks import registry
from stm_models.tasks.verdict import STRANGE, blind

__all__ = ["card"]


def card(name: str, session: Session) -> dict[str, Any]:
    """Return a model's card, JSON-able: all that its file says, its outputs, and its limits in sentences."""
    about = session.metadata
    known = about.task in registry.names()
    return {
        "name": name,
        "title": registry.get(about.task).title if known else about.task,
        "takes_files": known,
        "provider": session.provider,
        "outputs": [{"name": output, "shape": list(shape)} for output, shape in session.outputs],
        "metadata": about.as_dict(),
        "limits": _limits(about),
    }


def _limits(about: ModelMetadata) -> list[str]:
    channels, height, width = about.input.shape
    targets = ", ".join(f"{target.name} ({target.unit})" for target in about.targets)
    sentences = [
        f"It answers with {targets} from images of {channels} x {height} x {width} pixels (channels, height, width) "
        f"in {about.input.unit}, and knows nothing else.",
        "It has seen the images of its training data alone; its scores below are of held-out images of that kind and "
        "say nothing about other materials, instruments or conventions.",
    ]
    sentences += _outside(about)
    if about.explanations:
        sentences.append(
            "Explanations show what this network's answer depends on, not what the sample is made of: they are right "
            "about the network even where the network is wrong."
        )
    return sentences


def _outside(about: ModelMetadata) -> list[str]:
    """Say which answers are not to be trusted; files without a p-value have the distance alone."""
    usual = about.distance.quantiles.get("0.99")
    if about.novelty is not None:
        groups = about.novelty.get("groups")
        if groups is not None and (unknown := blind(groups)):
            return [f"{unknown[0].upper()}{unknown[1:]}, so that none is called so: take every answer with care."]
        return [
            f"An image is called outside the training data where its p-value of novelty is below {STRANGE:g}, that is "
            f"where fewer than {100 * STRANGE:g} % of held-out simulated images lie as far: do not trust its answer, "
            "nor any interval beside it."
        ]
    if usual is not None:
        return [
            f"An image farther than {usual:.3g} from the training data, which 99 % of held-out images are not, is "
            "unlike these: do not trust its answer, nor any interval beside it."
        ]
    return []
