// The page of a series, besides its slices: answers by key, and the patient on demand.
"use strict";

(() => {
  const { acts } = workbench;
  const id = document.getElementById("answer-bar")?.dataset.id;
  if (id) for (const kind of ["repeated", "kept", "wrong_alarm", "undo"]) acts[kind] = () => workbench.answer(id, kind, "bar");
})();
