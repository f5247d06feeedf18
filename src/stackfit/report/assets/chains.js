// Charts of contexts and their chains. A chain is a flat list: row of the frame, bytes, how the next is reached.

const NARROWEST_LABEL = 11;  // pixels of a block's height that still takes a line of text
const LETTER = 6.4;  // pixels

class Chains {
  constructor(data, tables, open) {
    this.data = data;
    this.open = open;
    this.contexts = tables.contexts;
    this.frames = tables.frames;
  }

  frameName(row) {
    return row < 0 ? "(entry frame)" : this.frames.column("name").values[row];
  }

  module(row) {
    return row < 0 ? "" : this.frames.column("module").values[row];
  }

  value(key, row) {
    return this.contexts.column(key).values[row];
  }

  title(row) {
    return `${this.value("kind", row)} ${this.value("name", row)}`;
  }

  // Rows of a chain from the stack's top: {row, bytes, total, kind, rung, evidence}; kind … say how the next is reached.
  rows(number) {
    const flat = number < 0 ? [] : this.data.chains[number];
    const rows = [];
    let total = 0;
    for (let at = 0; at < flat.length; at += 3) {
      const [kind, rung, evidence] = this.data.hows[flat[at + 2]];
      total += flat[at + 1];
      rows.push({ row: flat[at], bytes: flat[at + 1], total, kind, rung, evidence });
    }
    return rows;
  }

  // [name, bytes] of each size that a stack of that name has, in any layout; equal ones share a line.
  limits(stack) {
    const bySize = new Map();
    for (const one of this.data.stacks) {
      if (one.name !== stack) continue;
      bySize.set(one.usable, [...(bySize.get(one.usable) || []), `${sizeText(one.size)} ${one.layout}`]);
    }
    return [...bySize].map(([usable, names]) => [names.join(", "), usable]);
  }

  // Contexts whose deepest chain has the frame, of the layout that the table of contexts shows first.
  through(frame) {
    const layout = this.contexts.spec.only.layout;
    const found = [];
    for (let row = 0; row < this.contexts.size; row++) {
      if (this.value("layout", row) !== layout) continue;
      const flat = this.data.contexts.chain[row] < 0 ? [] : this.data.chains[this.data.contexts.chain[row]];
      for (let at = 0; at < flat.length; at += 3) {
        if (flat[at] === frame) {
          found.push(row);
          break;
        }
      }
    }
    return found.sort((a, b) => this.value("found", b) - this.value("found", a) || a - b);
  }

  // ---------------------------------------------------------------- the icicle

  drawIcicle(figure) {
    const plot = figure.querySelector(".plot");
    const controls = figure.querySelector(".controls");
    const stacks = this.data.stacks.filter((one) => one.chain >= 0);
    if (!stacks.length) {
      plot.replaceWith(make("p", { class: "prose" }, "No chain is known."));
      return;
    }
    const which = make("select", { id: "icicle-stack" }, ...stacks.map((one, index) =>
      make("option", { value: index }, `${one.layout} · ${one.name}`)));
    const rung = make("select", { id: "icicle-rung" }, make("option", { value: "chain" }, "deepest direct"));
    if (this.data.contexts.composed.some((number) => number >= 0)) {
      rung.append(make("option", { value: "composed" }, "composed: calls that were all seen running"));
    }
    const many = make("select", { id: "icicle-many" }, ...[1, 4, 8, 16, 32].map((n) => make("option", { value: n }, n)));
    many.value = matchMedia("(max-width: 700px)").matches ? 4 : 8;
    const scale = make("select", { id: "icicle-scale" }, make("option", { value: "overview" }, "overview"), make("option", { value: "names" }, "room for names"));
    controls.append(field("Stack", which), field("chains", rung), field("columns", many), field("scale", scale));
    const build = (width) => this.icicle(stacks[which.value], rung.value, Number(many.value), scale.value === "names", width);
    const paint = draw(plot, build, (node) => node && node.row >= 0 && this.open("frame", node.row));
    for (const select of [which, rung, many, scale]) select.addEventListener("change", paint);
  }

  // The deepest contexts of a stack; of contexts with the same chain only the first.
  columns(stack, rung, many) {
    const numbers = this.data.contexts[rung];
    const key = rung === "chain" ? "found" : "composed";
    const rows = this.contexts.column("layout").values
      .map((layout, row) => row)
      .filter((row) => this.value("layout", row) === stack.layout && this.value("stack", row) === stack.name && numbers[row] >= 0)
      .sort((a, b) => this.value(key, b) - this.value(key, a) || a - b);
    const seen = new Map();
    for (const row of rows) {
      if (seen.has(numbers[row])) seen.get(numbers[row]).more++;
      else if (seen.size < many) seen.set(numbers[row], { title: this.title(row), number: numbers[row], more: 0 });
    }
    return [...seen.values()];
  }

