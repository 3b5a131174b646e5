// Trends besides the charts: filters in the address, rows by key, printing.
"use strict";

(() => {
  const { acts } = workbench;

  for (const form of document.querySelectorAll("form[data-filters]")) {
    form.addEventListener("change", (event) => {
      if (event.target.dataset.go !== undefined) location.href = event.target.value;
      else if (event.target.dataset.submit !== undefined) form.requestSubmit();
    });
    form.addEventListener("submit", (event) => { // an address without empty filters can be read and sent
      event.preventDefault();
      const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
      location.href = query.size ? `${form.getAttribute("action")}?${query}` : form.getAttribute("action");
    });
  }

  document.querySelector("[data-print]")?.addEventListener("click", () => print());

  const rows = [...document.querySelectorAll("tr[data-row]")];
  if (rows.length === 0) return;
  let at = -1;
  function go(to) {
    rows[at]?.setAttribute("aria-selected", "false");
    at = Math.max(0, Math.min(rows.length - 1, to));
    rows[at].setAttribute("aria-selected", "true");
    rows[at].scrollIntoView({ block: "nearest" });
  }
  acts.next = () => go(at + 1);
  acts.previous = () => go(at - 1);
  acts.open = () => rows[at]?.querySelector("[data-open]").click();
  for (const row of rows) row.addEventListener("dblclick", () => row.querySelector("[data-open]").click());
})();
