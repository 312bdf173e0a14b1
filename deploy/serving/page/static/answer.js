// An answer in words, numbers and tables, whatever the model predicts.

import { byId, make, onPage, shown, table } from "./elements.js";

export function showAnswer(found, name) {
  const { answer } = found;
  byId("source").textContent = `${name}, answered by ${found.model_name}`;
  byId("values").replaceChildren(...(found.values.length ? found.values.map(valueOf) : [make("p", { class: "value" }, found.words)]));
  const verdict = byId("verdict");
  verdict.textContent = verdictOf(answer);
  verdict.className = `verdict ${answer.inside === false ? "outside" : "inside"}`;
  byId("notes").replaceChildren(...(answer.notes ?? []).map((note) => make("li", {}, onPage(note, name))));
  byId("tables").replaceChildren(...tablesOf(answer).map(([title, columns, rows]) => table(title, columns, rows)));
}

export const sentence = (found) => `Answer: ${found.words}. ${verdictOf(found.answer)}`;

export const intervalOf = (value) =>
  typeof value.lower === "number" && typeof value.upper === "number"
    ? `${shown(value.lower)} to ${shown(value.upper)} ${value.unit ?? ""}`.trim()
    : null;

// Lists of alike objects, such as positions: [title, columns, rows], numbered as the marks in the image.
export function tablesOf(answer) {
  return Object.entries(answer)
    .filter(([, value]) => Array.isArray(value) && value.length && typeof value[0] === "object" && !Array.isArray(value[0]))
    .map(([name, rows]) => {
      const columns = Object.keys(rows[0]);
      return [name, ["number", ...columns], rows.map((row, number) => [number, ...columns.map((key) => row[key])])];
    });
}

function valueOf(value) {
  const interval = intervalOf(value);
  const unit = value.unit && value.unit !== "1" ? ` ${value.unit}` : "";
  return make(
    "p", { class: "value" }, `${value.name} = ${shown(value.value)}${unit}`,
    make("small", {}, [
      interval ? `interval ${interval}` : "no interval: this model file has none",
      ...(typeof value.spread === "number" ? [`members of the ensemble ± ${shown(value.spread)}${unit}`] : []),
    ].join("; ")),
  );
}

function verdictOf(answer) {
  if (!answer.verdict) return "This model does not say how far an image is from its training data.";
  const text = answer.verdict[0].toUpperCase() + answer.verdict.slice(1);
  return typeof answer.novelty === "number" ? `${text} (p-value ${shown(answer.novelty, 2)}).` : `${text}.`;
}
