"use strict";
// Sorting, filtering, and the pictures of a row, drawn when it is opened. The table itself is there without this.
(() => {
  const record = JSON.parse(document.getElementById("record").textContent);
  const svgName = "http://www.w3.org/2000/svg";

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function drawn(name, attributes, text) {
    const made = document.createElementNS(svgName, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // What does not print is escaped as in the table, which Python has written.
  function printable(text) {
    return text.replace(/(?! )[\p{C}\p{Z}]/gu, (letter) => {
      const short = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }[letter];
      const code = letter.codePointAt(0);
      const [mark, digits] = code < 0x100 ? ["x", 2] : code < 0x10000 ? ["u", 4] : ["U", 8];
      return short || `\\${mark}${code.toString(16).padStart(digits, "0")}`;
    });
  }

  function shown(value) {
    if (value === null || value === undefined) return "-";
    if (Array.isArray(value)) return value.map(shown).join(", ");
    if (typeof value === "object") return printable(JSON.stringify(value));
    if (typeof value !== "number" || Number.isInteger(value)) return printable(String(value)) || "''";
    return String(Number(value.toPrecision(6)));
  }

  // -- tables ---------------------------------------------------------------------------------------------------------

  function close(row) {
    const button = row.querySelector("button.open");
    if (button && button.getAttribute("aria-expanded") === "true") button.click();
  }

  function sortBy(table, header) {
    const columns = [...header.parentElement.children];
    const place = columns.indexOf(header);
    const falling = header.getAttribute("aria-sort") === "ascending";
    columns.forEach((each) => each.setAttribute("aria-sort", "none"));
    header.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = [...body.querySelectorAll("tr[data-place]")];
    rows.forEach(close);
    const numbers = header.classList.contains("number");
    const valueOf = (row) => row.children[place].dataset.value;
    rows.sort((a, b) => {
      const [x, y] = [valueOf(a), valueOf(b)];
      if (x === "" || y === "") return (x === "") - (y === "") || a.dataset.place - b.dataset.place;
      const order = numbers ? Number(x) - Number(y) : x.localeCompare(y, "en", { numeric: true });
      return (falling ? -order : order) || a.dataset.place - b.dataset.place;
    });
    body.append(...rows);
  }

  function filter(table, text, count) {
    const rows = [...table.tBodies[0].querySelectorAll("tr[data-place]")];
    const wanted = text.trim().toLowerCase();
    let left = 0;
    for (const row of rows) {
      const kept = row.children[0].dataset.value.toLowerCase().includes(wanted);
      if (!kept) close(row);
      row.hidden = !kept;
      left += kept;
    }
    count.textContent = `${left} of ${rows.length} rows`;
  }

  // -- pictures -------------------------------------------------------------------------------------------------------

  const size = { width: 380, height: 240, left: 46, right: 12, top: 10, bottom: 38 };

  // The ends of an axis are its values on the left and on the right (below and above).
  function axes(title, [xTitle, xEnds, logarithmic], [yTitle, yEnds]) {
    const svg = drawn("svg", { viewBox: `0 0 ${size.width} ${size.height}`, role: "img", "aria-label": title });
    const scale = (value) => (logarithmic ? Math.log10(value) : value);
    const [first, last] = xEnds.map(scale);
    const [low, high] = yEnds;
    const [right, foot] = [size.width - size.right, size.height - size.bottom];
    const x = (value) => size.left + ((scale(value) - first) / (last - first || 1)) * (right - size.left);
    const y = (value) => foot - ((value - low) / (high - low || 1)) * (foot - size.top);
    const label = (attributes, value) => svg.append(drawn("text", attributes, value));
    svg.append(drawn("path", { class: "axis", d: `M${size.left} ${size.top}V${foot}H${right}` }));
    const steps = [0, 0.25, 0.5, 0.75, 1];
    for (const step of steps) {
      const value = low + step * (high - low);
      label({ x: size.left - 5, y: y(value) + 4, "text-anchor": "end" }, shown(value));
    }
    const powers = Array.from({ length: 20 }, (_, i) => 10 ** -i).filter((p) => p >= xEnds[0] && p <= xEnds[1]);
    for (const value of logarithmic ? powers : steps.map((step) => first + step * (last - first))) {
      label({ x: x(value), y: foot + 14, "text-anchor": "middle" }, shown(value));
    }
    label({ x: (size.left + right) / 2, y: size.height - 6, "text-anchor": "middle" }, xTitle);
    label({ x: 12, y: foot / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${foot / 2})` }, yTitle);
    return { svg, x, y };
  }

  function path(points) {
    return points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  }

  function figure(svg, text) {
    return element("figure", {}, svg, element("figcaption", {}, text));
  }

  function retention(curve) {
    const ends = [curve.density[0], curve.density[curve.density.length - 1]];
    const { svg, x, y } = axes("Share of the forest kept, by density", ["density", ends, true], ["forest kept", [0, 1]]);
    const known = curve.density.map((d, i) => [d, curve.low[i], curve.high[i], curve.expected[i]]).filter((p) => p[3] !== null);
    if (known.length) {
      const above = known.map((p) => [x(p[0]), y(p[1])]);
      const below = known.map((p) => [x(p[0]), y(p[2])]).reverse();
      svg.append(drawn("path", { class: "band", d: `${path([...above, ...below])}Z` }));
      svg.append(drawn("path", { class: "chance", d: path(known.map((p) => [x(p[0]), y(p[3])])) }));
    }
    svg.append(drawn("path", { class: "measured", d: path(curve.density.map((d, i) => [x(d), y(curve.measured[i])])) }));
    return figure(svg, "What magnitude pruning keeps of the spanning forest at each density (line), and what it would keep of "
      + "the same weights in random order (dashed, with two standard deviations). Where the line is below 1, topology is "
      + "lost; where it is below the dashed one, more than by chance.");
  }

  function merges(deaths) {
    const { svg, x, y } = axes("Components left, by threshold", ["threshold, over the largest weight", [1, 0], false],
      ["components left", [0, 1]]);
    const points = [[x(1), y(1)]];
    deaths.forEach((death, i) => points.push([x(death), y(1 - i / deaths.length)], [x(death), y(1 - (i + 1) / deaths.length)]));
    svg.append(drawn("path", { class: "measured", d: path(points) }));
    return figure(svg, "Weights enter from the largest down, left to right. Each step is a merge of two components, a point of "
      + "the persistence diagram. A long way to the last ones means neurons that hang on small weights.");
  }

  function details(row) {
    const pictures = element("div", { class: "pictures" });
    const curves = row.curves || {};
    if (curves.density) pictures.append(retention(curves));
    if (curves.deaths && curves.deaths.length) pictures.append(merges(curves.deaths));
    const facts = element("ul", { class: "facts" });
    for (const [key, value] of Object.entries(row)) {
      if (key !== "curves" && key !== "schema_version") facts.append(element("li", { "data-key": key }, `${key}: ${shown(value)}`));
    }
    const box = element("div", {}, element("h3", {}, shown(row.name)));
    if (row.reason) box.append(element("p", {}, shown(row.reason)));
    if (pictures.childElementCount) box.append(pictures);
    box.append(facts);
    return box;
  }

  function toggle(table, button) {
    const row = button.closest("tr");
    const opened = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!opened));
    const id = button.getAttribute("aria-controls");
    if (opened) {
      document.getElementById(id).remove();
      return;
    }
    const cell = element("td", { colspan: row.children.length }, details(record[table.dataset.table][Number(row.dataset.place)]));
    row.after(element("tr", { id, class: "details" }, cell));
  }

  for (const table of document.querySelectorAll("table[data-table]")) {
    for (const header of table.tHead.rows[0].cells) {
      header.querySelector("button").addEventListener("click", () => sortBy(table, header));
    }
    table.tBodies[0].addEventListener("click", (event) => {
      const button = event.target.closest("button.open");
      if (button) toggle(table, button);
    });
    const id = table.dataset.table;
    const input = document.querySelector(`input[data-filter="${id}"]`);
    const count = document.querySelector(`[data-count="${id}"]`);
    if (input) input.addEventListener("input", () => filter(table, input.value, count));
  }
})();
