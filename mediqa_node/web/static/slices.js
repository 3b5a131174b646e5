// The scored slices of a series: 16-bit values in canvases, one window for all, kept from series to series.
"use strict";

(() => {
  const panel = document.getElementById("slices");
  if (panel === null) return;
  const { acts } = workbench;
  const slices = [...panel.querySelectorAll(".slice[data-values]")];
  const images = []; // rows, columns, values, slope, intercept, center, width, aspect
  const store = `window-${panel.dataset.kind}`;
  const presets = [...document.querySelectorAll("[data-window]")].map((button) => ({
    button, center: Number(button.dataset.center), width: Number(button.dataset.width),
  }));
  const label = document.getElementById("window");
  const table = new Uint32Array(65536);
  const UNIT = { center: 0, width: 1 };
  const windowOf = ({ low, high }) => (low ? { center: (Number(low) + Number(high)) / 2, width: high - low } : null);
  const base = windowOf(panel.dataset); // that the network read
  const relative = panel.dataset.relative !== undefined; // a signal has no unit: windows are kept as parts of each case's own
  /** Return a window that lies to one range as another does to its own. */
  const moved = (one, from, to) => ({
    ...one, center: to.center + ((one.center - from.center) / from.width) * to.width, width: (one.width / from.width) * to.width,
  });
  const kept = JSON.parse(sessionStorage.getItem(store) || "null");
  let view = kept && relative ? moved(kept, UNIT, base) : kept; // {center, width} or null: that of the images
  const extra = []; // images outside of the panel, in the same window
  let current = Math.max(0, slices.findIndex((slice) => slice.getAttribute("aria-current") === "true"));
  let overlay = false;

  // ── loading ─────────────────────────────────────────────────────────────
  async function load(slice, index, into = images, own = null) {
    const response = await fetch(slice.dataset.values);
    if (!response.ok) {
      slice.querySelector(".view").append(Object.assign(document.createElement("span"), {
        className: "quiet", textContent: (await response.json()).detail || "no picture",
      }));
      return;
    }
    if (response.headers.get("content-type") === "image/png") {
      const picture = document.createElement("img");
      picture.alt = "";
      picture.src = slice.dataset.values;
      slice.querySelector("canvas.values").replaceWith(picture);
      return;
    }
    const bytes = await response.arrayBuffer();
    const head = new DataView(bytes);
    const image = {
      rows: head.getUint32(0, true), columns: head.getUint32(4, true), slope: head.getFloat64(8, true),
      intercept: head.getFloat64(16, true), center: head.getFloat64(24, true), width: head.getFloat64(32, true),
      aspect: head.getUint32(40, true) / 1e6, values: new Int16Array(bytes.slice(44)), own,
    };
    const canvas = slice.querySelector("canvas.values");
    canvas.width = image.columns;
    canvas.height = image.rows;
    // a pixel that is not square is drawn as tall as it is in the patient
    if (Math.abs(image.aspect - 1) > 0.01) {
      canvas.style.setProperty("object-fit", "fill");
      const tall = (image.rows * image.aspect) / image.columns;
      canvas.style.setProperty(tall > 1 ? "width" : "height", `${100 * Math.min(tall, 1 / tall)}%`);
      canvas.style.setProperty("place-self", "center");
    }
    image.context = canvas.getContext("2d", { alpha: false });
    image.pixels = image.context.createImageData(image.columns, image.rows);
    image.words = new Uint32Array(image.pixels.data.buffer);
    into[index] = image;
    if (!view && index === 0) show();
    draw(image);
  }

  const shown = () => view || (() => {
    const first = images.find(Boolean);
    if (base) return base;
    return first && first.width > 0 ? first : { center: 40, width: 400 };
  })();

  // ── drawing ─────────────────────────────────────────────────────────────
  function fill(image, { center, width }) {
    const low = center - width / 2;
    const scale = 255 / Math.max(width, 1e-9);
    for (let stored = -32768; stored < 32768; stored++) {
      const level = Math.min(255, Math.max(0, Math.round((stored * image.slope + image.intercept - low) * scale)));
      table[stored & 0xffff] = 0xff000000 | (level << 16) | (level << 8) | level;
    }
  }
  function draw(image, same = null) {
    if (same === null || same.slope !== image.slope || same.intercept !== image.intercept || same.own !== image.own) {
      fill(image, relative && image.own ? moved(shown(), base, image.own) : shown());
    }
    const { values, words } = image;
    for (let i = 0; i < values.length; i++) words[i] = table[values[i] & 0xffff];
    image.context.putImageData(image.pixels, 0, 0);
  }
  function show() {
    const { center, width } = shown();
    if (label) label.textContent = `C ${String(Number(center.toPrecision(4))).replace("-", "−")} W ${Number(width.toPrecision(4))}`;
    for (const one of presets) {
      const is = view !== null && Math.abs(one.center - center) < 0.5 && Math.abs(one.width - width) < 0.5;
      one.button.setAttribute("aria-pressed", String(is));
    }
    document.querySelector("[data-window-of-file]")?.setAttribute("aria-pressed", String(view?.file === true));
  }
  let frame = 0;
  function redraw() {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => {
      const before = performance.now();
      let same = null;
      for (const image of [...images, ...extra]) if (image) { draw(image, same); same = image; }
      panel.dataset.redraw = String(performance.now() - before);
      show();
    });
  }
  function setView(next) {
    view = next;
    sessionStorage.setItem(store, JSON.stringify(view && relative ? moved(view, base, UNIT) : view));
    redraw();
  }

  presets.forEach((one, i) => {
    const set = () => setView({ center: one.center, width: one.width });
    one.button.addEventListener("click", set);
    acts[`window${i + 1}`] = set;
  });
  acts.window0 = () => {
    const image = images[current] || images.find(Boolean);
    if (!image) return;
    if (image.width > 0) setView({ center: image.center, width: image.width, file: true });
    else workbench.toast("The file states no window.");
  };
  document.querySelector("[data-window-of-file]")?.addEventListener("click", acts.window0);
  document.querySelector("[data-window-as-scored]")?.addEventListener("click", () => setView(null));
  if (presets.length === 0) {
    acts.window1 = () => setView(null);
    for (const [i, share] of [[2, 0.5], [3, 2]]) acts[`window${i}`] = () => {
      const { center, width } = shown();
      setView({ center: center, width: width * share });
    };
  }

  // where digits rate, one key goes through the windows in turn
  const turns = presets.length > 0
    ? [...presets.map((one) => [one.button.dataset.name, () => one.button.click()]), ["Of the file", () => acts.window0()]]
    : [["As scored", () => setView(null)], ["Narrow", () => scaled(0.5)], ["Wide", () => scaled(2)]];
  const scaled = (share) => base && setView({ center: base.center, width: base.width * share });
  let turn = presets.findIndex((one) => view !== null && Math.abs(one.center - view.center) < 0.5 && Math.abs(one.width - view.width) < 0.5);
  if (presets.length === 0) turn = 0;
  acts.window_next = () => {
    if (presets.length === 0 && !base) { workbench.toast("A photograph has no window."); return; }
    turn = (turn + 1) % turns.length;
    turns[turn][1]();
    const name = document.getElementById("window-name");
    if (name) name.textContent = turns[turn][0];
  };

  panel.addEventListener("pointerdown", (event) => {
    const slice = event.target.closest(".slice[data-values]");
    if (!slice || event.button !== 0) return;
    go(slices.indexOf(slice));
    if (!images[current]) return;
    const start = { x: event.clientX, y: event.clientY, ...shown() };
    const move = (at) => {
      const step = Math.max(start.width, 1) / 250;
      setView({
        center: start.center + (at.clientY - start.y) * step,
        width: Math.max(start.width / 500, start.width + (at.clientX - start.x) * 2 * step),
      });
    };
    const end = () => { removeEventListener("pointermove", move); };
    addEventListener("pointermove", move);
    addEventListener("pointerup", end, { once: true });
    addEventListener("pointercancel", end, { once: true });
  });

  // ── moving ──────────────────────────────────────────────────────────────
  function go(index) {
    current = Math.min(slices.length - 1, Math.max(0, index));
    slices.forEach((slice, i) => slice.setAttribute("aria-current", String(i === current)));
    document.querySelectorAll("#scout line").forEach((line) => {
      line.classList.toggle("is-current", Number(line.dataset.index) === current);
    });
  }
  acts.step_next = () => go(current + 1);
  acts.step_previous = () => go(current - 1);
  const keepsSize = panel.dataset.keepSize !== undefined && slices.length > 1;
  acts.enlarge = () => {
    if (panel.dataset.keepSize !== undefined && !keepsSize) return;
    const large = panel.classList.toggle("is-large");
    if (keepsSize) sessionStorage.setItem("reading-large", large ? "1" : "");
  };
  if (keepsSize) panel.classList.toggle("is-large", sessionStorage.getItem("reading-large") === "1");
  panel.addEventListener("dblclick", acts.enlarge);

  // ── patch maps ──────────────────────────────────────────────────────────
  acts.overlay = async () => {
    overlay = !overlay;
    document.querySelector("[data-act=overlay]")?.setAttribute("aria-pressed", String(overlay));
    for (const slice of slices) {
      const canvas = slice.querySelector("canvas.map");
      canvas.hidden = !overlay;
      if (overlay && !canvas.dataset.drawn) {
        canvas.dataset.drawn = "1";
        await drawMap(slice, canvas);
      }
    }
  };
  async function drawMap(slice, canvas) {
    const response = await fetch(slice.dataset.map);
    if (!response.ok) { workbench.toast((await response.json()).detail); return; }
    const bytes = await response.arrayBuffer();
    const head = new DataView(bytes);
    const [rows, columns] = [head.getUint32(0, true), head.getUint32(4, true)];
    const quality = new Uint8Array(bytes, 8, rows * columns);
    const weight = new Uint8Array(bytes, 8 + rows * columns, rows * columns);
    canvas.width = columns;
    canvas.height = rows;
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(columns, rows);
    for (let i = 0; i < quality.length; i++) {
      if (quality[i] === 255) continue;
      const low = 1 - quality[i] / 254; // orange where the network scored low, and clear where it scored high
      pixels.data.set([255, 120, 40, Math.round(210 * low * low * (0.35 + 0.65 * (weight[i] / 255)))], 4 * i);
    }
    context.putImageData(pixels, 0, 0);
  }

  // ── leaving ─────────────────────────────────────────────────────────────
  for (const [act, id] of [["series_previous", "newer"], ["series_next", "older"]]) acts[act] = () => {
    document.getElementById(id)?.click();
  };

  /** Show other images next to the panel, in its window; those shown before go. */
  workbench.showBeside = (figures, range) => {
    extra.length = 0;
    figures.forEach((figure, i) => load(figure, i, extra, windowOf(range)));
  };
  workbench.slicesLoaded = Promise.all(slices.map((slice, i) => load(slice, i)));
  show();
})();
