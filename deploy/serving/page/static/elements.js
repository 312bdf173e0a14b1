// Making parts of the page. Text from a server or a file becomes text, never markup.

export const byId = (id) => document.getElementById(id);

export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function fillSelect(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
  if (chosen !== undefined && options.some(([value]) => String(value) === String(chosen))) select.value = chosen;
}

// Numbers as people write them; what is missing is said so.
export function shown(value, digits = 4) {
  if (value === null || value === undefined) return "not known";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return String(value);
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(digits)));
}

export function table(caption, columns, rows) {
  const head = make("tr", {}, ...columns.map((name) => make("th", { scope: "col" }, name)));
  const body = rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, shown(cell)))));
  return make(
    "div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    make("table", {}, make("caption", {}, caption), make("thead", {}, head), make("tbody", {}, ...body)),
  );
}

// Messages name options as the command line does and files as the server called them: here are this page's names.
const OPTIONS = {
  "--size-nm": "size_nm", "--key": "key", "--bias": "bias", "--channel": "channel", "--rotate": "rotate",
  "--atom-width": "atom_width",
};

export function onPage(message, file) {
  let text = file ? message.replaceAll(/\bupload\.[a-z0-9]{1,5}\b/g, () => file) : message;
  for (const [option, id] of Object.entries(OPTIONS)) text = text.replaceAll(option, `“${document.querySelector(`label[for=${id}]`).textContent}”`);
  return text;
}
