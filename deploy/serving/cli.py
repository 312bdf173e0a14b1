"""The command ``stm-serve``: serve model files from a host that has neither torch nor mlflow."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from deploy.serving.options import options, plan_from
from stm_models.errors import InputError

if TYPE_CHECKING:
    from deploy.serving.watching import Resolver

__all__ = ["main", "options", "serve_models"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``stm-serve``; returns the exit code (0 after a signal, 2 for bad input)."""
    arguments = _parser().parse_args(argv)
    try:
        serve_models(arguments.model, arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("", "deploy", "stm_models"):
            raise
        print(f"error: stm-serve needs the package {package!r}: install stm-lab[serve]", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def serve_models(models: Sequence[str], arguments: argparse.Namespace, resolve: Resolver | None = None) -> list[str]:
    """Serve models as `options` say until a signal; return the names that they had.

    Parameters
    ----------
    models : sequence of str
        ``MODEL`` or ``NAME=MODEL``.
    resolve : Resolver, optional
        Finds models that are no files; aliases among them are followed.

    Raises
    ------
    InputError
        For a file that is no model, a token that cannot be read, or a port that cannot be used.
    """
    from dataclasses import replace

    from deploy.serving.logs import log_to_stderr
    from deploy.serving.wanted import wanted_models
    from deploy.serving.watching import following

    plan = plan_from(arguments)
    wanted = wanted_models(models, arguments.name, resolve)
    log_to_stderr()
    catalog = plan.catalog(wanted)
    for model in catalog.models.values():
        if note := model.current.session.provider_note:
            print(note, file=sys.stderr)
    names = list(catalog.models)
    wanted = [replace(one, name=name) for one, name in zip(wanted, names, strict=True)]
    if plan.workers > 1:
        from deploy.serving.workers import supervise

        del catalog, model  # they are the workers'
        supervise(plan, wanted, resolve)
    else:
        followed = {one.name: one.address for one in wanted if one.followed}
        plan.serve(catalog, watched=following(followed, catalog, plan.open, resolve, plan.poll_seconds))
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stm-serve",
        description="Serve model files (Open Inference Protocol V2 and MLflow's /invocations).",
    )
    parser.add_argument("model", nargs="+", metavar="[NAME=]MODEL.onnx", help="model files written by 'stm export'")
    options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
