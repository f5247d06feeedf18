// Charts by Plotly, in the page's colours; names are escaped, since Plotly reads markup in texts.

const CONFIG = { displaylogo: false, responsive: false, displayModeBar: false };
const RUNGS = { measured: "Measured", composed: "Composed", found: "Direct, chain found", direct: "Direct, upper bound", bound: "Bound" };
const MARKS = { measured: "circle", composed: "diamond", found: "line-ns", direct: "line-ns", bound: "triangle-right" };

function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function layout(more) {
  const axis = {
    gridcolor: colour("grid"), linecolor: colour("line"), zerolinecolor: colour("line"), tickcolor: colour("line"),
    tickfont: { size: 11 }, title: { font: { size: 12 } }, automargin: true,
  };
  const base = {
    font: { family: colour("sans"), size: 12, color: colour("text") },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 64, r: 20, t: 34, b: 44 },
    hoverlabel: { bgcolor: colour("raised"), bordercolor: colour("line"), font: { family: colour("mono"), size: 12, color: colour("text") } },
    legend: { orientation: "h", y: 1, yanchor: "bottom", x: 0, font: { size: 12 } },
    showlegend: true, xaxis: { ...axis, ...more.xaxis }, yaxis: { ...axis, ...more.yaxis },
  };
  const { xaxis, yaxis, ...rest } = more;
  return { ...base, ...rest };
}

// Draws again whenever colours change or the element gets another width.
function draw(plot, build, onclick) {
  const paint = () => {
    const width = printing ? Math.min(PAPER, plot.clientWidth) : plot.clientWidth;
    const { traces, frame, height } = build(width);
    plot.style.height = `${height}px`;
    Plotly.react(plot, traces, layout({ ...frame, height, width }), CONFIG);
  };
  paint();
  redraws.push(paint);
  if (onclick) plot.on("plotly_click", (event) => onclick(event.points[0].customdata));
  let width = plot.clientWidth;
  new ResizeObserver(() => {
    if (plot.isConnected && plot.clientWidth && plot.clientWidth !== width && !printing) {
      width = plot.clientWidth;
      paint();
    }
  }).observe(plot);
  return paint;
}

function limitLines(limits, axis) {
  const shapes = [], annotations = [];
  const along = axis === "y" ? "x" : "y";
  for (const [name, value] of limits) {
    shapes.push({ type: "line", [`${along}ref`]: "paper", [`${along}0`]: 0, [`${along}1`]: 1, [`${axis}0`]: value, [`${axis}1`]: value,
      line: { color: colour("limit"), width: 1.5, dash: "dash" } });
    annotations.push({ xref: "paper", x: 1, y: value, text: plain(name), showarrow: false, xanchor: "right", yanchor: "bottom",
      font: { color: colour("limit"), size: 11 }, bgcolor: colour("page") });
  }
  return { shapes, annotations };
}

// Annotations on a logarithmic axis are placed by exponent, shapes by value.
function logLines(limits) {
  const lines = limitLines(limits, "y");
  lines.annotations.forEach((one) => (one.y = Math.log10(one.y)));
  return lines;
}

const POWERS = [64, 256, 1024, 4096, 16384, 65536, 262144, 1048576];
const logAxis = () => ({ type: "log", tickvals: POWERS, ticktext: POWERS.map((value) => (value < 1024 ? `${value} B` : `${value / 1024} KiB`)) });

// ---------------------------------------------------------------- kinds of figures that any command uses

function drawBars(plot, data) {
  const groups = data.groups.map(plain);
  const single = data.series.length === 1;
  draw(plot, () => ({
    height: (single ? 60 : 90) + 26 * groups.length * data.series.length,
    traces: data.series.map((one, index) => ({
      type: "bar", orientation: "h", name: plain(one.name), y: groups, x: one.y, marker: { color: colour(`series-${index % 6}`) },
      error_x: one.low.length ? {
        type: "data", symmetric: false, array: one.high.map((high, at) => high - one.y[at]), arrayminus: one.low.map((low, at) => one.y[at] - low),
        color: colour("text"), thickness: 1, width: 4,
      } : undefined,
      text: one.y.map((value) => (value === null ? "none" : ` ${grouped(value)} `)), textposition: "outside", cliponaxis: false,
      hovertemplate: "%{y}<br>%{fullData.name}: %{text}<extra></extra>",
    })),
    frame: {
      showlegend: !single, barmode: "group", bargap: 0.3, margin: { l: 64, r: 70, t: single ? 4 : 34, b: 44 },
      xaxis: { title: { text: plain(data.axis) }, rangemode: "tozero", tickformat: ",d" }, yaxis: { type: "category", autorange: "reversed", showgrid: false },
    },
  }));
}

function drawLines(plot, data) {
  const tone = (index) => (data.stacked ? colour(`order-${Math.min(index, 10)}`) : colour(`series-${index % 6}`));
  draw(plot, () => ({
    height: 320,
    traces: data.series.map((one, index) => ({
      type: "scatter", mode: "lines", name: plain(one.name), x: one.x, y: one.y, stackgroup: data.stacked ? "all" : undefined,
      line: { width: data.stacked ? 0 : 1.8, color: tone(index), dash: !data.stacked && index > 5 ? "dot" : "solid" }, fillcolor: data.stacked ? tone(index) : undefined,
      hovertemplate: `%{y:,.2~f}<extra>${plain(one.name)}</extra>`,
    })),
    frame: {
      hovermode: "x unified", xaxis: { title: { text: plain(data.axes[0]) }, tickformat: ",d" },
      yaxis: { title: { text: plain(data.axes[1]) }, ...(data.top ? { range: [0, data.top] } : { rangemode: "tozero" }) }, ...limitLines(data.limits, "y"),
    },
  }));
}

// One line a stack: its size as a tick, needs as marks.
function drawLadders(plot, data) {
  const stacks = [...data.stacks].reverse();
  draw(plot, () => {
    const names = stacks.map((stack) => plain(stack.name));
    const spans = stacks.filter((stack) => stack.found !== null && stack.direct !== null && stack.direct > stack.found);
    const traces = !spans.length ? [] : [{
      type: "scatter", mode: "lines", name: "Direct: found … upper", hoverinfo: "skip", line: { color: colour("direct"), width: 7 }, opacity: 0.35,
      x: spans.flatMap((stack) => [stack.found, stack.direct, null]), y: spans.flatMap((stack) => [plain(stack.name), plain(stack.name), null]),
    }];
    for (const [key, name] of Object.entries(RUNGS)) {
      const values = stacks.map((stack) => stack[key]);
      if (values.every((value) => value === null)) continue;
      traces.push({
        type: "scatter", mode: "markers", name, x: values, y: names, marker: { symbol: MARKS[key], size: key === "found" || key === "direct" ? 12 : 10, color: colour(key), line: { width: 2, color: colour(key) } },
        text: values.map((value) => bytesText(value)), hovertemplate: "%{y}<br>%{fullData.name}: %{text}<extra></extra>",
      });
    }
    traces.push({
      type: "scatter", mode: "markers", name: "Size of the stack", x: stacks.map((stack) => stack.size), y: names,
      marker: { symbol: "line-ns", size: 22, line: { width: 3, color: colour("limit") }, color: colour("limit") },
      text: stacks.map((stack) => sizeText(stack.size)), hovertemplate: "%{y}<br>size: %{text}<extra></extra>",
    });
    return { traces, height: 110 + 30 * stacks.length, frame: { xaxis: logAxis(), yaxis: { type: "category", categoryorder: "array", categoryarray: names, showgrid: false }, margin: { l: 64, r: 20, t: 34, b: 36 } } };
  });
}
