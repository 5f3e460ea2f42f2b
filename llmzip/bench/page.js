"use strict";

// A column without a value in a row keeps that row at the end, whichever way the others are sorted.
function sortTable(table, index, descending) {
  const body = table.tBodies[0];
  const value = (row) => (row.cells[index] === undefined ? "" : row.cells[index].dataset.value ?? "");
  const numeric = table.tHead.rows[0].cells[index].dataset.kind === "number";
  const rows = Array.from(body.rows);
  rows.sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    if (a === "" || b === "") return (a === "") - (b === "");
    const order = numeric ? Number(a) - Number(b) : a.localeCompare(b);
    return descending ? -order : order;
  });
  body.append(...rows);
  Array.from(table.tHead.rows[0].cells).forEach((head, at) => {
    if (at === index) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
}

// #sort=COLUMN sorts every table that has this column, #sort=-COLUMN from the greatest on.
function sortByFragment() {
  const found = /^#sort=(-?)(.+)$/.exec(decodeURIComponent(location.hash));
  if (!found) return;
  for (const table of document.querySelectorAll("table.sortable")) {
    const index = Array.from(table.tHead.rows[0].cells).findIndex((head) => head.dataset.column === found[2]);
    if (index >= 0) sortTable(table, index, found[1] === "-");
  }
}

for (const button of document.querySelectorAll("table.sortable th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    sortTable(button.closest("table"), head.cellIndex, head.getAttribute("aria-sort") === "ascending");
  });
}
addEventListener("hashchange", sortByFragment);
sortByFragment();
