// A form marked data-live shows its answer in place, without a page of its own; everything works without this file, too.
"use strict";

let latest = 0;

async function pageAt(address) {
  let answer, text;
  try {
    answer = await fetch(address, { headers: { "X-Requested-With": "fetch" } });
    text = await answer.text();
  } catch {
    throw new Error(`${location.host} does not answer, what is shown is from before: see whether the server runs, then choose again`);
  }
  const page = new DOMParser().parseFromString(text, "text/html");
  if (answer.ok) return page;
  const said = (page.querySelector("[role=alert]") || page.body).textContent.trim().slice(0, 2000);
  throw new Error(said || `the answer was ${answer.status}`);
}

// What cannot be shown is said above what is still there; nothing takes it away.
function say(problem) {
  const before = document.getElementById("trouble");
  if (before) before.remove();
  if (!problem) return;
  const said = document.createElement("p");
  said.id = "trouble";
  said.className = "problem";
  said.setAttribute("role", "alert");
  said.textContent = problem.message;
  document.querySelector("main").prepend(said);
}

async function show(address, focused) {
  const turn = ++latest;
  let page, problem;
  try {
    page = await pageAt(address);
  } catch (error) {
    problem = error;
  }
  if (turn !== latest) return; // a newer question is on its way
  say(problem);
  if (problem) return;
  remember();
  for (const part of document.querySelectorAll("[data-part]")) {
    const made = page.querySelector(`[data-part="${part.dataset.part}"]`);
    if (!made) continue;
    if (part.tagName === "DETAILS") {
      if (offers(made) === offers(part)) continue; // the form has made it what it is
      made.open = part.open;
    }
    part.replaceWith(made);
  }
  shown = order();
  choose();
  document.title = page.title;
  history.replaceState(null, "", address);
  watch();
  const again = focused && document.getElementById(focused);
  if (again) again.focus({ preventScroll: true });
}

// Runs that were chosen in a table stay so in the next one; those that it does not have are listed beside its button.
const chosen = new Map();

function remember() {
  for (const box of document.querySelectorAll("input[name=runs][type=checkbox]")) {
    if (box.checked) chosen.set(box.value, box.getAttribute("aria-label"));
    else chosen.delete(box.value);
  }
}

function choose() {
  const absent = document.getElementById("absent");
  if (!absent) return; // a table without rows
  absent.replaceChildren();
  const boxes = [...document.querySelectorAll("tbody input[name=runs]")];
  const there = new Map(boxes.map((box) => [box.value, box]));
  for (const [value, words] of chosen) {
    if (there.has(value)) {
      there.get(value).checked = true;
      continue;
    }
    const [box, label] = [document.createElement("input"), document.createElement("label")];
    Object.assign(box, { type: "checkbox", name: "runs", checked: true, value });
    box.setAttribute("aria-label", words);
    label.append(box, ` ${words}`);
    absent.append(absent.childNodes.length ? " " : "Not in this table: ", label);
  }
}

// What a list of columns has to choose from, in whichever order.
function offers(list) {
  return JSON.stringify([...list.querySelectorAll("input")].map((box) => box.value).sort());
}

// A long table begins with its first rows; the others are added when one comes to its end, and what was chosen stays.
async function more(link) {
  const turn = latest;
  seen.unobserve(link);
  let page, problem;
  try {
    page = await pageAt(link.getAttribute("href"));
  } catch (error) {
    problem = error;
  }
  if (turn !== latest || !link.isConnected) return;
  say(problem);
  if (problem) return; // the link is still there
  const body = document.querySelector("tbody");
  const rows = page.querySelectorAll("tbody tr");
  if (document.activeElement === link) document.querySelector(".scroll").focus({ preventScroll: true });
  remember();
  body.append(...[...rows].slice(body.rows.length));
  choose();
  link.parentElement.remove();
}

const seen = new IntersectionObserver((found) => {
  for (const one of found) if (one.isIntersecting) more(one.target);
});

function watch() {
  const link = document.querySelector("a[data-more]");
  if (link) seen.observe(link);
}

watch();

function addressOf(form) {
  const asked = new URLSearchParams();
  for (const [key, value] of new FormData(form)) if (value !== "") asked.append(key, value);
  return `${form.getAttribute("action")}?${asked}`;
}

// The order and the opened rows of the table are hidden in its form. What a link changes of them is the form's at once, and
// the link is followed by way of the form: neither loses what was typed or asked for before and is still under way.
const kept = ["sort", "desc", "open"];
let shown = order();

function order() {
  const boxes = [...document.querySelectorAll("[data-part=order] input")];
  return Object.fromEntries(kept.map((name) => [name, boxes.filter((box) => box.name === name && box.value).map((box) => box.value)]));
}

function followed(address) {
  const place = document.querySelector("[data-part=order]");
  if (!place) return address;
  const asked = new URLSearchParams(address.slice(address.indexOf("?") + 1));
  const own = order();
  for (const name of kept) {
    const values = asked.getAll(name).filter(Boolean);
    if (JSON.stringify(values) !== JSON.stringify(shown[name])) own[name] = values;
  }
  const box = (name, value) => Object.assign(document.createElement("input"), { type: "hidden", name, value });
  place.replaceChildren(...kept.flatMap((name) => own[name].map((value) => box(name, value))));
  clearTimeout(waiting);
  return addressOf(place.closest("form"));
}

let waiting;
document.addEventListener("input", (event) => {
  const form = event.target.form;
  if (!form || form.dataset.live === undefined) return;
  const slider = event.target;
  if (slider.dataset.values) {
    // The slider over the target's values and the one over samples are two handles of one choice.
    const values = JSON.parse(slider.dataset.values);
    const far = values.map((value) => Math.abs(value - Number(slider.value)));
    form.elements.sample.value = far.indexOf(Math.min(...far));
  }
  clearTimeout(waiting);
  latest++; // an answer under way is to what was chosen before
  waiting = setTimeout(() => show(addressOf(form), event.target.id), 150);
});

document.addEventListener("submit", (event) => {
  if (event.target.dataset.live === undefined) return;
  event.preventDefault();
  clearTimeout(waiting);
  show(addressOf(event.target), document.activeElement && document.activeElement.id);
});

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-live], a[data-more]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  if (link.dataset.more !== undefined) return void more(link);
  show(followed(link.getAttribute("href")), link.id);
});
