"use strict";

// ---- light and dark: the system's choice until the button is pressed; nothing is stored ----
const darkSystem = window.matchMedia("(prefers-color-scheme: dark)");
const themeButton = document.getElementById("theme");

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : darkSystem.matches;
}

function themeChanged() {
  themeButton.textContent = isDark() ? "Light colours" : "Dark colours";
  document.dispatchEvent(new Event("themechange"));
}

themeButton.hidden = false;
themeButton.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  themeChanged();
});
darkSystem.addEventListener("change", themeChanged);
themeChanged();

// ---- the contents stand open where there is room beside the text ----
const wide = window.matchMedia("(min-width: 68rem)");
const contents = document.getElementById("contents");
const showContents = () => { contents.open = wide.matches; };
wide.addEventListener("change", showContents);
showContents();

// ---- sorting: by the exact value where a cell has one, else by its text; what is missing stands last ----
const collator = new Intl.Collator("en", { numeric: true });

function sortKey(row, column) {
  const cell = row.cells[column];
  const value = cell.dataset.value;
  const text = cell.textContent.trim();
  if (value !== undefined) return Number(value);
  return text === "–" || text === "" ? null : text;
}

function compareKeys(one, other) {
  if (typeof one === "number" && typeof other === "number") return one - other;
  if (typeof one !== typeof other) return typeof one === "number" ? -1 : 1;
  return collator.compare(one, other);
}

function sortBy(table, column) {
  const heading = table.tHead.rows[0].cells[column];
  const descending = heading.getAttribute("aria-sort") === "ascending";
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows, (row) => ({ row, key: sortKey(row, column) }));
  const missing = rows.filter((entry) => entry.key === null);
  const known = rows.filter((entry) => entry.key !== null);
  known.sort((one, other) => (descending ? -1 : 1) * compareKeys(one.key, other.key));
  body.append(...[...known, ...missing].map((entry) => entry.row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  Array.from(table.tHead.rows[0].cells, (cell, column) =>
    cell.querySelector("button").addEventListener("click", () => sortBy(table, column)));
}
