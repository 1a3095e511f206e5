"use strict";
(() => {
  const root = document.documentElement;
  const $ = (selector, under = document) => under.querySelector(selector);
  const $$ = (selector, under = document) => [...under.querySelectorAll(selector)];
  root.classList.add("js");

  // what is shown: layers by a filter, methods by their boxes; both are kept in the address

  const layers = JSON.parse($("#layers-known").textContent);
  const parts = layers.map(() => []);
  for (const element of $$("[data-l]")) parts[Number(element.dataset.l)]?.push(element);
  const filter = $("#filter");
  const boxes = $$(".choice input");
  const sorted = new Map();

  function glob(pattern) {
    let source = "";
    for (let i = 0; i < pattern.length; i++) {
      const end = pattern.indexOf("]", i + 2);
      if (pattern[i] === "*") source += ".*";
      else if (pattern[i] === "?") source += ".";
      else if (pattern[i] === "[" && end > 0) {
        source += "[" + pattern.slice(i + 1, end).replace(/\\/g, "\\\\").replace(/^!/, "^") + "]";
        i = end;
      } else source += pattern[i].replace(/[.+^${}()|[\]\\]/, "\\$&");
    }
    try {
      return new RegExp(`^${source}$`, "s");
    } catch {
      return /(?!)/;
    }
  }

  function matcher(text) {
    const whole = text.trim();
    if (!whole) return () => true;
    const words = new Set([whole, ...whole.split(",").map((w) => w.trim()).filter(Boolean)]);
    const tests = [...words].map((word) => {
      const plain = word.toLowerCase();
      const pattern = /[*?[]/.test(word) ? glob(word) : null;
      return ({ name, kind }) =>
        name.toLowerCase().includes(plain) || kind.toLowerCase() === plain ||
        (pattern && [name, kind, ...name.split(" = ")].some((n) => pattern.test(n)));
    });
    return (layer) => tests.some((test) => test(layer));
  }

  function applyFilter() {
    const fits = matcher(filter.value);
    let count = 0;
    layers.forEach((layer, place) => {
      const shown = fits(layer);
      count += shown;
      for (const element of parts[place]) element.classList.toggle("off", !shown);
    });
    const all = `${layers.length} layer${layers.length === 1 ? "" : "s"}`;
    $("#count").textContent = count === layers.length ? all : `${count} of ${all}`;
  }

  function applyMethods() {
    for (const box of boxes) root.classList.toggle(`off-${box.value}`, !box.checked);
  }

  function remember() {
    const state = new URLSearchParams();
    if (filter.value) state.set("layers", filter.value);
    const off = boxes.filter((box) => !box.checked).map((box) => box.value);
    if (off.length) state.set("off", off.join(","));
    for (const [name, order] of sorted) state.set(`sort-${name}`, order);
    const text = state.toString();
    try {
      history.replaceState(null, "", text ? "#" + text : location.pathname + location.search);
    } catch { /* some viewers of files have no history */ }
  }

  function recall() {
    const text = location.hash.slice(1);
    if (!text.includes("=")) return;
    const state = new URLSearchParams(text);
    filter.value = state.get("layers") || "";
    const off = (state.get("off") || "").split(",");
    for (const box of boxes) box.checked = !off.includes(box.value);
    for (const table of $$("table.sheet")) {
      const [place, way] = (state.get(`sort-${table.dataset.name}`) || "").split(" ");
      const head = $$("thead th", table)[Number(place)];
      if (way) sortBy(table, head, way === "descending" ? "descending" : "ascending");
    }
    applyFilter();
    applyMethods();
  }

  filter.addEventListener("input", () => { applyFilter(); remember(); });
  for (const box of boxes) box.addEventListener("change", () => { applyMethods(); remember(); });
  addEventListener("hashchange", recall);
  for (const link of $$("nav a")) {
    link.addEventListener("click", (event) => {  // the address keeps what is shown
      event.preventDefault();
      $(link.getAttribute("href")).scrollIntoView();
    });
  }

  addEventListener("beforeprint", () => {  // paper cannot be unfolded
    for (const folded of $$("details")) folded.open = true;
  });

  // tables: sorted by a heading, copied as they are shown

  const written = (cell) => {
    const copy = cell.cloneNode(true);
    for (const mark of $$(".mark", copy)) mark.remove();
    return copy.textContent.trim();
  };
  const value = (cell) => cell.dataset.v ?? written(cell);
  const number = (text) => (/^-?inf$/.test(text) ? Number(text.replace("inf", "Infinity")) : parseFloat(text));

  function sortBy(table, head, way) {
    if (!head) return;
    const heads = $$("thead th", table);
    const place = heads.indexOf(head);
    const numeric = head.classList.contains("number");
    const body = $("tbody", table);
    const keyed = [...body.rows].map((row) => {
      const text = value(row.cells[place]);
      return [row, numeric ? number(text) : text];
    });
    const empty = (key) => key === "" || Number.isNaN(key);
    const sign = way === "descending" ? -1 : 1;
    keyed.sort(([, a], [, b]) => {
      if (empty(a) || empty(b)) return empty(a) - empty(b);  // what is not known comes last
      return sign * (numeric ? a - b : a.localeCompare(b, undefined, { numeric: true }));
    });
    body.append(...keyed.map(([row]) => row));
    for (const other of heads) other.setAttribute("aria-sort", other === head ? way : "none");
    sorted.set(table.dataset.name, `${place} ${way}`);
  }

  for (const table of $$("table.sheet")) {
    for (const head of $$("thead th", table)) {
      $("button", head).addEventListener("click", () => {
        sortBy(table, head, head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending");
        remember();
      });
    }
  }

  const shownRows = (table) => [...$("tbody", table).rows].filter((row) => getComputedStyle(row).display !== "none");

  function csv(table) {
    const field = (text) => {
      const plain = text.trim() !== "" && !Number.isNaN(Number(text));
      const safe = !plain && /^[\s]*[=+\-@\t\r]/.test(text) ? "'" + text : text;  // no spreadsheet runs it
      return /[",\n\r]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
    };
    const heads = $$("thead th", table).map((head) => field(head.dataset.name ?? written(head)));
    const rows = shownRows(table).map((row) => [...row.cells].map((cell) => field(value(cell))));
    return [heads, ...rows].map((row) => row.join(",")).join("\n") + "\n";
  }

  function latex(table) {
    const signs = {
      "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}",
      "<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}",
    };
    const field = (text) => text.replace(/[\\~^<>|&%$#_{}]/g, (c) => signs[c] ?? "\\" + c).replace(/\s+/g, " ");
    const heads = $$("thead th", table);
    const line = (cells) => cells.map(field).join(" & ") + " \\\\";
    return [
      `\\begin{tabular}{${heads.map((h) => (h.classList.contains("number") ? "r" : "l")).join("")}}`,
      "\\hline", line(heads.map((h) => h.dataset.name ?? written(h))), "\\hline",
      ...shownRows(table).map((row) => line([...row.cells].map(written))),
      "\\hline", "\\end{tabular}", "",
    ].join("\n");
  }

  async function copy(text, tools) {
    const told = $(".told", tools);
    tools.parentNode.querySelector("textarea.copy")?.remove();
    try {
      await navigator.clipboard.writeText(text);
      told.textContent = "Copied.";
    } catch {
      const box = document.createElement("textarea");
      box.className = "copy";
      box.readOnly = true;
      box.value = text;
      box.setAttribute("aria-label", "Text to copy");
      tools.after(box);
      box.focus();
      box.select();
      told.textContent = "The clipboard was refused; copy the selected text.";
    }
  }

  function save(text, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = `${name}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  for (const tools of $$(".tools")) {
    const table = $(`table[data-name="${tools.dataset.for}"]`);
    for (const button of $$("button", tools)) {
      button.addEventListener("click", () => {
        if (button.dataset.do === "save") save(csv(table), tools.dataset.for);
        else copy(button.dataset.do === "csv" ? csv(table) : latex(table), tools);
      });
    }
  }

  recall();
})();
