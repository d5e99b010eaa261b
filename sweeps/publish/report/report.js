// The page's behaviour. Without it the tables and sentences say the same.
const specs = JSON.parse(document.getElementById("specs").textContent);
const ink = "var(--ink)", quiet = "var(--ink-2)", line = "var(--line)";
const font = "system-ui, -apple-system, Segoe UI, Roboto, Noto Sans, sans-serif";
const config = {
  aria: false, background: "transparent", font, view: { stroke: null },
  axis: {
    labelColor: quiet, titleColor: ink, gridColor: line, domainColor: quiet, tickColor: quiet,
    labelFontSize: 12, labelSeparation: 10, titleFontSize: 12, titleFontWeight: 600,
  },
  legend: { labelColor: ink, titleColor: ink, labelFontSize: 12, titleFontSize: 12 },
};
const all = (selector, of = document) => [...of.querySelectorAll(selector)];
const views = {};

async function draw() {
  for (const [key, spec] of Object.entries(specs)) {
    const mode = spec.$schema.includes("vega-lite") ? "vega-lite" : "vega";
    const options = { mode, config, renderer: "svg", actions: false, ast: true, tooltip: { theme: "page" } };
    const place = document.getElementById(key);
    views[key] = (await vegaEmbed(place, spec, options)).view;
    place.querySelector("svg").setAttribute("aria-hidden", "true"); // its place has the words
  }
  if (views.parallel) listenToBrushes(views.parallel);
  document.documentElement.dataset.drawn = String(Math.round(performance.now()));
}

// Trials that lie within all brushes and lists; the table of trials shows only these.
function listenToBrushes(view) {
  const form = document.getElementById("axes");
  const brushes = {};
  const points = specs.parallel.data[0].values;
  const trials = [...new Set(points.map((point) => point.trial))];
  const within = (trial, axis, [low, high]) =>
    points.some((p) => p.trial === trial && p.axis === axis && p.place >= low - 1e-9 && p.place <= high + 1e-9);
  function update() {
    const limits = Object.entries(brushes).filter(([, limit]) => limit);
    for (const fieldset of all("fieldset", form)) {
      const [low, high] = all("select", fieldset).map((select) => select.value);
      if (low || high) limits.push([fieldset.dataset.axis, [low ? Number(low) : 0, high ? Number(high) : 1]]);
    }
    const matching = limits.length
      ? trials.filter((trial) => limits.every(([axis, limit]) => within(trial, Number(axis), limit)))
      : null;
    view.signal("matching", matching).runAsync();
    for (const row of all("#trials tbody tr")) row.hidden = matching !== null && !matching.includes(row.dataset.trial);
    document.getElementById("matching").textContent =
      matching === null ? "" : `${matching.length} of ${trials.length} trials are selected.`;
  }
  const height = specs.parallel.height;
  for (const { name } of specs.parallel.signals.filter((signal) => signal.name.startsWith("brush"))) {
    view.addSignalListener(name, (_, span) => {
      const moved = span && Math.abs(span[0] - span[1]) > 2;
      brushes[name.slice(5)] = moved ? [1 - Math.max(...span) / height, 1 - Math.min(...span) / height] : null;
      setTimeout(update); // Vega is still running
    });
  }
  form.closest("details").hidden = false;
  form.addEventListener("change", update);
  form.addEventListener("reset", () => {
    for (const axis of Object.keys(brushes)) view.signal(`brush${axis}`, null);
    view.runAsync().then(() => setTimeout(update));
  });
}

function sortTable(table) {
  const heads = all("thead th", table);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const rises = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", rises ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.key;
      const isNumber = all("tbody tr", table).every((row) => !Number.isNaN(Number(key(row))));
      const compare = (a, b) => {
        if (!key(a) || !key(b)) return key(a) ? -1 : key(b) ? 1 : 0; // rows without a value come last
        const order = isNumber ? Number(key(a)) - Number(key(b)) : key(a).localeCompare(key(b));
        return rises ? order : -order;
      };
      table.tBodies[0].append(...all("tbody tr", table).sort(compare));
    });
  });
}

function filterAnswers(input) {
  const found = document.getElementById("found");
  const articles = all(".answer");
  input.closest("p").hidden = false;
  input.addEventListener("input", () => {
    const asked = input.value.toLocaleLowerCase();
    for (const one of articles) one.hidden = !one.textContent.toLocaleLowerCase().includes(asked);
    found.textContent = asked ? `${articles.filter((one) => !one.hidden).length} of ${articles.length}` : "";
  });
}

function copyCommands() {
  for (const button of all(".copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const text = button.closest(".command").querySelector("pre");
      try {
        await navigator.clipboard.writeText(text.textContent);
        button.textContent = "Copied";
      } catch { // without permission the text is selected for the reader
        getSelection().selectAllChildren(text);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }
}

// Not while somebody reads an answer that was opened, has selected trials, or types.
function refresh(seconds) {
  const pause = document.getElementById("pause");
  if (Date.now() / 1000 - Number(document.body.dataset.written) > Number(document.body.dataset.staleS)) {
    document.querySelector(".live").textContent = "Nobody has written this page for a while: it no longer loads itself again.";
    return;
  }
  pause.addEventListener("click", () => {
    const isPaused = pause.getAttribute("aria-pressed") !== "true";
    pause.setAttribute("aria-pressed", String(isPaused));
  });
  setInterval(() => {
    const isUsed = document.querySelector("details[open]") || document.getElementById("find")?.value ||
      document.getElementById("matching")?.textContent || String(getSelection());
    if (pause.getAttribute("aria-pressed") !== "true" && !isUsed) location.reload();
  }, seconds * 1000);
}

addEventListener("beforeprint", () => { for (const one of all("details")) one.open = true; });
if (document.getElementById("trials")) sortTable(document.getElementById("trials"));
if (document.getElementById("find")) filterAnswers(document.getElementById("find"));
copyCommands();
if (document.body.dataset.refreshS) refresh(Number(document.body.dataset.refreshS));
await draw();
