"""The page of one run."""

from __future__ import annotations

from typing import Any

from tracking import rows
from tracking.store import first_line
from tracking.ui import files
from tracking.ui.away import TROUBLE
from tracking.ui.site import Site
from tracking.ui.text import number

__all__ = ["context"]


def context(site: Site, run_id: str) -> dict[str, Any]:
    """Return what the template needs.

    Raises
    ------
    InputError
        When there is no such run.
    """
    row = rows.get(site.store, run_id)
    found: list[tuple[str, int]] = []
    missing = ""
    try:
        found = files.listing(site.store, row.id)
    except TROUBLE as error:
        missing = first_line(error).replace(site.store.uri, site.store.location)
    own = [name for name in row.metrics if not name.startswith("system/")]
    values = site.values(row.experiment, own, {row.id})
    tags = {key: text for key, text in row.tags.items() if not key.startswith("mlflow.")}
    metrics = []
    for key, last in sorted(row.metrics.items()):
        best = values.best(row, key)
        metrics.append((key, number(last) if best in (last, None) else f"{number(last)} (best {number(best)})"))
    return {
        "run": row, "badges": site.badges().get(row.id, []), "search": "study" in row.tags and "trial" not in row.tags,
        "images": [path for path, _ in found if files.is_picture(path)],
        "panel": any(path == "panel.npz" for path, _ in found),
        "sections": [("Metrics", metrics), ("Parameters", sorted(row.params.items())), ("Tags", sorted(tags.items()))],
        "missing": missing, "files": [(path, f"{size:,} bytes") for path, size in found],
    }  # fmt: skip
