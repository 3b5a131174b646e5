// Operations: the part that changes is loaded again while the page is seen, and nothing in it is open or focused.
"use strict";

(() => {
  const state = document.getElementById("state");
  setInterval(async () => {
    const busy = document.hidden || document.querySelector("dialog[open]") || state.querySelector("details[open]")
      || state.contains(document.activeElement);
    if (busy) return;
    const response = await fetch("/operations/state", { headers: { "HX-Request": "true" } });
    if (response.status === 401) { location.href = "/sign-in"; return; }
    if (response.ok && !state.contains(document.activeElement)) {
      state.innerHTML = await response.text();
      htmx.process(state);
    }
  }, 2000);
})();
