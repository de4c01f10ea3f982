"use strict";
// Sorting: every heading of a sortable table becomes a button; a third press restores the order of the paper.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = { none: "ascending", ascending: "descending", descending: "none" }[head.ariaSort || "none"];
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (next === "none") {
        body.append(...original);
        return;
      }
      head.setAttribute("aria-sort", next);
      const key = (row) => row.cells[column].dataset.key ?? row.cells[column].textContent.trim();
      const sign = next === "ascending" ? 1 : -1;
      body.append(...[...original].sort((a, b) => {
        const [left, right] = [key(a), key(b)];
        if (left === "" || right === "") return (left === "") - (right === ""); // what is missing stays below
        const numbers = [Number(left), Number(right)];
        const order = numbers.some(Number.isNaN) ? left.localeCompare(right, "en", { numeric: true }) : numbers[0] - numbers[1];
        return sign * order;
      }));
    });
  });
}

// Filter: cards of the overview, and the sections below it.
const form = document.getElementById("filter");
form.hidden = false;
function filter() {
  const asked = Object.fromEntries(new FormData(form));
  const words = asked.words.toLowerCase();
  const fits = (node, paper, text) =>
    (!asked.paper || paper === asked.paper) &&
    (!asked.scale || node.dataset.scale === asked.scale) &&
    (!asked.verdict || node.dataset.verdicts.includes(`|${asked.verdict}|`)) &&
    (!words || text.toLowerCase().includes(words));
  const cards = [...document.querySelectorAll(".card")];
  for (const card of cards) card.hidden = !fits(card, card.dataset.paper, card.textContent);
  for (const part of document.querySelectorAll(".part")) {
    const scales = [...part.querySelectorAll(".scale")];
    for (const scale of scales) scale.hidden = !fits(scale, part.dataset.paper, part.textContent);
    part.hidden = scales.every((scale) => scale.hidden);
  }
  const shown = cards.filter((card) => !card.hidden).length;
  document.getElementById("shown").textContent = `${shown} of ${cards.length} tables shown`;
}
form.addEventListener("input", filter);
form.addEventListener("reset", () => setTimeout(filter));
form.addEventListener("submit", (event) => event.preventDefault());
filter();
// On paper everything is open.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
