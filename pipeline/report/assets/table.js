"use strict";
// The table of videos: sorted by a click on a column, filtered by text, status and quality.
(() => {
  const data = report.run;
  const table = report.byId("table");
  if (!table) return;
  const columns = [
    { key: "name", label: "video", show: (v) => v },
    { key: "status", label: "status", show: (v) => v },
    { key: "seconds", label: "length", show: report.clock },
    { key: "people", label: "people", show: (v) => v.toLocaleString("en") },
    { key: "perHour", label: "people an hour", show: (v) => Math.round(v).toLocaleString("en") },
    { key: "quality", label: "quality", show: (v) => v.toFixed(2) },
    { key: "low", label: "low quality", show: (v) => `${(100 * v).toFixed(0)} %` },
    { key: "cuts", label: "cuts", show: String },
    { key: "frames", label: "frames", show: (v) => v.toLocaleString("en") },
    { key: "rate", label: "frames/s", show: (v) => v.toFixed(1) },
    { key: "note", label: "note", show: (v) => v },
  ].filter((column) => column.key !== "note" || data.note.some((text) => text));
  const PAGE = 100;
  const state = { key: "quality", up: true, rows: [], shown: PAGE };

  const filtered = () => {
    const words = report.byId("text").value.toLowerCase();
    const status = report.byId("status").value;
    const [low, high] = (report.byId("quality").value || "0-9").split("-").map(Number);
    return data.name.map((_, row) => row).filter((row) =>
      (!words || `${data.name[row]} ${data.note[row]}`.toLowerCase().includes(words)) &&
      (!status || data.status[row] === status) &&
      data.quality[row] >= low && data.quality[row] < high);
  };

  const sorted = (rows) => {
    const values = data[state.key];
    const texts = new Intl.Collator("en", { numeric: true });
    const order = typeof values[0] === "string"
      ? (a, b) => texts.compare(values[a], values[b])
      : (a, b) => values[a] - values[b];
    return rows.sort((a, b) => (state.up ? order(a, b) : order(b, a)) || a - b);
  };

  const line = (row) => report.element("tr", {}, ...columns.map((column) => {
    const text = column.show(data[column.key][row]);
    const cell = report.element("td", { className: column.key });
    cell.dataset.label = column.label;
    if (column.key === "name" && data.page[row]) {
      cell.append(report.element("a", {
        href: `videos/${encodeURIComponent(data.page[row])}/index.html`, textContent: text,
      }));
    } else cell.append(text);
    return cell;
  }));

  const draw = () => {
    table.tBodies[0].replaceChildren(...state.rows.slice(0, state.shown).map(line));
    report.byId("more").hidden = state.rows.length <= state.shown;
    report.byId("shown").textContent = `${state.rows.length} of ${data.name.length} videos`;
    for (const head of table.tHead.rows[0].cells) {
      const mine = head.dataset.key === state.key;
      head.setAttribute("aria-sort", mine ? (state.up ? "ascending" : "descending") : "none");
    }
    report.byId("sort").value = `${state.key} ${state.up ? "up" : "down"}`;
  };

  const update = () => {
    state.rows = sorted(filtered());
    state.shown = PAGE;
    draw();
  };

  const sortBy = (key, up) => {
    state.key = key;
    state.up = up;
    update();
  };

  table.tHead.append(report.element("tr", {}, ...columns.map(({ key, label }) => {
    const button = report.element("button", { type: "button", textContent: label });
    button.addEventListener("click", () => sortBy(key, state.key === key ? !state.up : true));
    const head = report.element("th", { scope: "col" }, button);
    head.dataset.key = key;
    return head;
  })));
  for (const { key, label } of columns) {
    for (const [way, words] of [["up", "ascending"], ["down", "descending"]]) {
      report.byId("sort").append(new Option(`${label}, ${words}`, `${key} ${way}`));
    }
  }
  report.byId("sort").addEventListener("change", (event) => {
    const [key, way] = event.target.value.split(" ");
    sortBy(key, way === "up");
  });
  for (const id of ["text", "status", "quality"]) report.byId(id).addEventListener("input", update);
  report.byId("filters").addEventListener("submit", (event) => event.preventDefault());
  report.byId("more").addEventListener("click", () => {
    state.shown += 5 * PAGE;
    draw();
  });
  update();
})();
