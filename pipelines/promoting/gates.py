"""The gates that a model passes before it becomes champion: each says what was measured, what is allowed, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["Gate", "baselines", "better", "budget", "coverage", "latency", "parity", "robustness", "sanity"]

Array = NDArray[Any]

_RARE = 1e-3  # so seldom may a model of the right coverage be refused by chance, over all sets together


@dataclass(frozen=True)
class Gate:
    """One gate's verdict.

    Attributes
    ----------
    name : str
    passed : bool or None
        ``None``: nothing could be judged, which stops nobody.
    reason : str
        In words, with the numbers.
    value, limit : float or None
        What was measured, and what it is held against.
    """

    name: str
    passed: bool | None
    reason: str
    value: float | None = None
    limit: float | None = None

    @property
    def verdict(self) -> str:
        """``passed``, ``failed`` or ``not judged``."""
        return {True: "passed", False: "failed", None: "not judged"}[self.passed]

    def record(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return {"name": self.name, "verdict": self.verdict, "reason": self.reason, "value": self.value,
                "limit": self.limit}  # fmt: skip


def better(
    metric: str,
    ours: float,
    theirs: float,
    differences: Array,
    *,
    larger: bool,
    alpha: float,
    than: str,
    among: int = 1,
) -> Gate:
    """Is the candidate better than the champion, by more than chance?

    Parameters
    ----------
    metric : str
    ours, theirs : float
        Its value for candidate and champion, on the same samples.
    differences : (G,) float
        The candidate's error less the champion's, of every simulated state.
    larger : bool
        Whether a larger ``metric`` is the better one.
    alpha : float
        Largest probability of such differences between models that are equally good.
    than : str
        Who the champion is.
    among : int
        How many runs the candidate was the best of on these states: the probability does not know of that choice.

    Notes
    -----
    Wilcoxon's signed-rank test, one-sided: states differ in how hard they are, so they are compared each with itself.
    """
    ahead, where = (ours > theirs, "above") if larger else (ours < theirs, "below")
    words = f"{metric} {ours:.4g} on {len(differences)} held-out states"
    if not ahead:
        return Gate("champion", False, f"{words}, not {where} the {theirs:.4g} of {than}", ours, theirs)
    if unknown := int(np.isnan(differences).sum()):
        return Gate(
            "champion", False, f"{words}, {where} the {theirs:.4g} of {than}, but the errors on {unknown} of them are "
            "no numbers, so that chance cannot be judged: hold out other states, or judge with --on", ours, theirs,
        )  # fmt: skip
    chance = float(stats.wilcoxon(differences, alternative="less").pvalue) if np.any(differences) else 1.0
    if not chance <= alpha:
        return Gate(
            "champion", False, f"{words}, {where} the {theirs:.4g} of {than}, but chance alone does that with "
            f"probability {chance:.2g}, more than {alpha:g}: train longer, or hold out more states", ours, theirs,
        )  # fmt: skip
    chosen = f"; the best of {among} runs on these states, which p ignores and --on does not" if among > 1 else ""
    return Gate(
        "champion", True, f"{words}, {where} the {theirs:.4g} of {than} (p = {chance:.1g}{chosen})", ours, theirs
    )


def baselines(metric: str, value: float, ahead: Mapping[str, float]) -> Gate:
    """Refuse a model when baselines (``ahead``, with their values) are as good or better by ``metric``."""
    if not ahead:
        return Gate("baselines", True, f"{metric} {value:.4g} beats every baseline", value)
    names = " and ".join(f"{name} ({found:.4g})" for name, found in ahead.items())
    return Gate(
        "baselines", False, f"{metric} is {value:.4g}, that of {names} as good or better: expected to beat them",
        value, next(iter(ahead.values())),
    )  # fmt: skip


def robustness(
    metric: str,
    ours: Mapping[str, float],
    theirs: Mapping[str, float],
    floors: Mapping[str, float],
    *,
    larger: bool,
    slack: float,
) -> Gate:
    """Refuse a model that gives up one perturbation set for the others.

    Parameters
    ----------
    ours, theirs : mapping of str to float
        ``metric`` on every set; ``theirs`` is empty where there is no champion.
    floors : mapping of str to float
        The worst value allowed on a set, by its name.
    slack : float
        So much may a set be worse than the champion's, of the champion's mean over the sets.
    """
    sign = -1 if larger else 1
    allowed = slack * abs(float(np.mean(list(theirs.values())))) if theirs else 0.0
    lost = [f"{name}: not judged, allowed {floors[name]:.4g}" for name in floors if name not in ours] + [
        f"{name}: {value:.4g}, allowed {floors[name]:.4g}"
        for name, value in ours.items() if name in floors and sign * value > sign * floors[name]
    ] + [
        f"{name}: {value:.4g}, the champion {theirs[name]:.4g}"
        for name, value in ours.items() if name in theirs and sign * (value - theirs[name]) > allowed
    ] + [
        f"{name}: {value:g}" for name, value in ours.items() if not math.isfinite(value)
    ]  # fmt: skip
    known = [value for value in ours.values() if math.isfinite(value)]
    worst = (min if larger else max)(known, default=None)
    if lost:
        return Gate("robustness", False, f"{metric} is too bad on single sets ({'; '.join(lost)})", worst)
    return Gate("robustness", True, f"{metric} holds on {', '.join(ours)}; the worst is {worst:.4g}", worst)


def coverage(hits: Mapping[str, Array], level: float) -> Gate:
    """Refuse intervals that hold the truth clearly more or less often than they say.

    Parameters
    ----------
    hits : mapping of str to (G,) bool
        For every set, one entry a simulated state: whether its interval holds the truth.
    level : float
        What the intervals promise, 0 to 1.

    Notes
    -----
    Exact binomial test on each set; by chance one good model in a thousand is refused.
    """
    shares = {name: float(np.mean(found)) for name, found in hits.items()}
    off = [
        name for name, found in hits.items()
        if stats.binomtest(int(np.sum(found)), len(found), level).pvalue < _RARE / len(hits)
    ]  # fmt: skip
    worst = max(shares.values(), key=lambda share: abs(share - level))
    words = ", ".join(f"{name} {share:.1%} of {len(hits[name])}" for name, share in shares.items())
    if off:
        words = f"intervals hold the truth in {words}: expected {level:.0%} on {' and '.join(off)}"
        return Gate("coverage", False, words, worst, level)
    return Gate("coverage", True, f"intervals of {level:.0%} hold the truth in {words}", worst, level)


def parity(file: Array, model: Array, tolerance: float) -> Gate:
    """Refuse a file that does not answer as the run's own torch model; both answers (S, ...) to the same images."""
    size = max(float(np.abs(model).max()), float(np.finfo(np.float32).tiny))
    error = float(np.abs(np.asarray(file, np.float64) - model).max()) / size
    passed = bool(error <= tolerance)  # NaN does not pass
    words = f"file and torch model differ by {error:.1e} (relative)"
    return Gate("parity", passed, words if passed else f"{words}: expected at most {tolerance:g}, export it again",
                error, tolerance)  # fmt: skip


