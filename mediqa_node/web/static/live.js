// The worklist as it changes. One tab of a browser holds the stream and tells the others, since a browser opens no more
// than six connections to one address. Rows change in place; new ones wait while somebody reads.
"use strict";

(() => {
  const source = document.getElementById("live");
  const rows = document.getElementById("rows");
  const stream = document.getElementById("stream");
  const news = document.getElementById("news");
  const still = source.dataset.still === "1"; // an older page of the list: nothing new belongs on top of it
  const channel = new BroadcastChannel("mediqa-live");
  const { acts } = workbench;
  let last = Number(source.dataset.change);
  let waiting = []; // rows that are not shown yet, the newest first
  let paused = false;
  let touching = false;
  let sound = null;
  let asked = 0;

  // ── the stream ──────────────────────────────────────────────────────────
  function lead() {
    source.setAttribute("hx-sse:connect", `/live?after=${last}`);
    source.setAttribute("hx-config", '{"sse": {"pauseOnBackground": false, "reconnectMaxDelay": 15000}}');
    htmx.process(source);
    return new Promise(() => {}); // leads until the tab is closed
  }
  if (navigator.locks) navigator.locks.request("mediqa-live", lead);
  else lead();

  document.addEventListener("htmx:sse:before:message", (event) => {
    event.preventDefault();
    event.detail.cancelled = true;
    const { data, id } = event.detail.message;
    const message = { ...JSON.parse(data), change: Number(id) || last };
    channel.postMessage({ message });
    receive(message);
  });
  const state = (name) => { channel.postMessage({ state: name }); show(name); };
  document.addEventListener("htmx:sse:after:connection", () => state("live"));
  document.addEventListener("htmx:sse:error", () => state("lost"));
  document.addEventListener("htmx:sse:before:connection", (event) => {
    if (event.detail.connection.attempt > 0) state("lost");
  });
  channel.addEventListener("message", ({ data }) => {
    if (data.state) show(data.state);
    if (data.hello && stream.dataset.state === "live") channel.postMessage({ state: "live" });
    if (data.message) { show("live"); receive(data.message); }
  });
  channel.postMessage({ hello: true });

  function show(name) {
    stream.dataset.state = name;
    stream.textContent = name === "live" ? (paused ? "Paused" : "Live") : "Reconnecting";
  }

  // ── one message ─────────────────────────────────────────────────────────
  function receive(message) {
    if (message.over) { location.href = "/sign-in"; return; }
    if (message.reload) { location.reload(); return; }
    last = Math.max(last, message.change);
    document.getElementById("vitals").innerHTML = message.vitals;
    showRoom(message.room);
    const known = document.getElementById(`s${message.id}`);
    if (known) workbench.replaceRow(message.row);
    else if (waiting.some((row) => row.id === `s${message.id}`)) {
      const row = workbench.parsed(message.row).firstElementChild;
      waiting = waiting.map((one) => (one.id === row.id ? row : one));
    } else if (!still && message.id > newest()) askForNews();
    if (message.said) document.getElementById("said").textContent = message.said;
    if (message.alarm && sound) beep();
  }

  function showRoom(html) {
    const card = workbench.parsed(html).firstElementChild;
    const known = document.getElementById(card.id);
    if (known) known.replaceWith(card);
    else document.getElementById("rooms")?.append(card);
  }

  const newest = () => Math.max(0, ...[rows.firstElementChild, waiting[0]].map((row) => Number(row?.dataset.id || 0)));

  // ── new rows ────────────────────────────────────────────────────────────
  async function askForNews() {
    const mine = ++asked;
    await new Promise((done) => setTimeout(done, 30)); // several at once are one question
    if (mine !== asked) return;
    const query = new URLSearchParams(location.search);
    query.delete("before");
    query.set("after", newest());
    const response = await fetch(`/rows?${query}`, { headers: { "HX-Request": "true" } });
    if (!response.ok) return;
    const found = [...workbench.parsed(await response.text()).children].filter((row) => !document.getElementById(row.id));
    waiting = [...found.filter((row) => !waiting.some((one) => one.id === row.id)), ...waiting];
    if (isFree()) insert();
    else showWaiting();
  }

  const isFree = () => !paused && !touching && scrollY < 8
    && !rows.querySelector('[aria-selected="true"]') && !document.querySelector("dialog[open]");

  function insert() {
    document.getElementById("list").hidden = false; // it was, while there was nothing in it
    document.getElementById("empty")?.remove();
    for (const row of [...waiting].reverse()) {
      row.classList.add("is-new");
      rows.prepend(row);
    }
    waiting = [];
    while (rows.childElementCount > 300) rows.lastElementChild.remove();
    showWaiting();
  }

  function showWaiting() {
    news.hidden = waiting.length === 0;
    news.textContent = `${waiting.length} new`;
  }

  acts.news = () => { select(null); scrollTo({ top: 0 }); insert(); };
  acts.pause = () => {
    paused = !paused;
    show(stream.dataset.state);
    if (isFree() && waiting.length) insert();
  };
  addEventListener("pointerdown", () => { touching = true; });
  for (const name of ["pointerup", "pointercancel"]) addEventListener(name, () => {
    touching = false;
    setTimeout(() => { if (waiting.length && isFree()) insert(); }, 600);
  });

  // ── moving through the list ─────────────────────────────────────────────
  const selected = () => rows.querySelector('[aria-selected="true"]');
  function select(row) {
    selected()?.setAttribute("aria-selected", "false");
    if (!row) return;
    row.setAttribute("aria-selected", "true");
    row.scrollIntoView({ block: "nearest" });
    row.querySelector("[data-open]").focus({ preventScroll: true });
  }
  acts.next = () => select(selected() ? selected().nextElementSibling || selected() : rows.firstElementChild);
  acts.previous = () => {
    const row = selected()?.previousElementSibling;
    if (row) select(row);
    else { select(null); scrollTo({ top: 0 }); if (waiting.length && isFree()) insert(); }
  };
  const open = (row) => { location.href = `/series/${row.dataset.id}${location.search}`; };
  acts.open = () => { if (selected()) open(selected()); };
  acts.close = () => { document.querySelector("dialog[open]")?.close(); select(null); };
  for (const kind of ["repeated", "kept", "wrong_alarm", "undo"]) acts[kind] = () => {
    if (selected()) workbench.answer(selected().dataset.id, kind, "row");
  };
  rows.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (!row || event.target.closest("button")) return;
    if (event.target.closest("a")) { event.preventDefault(); open(row); return; }
    if (matchMedia("(pointer: coarse)").matches) open(row);
    else select(row === selected() ? null : row);
  });
  rows.addEventListener("dblclick", (event) => {
    const row = event.target.closest("tr");
    if (row && !event.target.closest("button")) open(row);
  });

  // ── sound ───────────────────────────────────────────────────────────────
  acts.sound = (event) => {
    const button = event.target.closest("button");
    if (sound) { sound.close(); sound = null; } else { sound = new AudioContext(); beep(); }
    button.textContent = sound ? "Sound on" : "Sound off";
    button.setAttribute("aria-pressed", String(sound !== null));
  };
  function beep() {
    const tone = sound.createOscillator();
    const level = sound.createGain();
    tone.frequency.value = 660;
    level.gain.setValueAtTime(0.15, sound.currentTime);
    level.gain.exponentialRampToValueAtTime(0.001, sound.currentTime + 0.5);
    tone.connect(level).connect(sound.destination);
    tone.start();
    tone.stop(sound.currentTime + 0.5);
  }
})();
