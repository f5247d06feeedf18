// The embedded data: gzip in base64, unpacked once.

const ROOT = document.documentElement;

async function unpack(id) {
  const packed = document.getElementById(id).textContent;
  const bytes = Uint8Array.from(atob(packed), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

// A column's values as they are shown and searched: texts out of their dictionary, addresses out of their steps.
// Those are distances from the first, since numbers here are doubles, and a kernel's addresses do not fit one.
function expand(column) {
  if (column.texts) column.values = column.values.map((index) => column.texts[index]);
  if (column.steps) {
    let at = 0;
    column.values = column.steps.map((step) => (at += step));
  }
  column.floors = new Set(column.floor || []);
  return column;
}

const NARROW_SPACE = "\u202f";

function grouped(number) {
  return String(Math.round(number)).replace(/\B(?=(\d{3})+$)/g, NARROW_SPACE);
}

function bytesText(value, floor) {
  if (value === null || value === undefined) return "—";
  return (floor ? "≥" + NARROW_SPACE : "") + grouped(value) + NARROW_SPACE + "B";
}

function sizeText(value) {
  return value % 1024 === 0 && value ? grouped(value / 1024) + NARROW_SPACE + "KiB" : bytesText(value);
}

function cellText(column, row) {
  const value = column.values[row];
  if (column.kind === "bytes") return bytesText(value, column.floors.has(row));
  if (value === null || value === undefined) return "—";
  if (column.kind === "number") return grouped(value);
  if (column.kind === "address") return "0x" + (BigInt(column.first) + BigInt(value)).toString(16);
  return value;
}

// An element with attributes and children; texts are set as text, never parsed.
function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children) node.append(child);
  return node;
}

// A control and its label, kept on one line.
function field(text, control) {
  return make("span", { class: "field" }, make("label", { for: control.id }, text), control);
}
