"""A search that begins with the best trials of an earlier one."""

from __future__ import annotations

from typing import Any

from optuna.trial import TrialState

from pipelines.tuning.space import SearchSpace
from stm_models.errors import InputError

__all__ = ["warm_start"]

_MOST = 5


def warm_start(found: Any, earlier: Any, space: SearchSpace, n_trials: int) -> None:
    """Let the best trials of ``earlier`` wait in ``found``, without what this search does not choose.

    Parameters
    ----------
    found, earlier : optuna.Study
    space : SearchSpace
        Of ``found``.
    n_trials : int
        Of ``found`` in all.

    Raises
    ------
    InputError
        When the earlier study has no complete trial, or none that this search could have drawn any of.
    """
    complete = earlier.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        raise InputError(f"--from {earlier.study_name}: no trial of it ran to its end; leave --from out")
    sign = -1 if earlier.directions[0].name == "MAXIMIZE" else 1
    complete = sorted(complete, key=lambda trial: sign * trial.values[0])
    waiting: list[dict[str, Any]] = []
    left: dict[str, None] = {}
    for trial in complete:
        network = trial.user_attrs.get("train", {}).get("network", "")
        kept, unfit = space.fitting(trial.params, network)
        left |= dict.fromkeys(unfit)
        if kept and kept not in waiting:
            waiting.append(kept)
    if not waiting:
        raise InputError(
            f"--from {earlier.study_name}: this search chooses none of its parameters ({', '.join(left)}); "
            "leave --from out"
        )
    for params in waiting[: min(_MOST, n_trials)]:
        found.enqueue_trial(params, user_attrs={"from": earlier.study_name}, skip_if_exists=True)
    if left:
        print(f"--from {earlier.study_name}: not chosen here and left out: {', '.join(left)}")
