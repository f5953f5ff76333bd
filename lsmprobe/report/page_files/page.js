"use strict";
// Tables that sort and filter, points that say what they are, a slider over the layers. What the
// page says is all there without this script; it only rearranges it.
(() => {
  const root = document.documentElement;
  root.classList.add("has-js");

  // Light and dark
  const theme = document.getElementById("theme");
  const isDark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const nameTheme = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; nameTheme(); });
  nameTheme();

  // Sorting: numbers as numbers, everything else as text, what is empty last
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.v !== undefined ? Number(cell.dataset.v) : cell.textContent.trim();
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") {
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
      return a - b;
    }
    return String(a).localeCompare(String(b), undefined, { numeric: true });
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") === "descending";
        const numeric = table.tBodies[0].rows[0]?.cells[column].dataset.v !== undefined;
        const ascending = head.hasAttribute("aria-sort") ? up : !numeric;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        const sign = ascending ? 1 : -1;
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => sign * compare(value(a, column), value(b, column)));
        table.tBodies[0].append(...rows);
      });
    });
  }

  // Filtering: every word must be there, and every choice must agree
  const form = document.getElementById("filters");
  const scores = document.getElementById("scores-table");
  const count = document.getElementById("shown");
  if (form && scores) {
    const rows = [...scores.tBodies[0].rows];
    const filter = () => {
      const words = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
      const choices = [...form.querySelectorAll("select")].filter((one) => one.value !== "");
      let shown = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        const fits = words.every((word) => text.includes(word)) &&
          choices.every((one) => row.cells[Number(one.dataset.column)].textContent.trim() === one.value);
        row.hidden = !fits;
        shown += fits;
      }
      count.textContent = `${shown} of ${rows.length} rows`;
    };
    form.addEventListener("input", filter);
    form.addEventListener("reset", () => setTimeout(filter));
    form.addEventListener("submit", (event) => event.preventDefault());
    filter();
  }

  // Points say what they are, to a mouse and to a keyboard
  for (const figure of document.querySelectorAll("figure.curves")) {
    const said = figure.querySelector("output");
    const say = (event) => {
      const point = event.target.closest(".point");
      if (point) said.textContent = point.getAttribute("aria-label");
    };
    figure.addEventListener("pointerover", say);
    figure.addEventListener("focusin", say);
  }

  // The layers of a cache as pictures
  for (const figure of document.querySelectorAll("figure.projection")) {
    const data = JSON.parse(figure.querySelector("script").textContent);
    const slider = figure.querySelector("input[type=range]");
    const colour = figure.querySelector("select");
    const said = figure.querySelector("output");
    const legend = figure.querySelector(".legend");
    const dots = [...figure.querySelectorAll("svg .dot")];
    const draw = () => {
      const layer = Number(slider.value);
      const xy = data.points[layer];
      const names = data.columns[colour.value];
      const kinds = [...new Set(names)].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
      dots.forEach((dot, i) => {
        dot.setAttribute("cx", xy[2 * i]);
        dot.setAttribute("cy", xy[2 * i + 1]);
        dot.setAttribute("class", `dot k${kinds.indexOf(names[i]) % 10}`);
        dot.firstElementChild.textContent = `${data.keys[i]}: ${names[i]}`;
      });
      said.textContent = `layer ${data.layers[layer]}`;
      slider.setAttribute("aria-valuetext", said.textContent);
      legend.replaceChildren(...kinds.slice(0, 30).map((kind, k) => {
        const item = document.createElement("li");
        item.className = `k${k % 10}`;
        item.textContent = kind || "not known";
        return item;
      }));
    };
    slider.addEventListener("input", draw);
    colour.addEventListener("input", draw);
    draw();
  }

  // A link to a run opens it
  const open = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") target.open = true;
  };
  addEventListener("hashchange", open);
  open();
})();
