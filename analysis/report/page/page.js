"use strict";
(() => {
  const root = document.documentElement;
  const text = document.getElementById("data").textContent;
  const plots = [...document.querySelectorAll("[data-figure]")];
  const hidden = new Set();
  const variants = {};
  const drawn = new Set();
  const isTouch = matchMedia("(pointer: coarse)").matches;
  const config = {
    displaylogo: false,
    // Nothing of the page goes anywhere.
    showSendToCloud: false,
    plotlyServerURL: "",
    displayModeBar: isTouch ? true : "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };

  // Figures. Black follows the page's theme, and may be faint; all other colours are those of the data.

  let figures = {};
  function read() {
    const style = getComputedStyle(root);
    const ink = style.getPropertyValue("--ink").trim();
    const parts = ink.match(/\w\w/g).map((part) => parseInt(part, 16));
    const colours = { "@ink": ink, "@faint-ink": `rgba(${parts.join()},0.16)` };
    const isColour = (key) => key === "color" || key === "fillcolor";
    figures = JSON.parse(text, (key, value) =>
      isColour(key) && Object.hasOwn(colours, value) ? colours[value] : value,
    );
  }

  function axis(own, style) {
    const grid = style.getPropertyValue("--grid").trim();
    return { gridcolor: grid, linecolor: style.getPropertyValue("--soft").trim(), showline: true, ticks: "outside", ticklen: 4, automargin: true, ...own };
  }

  function layout(figure, place, variant) {
    const style = getComputedStyle(root);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axes = Object.entries(figure.layout).filter(([key]) => /^[xy]axis/.test(key));
    const chosen = figure.variants ? figure.variants[variant].axis : {};
    return {
      ...figure.layout,
      ...Object.fromEntries(axes.map(([key, own]) => [key, axis(key === "xaxis" ? { ...own, ...chosen } : own, style)])),
      width: place.clientWidth,
      height: place.clientHeight,
      margin: { l: 54, r: 14, t: 30, b: 46 },
      font: { color: colour("--ink"), size: 12, family: "system-ui, sans-serif" },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      hoverlabel: { align: "left", bgcolor: colour("--card"), bordercolor: colour("--edge"), font: { color: colour("--ink"), size: 12 } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--soft"), activecolor: colour("--ink") },
      hovermode: "closest",
      hoverdistance: 12,
      // A finger that moves over a figure scrolls the page.
      dragmode: isTouch ? false : "zoom",
      uirevision: `variant ${variant}`,
    };
  }

  function draw(place) {
    const figure = figures[place.dataset.figure];
    const variant = variants[place.dataset.figure.split("-")[0]] ?? 0;
    const traces = figure.traces.map((trace, number) => ({
      ...trace,
      x: figure.variants ? figure.variants[variant].across[number] : trace.x,
      visible: !hidden.has(trace.meta.cell),
    }));
    drawn.add(place);
    return Plotly.react(place, traces, layout(figure, place, variant), config);
  }

  const drawAll = () => plots.forEach(draw);
  const drawAgain = () => drawn.forEach(draw);

  // Those far below are drawn when the reader comes near.
  const near = new IntersectionObserver(
    (entries) => entries.filter((one) => one.isIntersecting && !drawn.has(one.target)).forEach((one) => draw(one.target)),
    { rootMargin: "800px" },
  );
  const sizes = new ResizeObserver((entries) =>
    entries.filter((one) => drawn.has(one.target) && one.target.clientWidth !== one.target._fullLayout?.width).forEach((one) => draw(one.target)),
  );

  // Legends: an entry shows and hides its cell everywhere; a double click shows it alone, or all again.

  const entries = [...document.querySelectorAll(".legend button")];
  const cellOf = (entry) => Number(entry.dataset.cell);
  function showCells() {
    entries.forEach((entry) => entry.setAttribute("aria-pressed", String(!hidden.has(cellOf(entry)))));
    drawAgain();
  }
  for (const entry of entries) {
    entry.addEventListener("click", () => {
      if (!hidden.delete(cellOf(entry))) hidden.add(cellOf(entry));
      showCells();
    });
    entry.addEventListener("dblclick", () => {
      const others = entries.map(cellOf).filter((cell) => cell !== cellOf(entry));
      const isAlone = others.every((cell) => hidden.has(cell));
      hidden.clear();
      if (!isAlone) others.forEach((cell) => hidden.add(cell));
      showCells();
    });
  }

  for (const choice of document.querySelectorAll("[data-variants]")) {
    choice.addEventListener("change", () => {
      variants[choice.dataset.variants] = Number(choice.value);
      drawAgain();
    });
  }

  // Tables.

  const words = new Intl.Collator("en", { numeric: true });
  function compare(one, other) {
    const [first, second] = [one, other].map((field) => field.dataset.order);
    if (first === undefined || second === undefined) {
      // A field without a number is below all numbers, whichever way they are sorted.
      return first === second ? words.compare(one.textContent, other.textContent) : NaN;
    }
    const [a, b] = [first, second].map((value) => (value === "inf" ? Infinity : Number(value)));
    return a === b ? 0 : a - b;
  }
  function sort(table, place) {
    const headings = [...table.tHead.rows[0].cells];
    const sign = headings[place].getAttribute("aria-sort") === "ascending" ? -1 : 1;
    headings.forEach((heading) => heading.removeAttribute("aria-sort"));
    headings[place].setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows];
    rows.sort((one, other) => {
      const fields = [one.cells[place], other.cells[place]];
      const order = compare(...fields);
      return Number.isNaN(order) ? (fields[0].dataset.order === undefined ? 1 : -1) : sign * order;
    });
    table.tBodies[0].append(...rows);
  }
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((heading, place) => heading.addEventListener("click", () => sort(table, place)));
  }

  const filter = document.getElementById("filter");
  filter.addEventListener("input", () => {
    const wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...document.querySelectorAll("#trials tbody tr")];
    for (const row of rows) {
      const fields = [...row.cells].map((field) => field.textContent).join(" ").toLowerCase();
      row.hidden = !wanted.every((word) => fields.includes(word));
    }
    const count = rows.filter((row) => !row.hidden).length;
    document.getElementById("matching").textContent = wanted.length ? `${count} of ${rows.length}` : "";
  });

  // Light and dark.

  const button = document.getElementById("theme");
  function setTheme(theme) {
    root.dataset.theme = theme;
    button.textContent = theme === "dark" ? "Light" : "Dark";
    read();
    drawAgain();
  }
  button.addEventListener("click", () => {
    const theme = root.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("stability-theme", theme);
    } catch {
      // The choice holds for this visit.
    }
    setTheme(theme);
  });

  // Paper is white, as wide as it is, and nothing can be unfolded on it.

  let before = null;
  addEventListener("beforeprint", () => {
    const folded = [...document.querySelectorAll("details[data-print]:not([open])")];
    folded.forEach((one) => (one.open = true));
    before = { theme: root.dataset.theme, folded };
    root.classList.add("printing");
    setTheme("light");
    drawAll();
  });
  addEventListener("afterprint", () => {
    before.folded.forEach((one) => (one.open = false));
    root.classList.remove("printing");
    setTheme(before.theme);
  });

  setTheme(root.dataset.theme);
  plots.forEach((place) => {
    near.observe(place);
    sizes.observe(place);
  });
})();
