"""What an inspection leaves: pictures, a contact sheet, the numbers behind them, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.inspecting.inspection import Inspection
from stm_models.figures import png
from stm_models.files import output_directory, write_json

__all__ = ["describe", "write"]


def write(found: Inspection, out: Path) -> dict[str, Any]:
    """Write an inspection into the folder ``out``; return what the command prints.

    Raises
    ------
    InputError
        When the folder cannot be written.
    """
    output_directory(out)
    pictures = {name: png.save(figure, out / f"{name}.png") for name, figure in found.figures.items()}
    sheet = png.contact_sheet(list(found.figures.values()), out / "contact_sheet.png")
    names = {name: path.name for name, path in pictures.items()}
    write_json(out / "inspect.json", {**found.report, "pictures": names})
    return {
        "input": next(found.report[key] for key in ("run", "data", "file") if key in found.report),
        "kind": found.report["kind"],
        "contact_sheet": str(sheet.absolute()), "report": str((out / "inspect.json").absolute()),
        "pictures": {name: str(path.absolute()) for name, path in pictures.items()},
        "skipped": found.report.get("skipped", {}), "unknown": found.report.get("unknown", []),
        "facts": _facts(found.report), "notes": found.report.get("notes", []),
        "metrics": found.metrics, "summary": _summary(found.report),
    }  # fmt: skip


def describe(result: dict[str, Any]) -> str:
    """Say what was found and where the pictures are."""
    lines = [f"{result['input']}: {result['summary']}"]
    width = max([24, *(len(name) + 2 for name in result["metrics"])])
    lines += [f"  {name:<{width}}{value:.6g}" for name, value in result["metrics"].items()]
    lines += [f"  not drawn: {name}: {why}" for name, why in result["skipped"].items()]
    lines += [f"  {name:<14}{value}" for name, value in result["facts"].items()]
    lines += [f"  note: {note}" for note in result["notes"]]
    lines += [f"  unknown: {what}" for what in result["unknown"]]
    return "\n".join([*lines, f"contact sheet {result['contact_sheet']}"])


def _summary(report: dict[str, Any]) -> str:
    if report["kind"] == "data set":
        bad = report["unconverged_samples"]
        flagged = f", {bad} of states that did not converge left out" if bad else ""
        return (
            f"{report['samples']} samples in {report['groups']} groups{flagged}; "
            f"{report['images_used']} images looked at"
        )
    if report["kind"] == "run":
        return f"{report['features']} features of network {report['network']} for {report['images_used']} samples"
    size = report["size_nm"]
    pixels = report["pixels"]
    what = f"{report['points']} points" if pixels is None else f"{pixels['height']} x {pixels['width']} pixels"
    extent = "of unknown size" if size is None else f"on {size['height']:.4g} x {size['width']:.4g} nm"
    return f"{report['channels']} channels of {what} {extent}"


def _facts(report: dict[str, Any]) -> dict[str, str]:
    """Say what a measured file is, as far as it says so itself."""
    if report["kind"] != "file":
        return {}
    bias, unit = report["bias_V"], report["unit"]
    sweep = "" if bias is None else f"{min(bias):.6g} to {max(bias):.6g} V" if len(bias) > 1 else f"{bias[0]:.6g} V"
    chosen = "" if report["channel"] is None else f"{report['channel']}" + (f" ({unit})" if unit else "")
    facts = {
        "format": report["format"],
        "bias": sweep,
        "channel": f"{chosen}: {report['channel_reason']}" if chosen else "",
        "channels": ", ".join(report["channels_of_file"]),
        "orientation": report["orientation"],
        "settings": ", ".join(f"{name} {_short(value)}" for name, value in report["settings"].items()),
    }
    return {name: value for name, value in facts.items() if value}


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
