// What makes the pages quicker to use. Every page works without it.
//
//   data-row      on a row: j and k go to its first link, Enter opens that, r presses its data-replay
//   data-replay   on a button that replays
//   data-search   on the field that / goes to
//   data-opens    on a button: opens the dialog with this id
//   data-closes   on a button in a dialog: closes it
//   data-copies   on a button: copies the text of the element with this id
//   data-ticks    on a checkbox: ticks all of this name, and follows them
//   data-hides-s  on an element: it is emptied after so many seconds
"use strict";

document.documentElement.classList.add("script");

// --- Keyboard ---

const rowOf = element => element?.closest("[data-row]");
const linkOf = row => row?.querySelector("a[href]");

function goTo(step) {
  const rows = [...document.querySelectorAll("[data-row]")].filter(row => linkOf(row) && row.offsetParent);
  const here = rows.indexOf(rowOf(document.activeElement));
  const next = rows[here < 0 ? (step > 0 ? 0 : rows.length - 1) : Math.min(Math.max(here + step, 0), rows.length - 1)];
  linkOf(next)?.focus();
  next?.scrollIntoView({ block: "nearest" });
}

function replay() {
  const row = rowOf(document.activeElement);
  const button = (row || document).querySelector("button[data-replay]");
  // Without a chosen row only a page about one thing has a replay of its own.
  if (button && (row || !rowOf(button))) button.click();
}

const KEYS = {
  "/": () => (document.querySelector("[data-search]") || document.querySelector("main form[method=get] input:not([type=hidden])"))?.focus(),
  "j": () => goTo(1),
  "k": () => goTo(-1),
  "r": replay,
  "?": () => document.getElementById("keys-help")?.showModal(),
};

document.addEventListener("keydown", event => {
  if (event.key === "Escape") {
    document.querySelectorAll("details.menu[open]").forEach(menu => { menu.open = false; });
    document.activeElement?.blur();
    return;
  }
  const typing = event.target.closest?.("input, select, textarea, [contenteditable], dialog");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
  event.preventDefault();
  KEYS[event.key]();
});

document.addEventListener("click", event => {
  const opener = event.target.closest("[data-opens]");
  if (opener) document.getElementById(opener.dataset.opens)?.showModal();
  if (event.target.closest("[data-closes]")) event.target.closest("dialog").close();
  document.querySelectorAll("details.menu[open]").forEach(menu => { if (!menu.contains(event.target)) menu.open = false; });
});

// --- Copying ---

document.addEventListener("click", async event => {
  const button = event.target.closest("[data-copies]");
  if (!button) return;
  const text = document.getElementById(button.dataset.copies).textContent;
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    // Browsers give the clipboard to secure pages alone.
    getSelection().selectAllChildren(document.getElementById(button.dataset.copies));
    button.textContent = "Selected: press Ctrl-C";
  }
  setTimeout(() => { button.textContent = label; }, 2000);
});

// --- Ticking all ---

document.addEventListener("change", event => {
  const all = event.target.closest("[data-ticks]") || document.querySelector(`[data-ticks="${CSS.escape(event.target.name || "")}"]`);
  if (!all) return;
  const boxes = [...document.getElementsByName(all.dataset.ticks)];
  if (event.target === all) boxes.forEach(box => { box.checked = all.checked; });
  const ticked = boxes.filter(box => box.checked).length;
  all.checked = boxes.length > 0 && ticked === boxes.length;
  all.indeterminate = ticked > 0 && ticked < boxes.length;
});

// --- What must not stay on the screen ---

function hideInTime(root) {
  root.querySelectorAll?.("[data-hides-s]").forEach(element => {
    setTimeout(() => { element.textContent = "Hidden again."; }, 1000 * Number(element.dataset.hidesS));
  });
}
hideInTime(document);
// A page that comes back from the browser's memory does not bring a secret with it.
addEventListener("pageshow", event => { if (event.persisted) document.querySelectorAll("[data-hides-s]").forEach(element => { element.textContent = "Hidden again."; }); });

// --- Pieces that renew themselves ---

const trouble = () => document.getElementById("trouble");

function showTrouble(words) {
  const box = trouble();
  if (!box || !box.hidden) return;
  box.firstElementChild.textContent = words;
  box.hidden = false;
}

document.addEventListener("htmx:beforeRequest", event => {
  // Nobody looks at a hidden page: it renews itself once it is seen again.
  if (document.hidden && event.detail.requestConfig.verb === "get" && event.detail.elt.matches("[hx-trigger*='every']")) event.preventDefault();
});
document.addEventListener("htmx:afterRequest", event => { if (event.detail.successful && trouble()) trouble().hidden = true; });
document.addEventListener("htmx:sendError", () => showTrouble("This page cannot reach Jetrelay: what it shows may be old. It goes on trying."));
document.addEventListener("htmx:timeout", () => showTrouble("Jetrelay has not answered in 10 seconds: what this page shows may be old. It goes on trying."));
document.addEventListener("htmx:responseError", event => {
  const status = event.detail.xhr.status;
  const why = { 403: "You may not do this (any more).", 404: "It is no longer there." }[status];
  showTrouble(why || `Jetrelay answered with an error (${status}): what this page shows may be old. It goes on trying.`);
});
document.addEventListener("htmx:afterSwap", event => hideInTime(event.detail.target));
document.querySelector("#trouble button")?.addEventListener("click", () => location.reload());