def budget(file: Array, model: Array, precision: Mapping[str, Any]) -> Gate:
    """Refuse a smaller file whose answers are further off those of the torch model than its own budget allows.

    Parameters
    ----------
    file, model : (S, ...)
        Both answers to the same images, a target a column.
    precision : mapping
        ``kind`` and ``budget`` (by target, in its unit) as the file's metadata have them.
    """
    limits = {name: float(limit) for name, limit in precision["budget"].items()}
    apart = np.abs(np.asarray(file, np.float64) - model).reshape(len(file), len(limits), -1).max(axis=(0, 2))
    errors = dict(zip(limits, map(float, apart), strict=True))
    # NaN is above every budget; among several the one that is furthest above its own is told.
    above = {name: error for name, error in errors.items() if not error <= limits[name]}
    worst = max(above or errors, key=lambda name: errors[name] / max(limits[name], np.finfo(float).tiny))
    words = f"{precision['kind']} file and torch model differ by " + ", ".join(
        f"{error:.3g} in {name} (budget {limits[name]:.3g})" for name, error in errors.items()
    )
    if above:
        words += f": export it again with a larger --set export.budget.{worst}=VALUE, or in fp32"
    return Gate("parity", not above, words, errors[worst], limits[worst])


def sanity(answers: Array) -> Gate:
    """Refuse a model whose answers (S, ...), S > 1, are not finite, or the same whatever it sees."""
    if not np.isfinite(answers).all():
        return Gate("sanity", False, "answers hold NaN or infinity")
    spread = float(np.ptp(np.asarray(answers, np.float64), axis=0).max())
    if not spread > 0:
        return Gate("sanity", False, f"the answer is the same for all {len(answers)} samples", spread)
    return Gate("sanity", True, f"answers to {len(answers)} samples are finite and differ", spread)


def latency(milliseconds: float, limit: float) -> Gate:
    """Refuse a model that answers one image more slowly than ``limit`` ms."""
    words = f"one image takes {milliseconds:.3g} ms on one thread"
    if milliseconds > limit:
        return Gate("latency", False, f"{words}: at most {limit:g} allowed", milliseconds, limit)
    return Gate("latency", True, words, milliseconds, limit)
