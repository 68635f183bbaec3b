"use strict";
// Sorting by a column, the text under the mouse, and a kernel lit up in drawings and table at once.
(() => {
  const table = document.querySelector("thead") && document.querySelector("thead").closest("table");
  if (table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, place) => head.querySelector("button").addEventListener("click", () => {
      const number = head.classList.contains("number");
      const before = head.getAttribute("aria-sort");
      const order = before ? (before === "descending" ? "ascending" : "descending") : number ? "descending" : "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "descending" ? -1 : 1;
      const rows = [...table.tBodies[0].rows].map(row => [row, row.cells[place].dataset.key]);
      rows.sort(([, a], [, b]) => {
        if (!a || !b) return (a ? 0 : 1) - (b ? 0 : 1);  // what has no number stays at the end
        return sign * (number ? Number(a) - Number(b) : a.localeCompare(b));
      });
      table.tBodies[0].append(...rows.map(([row]) => row));
    }));
  }

  const tip = document.getElementById("tip");
  const show = (mark, x, y) => {
    tip.textContent = mark.dataset.tip;
    tip.hidden = false;
    const width = tip.offsetWidth, height = tip.offsetHeight;
    tip.style.left = Math.max(4, Math.min(x + 14, innerWidth - width - 4)) + "px";
    tip.style.top = (y + height + 18 > innerHeight ? Math.max(4, y - height - 10) : y + 14) + "px";
  };
  const light = (row, on) => document.querySelectorAll(`[data-row="${row}"]`).forEach(mark => mark.classList.toggle("lit", on));
  document.querySelectorAll("[data-tip]").forEach(mark => {
    mark.addEventListener("pointermove", event => show(mark, event.clientX, event.clientY));
    mark.addEventListener("focus", () => {
      const box = mark.getBoundingClientRect();
      show(mark, box.left + box.width / 2, box.bottom);
    });
    for (const event of ["pointerleave", "blur"]) mark.addEventListener(event, () => { tip.hidden = true; });
    mark.addEventListener("click", () => {
      document.getElementById("row-" + mark.dataset.row).scrollIntoView({ block: "center", behavior: "smooth" });
    });
  });
  document.querySelectorAll("[data-row]").forEach(mark => {
    for (const event of ["pointerenter", "focus"]) mark.addEventListener(event, () => light(mark.dataset.row, true));
    for (const event of ["pointerleave", "blur"]) mark.addEventListener(event, () => light(mark.dataset.row, false));
  });
})();
