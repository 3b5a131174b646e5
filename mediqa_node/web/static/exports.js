// Exports: the state is loaded again while something is under way.
"use strict";

(() => {
  const state = document.getElementById("state");
  setInterval(async () => {
    if (document.hidden || !document.getElementById("exports-state").dataset.busy) return;
    const response = await fetch("/labels/exports/state", { headers: { "HX-Request": "true" } });
    if (response.status === 401) location.href = "/sign-in";
    else if (response.ok) state.innerHTML = await response.text();
  }, 1000);
})();
