// Charts of the trends, drawn with uPlot: colours are the tokens of the page, and follow its theme.
"use strict";

(() => {
  const { acts } = workbench;
  const root = document.documentElement;
  const NAMES = ["surface", "raised", "line", "line-strong", "ink", "ink-2", "ink-3", "accent", "fine", "look", "repeat", "none", "band", "selected"];
  const SHAPES = ["circle", "square", "diamond", "triangle", "cross"];
  const GROUP_COLOURS = ["accent", "look", "fine", "repeat", "none"];
  const FONT = "Inter, system-ui, sans-serif";
  const ratio = () => devicePixelRatio || 1;
  let ink = {};
  const plots = [];

  function readTokens() {
    const style = getComputedStyle(root);
    ink = Object.fromEntries(NAMES.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  }

  // ── shapes and numbers ──────────────────────────────────────────────────
  function trace(context, shape, x, y, r) {
    context.beginPath();
    if (shape === "square") context.rect(x - r * 0.9, y - r * 0.9, 1.8 * r, 1.8 * r);
    else if (shape === "diamond") { context.moveTo(x, y - 1.3 * r); context.lineTo(x + 1.3 * r, y); context.lineTo(x, y + 1.3 * r); context.lineTo(x - 1.3 * r, y); context.closePath(); }
    else if (shape === "triangle") { context.moveTo(x, y - 1.2 * r); context.lineTo(x + 1.15 * r, y + 0.9 * r); context.lineTo(x - 1.15 * r, y + 0.9 * r); context.closePath(); }
    else if (shape === "cross") { context.moveTo(x - r, y - r); context.lineTo(x + r, y + r); context.moveTo(x + r, y - r); context.lineTo(x - r, y + r); }
    else context.arc(x, y, r, 0, 2 * Math.PI);
  }
  function number(value, places) {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    if (size > 0 && size < 0.5 * 10 ** -places) return value.toPrecision(2);
    return value.toFixed(places).replace("-", "−");
  }
  function moment(t, zone) {
    const form = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", hour12: false };
    if (zone) form.timeZone = zone;
    return new Intl.DateTimeFormat("sv-SE", form).format(new Date(t * 1000));
  }
  const day = (t, zone) => moment(t, zone).slice(0, 10);

  function text(context, words, x, y, colour, { size = 11, align = "left", weight = 400 } = {}) {
    context.font = `${weight} ${size * ratio()}px ${FONT}`;
    context.fillStyle = colour;
    context.textAlign = align;
    context.textBaseline = "middle";
    context.fillText(words, x, y);
  }

  // ── what all charts share ───────────────────────────────────────────────
  // Dates of the axis: [step in s, form, form where the year changes, –, where the day changes, –, –, –, replace]
  const DATES = [
    [31536000, "{YYYY}", null, null, null, null, null, null, 1],
    [2419200, "{MMM}", "\n{YYYY}", null, null, null, null, null, 1],
    [86400, "{D} {MMM}", "\n{YYYY}", null, null, null, null, null, 1],
    [1, "{HH}:{mm}", "\n{D} {MMM} {YYYY}", null, "\n{D} {MMM}", null, null, null, 1],
  ];
  function axes(plot, xValues) {
    const axis = (more) => ({ stroke: () => ink["ink-3"], font: `11px ${FONT}`, grid: { stroke: () => ink.line, width: 1 }, ticks: { stroke: () => ink.line, width: 1, size: 4 }, ...more });
    return [axis({ grid: { show: false }, values: DATES, ...xValues }), axis({ size: 58, values: (_, splits) => splits.map((v) => (v === null ? null : axisNumber(v, plot))) })];
  }
  function named([x, y], label) {
    return [x, { ...y, size: 48, space: 26, label, labelFont: `11px ${FONT}`, labelSize: 18 }];
  }
  function axisNumber(value, plot) {
    if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6)) return value.toExponential(0);
    return `${Number(value.toPrecision(6))}`.replace("-", "−");
  }
  function base(plot, more) {
    return {
      width: plot.width, height: plot.height, legend: { show: false }, padding: [14, 76, 0, 4],
      tzDate: plot.data.zone ? (ts) => uPlot.tzDate(new Date(ts * 1000), plot.data.zone) : undefined,
      cursor: { x: true, y: false, points: { show: false }, drag: { x: false, y: false, setScale: false } },
      ...more,
    };
  }

  /** Return where a point lies within the plot, in CSS pixels. */
  const place = (u, hit) => [u.valToPos(hit.t, "x"), u.valToPos(hit.value, "y")];

  class Plot {
    constructor(figure) {
      this.figure = figure;
      this.area = figure.querySelector(".plot-area");
      this.tip = figure.querySelector(".plot-tip");
      this.shown = { points: true, ewma: true, range: true };
      this.selected = null;
      this.drawn = [];
      this.load();
      this.area.addEventListener("mousemove", (event) => this.hover(event));
      this.area.addEventListener("mouseleave", () => { this.tip.hidden = true; });
      this.area.addEventListener("click", () => { if (!this.zoomed && this.near) this.open(this.near); });
      new ResizeObserver(() => { if (this.data && Math.abs(this.area.clientWidth - this.width) > 4) this.draw(); }).observe(this.area);
    }

    async load() {
      const response = await fetch(this.figure.dataset.src);
      if (response.status === 401) { location.href = "/sign-in"; return; }
      if (!response.ok) {
        const problem = document.createElement("p");
        problem.className = "quiet plot-waits";
        problem.textContent = (await response.json()).detail || "The chart could not be loaded.";
        this.area.replaceChildren(problem);
        return;
      }
      this.data = await response.json();
      this.draw();
      this.figure.dataset.state = "drawn";
    }

    draw() {
      const before = performance.now();
      this.drawn.forEach((one) => one.destroy());
      this.drawn = [];
      this.hits = [];
      this.area.replaceChildren();
      this.width = this.area.clientWidth;
      this.height = this.figure.classList.contains("is-tall") ? Math.max(300, Math.min(460, innerHeight * 0.48)) : 320;
      KINDS[this.data.kind](this);
      this.figure.dataset.ms = String(Math.round(performance.now() - before));
    }

    add(options, data) {
      const made = new uPlot(options, data, this.area);
      this.drawn.push(made);
      return made;
    }

    // ── pointing ──────────────────────────────────────────────────────────
    hover(event) {
      const [main] = this.drawn;
      if (!main) return;
      const box = main.over.getBoundingClientRect();
      const [x, y] = [event.clientX - box.left, event.clientY - box.top];
      let best = null, nearest = 26 * 26;
      if (y < box.height + 2 && y > -4) {
        for (const hit of this.hits) {
          const [hx, hy] = place(main, hit);
          const dx = hx - x, dy = hy - y;
          if (dx * dx + dy * dy < nearest) { nearest = dx * dx + dy * dy; best = hit; }
        }
      }
      this.near = best;
      this.area.classList.toggle("is-near", best !== null && Boolean(best.series));
      this.say(best, box);
    }
    say(hit, box) {
      this.tip.hidden = hit === null;
      if (hit === null) return;
      this.tip.replaceChildren(...hit.words().map((line, i) => {
        const row = document.createElement(i ? "div" : "b");
        row.textContent = line;
        return row;
      }));
      const area = this.figure.getBoundingClientRect();
      const [x, y] = place(this.drawn[0], hit);
      const left = box.left - area.left + x;
      const right = left > area.width - 240;
      this.tip.style.setProperty("left", `${right ? left - 12 - this.tip.offsetWidth : left + 14}px`);
      this.tip.style.setProperty("top", `${Math.max(4, box.top - area.top + y - 14)}px`);
    }
    open(hit) { if (hit.series) location.href = `/series/${hit.series}`; }
    select(hit) {
      this.selected = hit;
      if (hit === null) return;
      this.near = hit;
      this.drawn[0].redraw(false, false);
      this.say(hit, this.drawn[0].over.getBoundingClientRect());
    }
    step(by, wanted = () => true) {
      const list = this.hits.filter(wanted).sort((a, b) => a.t - b.t);
      if (list.length === 0) return;
      const at = this.selected ? list.findIndex((hit) => hit.t >= this.selected.t) : -1;
      const same = at >= 0 && list[at].t === this.selected.t;
      let next = this.selected === null ? (by > 0 ? 0 : list.length - 1) : same ? at + by : by > 0 ? at : at - 1;
      if (this.selected !== null && at === -1) next = list.length - 1;
      this.select(list[Math.max(0, Math.min(list.length - 1, next))]);
    }

    // ── leaving ───────────────────────────────────────────────────────────
    image() {
      const canvases = this.drawn.map((one) => one.ctx.canvas);
      const scale = ratio();
      const head = 44 * scale;
      const whole = document.createElement("canvas");
      whole.width = Math.max(...canvases.map((one) => one.width));
      whole.height = head + canvases.reduce((sum, one) => sum + one.height, 0) + 8 * scale;
      const context = whole.getContext("2d");
      context.fillStyle = ink.surface;
      context.fillRect(0, 0, whole.width, whole.height);
      text(context, this.data.heading, 14 * scale, 16 * scale, ink.ink, { size: 14, weight: 650 });
      text(context, `${this.data.unit} · mediqa-node, research use only · ${moment(Date.now() / 1000)}`, 14 * scale, 34 * scale, ink["ink-3"]);
      let y = head;
      for (const canvas of canvases) { context.drawImage(canvas, 0, y); y += canvas.height; }
      whole.toBlob((blob) => {
        const link = document.createElement("a");
        link.href = URL.createObjectURL(blob);
        link.download = `${this.data.name.replace(/[^\w.-]+/g, "-")}.png`;
        document.body.append(link);
        link.click();
        link.remove();
        setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      }, "image/png");
    }
  }

  // ── control charts ──────────────────────────────────────────────────────
  function control(plot) {
    const { data, shown } = plot;
    const rangeHeight = shown.range ? 110 : 0;
    const y = plotted(data, shown);
    const span = ends(data, y);
    const t = data.t;
    const none = t.map(() => null);
    const series = [
      {},
      { label: data.title, stroke: () => ink["line-strong"], width: 1, points: { show: false }, show: shown.points },
      { label: "EWMA", stroke: () => ink.accent, width: 2, points: { show: false }, show: shown.ewma, spanGaps: true },
      { label: "EWMA low", stroke: () => ink.accent, width: 1, dash: [2, 4], points: { show: false }, show: shown.ewma },
      { label: "EWMA high", stroke: () => ink.accent, width: 1, dash: [2, 4], points: { show: false }, show: shown.ewma },
      { label: "low", stroke: () => "transparent", width: 0, points: { show: false }, show: data.envelope && shown.points },
      { label: "high", stroke: () => "transparent", width: 0, points: { show: false }, show: data.envelope && shown.points },
    ];
    const options = base(plot, {
      series,
      bands: data.envelope ? [{ series: [6, 5], fill: () => `color-mix(in srgb, ${ink.band} 45%, transparent)` }] : [],
      scales: { x: { time: true }, y: { range: () => span } },
      axes: named(axes(plot, shown.range ? { values: (_, splits) => splits.map(() => ""), size: 12 } : {}), data.unit.startsWith("σ") ? data.unit : `${data.title}${data.unit ? `, ${data.unit}` : ""}`),
      height: plot.height - rangeHeight,
      hooks: {
        drawClear: [(u) => { drawBands(u, data); drawLimits(u, data); }],
        draw: [(u) => { drawPoints(u, plot); drawPhases(u, data); drawMarks(u, plot); }],
        setSelect: [(u) => zoom(u, plot)],
      },
    });
    options.cursor.drag = { x: true, y: false, setScale: false };
    options.cursor.sync = { key: "control" };
    const main = plot.add(options, [t, data.y, data.ewma, data.ewma_low, data.ewma_high, data.low || none, data.high || none]);
    plot.hits = hitsOf(plot);
    if (shown.range) addRange(plot, rangeHeight);
    main.redraw(false, false);
    const words = document.getElementById("plot-words");
    if (words) words.textContent = data.envelope ? `Above 2,000 points: range and median of ${data.t.length} parts of the period; rules are found on all ${data.n.toLocaleString("en")} points; those that only mark are in the list below.` : "";
  }

  function plotted(data, shown) {
    const columns = [];
    if (shown.points) columns.push(data.y, data.low || [], data.high || []);
    if (shown.ewma) columns.push(data.ewma, data.ewma_low, data.ewma_high);
    return columns.flat().filter((v) => v !== null);
  }
  function ends(data, values) {
    for (const limit of data.limits) values.push(limit.low, limit.high);
    let low = Infinity, high = -Infinity;
    for (const value of values) { if (value < low) low = value; if (value > high) high = value; }
    if (!(high > low)) { high += 1; low -= 1; }
    const room = (high - low) * 0.09;
    return [low - room, high + room];
  }

  function addRange(plot, height) {
    const { data } = plot;
    const top = Math.max(data.range_limit * 1.15, ...data.range.filter((v) => v !== null));
    const options = base(plot, {
      series: [{}, { label: "moving range", stroke: () => ink["ink-3"], width: 1, points: { show: data.t.length < 400, size: 3, fill: () => ink["ink-3"] }, spanGaps: true }],
      scales: { x: { time: true }, y: { range: () => [0, top] } },
      axes: named(axes(plot, {}), "range, σ"),
      height,
      padding: [6, 76, 0, 4],
      hooks: { draw: [(u) => {
        const { ctx, bbox } = u;
        const at = u.valToPos(data.range_limit, "y", true);
        line(ctx, bbox.left, at, bbox.left + bbox.width, at, ink["ink-3"], [6, 4]);
        text(ctx, `range ${number(data.range_limit, 1)} σ`, bbox.left + bbox.width + 6 * ratio(), at, ink["ink-3"]);
      }] },
    });
    options.cursor.sync = { key: "control" };
    plot.add(options, [data.t, data.range]);
  }

  function line(context, x0, y0, x1, y1, colour, dash = [], width = 1) {
    context.save();
    context.beginPath();
    context.setLineDash(dash.map((one) => one * ratio()));
    context.strokeStyle = colour;
    context.lineWidth = width * ratio();
    context.moveTo(x0, y0);
    context.lineTo(x1, y1);
    context.stroke();
    context.restore();
  }

  function drawBands(u, data) {
    const { ctx, bbox } = u;
    for (const band of data.bands) {
      const x0 = Math.max(bbox.left, u.valToPos(band.from, "x", true));
      const x1 = Math.min(bbox.left + bbox.width, u.valToPos(band.to, "x", true));
      if (x1 <= x0) continue;
      ctx.save();
      ctx.fillStyle = ink.raised;
      ctx.fillRect(x0, bbox.top, x1 - x0, bbox.height);
      line(ctx, x0, bbox.top + bbox.height, x1, bbox.top + bbox.height, band.provisional ? ink["ink-3"] : ink.fine, band.provisional ? [4, 3] : [], 3);
      const words = band.provisional ? "provisional baseline" : "baseline";
      ctx.font = `${11 * ratio()}px ${FONT}`;
      if (ctx.measureText(words).width < x1 - x0 + 40 * ratio()) text(ctx, words, x0 + 4 * ratio(), bbox.top + bbox.height - 10 * ratio(), band.provisional ? ink["ink-3"] : ink.fine);
      ctx.restore();
    }
  }

  function drawLimits(u, data) {
    const { ctx, bbox } = u;
    const right = bbox.left + bbox.width;
    data.limits.forEach((one, i) => {
      const x0 = Math.max(bbox.left, u.valToPos(one.from, "x", true));
      const x1 = Math.min(right, u.valToPos(one.to, "x", true));
      const dash = one.provisional ? [2, 3] : [8, 4];
      const rows = [["+3σ", one.high], ["mean", one.centre], ["−3σ", one.low]];
      for (const [name, value] of rows) {
        const y = u.valToPos(value, "y", true);
        const isMean = name === "mean";
        line(ctx, x0, y, x1, y, isMean ? ink["ink-3"] : ink.repeat, isMean ? [] : dash, isMean ? 1 : 1.4);
        if (i === data.limits.length - 1) text(ctx, data.unit.startsWith("σ") ? name : `${name} ${number(value, data.places)}`, right + 6 * ratio(), y, isMean ? ink["ink-2"] : ink.repeat);
      }
    });
  }

  function drawPhases(u, data) {
    const { ctx, bbox } = u;
    const taken = [-Infinity, -Infinity];
    for (const phase of [...data.phases].sort((a, b) => a.t - b.t)) {
      const x = u.valToPos(phase.t, "x", true);
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      line(ctx, x, bbox.top, x, bbox.top + bbox.height, phase.starts ? ink["ink-2"] : ink["line-strong"], phase.starts ? [4, 3] : [1, 4], phase.starts ? 1.3 : 1);
      const words = phase.note ? `${phase.label}: ${phase.note.slice(0, 28)}` : phase.label;
      ctx.font = `${11 * ratio()}px ${FONT}`;
      const width = ctx.measureText(words).width;
      const left = x + 5 * ratio() + width > bbox.left + bbox.width;
      const from = left ? x - width - 5 * ratio() : x + 5 * ratio();
      const row = from > taken[0] ? 0 : from > taken[1] ? 1 : -1;
      if (row < 0) continue;
      taken[row] = from + width + 8 * ratio();
      ctx.save();
      ctx.globalAlpha = 0.8;
      ctx.fillStyle = ink.surface;
      ctx.fillRect(from - 2 * ratio(), bbox.top + (2 + 14 * row) * ratio(), width + 4 * ratio(), 13 * ratio());
      ctx.restore();
      text(ctx, words, from, bbox.top + (8 + 14 * row) * ratio(), ink["ink-2"]);
    }
  }

  function drawPoints(u, plot) {
    const { data, shown } = plot;
    if (data.envelope || !shown.points) return;
    const { ctx } = u;
    ctx.setLineDash([]);
    const r = (data.t.length > 900 ? 1.4 : data.t.length > 250 ? 2 : 2.7) * ratio();
    for (let i = 0; i < data.t.length; i++) {
      if (data.y[i] === null) continue;
      const x = u.valToPos(data.t[i], "x", true), y = u.valToPos(data.y[i], "y", true);
      trace(ctx, "circle", x, y, r);
      if (data.judged[i]) { ctx.fillStyle = ink["ink-2"]; ctx.fill(); } else { ctx.lineWidth = ratio(); ctx.strokeStyle = ink["ink-3"]; ctx.stroke(); }
    }
  }

  /** Return one mark for each place, the strongest, with the numbers of all; those that alarm last, on top. */
  function together(marks) {
    const places = new Map();
    for (const mark of [...marks].sort((a, b) => b.alarms - a.alarms || (a.rule < b.rule ? -1 : 1))) {
      if (mark.y === null) continue;
      const key = `${mark.t} ${mark.y}`;
      const known = places.get(key);
      if (known) known.labels += ` ${mark.rule}`;
      else places.set(key, { ...mark, labels: mark.rule });
    }
    return [...places.values()].sort((a, b) => a.alarms - b.alarms);
  }

  function drawMarks(u, plot) {
    const { data } = plot;
    const { ctx } = u;
    ctx.save();
    ctx.setLineDash([]);
    const taken = [];
    for (const mark of together(data.envelope ? data.marks.filter((one) => one.alarms) : data.marks)) {
      const x = u.valToPos(mark.t, "x", true), y = u.valToPos(mark.y, "y", true);
      const colour = mark.alarms ? ink.look : ink["ink-2"];
      const r = (mark.alarms ? 5.5 : 4) * ratio();
      trace(ctx, mark.rule === "E" ? "diamond" : mark.rule === "1" ? "triangle" : "circle", x, y, r);
      ctx.lineWidth = 1.5 * ratio();
      ctx.strokeStyle = colour;
      if (mark.alarms) { ctx.fillStyle = colour; ctx.fill(); } else { ctx.fillStyle = ink.surface; ctx.fill(); ctx.stroke(); }
      const above = y - 13 * ratio() > u.bbox.top;
      const at = { x, y: above ? y - 13 * ratio() : y + 14 * ratio() };
      if (taken.some((one) => Math.abs(one.x - at.x) < 13 * ratio() && Math.abs(one.y - at.y) < 12 * ratio())) continue;
      taken.push(at);
      text(ctx, mark.labels, at.x, at.y, colour, { align: "center", weight: 650, size: 11 });
    }
    if (plot.selected) {
      const x = u.valToPos(plot.selected.t, "x", true), y = u.valToPos(plot.selected.value, "y", true);
      trace(ctx, "circle", x, y, 9 * ratio());
      ctx.lineWidth = 2 * ratio();
      ctx.strokeStyle = ink.accent;
      ctx.stroke();
    }
    ctx.restore();
  }

  function hitsOf(plot) {
    const { data } = plot;
    const found = [];
    const marked = new Map();
    for (const mark of data.marks) {
      marked.set(mark.t, [...(marked.get(mark.t) || []), mark]);
    }
    const rules = (t) => (marked.get(t) || []).map((one) => `${one.rule}: ${one.words}${one.n > 1 ? `, ${one.n} points in a row` : ""}`);
    data.t.forEach((t, i) => {
      if (data.y[i] === null) return;
      found.push({
        t, value: data.y[i], series: data.series ? data.series[i] : null,
        isMark: !data.envelope && marked.has(t),
        words: () => data.envelope
          ? [`${number(data.low[i], data.places)} to ${number(data.high[i], data.places)}, median ${number(data.y[i], data.places)}`, `${data.count[i]} sessions about ${moment(t, data.zone)}`, "Drag to zoom in"]
          : [`${number(data.value[i], data.value_places)} ${data.value_unit}${data.unit === data.value_unit ? "" : `, ${number(data.y[i], 1)} σ`}`, moment(t, data.zone), data.strata[data.stratum[i]], ...(data.judged[i] ? (data.baseline[i] ? ["in the baseline"] : []) : ["not judged"]), ...rules(t), `series ${data.series[i]}`],
      });
    });
    if (data.envelope) {
      for (const mark of data.marks) {
        if (mark.y === null || !mark.alarms) continue;
        found.push({ t: mark.t, value: mark.y, series: mark.series, isMark: true,
          words: () => [`${mark.rule}: ${mark.words}`, moment(mark.t, data.zone), ...(mark.n > 1 ? [`${mark.n} points in a row`] : []), `series ${mark.series}`] });
      }
    }
    return found;
  }

  function zoom(u, plot) {
    const { left, width } = u.select;
    if (width < 6) return;
    plot.zoomed = true;
    const [from, to] = [u.posToVal(left, "x"), u.posToVal(left + width, "x")];
    const query = new URLSearchParams(location.search);
    query.set("from", day(from, plot.data.zone));
    query.set("to", day(to, plot.data.zone));
    location.href = `${location.pathname}?${query}`;
  }

  // ── scanners: box, values and their distribution side by side ────────────
  function scanners(plot) {
    const { data } = plot;
    const all = data.groups.flatMap((group) => group.sample);
    const low = Math.min(...all, data.edges[0]), high = Math.max(...all, data.edges[data.edges.length - 1]);
    const room = (high - low) * 0.05 || 1;
    const n = data.groups.length;
    const options = base(plot, {
      series: [{}, { points: { show: false }, stroke: () => "transparent" }],
      scales: { x: { time: false, range: () => [-0.6, n - 0.4] }, y: { range: () => [low - room, high + room] } },
      axes: axes(plot, { splits: () => data.groups.map((_, i) => i), values: () => data.groups.map((group) => `${group.name}  n = ${group.n}`) }),
      padding: [14, 20, 0, 4],
      hooks: { draw: [(u) => data.groups.forEach((group, i) => drawGroup(u, data, group, i))] },
    });
    options.cursor.x = false;
    plot.add(options, [data.groups.map((_, i) => i), data.groups.map((group) => group.quartiles[1])]);
    plot.hits = data.groups.flatMap((group, i) => group.sample.map((value, j) => ({
      t: i + jitter(j), value, series: group.series[j],
      words: () => [`${number(value, Math.max(data.places, 1))} ${data.unit}`, group.name, `median ${number(group.quartiles[1], Math.max(data.places, 1))}`, `series ${group.series[j]}`],
    })));
  }
  const jitter = (j) => -0.32 + 0.2 * ((j * 0.618034) % 1);
  function drawGroup(u, data, group, i) {
    const { ctx } = u;
    const x = (at) => u.valToPos(at, "x", true), y = (v) => u.valToPos(v, "y", true);
    const most = Math.max(...group.counts, 1);
    ctx.fillStyle = ink.band;
    group.counts.forEach((count, k) => {
      const top = y(data.edges[k + 1]), bottom = y(data.edges[k]);
      ctx.fillRect(x(i + 0.04), top + 0.5 * ratio(), (x(i + 0.04 + 0.4 * count / most) - x(i + 0.04)), Math.max(1, bottom - top - ratio()));
    });
    ctx.fillStyle = ink["ink-3"];
    group.sample.forEach((value, j) => { trace(ctx, "circle", x(i + jitter(j)), y(value), 1.6 * ratio()); ctx.fill(); });
    const [q1, middle, q3] = group.quartiles;
    ctx.strokeStyle = ink.ink;
    ctx.lineWidth = 1.4 * ratio();
    ctx.strokeRect(x(i - 0.07), y(q3), x(i + 0.02) - x(i - 0.07), y(q1) - y(q3));
    line(ctx, x(i - 0.1), y(middle), x(i + 0.05), y(middle), ink.accent, [], 3);
  }

  // ── scatter: groups by shape and colour ─────────────────────────────────
  function scatter(plot) {
    const { data } = plot;
    const points = data.groups.flatMap((group, g) => group.x.map((x, j) => ({ x, y: group.y[j], g, j })));
    if (points.length === 0) { empty(plot, "No series has both values."); return; }
    points.sort((a, b) => a.x - b.x);
    const span = (key, zero) => {
      let low = Infinity, high = -Infinity;
      for (const point of points) { low = Math.min(low, point[key]); high = Math.max(high, point[key]); }
      if (zero) { low = Math.min(low, 0); high = Math.max(high, 0); }
      const room = data.logarithmic ? 1.08 : (high - low) * 0.06 || 1;
      return data.logarithmic ? [low / room, high * room] : [low - room, high + room];
    };
    const scale = (range) => (data.logarithmic ? { distr: 3, log: 10, range: () => range } : { range: () => range });
    const logSplits = data.logarithmic ? { splits: (u, axis, low, high) => nice(low, high), filter: (u, splits) => splits } : {};
    const both = axes(plot, { size: 30, values: (_, splits) => splits.map((v) => (v === null ? null : axisNumber(v, plot))), label: data.x_title, labelFont: `11px ${FONT}`, labelSize: 18, ...logSplits });
    both[1] = { ...both[1], ...logSplits, label: `${data.title}, ${data.unit}`, labelFont: `11px ${FONT}`, labelSize: 18 };
    const options = base(plot, {
      series: [{}, { points: { show: false }, stroke: () => "transparent" }],
      scales: { x: { time: false, ...scale(span("x", false)) }, y: scale(span("y", data.zero)) },
      axes: both,
      padding: [14, 20, 0, 4],
      hooks: { draw: [(u) => {
        const { ctx, bbox } = u;
        if (data.zero) line(ctx, bbox.left, u.valToPos(0, "y", true), bbox.left + bbox.width, u.valToPos(0, "y", true), ink["ink-2"], [6, 4]);
        for (const point of points) {
          const shape = SHAPES[point.g % SHAPES.length];
          trace(ctx, shape, u.valToPos(point.x, "x", true), u.valToPos(point.y, "y", true), (points.length > 800 ? 2 : 2.8) * ratio());
          ctx.strokeStyle = ink[GROUP_COLOURS[point.g % GROUP_COLOURS.length]];
          ctx.lineWidth = 1.1 * ratio();
          ctx.stroke();
        }
        legend(u, data.groups.map((group) => group.name));
      }] },
    });
    options.cursor.x = false;
    plot.add(options, [points.map((point) => point.x), points.map((point) => point.y)]);
    plot.hits = points.map((point) => {
      const group = data.groups[point.g];
      return {
        t: point.x, value: point.y, series: group.series ? group.series[point.j] : null,
        words: () => [`${number(point.y, data.places)} ${data.unit}`, `${data.x_title}: ${number(point.x, 1)}`, group.name, ...(group.about ? [group.about[point.j] || "size unknown"] : []), ...(group.series ? [`series ${group.series[point.j]}`] : [])],
      };
    });
  }
  function decades(low, high) {
    const found = [];
    for (let power = Math.ceil(Math.log10(low)); power <= Math.log10(high); power++) found.push(10 ** power);
    return found;
  }
  function nice(low, high) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const step of high / low > 30 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 8]) {
        const value = step * 10 ** power;
        if (value >= low && value <= high) found.push(value);
      }
    }
    return found;
  }
  function legend(u, names) {
    const { ctx, bbox } = u;
    const right = bbox.left + bbox.width - 8 * ratio();
    ctx.font = `${11 * ratio()}px ${FONT}`;
    const wide = Math.max(...names.map((name) => ctx.measureText(name).width)) + 26 * ratio();
    ctx.save();
    ctx.globalAlpha = 0.85;
    ctx.fillStyle = ink.surface;
    ctx.fillRect(right - wide, bbox.top + 4 * ratio(), wide, (names.length * 16 + 6) * ratio());
    ctx.restore();
    names.forEach((name, g) => {
      const y = bbox.top + (15 + 16 * g) * ratio();
      trace(ctx, SHAPES[g % SHAPES.length], right - wide + 9 * ratio(), y, 3.4 * ratio());
      ctx.strokeStyle = ink[GROUP_COLOURS[g % GROUP_COLOURS.length]];
      ctx.lineWidth = 1.4 * ratio();
      ctx.stroke();
      text(ctx, name, right - wide + 19 * ratio(), y, ink["ink-2"]);
    });
  }

  // ── lines over time ─────────────────────────────────────────────────────
  function lines(plot) {
    const { data } = plot;
    if (data.t.length === 0) { empty(plot, "Nothing to draw yet."); return; }
    const parts = [...data.lines, ...(data.more || [])];
    const each = data.more || data.lines.length > 1 ? parts.map((one) => [one]) : [parts];
    const height = each.length > 1 ? Math.max(150, plot.height / each.length) : plot.height;
    each.forEach((group, nth) => {
      const values = group.flatMap((one) => [...one.y, ...(one.low || []), ...(one.high || [])]).concat(data.limit || []).filter((v) => v !== null && (!data.logarithmic || v > 0));
      const [low, high] = [Math.min(...values), Math.max(...values)];
      const room = (high - low) * 0.12 || Math.abs(high) * 0.1 || 1;
      const range = data.logarithmic ? [low / 2, high * 2] : [data.unit === "%" ? Math.max(0, low - room) : low - room, high + room];
      const options = base(plot, {
        series: [{}, ...group.map((one, i) => ({ label: one.name, stroke: () => ink[GROUP_COLOURS[i]], width: 1.5, points: { show: true, size: 5, fill: () => ink[GROUP_COLOURS[i]] }, spanGaps: true }))],
        scales: { x: { time: true, range: (u, a, b) => (u.data[0].length === 1 ? [u.data[0][0] - 86400, u.data[0][0] + 86400] : [a - (b - a) * 0.02, b + (b - a) * 0.02]) }, y: data.logarithmic ? { distr: 3, log: 10, range: () => range } : { range: () => range } },
        axes: named(axes(plot, {}), group.length === 1 ? group[0].name : data.title).map((axis, i) => (i && data.logarithmic ? { ...axis, splits: (u, a, low_, high_) => decades(low_, high_), filter: (u, splits) => splits } : axis)),
        height,
        hooks: { draw: [(u) => drawLines(u, data, group)] },
      });
      plot.add(options, [data.t, ...group.map((one) => one.y)]);
      if (nth === 0) plot.hits = group.flatMap((one) => data.t.map((t, i) => ({ t, value: one.y[i], series: null,
        words: () => [`${data.logarithmic ? one.y[i].toExponential(1) : number(one.y[i], data.places)} ${data.unit}`, moment(t, data.zone), one.name] }))).filter((hit) => hit.value !== null);
    });
  }
  function drawLines(u, data, group) {
    const { ctx, bbox } = u;
    const right = bbox.left + bbox.width;
    for (const one of group) {
      if (one.low) one.low.forEach((low, i) => {
        if (low === null) return;
        const x = u.valToPos(data.t[i], "x", true);
        line(ctx, x, u.valToPos(low, "y", true), x, u.valToPos(one.high[i], "y", true), ink["ink-3"], [], 2);
      });
      const last = one.y.findLast((v) => v !== null);
      if (last !== undefined && group.length > 1) text(ctx, one.name, right + 6 * ratio(), u.valToPos(last, "y", true), ink["ink-2"]);
    }
    if (data.limit) {
      const at = u.valToPos(data.limit[data.limit.length - 1], "y", true);
      line(ctx, bbox.left, at, right, at, ink.repeat, [8, 4], 1.4);
      text(ctx, data.limit_name, right + 6 * ratio(), at, ink.repeat);
    }
    (data.bad || []).forEach((bad, i) => {
      if (!bad) return;
      trace(ctx, "triangle", u.valToPos(data.t[i], "x", true), u.valToPos(group[0].y[i], "y", true), 6 * ratio());
      ctx.fillStyle = ink.look;
      ctx.fill();
    });
  }
  function empty(plot, words) {
    const line_ = document.createElement("p");
    line_.className = "quiet plot-waits";
    line_.textContent = words;
    plot.area.replaceChildren(line_);
  }

  const KINDS = { control, scanners, scatter, lines };

  // ── the page ────────────────────────────────────────────────────────────
  readTokens();
  document.fonts.ready.then(() => { for (const figure of document.querySelectorAll(".plot[data-src]")) plots.push(new Plot(figure)); });
  const redraw = () => { readTokens(); for (const plot of plots) if (plot.data) plot.draw(); };
  document.addEventListener("workbench:theme", redraw);
  matchMedia("(prefers-color-scheme: light)").addEventListener("change", redraw);

  document.addEventListener("click", (event) => {
    const image = event.target.closest("[data-image]");
    if (image) {
      const figures = [...document.querySelectorAll(".plot")];
      const own = image.closest(".card")?.querySelector(".plot") || figures[0];
      plots[figures.indexOf(own)]?.image();
    }
    const toggle = event.target.closest("[data-line]");
    if (toggle) switchLine(toggle.dataset.line);
  });
  function switchLine(name) {
    const [plot] = plots;
    if (!plot?.data) return;
    plot.shown[name] = !plot.shown[name];
    document.querySelector(`[data-line="${name}"]`)?.setAttribute("aria-pressed", String(plot.shown[name]));
    plot.draw();
  }
  acts.ewma = () => switchLine("ewma");
  acts.image = () => plots[0]?.image();
  acts.step_next = () => plots[0]?.step(1);
  acts.step_previous = () => plots[0]?.step(-1);
  acts.mark_next = () => plots[0]?.step(1, (hit) => hit.isMark);
  acts.open = () => { if (plots[0]?.selected) plots[0].open(plots[0].selected); };
  acts.whole = () => {
    const query = new URLSearchParams(location.search);
    query.delete("from");
    query.delete("to");
    location.href = query.size ? `${location.pathname}?${query}` : location.pathname;
  };
})();