  // Chains as a tree of common beginnings, laid out: {row, bytes, top, from, to, kind…} for each block.
  blocks(columns) {
    const root = { children: new Map(), deepest: 0 };
    for (const column of columns) {
      let node = root;
      let how = { kind: "entry", rung: "", evidence: "proved" };
      for (const one of this.rows(column.number)) {
        const key = `${one.row} ${one.bytes} ${how.kind}`;
        if (!node.children.has(key)) {
          node.children.set(key, { ...one, kind: how.kind, rung: how.rung, evidence: how.evidence, top: one.total - one.bytes, ends: one.kind, children: new Map(), deepest: 0, column: null });
        }
        node = node.children.get(key);
        node.deepest = Math.max(node.deepest, this.rows(column.number).at(-1).total);
        how = one;
      }
      node.column = column;
    }
    const blocks = [], leaves = [];
    const place = (node) => {
      const from = leaves.length;
      const children = [...node.children.values()].sort((a, b) => b.deepest - a.deepest || a.row - b.row);
      children.forEach(place);
      if (node.column) leaves.push(node.column);
      if (node !== root) blocks.push({ ...node, from, to: leaves.length });
    };
    place(root);
    return { blocks, leaves };
  }

  // What colours a block: how control came there, and whose code it is.
  shade(block) {
    if (block.row < 0) return ["Entry frame", "entry"];
    if (block.ends === "cut") return ["Cut: charge (assumed)", "cut"];
    if (block.kind === "exception") return ["Exception handler", "exception"];
    if (block.evidence !== "proved") return ["Reached by an assumption", "assumed"];
    return this.module(block.row) ? ["Module", "module"] : ["Kernel", "kernel"];
  }

  // Pixels: a screenful, or as many as give most frames a line of text.
  height(blocks, depth, roomy) {
    if (!roomy) return Math.min(860, Math.max(420, 90 + 20 * blocks.length));
    const sizes = blocks.map((block) => block.bytes).filter((bytes) => bytes > 0).sort((a, b) => a - b);
    const small = sizes[Math.floor(sizes.length / 4)] || 64;
    return Math.min(6000, Math.max(420, 90 + (depth * (NARROWEST_LABEL + 2)) / small));
  }

