// What every page shares: keys, ages, theme, answers, filters. No page needs more than its own acts besides.
"use strict";

const workbench = (() => {
  const acts = {};
  const keys = JSON.parse(document.body.dataset.keys || "{}");
  const typing = (target) => target.closest("input, select, textarea, [contenteditable]") !== null;

  function toast(text) {
    const box = document.getElementById("toast");
    box.textContent = text;
    box.hidden = false;
    clearTimeout(toast.timer);
    toast.timer = setTimeout(() => { box.hidden = true; }, 5000);
  }

  // ── keys ────────────────────────────────────────────────────────────────
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const dialog = document.querySelector("dialog[open]");
    if (dialog !== null) return; // a dialog has its own keys; Escape closes it
    if (typing(event.target)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const act = acts[keys[key]];
    if (act === undefined) return;
    if (key === "Enter" && event.target.closest("a, button")) return; // which Enter presses by itself
    event.preventDefault();
    act(event);
  });

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-act]");
    if (button && acts[button.dataset.act]) acts[button.dataset.act](event);
  });

  acts.keys = () => document.getElementById("keysheet").showModal();
  acts.close = () => document.querySelector("dialog[open]")?.close();

  // ── theme ───────────────────────────────────────────────────────────────
  acts.theme = () => {
    const root = document.documentElement;
    const light = root.dataset.theme
      ? root.dataset.theme === "light"
      : matchMedia("(prefers-color-scheme: light)").matches;
    root.dataset.theme = light ? "dark" : "light";
    document.cookie = `theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=strict`;
    document.dispatchEvent(new CustomEvent("workbench:theme"));
  };

  // ── ages ────────────────────────────────────────────────────────────────
  function span(seconds) {
    for (const [limit, unit, length] of [[120, "s", 1], [7200, "min", 60], [172800, "h", 3600]]) {
      if (seconds < limit) return `${Math.round(Math.max(seconds, 0) / length)} ${unit}`;
    }
    return `${Math.round(seconds / 86400)} days`;
  }
  setInterval(() => {
    const now = Date.now() / 1000;
    for (const time of document.querySelectorAll("time[data-at]")) {
      const text = span(now - Number(time.dataset.at));
      if (time.textContent !== text) time.textContent = text;
    }
  }, 1000);

  // ── answers ─────────────────────────────────────────────────────────────
  async function initials() {
    const dialog = document.getElementById("initials");
    if (dialog === null) return "";
    const input = document.getElementById("initials-input");
    const recent = JSON.parse(sessionStorage.getItem("initials") || "[]");
    const row = document.getElementById("initials-recent");
    row.replaceChildren(...recent.map((one) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = one;
      button.addEventListener("click", () => { input.value = one; dialog.close("ok"); });
      return button;
    }));
    input.value = "";
    dialog.returnValue = "";
    dialog.showModal();
    (row.firstElementChild || input).focus();
    await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
    const given = input.value.trim().toUpperCase();
    if (dialog.returnValue !== "ok" || !given) return null;
    sessionStorage.setItem("initials", JSON.stringify([given, ...recent.filter((one) => one !== given)].slice(0, 5)));
    return given;
  }

  async function answer(id, kind, shape) {
    const who = kind === "undo" ? "" : await initials();
    if (who === null) return;
    const body = new URLSearchParams({ kind, initials: who, shape });
    const response = await fetch(`/series/${id}/answer`, { method: "POST", body, headers: { "HX-Request": "true" } });
    if (response.status === 401) { location.href = "/sign-in"; return; }
    if (!response.ok) { toast((await response.json()).detail || "The answer was not kept."); return; }
    const html = await response.text();
    if (shape === "bar") document.getElementById("answer-bar").outerHTML = html;
    else workbench.replaceRow(html);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-answer]");
    if (!button) return;
    event.preventDefault();
    answer(button.dataset.id, button.dataset.answer, button.dataset.shape || "row");
  });

  // ── rows ────────────────────────────────────────────────────────────────
  function parsed(html) {
    const template = document.createElement("template");
    template.innerHTML = html;
    return template.content;
  }

  /** Put a row in the place of the one with its id, and leave focus and selection where they are. */
  function replaceRow(html) {
    const row = parsed(html).firstElementChild;
    const known = document.getElementById(row.id);
    if (known === null) return false;
    const focused = known.contains(document.activeElement) ? document.activeElement : null;
    const name = focused && (focused.dataset.answer || (focused.dataset.open !== undefined ? "open" : ""));
    row.setAttribute("aria-selected", known.getAttribute("aria-selected"));
    known.replaceWith(row);
    if (focused) {
      const again = name === "open" ? row.querySelector("[data-open]") : row.querySelector(`[data-answer="${name}"]`);
      (again || row.querySelector("button, a"))?.focus({ preventScroll: true });
    }
    return true;
  }

  // ── filters ─────────────────────────────────────────────────────────────
  const filters = document.getElementById("filters");
  if (filters !== null) {
    filters.addEventListener("change", (event) => {
      if (event.target.dataset.submit !== undefined) filters.requestSubmit();
    });
    filters.addEventListener("submit", (event) => { // an address without empty filters can be read and sent
      event.preventDefault();
      const query = new URLSearchParams([...new FormData(filters)].filter(([, value]) => value !== ""));
      location.href = query.size ? `/?${query}` : "/";
    });
    acts.search = () => filters.querySelector("[type=search]").focus();
  }

  return { acts, answer, parsed, replaceRow, span, toast };
})();
