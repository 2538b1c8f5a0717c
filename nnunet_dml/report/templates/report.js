"use strict";
(() => {
  const table = document.getElementById("case-table");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...body.rows];
  const texts = rows.map((row) => [...row.cells].map((cell) => cell.textContent));
  const names = texts.map((cells) => cells.slice(0, 2).join(" ").toLowerCase());
  const order = new Intl.Collator("en", { numeric: true });
  const number = (text) => parseFloat(text.replace("−", "-"));

  function sort(column) {
    const down = heads[column].getAttribute("aria-sort") === "ascending";
    heads.forEach((head, k) => head.setAttribute("aria-sort", k !== column ? "none" : down ? "descending" : "ascending"));
    const keys = texts.map((cells) => (column < 2 ? cells[column] : number(cells[column])));
    const sign = down ? -1 : 1;
    const places = rows.map((_, k) => k);
    places.sort((a, b) => {
      const [x, y] = [keys[a], keys[b]];
      if (column < 2) return sign * order.compare(x, y) || a - b;
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a - b; // undefined comes last
      return sign * (x - y) || a - b;
    });
    body.append(...places.map((k) => rows[k]));
  }
  heads.forEach((head, k) => head.firstElementChild.addEventListener("click", () => sort(k)));

  const filter = document.getElementById("filter");
  const shown = document.getElementById("shown");
  filter.addEventListener("input", () => {
    const wanted = filter.value.trim().toLowerCase();
    let count = 0;
    rows.forEach((row, k) => {
      row.hidden = !names[k].includes(wanted);
      count += !row.hidden;
    });
    shown.textContent = wanted ? `${count} of ${rows.length} cases` : `${rows.length} cases`;
  });
})();
