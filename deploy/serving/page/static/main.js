// The page's state and what its controls do.

import { ask, example, server, suffixOf, useToken } from "./api.js";
import { intervalOf, sentence, showAnswer } from "./answer.js";
import { showCard } from "./card.js";
import { largest } from "./colours.js";
import { csvOf, jsonOf, save } from "./download.js";
import { byId, fillSelect, make, onPage } from "./elements.js";
import { draw } from "./picture.js";

const FIELDS = ["size_nm", "key", "bias", "channel", "rotate", "atom_width"];
// `answered`: the answer shown, with the model, file and options that it is of, and in `explained` the explanation and
// place in the picture; the controls may say others by now.
const state = { cards: [], about: null, file: null, answered: null, asked: 0 };

const card = () => state.cards.find((one) => one.name === byId("model").value) ?? state.cards[0];
const options = () => Object.fromEntries(FIELDS.map((name) => [name, byId(name).value.trim()]));
const say = (text) => { byId("status").textContent = text; };
const mapKey = ({ name, place }) => name + (place === "" ? "" : ` ${place}`);
const chosen = () => ({ name: byId("explain").value, place: byId("place").value });

function complain(error) {
  say("");
  byId("error").textContent = onPage(error.message, state.file?.name);
  const field = (error.fields ?? []).find((name) => FIELDS.includes(name));
  for (const name of FIELDS) {
    const asked = (error.fields ?? []).includes(name);
    byId(name).setAttribute("aria-invalid", String(asked));
    if (asked) byId(name).setAttribute("aria-describedby", "error");
    else byId(name).removeAttribute("aria-describedby");
  }
  if (error.status === 401) {
    byId("token-form").hidden = false;
    byId("token").focus();
  } else if (field) {
    byId("options").open = true;
    byId(field).focus();
  }
}

function calm() {
  byId("error").textContent = "";
  for (const name of FIELDS) {
    byId(name).setAttribute("aria-invalid", "false");
    byId(name).removeAttribute("aria-describedby");
  }
}

async function load() {
  try {
    state.about = await server();
  } catch (error) {
    byId("title").textContent = error.status === 401 ? "This server wants a token." : "No model could be reached.";
    complain(error);
    return;
  }
  calm();
  byId("token-form").hidden = true;
  state.cards = state.about.models;
  fillSelect(byId("model"), state.cards.map((one) => [one.name, one.name]));
  byId("model-choice").hidden = state.cards.length < 2;
  byId("file").accept = Object.keys(state.about.readable).join(",");
  byId("kinds").textContent = `${Object.keys(state.about.readable).join(" ")}, up to ${Math.round(state.about.max_bytes / 2 ** 20)} MiB`;
  byId("kinds-more").replaceChildren(...Object.entries(state.about.readable).map(([suffix, what]) => make("li", {}, `${suffix} ${what}`)));
  fillSelect(byId("example"), state.about.examples.map((one, number) => [number, one.name]));
  chooseModel();
}

function chooseModel() {
  const { title, takes_files: takes } = card();
  byId("title").textContent = title;
  byId("no-files").hidden = takes;
  for (const id of ["drop", "options"]) byId(id).hidden = !takes;
  byId("example-choice").hidden = !takes || state.about.examples.length === 0;
  showCard(card());
  if (state.file) question();
}

function chooseFile(file) {
  if (!file) return;
  state.file = { name: file.name, content: file };
  byId("again").disabled = false;
  question();
}

async function question() {
  if (!state.about) return; // it is asked once the server is known, which may want a token first
  const asked = state.asked += 1;
  const subject = { model: card(), file: state.file, options: options() };
  state.answered = null;
  byId("result").hidden = true;
  say("");
  calm();
  if (!subject.model.takes_files) return;
  if (!(suffixOf(state.file.name) in state.about.readable)) {
    complain(new Error(`${state.file.name} is of no kind that can be read: ${Object.keys(state.about.readable).join(", ")}`));
    return;
  }
  if (state.file.content.size > state.about.max_bytes) {
    complain(new Error(`${state.file.name} is larger than ${state.about.max_bytes / 2 ** 20} MiB: crop it first`));
    return;
  }
  say(`Reading ${state.file.name} and asking ${subject.model.name}…`);
  try {
    const found = await put(subject, subject.model.metadata.explanations[0], "");
    if (asked !== state.asked) return; // another question was asked meanwhile
    state.answered = { ...subject, found };
    present();
  } catch (error) {
    if (asked === state.asked) complain(error);
  }
}

const put = ({ model, file, options }, explain, place) => ask(model.name, file, options, explain, place);

function present() {
  const { model, file, found } = state.answered;
  const { explanations } = model.metadata;
  byId("result").hidden = false;
  showAnswer(found, file.name);
  fillSelect(byId("shown"), found.image.channels.map((name, number) => [number, name]));
  byId("channel-shown").hidden = found.image.channels.length < 2;
  fillSelect(byId("explain"), [...explanations.map((name) => [name, name]), ["", "none"]], explanations[0]);
  for (const id of ["explain-choice", "opacity-choice", "shared-choice"]) byId(id).hidden = explanations.length === 0;
  fillSelect(byId("place"), [["", "the strongest"], ...Array.from({ length: found.places }, (_, i) => [i, `number ${i}`])]);
  byId("place-choice").hidden = found.places < 2;
  byId("markers-choice").hidden = found.markers.length === 0;
  state.answered.explained = chosen();
  redraw();
  say(sentence(found));
}

