// Sorts tables and lists, and narrows them down. It reads and moves what is in the page, and asks for nothing else.
"use strict";
(() => {
  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  const items = (parent) => Array.from(parent.querySelectorAll("[data-item]"));

  // A cell's number where it has one, else its text; what is neither comes last in either direction.
  const valueOf = (cell) => ("value" in cell.dataset ? (cell.dataset.value === "" ? null : Number(cell.dataset.value)) : cell.textContent.trim() || null);
  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "number" && typeof b === "number" ? a - b : collator.compare(a, b));
  };
  const rearrange = (parent, valueOfItem, sign) => {
    const rows = items(parent).map((item) => [valueOfItem(item), item]);
    rows.sort((a, b) => compare(a[0], b[0], sign));
    parent.append(...rows.map((row) => row[1]));
  };

  for (const table of document.querySelectorAll("table[data-sortable]")) {
    const heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const first = table.tBodies[0].querySelector("[data-item]");
        const isNumber = first !== null && "value" in first.cells[column].dataset;
        const was = head.getAttribute("aria-sort");
        // Numbers begin with the largest, names with the first.
        const now = was === null ? (isNumber ? "descending" : "ascending") : was === "ascending" ? "descending" : "ascending";
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", now);
        rearrange(table.tBodies[0], (item) => valueOf(item.cells[column]), now === "ascending" ? 1 : -1);
      });
    });
  }

  for (const controls of document.querySelectorAll("[data-controls]")) {
    const parent = document.getElementById(controls.dataset.controls);
    const find = (name) => controls.querySelector(`[data-${name}]`);
    const [search, choose, order, count] = ["search", "choose", "order", "count"].map(find);
    const all = items(parent);
    const texts = new Map(all.map((item) => [item, item.textContent.toLowerCase()]));
    const narrow = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let seen = 0;
      for (const item of all) {
        const fits = (!choose || !choose.value || item.dataset.category === choose.value) && words.every((word) => texts.get(item).includes(word));
        item.hidden = !fits;
        seen += fits;
      }
      count.textContent = seen === all.length ? `${all.length} shown` : `${seen} of ${all.length} shown`;
    };
    const list = parent.tBodies ? parent.tBodies[0] : parent;
    const arrange = () => rearrange(list, (item) => (order.value in item.dataset ? Number(item.dataset[order.value]) : null), -1);
    search.addEventListener("input", narrow);
    if (choose) choose.addEventListener("change", narrow);
    if (order) {
      order.addEventListener("change", arrange);
      arrange();
    }
    controls.hidden = false;
    narrow();
  }
})();
