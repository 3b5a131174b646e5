// The reading room: rate by keyboard, confirm, on to the next case, whose slices are fetched ahead.
"use strict";

(() => {
  const form = document.getElementById("rating");
  if (form === null) return;
  const { acts, toast } = workbench;
  const groups = [...form.querySelectorAll(".criterion")];
  const began = performance.now();
  let current = 0;
  let busy = false;

  // ── rating ──────────────────────────────────────────────────────────────
  function show(group) {
    const { value } = group.querySelector("input");
    for (const button of group.querySelectorAll("[data-value]")) {
      button.setAttribute("aria-pressed", String(button.dataset.value === value));
    }
  }
  function choose(group, value) {
    const points = [...group.querySelectorAll("[data-value]")];
    if (!points.some((point) => point.dataset.value === value)) {
      toast(`The scale goes from ${points[0].dataset.value} to ${points[points.length - 1].dataset.value}.`);
      return;
    }
    group.querySelector("input").value = value;
    show(group);
    document.getElementById("said").textContent = `${group.querySelector("h3").textContent} ${value}`;
  }
  function go(index) {
    current = index;
    groups[index].focus({ preventScroll: true });
    groups[index].scrollIntoView({ block: "nearest" });
  }
  groups.forEach((group, i) => {
    show(group);
    group.addEventListener("focus", () => { current = i; });
    group.addEventListener("click", (event) => {
      const button = event.target.closest("[data-value]");
      if (button) choose(group, button.dataset.value);
      go(i);
    });
  });
  acts.rate = (event) => choose(groups[current], event.key);

  // Tab goes from criterion to criterion; after the last one it leaves for the comment as everywhere
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Tab" || event.shiftKey || event.altKey || event.ctrlKey || event.metaKey) return;
    const at = document.activeElement;
    const elsewhere = at !== null && at !== document.body && !groups.includes(at);
    if (elsewhere || document.querySelector("dialog[open]") || current + 1 >= groups.length) return;
    event.preventDefault();
    go(current + 1);
  });

  // ── confirming ──────────────────────────────────────────────────────────
  async function send(address, body) {
    if (busy) return;
    busy = true;
    form.setAttribute("aria-busy", "true");
    try {
      const response = await fetch(address, { method: "POST", body, headers: { "HX-Request": "true" } });
      if (response.ok) { location.replace(form.dataset.here); return; }
      if (response.status === 401) toast("You are signed out. Sign in in another tab, then confirm again.");
      else toast((await response.json()).detail || "The rating was not kept.");
    } catch {
      toast("The node does not answer; the rating is not kept yet. Confirm again.");
    }
    busy = false;
    form.removeAttribute("aria-busy");
  }
  function filled(cannot) {
    const body = new URLSearchParams();
    for (const [name, value] of new FormData(form)) if (value !== "") body.set(name, value);
    if (cannot) body.set("cannot", "true");
    body.set("took_s", ((performance.now() - began) / 1000).toFixed(1));
    const shown = document.getElementById("window");
    if (shown?.textContent) body.set("window", shown.textContent.slice(0, 64));
    return body;
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const open = groups.findIndex((group) => group.querySelector("input").value === "");
    if (open >= 0) {
      toast(`Not rated yet: ${groups[open].querySelector("h3").textContent}`);
      go(open);
      return;
    }
    send(form.action, filled(false));
  });
  acts.confirm = () => form.requestSubmit();
  acts.cannot = () => send(form.action, filled(true));
  acts.undo = () => send(form.dataset.undo, new URLSearchParams());
  acts.comment = () => document.getElementById("comment").focus();
  document.getElementById("comment").addEventListener("keydown", (event) => {
    if (event.key === "Escape") go(current);
  });

  // ── examples, next to the case and never over it ────────────────────────
  const rungs = [...form.querySelectorAll(".rung")];
  const beside = document.getElementById("beside");
  const room = document.getElementById("room");
  function example(index) {
    const rung = rungs[index];
    rungs.forEach((one, i) => one.setAttribute("aria-pressed", String(i === index)));
    beside.hidden = rung === undefined;
    room.classList.toggle("has-beside", rung !== undefined);
    if (rung === undefined) return;
    document.getElementById("beside-title").textContent = `Example: ${rung.querySelector("span").textContent}`;
    const addresses = JSON.parse(rung.dataset.slices);
    const figure = document.createElement("figure");
    figure.className = "slice";
    figure.dataset.values = addresses[Math.floor(addresses.length / 2)];
    figure.setAttribute("aria-current", "true");
    const view = document.createElement("div");
    view.className = "view";
    const canvas = document.createElement("canvas");
    canvas.className = "values";
    view.append(canvas);
    figure.append(view);
    document.getElementById("beside-slices").replaceChildren(figure);
    workbench.showBeside([figure], { low: rung.dataset.low, high: rung.dataset.high });
  }
  const pressed = () => rungs.findIndex((rung) => rung.getAttribute("aria-pressed") === "true");
  rungs.forEach((rung, i) => rung.addEventListener("click", () => {
    example(pressed() === i ? -1 : i);
    groups[current].focus({ preventScroll: true });
  }));
  document.getElementById("beside-close").addEventListener("click", () => example(-1));
  acts.example = () => {
    if (rungs.length === 0) toast("This study has no examples.");
    else example(pressed() + 1 < rungs.length ? pressed() + 1 : -1);
  };

  // ── the next case ───────────────────────────────────────────────────────
  workbench.slicesLoaded?.then(() => {
    for (const address of JSON.parse(form.dataset.ahead)) fetch(address, { priority: "low" }).catch(() => {});
  });
  go(0);
})();
