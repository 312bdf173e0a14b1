"""The views as one file for a paper's supplement: no server, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from stm_models.errors import InputError
from tracking.rows import RunRow
from tracking.store import Store
from tracking.ui import compare, models_page, panels_page, render, table_page, tuning
from tracking.ui.compare import Asked
from tracking.ui.grouping import REPEATS
from tracking.ui.panels import Choice
from tracking.ui.site import Site
from tracking.ui.table import View
from tracking.ui.text import finite

__all__ = ["build"]

_RUNS, _SAMPLES, _SEARCHES, _TRIALS = 8, 4, 3, 50


def build(
    store: Store, experiment: str | None = None, runs: Sequence[str] = (), *, query: str = "",
    studies: str | None = None,
) -> tuple[str, dict[str, Any]]:  # fmt: skip
    """Return the report as HTML, and what is in it.

    Parameters
    ----------
    experiment : str, optional
        All experiments when not given.
    runs : sequence of str
        Ids of the runs that are compared, ``a~b`` for seeds of one; by default the best trainings of the experiment.
    query : str
        Of the table, as on its page.
    studies : str, optional
        Address of the Optuna storage.

    Raises
    ------
    InputError
        For an experiment or a run that does not exist, or when there are no runs at all.
    """
    site = Site(store, studies)
    view = View(experiment or "", query, opened=frozenset({"all"}), whole=True)
    table = table_page.context(site, view)
    if table["problem"]:
        raise InputError(table["problem"])
    if not table["rows"]:
        those = f"runs{f' of {experiment}' if experiment else ''} in {store.location}"
        if query.strip():
            raise InputError(f"--search is {query!r}: none of the {those} is such a one; leave it out, or ask for less")
        raise InputError(f"there are no {those}: train first")
    chosen = list(runs) or _best(site, experiment)
    asked = Asked(tuple(chosen))
    searches = [tuning.read(site, row.id) for row in tuning.searches(site) if experiment in (None, row.experiment)]
    known = site.values(experiment).snapshot.by_id
    models = list(dict.fromkeys(info.name for info in site.versions() if info.run_id in known))
    style = render.style()
    pictures = _pictures(site, chosen)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    html = render.page(
        "report", base="", title=experiment or "all experiments", made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        style=Markup(style),  # noqa: S704
        digest=digest, table=table, comparison=compare.context(site, asked), pictures=pictures,
        searches=[{"search": one, "plots": tuning.plots(one)} for one in searches[:_SEARCHES]], trials=_TRIALS,
        models=[models_page.context(site, name, None) for name in models],
    )  # fmt: skip
    about = {
        "experiment": experiment, "runs": chosen, "lines": len(table["rows"]), "pictures": len(pictures),
        "searches": len(searches[:_SEARCHES]), "models": models,
    }  # fmt: skip
    return html, about


def _best(site: Site, experiment: str | None) -> list[str]:
    """Return the best trainings: of those that nobody else's run contains, by what decides between models."""
    values = site.values(experiment)
    rows = [row for row in values.snapshot.rows if row.parent is None and _trained(row)]
    names = values.ordered(values.metrics)
    name = next((one for one in names if sum(one in row.metrics for row in rows) > 0), None)
    rows.sort(key=lambda row: row.start, reverse=True)
    if name is not None:
        values = site.values(experiment, [name], {row.id for row in rows})
        sign = -1.0 if rows and values.larger(rows[0], name) else 1.0
        best = {row.id: value for row in rows if (value := values.best(row, name)) is not None and finite(value)}
        rows.sort(key=lambda row: sign * best.get(row.id, sign * math.inf))
    return [row.id for row in rows[:_RUNS]]


def _trained(row: RunRow) -> bool:
    return row.status == "FINISHED" and (REPEATS in row.tags or any(step > 0 for step in row.steps.values()))


def _pictures(site: Site, chosen: Sequence[str]) -> list[dict[str, Any]]:
    """Return some samples, evenly spread, each with the pictures of all runs; none where no run has a panel."""
    try:
        first = panels_page.context(site, chosen, Choice(), panels_page.inlined, panels_page.inlined_bar)
    except InputError:
        return []
    last = first["last"]
    samples = sorted({round(last * place / (_SAMPLES - 1)) for place in range(_SAMPLES)})
    return [
        first if sample == 0 else panels_page.context(
            site, chosen, Choice(sample), panels_page.inlined, panels_page.inlined_bar
        )
        for sample in samples
    ]  # fmt: skip
