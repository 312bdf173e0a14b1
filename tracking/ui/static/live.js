// A form marked data-live shows its answer in place, without a page of its own; everything works without this file, too.
"use strict";

let latest = 0;

async function pageAt(address) {
  const answer = await fetch(address, { headers: { "X-Requested-With": "fetch" } });
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

async function show(address, focused) {
  const turn = ++latest;
  const page = await pageAt(address);
  if (turn !== latest) return; // a newer question is on its way
  for (const part of document.querySelectorAll("[data-part]")) {
    const made = page.querySelector(`[data-part="${part.dataset.part}"]`);
    if (made) part.replaceWith(made);
  }
  history.replaceState(null, "", address);
  watch();
  const again = focused && document.getElementById(focused);
  if (again) again.focus({ preventScroll: true });
}

// A long table begins with its first rows; the others are added when one comes to its end, and what was chosen stays.
async function more(link) {
  const turn = latest;
  seen.unobserve(link);
  const page = await pageAt(link.getAttribute("href"));
  if (turn !== latest || !link.isConnected) return;
  const body = document.querySelector("tbody");
  const rows = page.querySelectorAll("tbody tr");
  if (document.activeElement === link) document.querySelector(".scroll").focus({ preventScroll: true });
  body.append(...[...rows].slice(body.rows.length));
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
  if (link.dataset.more !== undefined) more(link);
  else show(link.getAttribute("href"), link.id);
});
