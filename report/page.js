/* Draws the plots of a report with uPlot, which the page has inline, in the scheme of the moment. */
(() => {
  const data = JSON.parse(document.getElementById("plots").textContent);
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("scheme");
  /** undefined: as the system has it. */
  let chosen;
  let drawn = [];

  const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [5, 5], [14, 4], [2, 6], [8, 2, 2, 2, 2, 2]];
  const HEIGHT = 300;

  function colour(name) {
    return getComputedStyle(root).getPropertyValue(name).trim();
  }

  function seriesColour(index) {
    return colour(`--c${index % 8}`);
  }

  function scale(log, range) {
    const own = range && (log ? fromDigit(range) : range);
    return { time: false, distr: log ? 3 : 1, ...(own ? { range: () => own } : {}) };
  }

  /** A logarithmic axis counts in steps from its lower end: that has to be a round number. */
  function fromDigit([low, high]) {
    const decade = 10 ** Math.floor(Math.log10(low));
    return [Math.floor(low / decade) * decade, high];
  }

  /** Where an axis is logarithmic, 1, 2, 3, 5 and 7 of each decade are told. */
  function told(_plot, splits) {
    return splits.map((value) => {
      const digit = value / 10 ** Math.floor(Math.log10(value) + 1e-9);
      return [1, 2, 3, 5, 7].some((one) => Math.abs(digit - one) < 1e-6) ? value : null;
    });
  }

  /** Counts its labels into `labels` under `name`. */
  function axis(label, size, log, labels, name) {
    const line = colour("--line");
    return {
      label,
      stroke: colour("--text"),
      labelSize: 22,
      size,
      grid: { stroke: line, width: 1 },
      ticks: { stroke: line, width: 1 },
      values: (_plot, splits) => {
        const texts = numbers(splits);
        labels[name] = texts.filter((text) => text !== "").length;
        return texts;
      },
      ...(log ? { filter: told } : {}),
    };
  }

  function numbers(splits) {
    return splits.map((value) => (value === null ? "" : String(Number(value.toPrecision(6)))));
  }

  function seriesOptions(plot, series) {
    const stroke = seriesColour(series.colour);
    const base = { label: series.name, stroke, spanGaps: true };
    if (plot.kind === "points") {
      return {
        ...base,
        paths: () => null,
        points: { show: true, size: 5, fill: stroke, width: 0 },
      };
    }
    const dash = DASHES[series.colour % DASHES.length];
    const paths = plot.kind === "steps" ? uPlot.paths.stepped({ align: 1 }) : undefined;
    return { ...base, width: 2, dash, points: { show: false }, ...(paths ? { paths } : {}) };
  }

  /** Captures as bands, at least a pixel and a half wide. */
  function drawMarks(marks) {
    return (chart) => {
      const { ctx, bbox } = chart;
      ctx.save();
      ctx.beginPath();
      ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
      ctx.clip();
      ctx.globalAlpha = 0.45;
      ctx.fillStyle = colour("--mark");
      for (const [from, to] of marks) {
        const left = chart.valToPos(from, "x", true);
        const right = chart.valToPos(to, "x", true);
        ctx.fillRect(left, bbox.top, Math.max(1.5 * devicePixelRatio, right - left), bbox.height);
      }
      ctx.restore();
    };
  }

  /** Series with times of their own on one axis; steps hold their value until the next one. */
  function aligned(plot) {
    const tables = plot.series.map(({ x, y }) => [x, y]);
    if (tables.length === 1) return tables[0];
    const joined = uPlot.join(tables);
    if (plot.kind !== "steps") return joined;
    const [xs, ...columns] = joined;
    return [
      xs,
      ...columns.map((column, index) => {
        const end = tables[index][0].at(-1);
        let held = null;
        return column.map((value, at) => {
          if (value !== null && value !== undefined) held = value;
          return xs[at] > end ? null : held;
        });
      }),
    ];
  }

  function draw(element, plot) {
    const labels = {};
    const options = {
      width: Math.max(240, element.clientWidth),
      height: HEIGHT,
      legend: { show: false },
      cursor: { drag: { x: true, y: false } },
      scales: { x: scale(plot.xLog, plot.xRange), y: scale(plot.yLog, plot.yRange) },
      axes: [
        axis(plot.xLabel, 34, plot.xLog, labels, "x"),
        axis(plot.yLabel, 58, plot.yLog, labels, "y"),
      ],
      series: [{ label: plot.xLabel }, ...plot.series.map((series) => seriesOptions(plot, series))],
      hooks: {
        drawClear: [drawMarks(plot.marks)],
        draw: [() => Object.assign(element.dataset, { xLabels: labels.x, yLabels: labels.y })],
      },
    };
    element.replaceChildren();
    return new uPlot(options, aligned(plot), element);
  }

  function drawAll() {
    const scheme = chosen ?? (dark.matches ? "dark" : "light");
    root.dataset.scheme = scheme;
    button.textContent = `Colours: ${chosen ?? "as the system"}`;
    for (const chart of drawn) chart.destroy();
    const places = [...document.querySelectorAll("[data-plot]")];
    drawn = places.map((element) => draw(element, data[Number(element.dataset.plot)]));
    for (const key of document.querySelectorAll("[data-key]")) {
      const line = key.querySelector("line");
      const index = Number(key.dataset.key);
      line.style.stroke = key.dataset.mark === undefined ? seriesColour(index) : colour("--mark");
      line.setAttribute("stroke-dasharray", key.dataset.plain ? "" : DASHES[index % 8].join(" "));
    }
    root.dataset.drawn = String(drawn.length);
  }

  function resize() {
    for (const chart of drawn) {
      const width = Math.max(240, chart.root.parentElement.clientWidth);
      if (width !== chart.width) chart.setSize({ width, height: HEIGHT });
    }
  }

  button.hidden = false;
  button.addEventListener("click", () => {
    const next = { undefined: "light", light: "dark", dark: undefined };
    chosen = next[String(chosen)];
    drawAll();
  });
  dark.addEventListener("change", drawAll);
  addEventListener("resize", resize);
  drawAll();
})();
