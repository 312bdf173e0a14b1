"""Which data set a run used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stm_models.errors import InputError
from tracking.runs import Run

__all__ = ["log"]

_DIGEST_LIMIT = 36  # mlflow's; the full digest is in the tag data.digest


def log(run: Run, attributes: Mapping[str, Any], path: str | Path, context: str = "training") -> None:
    """Attach the data set at ``path`` to the run as an input.

    Parameters
    ----------
    attributes : mapping
        The data set's root attributes; ``digest`` is needed, ``recipe``, ``task``, ``samples`` and ``groups``
        are recorded where they exist.
    context : str
        What it was used for. The one for ``"training"`` gives the run's tags ``data.digest`` and
        ``data.recipe`` and ``data.simulator_version``, any other ``data.CONTEXT.digest`` and so on.

    Raises
    ------
    InputError
        When the attributes hold no digest: the data set is not complete.
    """
    path = Path(path).absolute()
    digest = attributes.get("digest")
    if not digest:
        raise InputError(f"the data set {path} has no digest: it is not complete; run `stm simulate` again")
    profile = {key: attributes[key] for key in ("task", "recipe", "samples", "groups") if key in attributes}
    dataset = {
        "name": path.stem,
        "digest": str(digest)[:_DIGEST_LIMIT],
        "source_type": "local",
        "source": json.dumps({"uri": path.as_uri()}),
        "profile": json.dumps(profile | {"digest": digest}, default=str),
    }
    run.input(dataset, {"mlflow.data.context": context})
    prefix = "data" if context == "training" else f"data.{context}"
    identity = {"digest": digest, **{key: attributes.get(key) for key in ("recipe", "simulator_version")}}
    run.tags({f"{prefix}.{key}": value for key, value in identity.items() if value})
