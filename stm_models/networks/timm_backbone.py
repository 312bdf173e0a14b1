"""Any network of timm, by its name there."""

from __future__ import annotations

import difflib
import fnmatch
import functools
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from stm_models.errors import InputError
from stm_models.networks.backbone import Backbone

__all__ = ["PREFIX", "TimmBackbone", "matching", "network", "tags"]

PREFIX = "timm"


class TimmBackbone(Backbone):
    """timm's network up to its pooled features, made for the images' channels and, where it asks for it, size."""

    model: str

    @classmethod
    def build(cls, in_shape: tuple[int, int, int]) -> nn.Module:
        """Return the network for images of ``in_shape``; what timm raises when they do not fit."""
        return _create(cls.model, in_shape)

    @classmethod
    def published(cls) -> list[str]:
        """Return timm's tags of this network's weights."""
        return tags(cls.model)

    def download(self, in_shape: tuple[int, int, int]) -> tuple[nn.Module, dict[str, Any]]:
        """Return the network with the weights that timm has under this name."""
        about = self.body.pretrained_cfg
        if not (about.get("hf_hub_id") or about.get("url")):
            raise self.no_download("there are none")
        try:
            body = _create(self.model, in_shape, pretrained=True)
        except Exception as error:  # the hub fails in many ways
            raise self.no_download(error) from error
        keys = ("architecture", "tag", "hf_hub_id", "url", "license")
        return body, {"pretrained": {key: about[key] for key in keys if about.get(key)}}

    def no_cam(self) -> str:
        """Why timm tells no last map of features of this network."""
        if self._grid() is None and not getattr(self.body, "feature_info", None):
            return "timm does not tell which layer of this network gives the last map of features"
        return ""

    def cam_layer(self) -> nn.Module:
        """Return timm's last stage; of a transformer what goes into the last block, the last that every token is used.

        Notes
        -----
        Behind the last block the head may read the class token alone, and nothing would depend on the image's.
        """
        if self._grid() is not None:
            return self.body.blocks[-1].norm1
        return self.body.get_submodule(self.body.feature_info[-1]["module"])

    def as_map(self, found: Tensor) -> Tensor:
        """Return (B, F, h, w) of a transformer's tokens (B, N, F), or of channels that come last."""
        grid = self._grid()
        if grid is not None:
            return found[:, self.body.num_prefix_tokens :].transpose(1, 2).unflatten(2, grid)
        return found.permute(0, 3, 1, 2) if getattr(self.body, "output_fmt", "NCHW") == "NHWC" else found

    def _grid(self) -> tuple[int, int] | None:
        body = self.body
        patches = getattr(getattr(body, "patch_embed", None), "grid_size", None)
        tokens = hasattr(body, "num_prefix_tokens") and hasattr(body, "blocks") and hasattr(body.blocks[-1], "norm1")
        return tuple(patches) if patches is not None and tokens else None

    def layers(self) -> tuple[list[str], Mapping[str, Callable[[Tensor, int], Tensor]]]:
        """Return timm's names of classifiers and first convolutions."""
        about = self.body.pretrained_cfg
        stems = _names(about.get("first_conv"))
        return _names(about.get("classifier")), dict.fromkeys(stems, _adapt)

    def remap(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``state`` after timm's own filter for this family of networks."""
        filter_state = getattr(sys.modules[type(self.body).__module__], "checkpoint_filter_fn", None)
        return state if filter_state is None else filter_state(state, self.body)


@functools.cache
def network(model: str) -> type[TimmBackbone]:
    """Return the class of timm's network ``model``, with or without the tag of its weights.

    Raises
    ------
    InputError
        With the names near it, when timm has no such network.
    """
    timm = _timm()
    architecture, _, tag = model.partition(".")
    if ":" in model or "/" in model or not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"did you mean {_joined(near)}? " if near else ""
        raise InputError(f"timm {timm.__version__} has no network {model!r}: {hint}stm models 'timm:*' lists them all")
    if tag and tag not in tags(architecture):
        known = [f"{architecture}.{found}" for found in tags(architecture)]
        near = difflib.get_close_matches(model, known, n=3) or known[:3]
        raise InputError(
            f"timm {timm.__version__} has no weights {tag!r} of network {architecture!r}: "
            f"did you mean {_joined([architecture, *near])}?"
        )
    return type(f"Timm_{model}", (TimmBackbone,), {"name": f"{PREFIX}:{model}", "model": model, "__module__": __name__})


def matching(pattern: str) -> list[str]:
    """Return the names, with ``timm:`` before them, of timm's networks that ``pattern`` matches.

    A pattern with a dot, or one that no network matches without the tag of its weights, is held against the names
    with tags.
    """
    timm = _timm()
    pattern = pattern.removeprefix(f"{PREFIX}:")
    found = [] if "." in pattern else fnmatch.filter(timm.list_models(), pattern)
    return [f"{PREFIX}:{name}" for name in found or fnmatch.filter(timm.list_models(pretrained=True), pattern)]


def tags(model: str) -> list[str]:
    """Return the tags of the weights that timm has of network ``model``."""
    architecture, _, tag = model.partition(".")
    found = [name.partition(".")[2] for name in _timm().list_models(f"{architecture}.*", pretrained=True)]
    return [name for name in found if tag in ("", name)]


def _create(model: str, in_shape: tuple[int, int, int], *, pretrained: bool = False) -> nn.Module:
    timm = _timm()
    channels, height, width = in_shape
    about = timm.models.get_pretrained_cfg(model)
    sized = {"img_size": (height, width)} if about is not None and about.fixed_input_size else {}
    made = timm.create_model(model, pretrained=pretrained, in_chans=channels, num_classes=0, **sized)
    patches = getattr(made, "patch_embed", None)
    rows, columns = _pair(getattr(patches, "patch_size", 1))
    if (height % rows or width % columns) and not getattr(patches, "dynamic_img_pad", False):
        # timm would leave the last pixels out.
        raise ValueError(f"its patches of {rows} x {columns} pixels do not fill the image")
    return made


def _adapt(weight: Tensor, channels: int) -> Tensor:
    return _timm().models.adapt_input_conv(channels, weight)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[-1]))


def _joined(names: list[str]) -> str:
    return " or ".join(f"{PREFIX}:{name}" for name in names)


def _names(value: object) -> list[str]:
    return (
        [value] if isinstance(value, str) else [str(part) for part in value] if isinstance(value, tuple | list) else []
    )


@functools.cache
def _timm() -> Any:
    try:
        import timm
        import timm.models
    except ImportError as error:
        raise InputError(
            f"this network needs timm, which does not work here ({error}): install stm-lab[train], "
            "with torch and torchvision of the same build"
        ) from error
    logging.getLogger("timm").setLevel(logging.ERROR)
    return timm
