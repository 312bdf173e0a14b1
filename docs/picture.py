"""Draw the README's picture from what ``make demo`` left in demo-output: python docs/picture.py [demo-output]."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from deploy.model.session import Session
from stm_models.data.dataset import load
from stm_models.tasks.registry import get

WIDTH = 9.6


def main(folder: Path, out: Path) -> None:
    """Image, gradient and parity side by side."""
    result = json.loads((folder / "demo.json").read_text())
    session = Session(result["onnx"])
    fresh = load(folder / "fresh-unseen.zarr")
    order = np.argsort(fresh.targets[:, 0])
    row = int(order[len(order) // 2])
    outputs = session.run(fresh.images, ("prediction", "gradient"))
    spec, true = session.metadata.as_dict()["input"], fresh.targets[:, 0]
    extent = get("hubbard").axes(spec).extent

    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    image, gradient, parity = figure.subplots(1, 3)
    shown = np.log10(np.maximum(fresh.images[row, 0], 1e-6))
    drawn = image.imshow(shown, origin="lower", extent=extent, cmap="magma", vmin=-5, vmax=0)
    image.set_title(f"FT-LDOS, U = {true[row]:.2f} eV", fontsize=10)
    figure.colorbar(drawn, ax=image, label=f"log10 {spec['unit']}", shrink=0.8)
    sensitivity = outputs["gradient"][row, 0]
    limit = np.quantile(np.abs(sensitivity), 0.999)
    drawn = gradient.imshow(sensitivity, origin="lower", extent=extent, cmap="RdBu_r", vmin=-limit, vmax=limit)
    gradient.set_title("what the prediction depends on", fontsize=10)
    figure.colorbar(drawn, ax=gradient, label="dU / d image (eV)", shrink=0.8)
    for axis in (image, gradient):
        axis.set_xlabel("kx (1/a)")
        axis.set_ylabel("ky (1/a)")
    parity.plot([0, 6], [0, 6], "-", color="0.7", linewidth=1)
    parity.plot(true, outputs["prediction"][:, 0], ".", color="#b5367a")
    parity.set_title(f"fresh states: MAE {result['metrics']['unseen_mae']:.3f} eV", fontsize=10)
    parity.set_xlabel("true U (eV)")
    parity.set_ylabel("predicted U (eV)")
    parity.set_aspect("equal")
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-output"), Path(__file__).with_name("picture.png"))
