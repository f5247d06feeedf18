// Puts the page together: data, tables, charts, details.

async function start() {
  startTheme();
  const data = JSON.parse(await unpack("data"));
  let details = null;
  const open = (kind, row) => details && details.open(kind, row);
  const tables = {};
  for (const place of document.querySelectorAll(".records")) {
    const key = place.dataset.key;
    tables[key] = new DataTable(place, key, data.tables[key], open);
  }
  if (Object.keys(data.figures).length) {
    const script = document.createElement("script");
    script.textContent = await unpack("plotly");
    document.head.append(script);
  }
  const chains = tables.contexts && tables.frames ? new Chains(data, tables, open) : null;
  const drawings = {
    bars: (figure, spec) => drawBars(figure.querySelector(".plot"), spec),
    lines: (figure, spec) => drawLines(figure.querySelector(".plot"), spec),
    ladders: (figure, spec) => drawLadders(figure.querySelector(".plot"), spec),
    icicle: (figure) => chains.drawIcicle(figure),
    ranks: (figure) => chains.drawRanks(figure),
  };
  for (const figure of document.querySelectorAll("figure[data-key]")) {
    const { kind, data: spec } = data.figures[figure.dataset.key];
    drawings[kind](figure, spec);
  }
  if (chains) details = new Details(chains);
  performance.mark("ready");
  ROOT.dataset.ready = "yes";
}

start().catch((error) => {
  const problem = document.getElementById("problem");
  problem.textContent = `The tables and charts cannot be shown in this browser: ${error.message}`;
  problem.hidden = false;
  throw error;
});
