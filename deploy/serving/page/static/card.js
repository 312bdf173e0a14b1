// The model card: what the file says about itself, and what the model must not be used for.

import { byId, make, shown, table } from "./elements.js";

export function showCard(card) {
  const about = card.metadata;
  const rows = [
    ["Task", `${about.task}: ${card.title}`],
    ["SHA-256 of the file", about.sha256],
    ["Data digest", about.data.digest],
    ["Data recipe", about.data.recipe],
    ["Run", about.run_id],
    ["Commit", about.git_commit],
    ["Made", about.created],
    ["Input", `${about.input.channels} x ${about.input.height} x ${about.input.width}, ${about.input.unit}`],
    ["Targets", about.targets.map((one) => `${one.name} (${one.unit})${one.description ? ", " + one.description : ""}`).join("; ")],
    ["Outputs", card.outputs.map((one) => one.name).join(", ")],
    ["Explanations", about.explanations.join(", ") || "none"],
    ["Cannot be explained by", Object.entries(about.refused ?? {}).map(([name, why]) => `${name}: ${why}`).join("; ") || null],
    ["Computed on", card.provider],
  ].filter(([, value]) => value !== null && value !== undefined);
  const list = make("table", {}, make("caption", {}, card.name),
    make("tbody", {}, ...rows.map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, shown(value))))));
  const metrics = Object.entries(about.metrics ?? {}).filter(([, value]) => typeof value === "number");
  byId("card").replaceChildren(
    make("h3", {}, "Limits of use"),
    make("ul", {}, ...card.limits.map((limit) => make("li", {}, limit))),
    make("h3", {}, "Where it comes from"),
    list,
    ...(metrics.length ? [make("h3", {}, "Scores"), table("On held-out images of its own kind", ["score", "value"], metrics)] : []),
  );
}
