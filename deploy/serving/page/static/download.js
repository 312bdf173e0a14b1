// The answer as files, made here: nothing is asked of the server again.

import { make } from "./elements.js";
import { tablesOf } from "./answer.js";

export function save(name, type, parts) {
  const blob = parts instanceof Blob ? parts : new Blob(parts, { type });
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// Positions where the model answers with such, else its numbers; what the model is stands in every row.
export function csvOf(found) {
  const [first] = [...tablesOf(found.answer), ...Object.entries(found.tables ?? {}).map(empty)];
  const common = { distance: found.answer.distance, inside: found.answer.inside, model_sha256: found.model.sha256 };
  const spread = found.values.some((value) => typeof value.spread === "number") ? ["spread"] : [];
  const columns = ["name", "value", "unit", "lower", "upper", ...spread];
  const rows = first
    ? [first[1], ...first[2]]
    : [columns, ...found.values.map((value) => columns.map((key) => value[key]))];
  const lines = rows.map((row, number) => [...row, ...(number ? Object.values(common) : Object.keys(common))]);
  return lines.map((line) => line.map(cell).join(",")).join("\n") + "\n";
}

// The header alone, of a list in which nothing is.
const empty = ([name, columns]) => [name, ["number", ...columns], []];

// The server's answers with every map asked for so far, as it sent them.
export function jsonOf(found, name, options) {
  const plain = (key, value) => (key === "values" && value instanceof Float32Array ? undefined : value);
  return JSON.stringify({ file: name, options, ...found }, plain, 1);
}

function cell(value) {
  if (value === null || value === undefined) return "";
  const text = String(value);
  // A spreadsheet would run a text that begins so.
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
