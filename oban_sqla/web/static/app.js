"use strict";

const REFRESH = 1000; // milliseconds between two reads of a page, at least
const AFTER = 6000; // after a change, until charts are read again
const MINUTE = 60_000; // between two reads of charts while nothing changes
const body = document.body;
const main = () => document.getElementById("main");
const live = document.getElementById("live");

// Theme: as the system, or light, or dark.
const theme = document.getElementById("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const order = ["auto", "light", "dark"];
  const root = document.documentElement;
  root.dataset.theme = order[(order.indexOf(root.dataset.theme) + 1) % order.length];
  try { localStorage.setItem("oban-theme", root.dataset.theme); } catch { /* forbidden */ }
});

// Live: one stream while the page is seen. A page reads itself again when its mark is old.
let source = null;
let wanted = true;
let newest = "";
let refreshed = 0;
let timer = null;
let again = null;

function isEditing() {
  const focus = document.activeElement;
  if (focus && main().contains(focus) && focus.matches("input:not([type=checkbox]), select")) return true;
  const typed = [...main().querySelectorAll("form[method=post] input:not([type=checkbox], [type=hidden])")];
  if (typed.some((input) => input.value !== input.defaultValue)) return true;
  return main().querySelector("input[name=id]:checked, input[name=scope]:checked, .words[open]") !== null;
}

function refresh() {
  timer = null;
  if (!wanted || document.hidden || newest === main().dataset.mark) return;
  if (isEditing()) { later(REFRESH); return; }
  reread(AFTER);
}

// A chart is read again soon after a change, since it is shared for some seconds, and as time passes.
function reread(next) {
  refreshed = Date.now();
  body.dispatchEvent(new CustomEvent("pulse"));
  plan(next);
}

function plan(delay) {
  clearTimeout(again);
  if (!("charts" in main().dataset)) return;
  again = setTimeout(() => {
    if (!wanted || document.hidden || isEditing()) plan(MINUTE); else reread(MINUTE);
  }, delay);
}

function later(delay) { timer ??= setTimeout(refresh, delay); }

function connect() {
  if (source || !main().dataset.mark || !wanted || document.hidden) return;
  source = new EventSource(body.dataset.live);
  source.addEventListener("pulse", (event) => {
    show(true);
    newest = event.data;
    later(Math.max(0, refreshed + REFRESH - Date.now()));
  });
  source.addEventListener("outage", () => show(false));
}

function disconnect() {
  source?.close();
  source = null;
}

function show(answers) { document.getElementById("outage").hidden = answers; }

live.hidden = !main().dataset.mark;
live.addEventListener("click", () => {
  wanted = !wanted;
  live.setAttribute("aria-pressed", String(wanted));
  if (wanted) connect(); else disconnect();
});
document.addEventListener("visibilitychange", () => document.hidden ? disconnect() : connect());
addEventListener("pagehide", disconnect);
addEventListener("pageshow", connect);

// Times, in the words of the server; clocks of charts, in the zone of the reader.
function words(seconds) {
  const whole = Math.round(seconds);
  for (const [unit, length] of [["days", 86400], ["hours", 3600], ["minutes", 60]]) {
    if (whole >= 2 * length) return `${Math.round(whole / length)} ${unit}`;
  }
  return whole === 1 ? "1 second" : `${whole} seconds`;
}

const clock = (at) => at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });

function tell() {
  const now = Date.now();
  for (const time of document.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if ("clock" in time.dataset) {
      time.textContent = clock(at);
    } else {
      const passed = (now - at) / 1000;
      time.textContent = passed >= 0 ? `${words(passed)} ago` : `in ${words(-passed)}`;
    }
  }
}
tell();
setInterval(tell, 5000);

// The numbers of a bar in a chart.
document.addEventListener("pointerover", (event) => {
  const bar = event.target.closest?.(".plot g");
  for (const tip of document.querySelectorAll(".tip")) {
    const plot = tip.parentElement;
    tip.hidden = !bar || !plot.contains(bar);
    if (tip.hidden) continue;
    tip.textContent = `${clock(new Date(1000 * bar.dataset.at))}  ${bar.dataset.text}`;
    const place = bar.getBoundingClientRect(), around = plot.getBoundingClientRect();
    const middle = place.x + place.width / 2 - around.x - tip.offsetWidth / 2;
    tip.style.left = `${Math.max(0, Math.min(middle, around.width - tip.offsetWidth))}px`;
  }
});

// A graph that is wider than the page begins at the first step that runs or has failed.
function scroll() {
  const step = document.querySelector(".graph :is(.s-executing, .s-retryable, .s-discarded)");
  const graph = step?.closest(".graph");
  if (graph) graph.scrollLeft = Number(step.querySelector(".box").getAttribute("x")) - graph.clientWidth / 3;
}

// Selecting jobs.
function count() {
  const boxes = [...document.querySelectorAll("input[name=id]")];
  const chosen = boxes.filter((box) => box.checked).length;
  const label = document.getElementById("chosen");
  if (label) label.textContent = `${chosen} selected`;
  const all = document.querySelector("[data-scope]")?.checked;
  for (const button of document.querySelectorAll("[data-needs]")) button.disabled = !chosen && !all;
  const every = document.getElementById("every");
  if (every) {
    every.checked = chosen > 0 && chosen === boxes.length;
    every.indeterminate = chosen > 0 && chosen < boxes.length;
  }
}

document.addEventListener("change", (event) => {
  if (event.target.id === "every") {
    for (const box of document.querySelectorAll("input[name=id]")) box.checked = event.target.checked;
  }
  if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
  count();
});
document.addEventListener("htmx:after:swap", () => { tell(); count(); });

count();
scroll();
connect();
plan(AFTER);