// A map that was not asked for yet is computed now; the file is read again, the server keeps nothing.
async function explanation() {
  const { answered } = state;
  const { maps } = answered.found;
  const wanted = chosen();
  const { name, place } = wanted;
  const asked = state.asked += 1; // whatever was asked before is not waited for, also if this map is here
  calm();
  if (name && !(mapKey(wanted) in maps)) {
    say(`Computing ${name}…`);
    try {
      const more = await put(answered, name, place);
      if (asked !== state.asked) return;
      maps[mapKey(wanted)] = more.maps[name];
    } catch (error) {
      if (asked !== state.asked) return;
      byId("explain").value = answered.explained.name; // what the picture still shows
      byId("place").value = answered.explained.place;
      complain(error);
      return;
    }
  }
  answered.explained = wanted;
  redraw();
  say(name ? `Showing ${name}.` : "Showing the image alone.");
}

function mostOf(map) {
  const alike = byId("shared").checked ? Object.values(state.answered.found.maps).filter((one) => one.unit === map.unit) : [map];
  return Math.max(...alike.map((one) => (one.most ??= largest(one.values))));
}

function redraw() {
  if (!state.answered) return;
  const { found, explained } = state.answered;
  const map = explained.name ? found.maps[mapKey(explained)] : undefined;
  const opacity = Number(byId("opacity").value) / 100;
  byId("opacity-value").textContent = `${byId("opacity").value} %`;
  const channel = Number(byId("shown").value) || 0;
  const markers = byId("markers").checked && found.markers.length ? found.markers : null;
  draw(byId("picture"), { image: found.image, channel, map, most: map ? mostOf(map) : 0, opacity, markers });
  byId("explained").textContent = map ? meaning(map) : "";
  byId("picture").setAttribute("aria-label", describe(map, channel));
}

function meaning(map) {
  const [red, blue] = map.slope
    ? ["more signal raises it", "more signal lowers it"]
    : ["the image raises it", "the image lowers it"];
  return `${state.answered.explained.name} of ${map.of}: red where ${red}, blue where ${blue} (${map.unit}).`;
}

function describe(map, channel) {
  const { file, found: { image, markers, values } } = state.answered;
  const [x0, x1, y0, y1] = image.extent.map((value) => Number(value.toPrecision(4)));
  const parts = [
    `${image.channels[channel]} of ${file.name}: ${image.labels[0]} from ${x0} to ${x1}, ${image.labels[1]} from ${y0} to ${y1}`,
    map ? `with ${state.answered.explained.name} on top` : null,
    markers.length ? `${markers.length} marked positions, listed in the table below` : null,
    ...values.map((value) => (intervalOf(value) ? `${value.name} between ${intervalOf(value)}` : null)),
  ];
  return parts.filter(Boolean).join("; ");
}

function wire() {
  const drop = byId("drop");
  byId("token-form").addEventListener("submit", (event) => { event.preventDefault(); useToken(byId("token").value.trim()); load(); });
  byId("model").addEventListener("change", chooseModel);
  byId("file").addEventListener("click", (event) => { event.target.value = ""; }); // else the same file is no change
  byId("file").addEventListener("change", (event) => chooseFile(event.target.files[0]));
  for (const kind of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.toggle("over", kind === "dragover"); });
  }
  drop.addEventListener("drop", (event) => chooseFile(event.dataTransfer.files[0]));
  // A file that misses the box must not replace the page.
  for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
  byId("use-example").addEventListener("click", async () => {
    const number = Number(byId("example").value);
    try {
      chooseFile(new File([await example(number)], state.about.examples[number].name));
    } catch (error) { complain(error); }
  });
  byId("again").addEventListener("click", question);
  for (const name of FIELDS) {
    byId(name).addEventListener("keydown", (event) => { if (event.key === "Enter" && state.file) question(); });
  }
  for (const id of ["explain", "place"]) byId(id).addEventListener("change", explanation);
  for (const id of ["shown", "shared", "markers"]) byId(id).addEventListener("change", redraw);
  byId("opacity").addEventListener("input", redraw);
  window.addEventListener("resize", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  const base = () => state.answered.file.name.replace(/\.[^.]*$/, "");
  byId("csv").addEventListener("click", () => save(`${base()}_answer.csv`, "text/csv", [csvOf(state.answered.found)]));
  byId("json").addEventListener("click", () => {
    const { file, options: given, found } = state.answered;
    save(`${base()}_answer.json`, "application/json", [jsonOf(found, file.name, given)]);
  });
  byId("png").addEventListener("click", () => byId("picture").toBlob((blob) => save(`${base()}_answer.png`, "image/png", blob)));
}

wire();
load();