  icicle(stack, rung, many, roomy, width) {
    const { blocks, leaves } = this.blocks(this.columns(stack, rung, many));
    const limits = this.limits(stack.name);
    const deepest = Math.max(...blocks.map((block) => block.top + block.bytes), 1);
    const shown = limits.filter(([, usable]) => usable <= 4 * deepest);
    const depth = Math.max(deepest, ...shown.map(([, usable]) => usable)) * 1.03;
    const height = this.height(blocks, depth, roomy);
    const perByte = (height - 90) / depth;
    const perColumn = Math.max(width - 92, 100) / leaves.length;
    const groups = new Map();
    for (const block of blocks) {
      const [name, tone] = this.shade(block);
      if (!groups.has(name)) groups.set(name, { tone, blocks: [] });
      groups.get(name).blocks.push(block);
    }
    const label = (block) => {
      const letters = Math.floor(((block.to - block.from) * perColumn - 6) / LETTER);
      if (block.bytes * perByte < NARROWEST_LABEL || letters < 4) return "";
      const name = this.frameName(block.row);
      const whole = `${name}  ${grouped(block.bytes)}`;
      return plain(whole.length <= letters ? whole : name.length <= letters ? name : `${name.slice(0, letters - 1)}…`);
    };
    const hover = (block) => {
      const module = this.module(block.row);
      const how = block.kind === "entry" ? "" : `<br>reached by: ${plain(block.kind)}${block.rung ? `, ${plain(block.rung)}` : ""} (${plain(block.evidence)})`;
      return `<b>${plain(this.frameName(block.row))}</b>${module ? ` [${plain(module)}]` : ""}<br>${grouped(block.bytes)} B, down to ${grouped(block.top + block.bytes)} B${how}`;
    };
    const traces = [...groups].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, group]) => ({
      type: "bar", name,
      x: group.blocks.map((block) => (block.from + block.to) / 2), width: group.blocks.map((block) => block.to - block.from),
      base: group.blocks.map((block) => block.top), y: group.blocks.map((block) => block.bytes), customdata: group.blocks.map((block) => ({ row: block.row })),
      marker: { color: colour(`chain-${group.tone}`), line: { color: colour("chain-line"), width: 0.5 } },
      text: group.blocks.map(label), textposition: "inside", insidetextanchor: "middle", textangle: 0, constraintext: "none",
      insidetextfont: { family: colour("mono"), size: 10.5, color: colour(`on-${group.tone}`) },
      hovertext: group.blocks.map(hover), hovertemplate: "%{hovertext}<extra></extra>",
    }));
    const lines = limitLines(shown, "y");
    lines.annotations.forEach((one) => Object.assign(one, { yanchor: "top" }));
    const letters = Math.floor(perColumn / LETTER) - 1;
    return {
      traces, height,
      frame: {
        barmode: "overlay", ...lines, margin: { l: 76, r: 16, t: 34, b: 30 },
        xaxis: {
          range: [0, leaves.length], fixedrange: true, tickvals: leaves.map((_, at) => at + 0.5), showgrid: false, zeroline: false, side: "bottom", tickangle: 0,
          ticktext: leaves.map((leaf) => plain(shorten(leaf.title + (leaf.more ? ` +${leaf.more}` : ""), letters))), automargin: false,
        },
        yaxis: { range: [depth, 0], fixedrange: true, title: { text: "bytes from the stack's top" }, tickformat: ",d", zeroline: false },
      },
    };
  }

  // ---------------------------------------------------------------- all contexts

  drawRanks(figure) {
    const plot = figure.querySelector(".plot");
    const layout = this.contexts.spec.only.layout;
    const rows = Array.from({ length: this.contexts.size }, (_, row) => row)
      .filter((row) => this.value("layout", row) === layout && this.value("direct", row) !== null)
      .sort((a, b) => this.value("direct", b) - this.value("direct", a) || a - b);
    const process = this.data.stacks.find((one) => one.layout === layout);
    draw(plot, () => ({
      height: 360,
      traces: ["bound", "direct", "composed", "measured"].filter((key) => rows.some((row) => this.value(key, row) !== null)).map((key) => ({
        type: "scatter", mode: "markers", name: RUNGS[key], x: rows.map((_, at) => at + 1), y: rows.map((row) => this.value(key, row)), customdata: rows,
        marker: { color: colour(key), symbol: key === "direct" ? "circle" : MARKS[key], size: key === "direct" ? 4 : 6 },
        hovertext: rows.map((row) => `<b>${plain(this.title(row))}</b> on ${plain(this.value("stack", row))}<br>${RUNGS[key]}: ${bytesText(this.value(key, row))}`),
        hovertemplate: "%{hovertext}<extra></extra>",
      })),
      frame: {
        xaxis: { title: { text: `contexts under ${plain(layout)}, by direct` }, zeroline: false }, yaxis: logAxis(),
        ...logLines(process ? this.limits(process.name) : []),
      },
    }), (row) => this.open("context", row));
  }

  // ---------------------------------------------------------------- one context's ladder

  drawLadder(plot, row) {
    const hops = this.data.contexts.hops[row];
    const rungs = [["measured", this.value("measured", row), "measured"], ["composed", this.value("composed", row), "composed"],
      ["chain found", this.value("found", row), "found"], ["direct", this.value("direct", row), "direct"],
      ...hops.slice(1).map((value, at) => [`${at + 1} hop${at ? "s" : ""}`, value, "bound"]), ["bound", this.value("bound", row), "bound"]];
    const names = rungs.map(([name]) => name);
    const limits = this.limits(this.value("stack", row));
    const lines = logLines(limits);
    const known = [...rungs.map(([, value]) => value), ...limits.map(([, usable]) => usable)].filter((value) => value > 0);
    const range = [Math.log10(Math.min(...known)) - 0.5, Math.log10(Math.max(...known)) + 0.2];
    const nothing = rungs.filter(([, value]) => value === null).map(([name]) => ({
      xref: "x", x: name, yref: "paper", y: 0, yanchor: "bottom", showarrow: false, text: "none", font: { size: 10, color: colour("faint") },
    }));
    draw(plot, () => ({
      height: 270,
      traces: [{
        type: "scatter", mode: "markers", x: names, y: rungs.map(([, value]) => value), marker: { size: 9, color: rungs.map(([, , tone]) => colour(tone)) },
        hovertext: rungs.map(([name, value]) => `${name}: ${bytesText(value)}`), hovertemplate: "%{hovertext}<extra></extra>",
      }],
      frame: {
        showlegend: false, xaxis: { type: "category", categoryorder: "array", categoryarray: names, range: [-0.6, names.length - 0.4], tickangle: -45, fixedrange: true },
        yaxis: { ...logAxis(), range, fixedrange: true }, margin: { l: 56, r: 12, t: 12, b: 60 }, shapes: lines.shapes, annotations: [...lines.annotations, ...nothing],
      },
    }));
  }
}

function shorten(text, letters) {
  return text.length <= letters ? text : `${text.slice(0, Math.max(letters - 1, 1))}…`;
}
