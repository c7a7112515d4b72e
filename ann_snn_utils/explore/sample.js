// One image in the network: every layer's spikes, one neuron and why its membrane is what it is, class scores,
// raster. All T steps are in the page; whatever moves in time is drawn from them here, and nobody is asked.

const BLUE = "#1B7FC0", VERMILION = "#D55E00", GREEN = "#009E73", ORANGE = "#E69F00", PURPLE = "#CC79A7";
const QUIET = [128, 128, 128, 31], RISE = [27, 127, 192], FALL = [213, 94, 0];

VIEWS.sample = sample;

// ---- pictures of maps ----

// How many channels of a map [C, H, W] lie side by side, and the cells between two.
export function mosaic([channels, height, width]) {
  const columns = Math.max(1, Math.round(Math.sqrt((1.8 * channels * height) / width)));
  const gap = height === 1 && width === 1 ? 0 : 1, rows = Math.ceil(channels / columns);
  const wide = columns * (width + gap) - gap, high = rows * (height + gap) - gap;
  // The neuron in each cell of the sheet, −1 between channels.
  const cells = new Int32Array(wide * high).fill(-1);
  const place = neuron => {
    const channel = Math.floor(neuron / (height * width)), rest = neuron % (height * width);
    const row = Math.floor(channel / columns) * (height + gap) + Math.floor(rest / width);
    return [row, (channel % columns) * (width + gap) + (rest % width)];
  };
  for (let neuron = 0; neuron < channels * height * width; neuron++) {
    const [row, column] = place(neuron);
    cells[row * wide + column] = neuron;
  }
  return { wide, high, cells, place };
}

function paint(canvas, { wide, high, cells }, colour) {
  if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
  const sheet = new ImageData(wide, high);
  for (let cell = 0; cell < cells.length; cell++) {
    if (cells[cell] >= 0) sheet.data.set(colour(cells[cell]), 4 * cell);
  }
  canvas.getContext("2d").putImageData(sheet, 0, 0);
}

const signed = (value, largest) =>
  value ? [...(value > 0 ? RISE : FALL), 255 * (0.3 + 0.7 * Math.abs(value) / largest)] : QUIET;
const amount = (value, largest) =>
  value > 0 ? [...RISE, 255 * (0.25 + 0.75 * value / largest)] : signed(value, largest);
const grey = value => [value, value, value, 255];

// ---- one neuron ----

// The membrane after every step, and what each step compared it with: [{u, low, high, before, spike}, …]
export function history(network, run, pixels, at, neuron) {
  const layer = network.layers[at], [, height, width] = layer.shape;
  const size = height * width * layer.shape[0], channel = Math.floor(neuron / (height * width));
  const compared = (table, column) => {
    const [, columns] = table.shape;
    return column >= 0 && column < columns ? table[channel * columns + column] : null;
  };
  const steps = run.spikes[at].shape[0], found = [];
  let u = 0, n = 0;
  for (let step = 0; step < steps; step++) {
    u += arrivals(network, run, pixels, at, neuron, step).sum;
    const spike = run.spikes[at][step * size + neuron];
    const low = at === 0 || n === 0 ? null : compared(layer.falling, n - 1);
    found.push({ u, low, high: compared(layer.rising, at === 0 ? step : n), before: n, spike });
    n += spike;
  }
  return found;
}

// What reached a neuron at a step, and Σ weight · input over all of it; for each source of its inputs the patch
// [C, h, w], the kernel's weights, and where in the source the patch lies.
export function arrivals(network, run, pixels, at, neuron, step) {
  const layer = network.layers[at], [, height, width] = layer.shape;
  const channel = Math.floor(neuron / (height * width)), rest = neuron % (height * width);
  let sum = 0;
  const parts = layer.inputs.map(({ from, weight, in_shape: [, rows, columns], stride, padding, gain }) => {
    const [, channels, tall, broad] = weight.shape, count = channels * tall * broad;
    const top = Math.floor(rest / width) * stride - padding, left = (rest % width) * stride - padding;
    const weights = weight.subarray(channel * count, (channel + 1) * count), inputs = new Float64Array(count);
    // The image is there at the first step only.
    const source = from === null ? (step ? null : pixels) : run.spikes[from];
    const start = from === null ? 0 : step * channels * rows * columns;
    for (let c = 0, i = 0; source && c < channels; c++) {
      for (let y = top; y < top + tall; y++) {
        for (let x = left; x < left + broad; x++, i++) {
          if (y < 0 || x < 0 || y >= rows || x >= columns) continue;
          inputs[i] = gain * source[start + (c * rows + y) * columns + x];
          sum += inputs[i] * weights[i];
        }
      }
    }
    return { from, shape: [channels, tall, broad], inputs, weights, patch: { top, left, tall, broad } };
  });
  return { sum, parts };
}

// ---- drawings of lines ----

const svg = (tag, attributes = {}, ...children) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

function ticks(low, high, most) {
  const rough = (high - low) / most, unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find(factor => factor * unit >= rough);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high; value += step) found.push(value);
  return found;
}

const told = value => (value === null ? "–" : Number.isInteger(value) ? value.toLocaleString("en") : value.toPrecision(6));

// A panel of a drawing over time steps: its scales and axes. box: [left, top, width, height] in pixels.
function panel(drawing, [left, top, width, height], [low, high], steps, title, most = 5) {
  const x = step => left + ((step - 0.5) / steps) * width;
  const y = value => top + height - ((value - low) / (high - low)) * height;
  for (const value of ticks(low, high, most)) {
    drawing.append(svg("line", { x1: left, x2: left + width, y1: y(value), y2: y(value), class: "snn-grid" }));
    const label = svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, told(+value.toFixed(9)));
    drawing.append(label);
  }
  const middle = top + height / 2;
  drawing.append(svg("text", { x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, title));
  return { x, y };
}

function stepLabels(drawing, x, y, steps) {
  const every = Math.ceil(steps / 16);
  for (let step = every; step <= steps; step += every) {
    drawing.append(svg("text", { x: x(step), y, "text-anchor": "middle" }, step));
  }
}

const path = (points, style) =>
  svg("path", { d: points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join(""), ...style });

// U between its two thresholds up to a step, its spikes, and its count below. Axes are those of the whole run.
function drawNeuron(place, rows, step, code, silent) {
  const width = place.clientWidth || 600, steps = rows.length, left = 58, wide = width - left - 8;
  const values = rows.map(row => row.u), span = Math.max(4, Math.max(0, ...values) - Math.min(0, ...values));
  const [least, most] = [Math.min(0, ...values), Math.max(0, ...values)];
  // Thresholds that do not dwarf the membrane.
  const near = rows.flatMap(row => [row.low, row.high])
    .filter(v => v !== null && v >= least - 1.5 * span && v <= most + 1.5 * span);
  const margin = 0.1 * (Math.max(most, ...near) - Math.min(least, ...near)) + 0.5;
  const low = Math.min(least, ...near) - margin, high = Math.max(most, ...near) + margin;
  const drawing = svg("svg", { width, height: 330, role: "img", "aria-label": "Membrane, thresholds and spikes" });
  const { x, y } = panel(drawing, [left, 8, wide, 214], [low, high], steps, "membrane U");
  const counts = rows.map(row => row.before + row.spike);
  const top = Math.max(1, ...counts, code ?? 0), bottom = Math.min(0, ...counts);
  const lower = panel(drawing, [left, 240, wide, 66], [bottom - 0.3, top + 0.4], steps, "count", 3);
  stepLabels(drawing, x, 324, steps);
  const half = wide / steps / 2, inside = value => Math.min(high, Math.max(low, value));
  const edges = (pick, scale) => rows.slice(0, step).flatMap((row, i) => {
    const value = pick(row);
    return value === null || value < low || value > high ? [] : [[x(i + 1) - half, scale(value), x(i + 1) + half]];
  });
  rows.slice(0, step).forEach((row, i) => {
    const ceiling = y(inside(row.high ?? high)), floor = y(inside(row.low ?? low));
    const box = { x: x(i + 1) - half, y: ceiling, width: 2 * half, height: Math.max(0, floor - ceiling) };
    drawing.append(svg("rect", { ...box, class: "snn-band" }));
  });
  for (const [pick, stroke, dash] of [[r => r.high, GREEN, ""], [r => r.low, ORANGE, "6 4"]]) {
    for (const [x1, level, x2] of edges(pick, y)) {
      const line = { x1, x2, y1: level, y2: level, stroke, "stroke-width": 2.5, "stroke-dasharray": dash };
      drawing.append(svg("line", line));
    }
  }
  const shown = rows.slice(0, step);
  drawing.append(path(shown.map((row, i) => [x(i + 1), y(row.u)]), { class: "snn-line" }));
  shown.forEach((row, i) => {
    const [cx, cy] = [x(i + 1), y(row.u)], mark = row.spike > 0 ? -1 : 1;
    drawing.append(row.spike
      ? svg("path", { d: `M${cx} ${cy + 8 * mark}l8 ${-14 * mark}h-16z`, fill: row.spike > 0 ? BLUE : VERMILION })
      : svg("circle", { cx, cy, r: 3.5, class: "snn-dot" }));
  });
  const stairs = edges(row => row.before + row.spike, lower.y).flatMap(([x1, level, x2]) => [[x1, level], [x2, level]]);
  drawing.append(path(stairs, { fill: "none", stroke: BLUE, "stroke-width": 2 }));
  if (code !== null) {
    const level = lower.y(code), line = { x1: left, x2: left + wide, y1: level, y2: level, stroke: PURPLE };
    drawing.append(svg("line", { ...line, "stroke-width": 3, "stroke-dasharray": "2 4" }));
  }
  if (silent && silent <= step) {
    drawing.append(svg("text", { x: x(silent), y: lower.y(counts[silent - 1]) + 5, "text-anchor": "middle", fill: ORANGE,
      class: "snn-star" }, "★"));
  }
  place.replaceChildren(drawing);
}

// Class scores over time, and what the network says at each step.
function drawScores(place, run, classes, label, step) {
  const [steps, count] = run.scores.shape, width = place.clientWidth || 600, left = 58, wide = width - left - 74;
  const at = (t, c) => run.scores[(t - 1) * count + c];
  const low = Math.min(...run.scores), high = Math.max(...run.scores), pad = 0.05 * (high - low || 1);
  const drawing = svg("svg", { width, height: 280, role: "img", "aria-label": "Class scores over time" });
  const { x, y } = panel(drawing, [left, 8, wide, 206], [low - pad, high + pad], steps, "class score");
  const said = run.answers[step - 1];
  const rank = [...classes.keys()].sort((a, b) => at(step, b) - at(step, a));
  const second = rank.find(c => c !== said);
  const stroke = c => (c === said ? (c === label || label === null ? BLUE : VERMILION) : c === label ? GREEN :
    c === second ? ORANGE : null);
  // Those that stand out lie on top.
  for (const c of [...rank].reverse()) {
    const points = Array.from({ length: steps }, (_, t) => [x(t + 1), y(at(t + 1, c))]);
    const look = stroke(c) ? { stroke: stroke(c), "stroke-width": 2.5 } : { class: "snn-faint" };
    drawing.append(path(points, { fill: "none", ...look }));
  }
  drawing.append(svg("line", { x1: x(step), x2: x(step), y1: 8, y2: 214, class: "snn-cursor" }));
  // Names stand where their lines end, or as near as they find room.
  const named = [...rank].sort((a, b) => at(steps, b) - at(steps, a)).slice(0, 14), lowest = 212;
  let under = -Infinity;
  for (const [i, c] of named.entries()) {
    under = Math.min(Math.max(under + 12, y(at(steps, c)) + 4), lowest - 12 * (named.length - 1 - i));
    const text = classes[c].slice(0, 9) + (c === label ? " (true)" : "");
    drawing.append(svg("text", { x: left + wide + 4, y: under, ...(stroke(c) ? { class: "snn-strong" } : {}) }, text));
  }
  drawing.append(svg("text", { x: left - 6, y: 250, "text-anchor": "end" }, "it says"));
  run.answers.forEach((answer, t) => {
    const colour = label === null || answer === label ? BLUE : VERMILION;
    const name = classes[answer].slice(0, Math.max(1, Math.floor(wide / steps / 8)));
    const look = { x: x(t + 1), y: 250, "text-anchor": "middle", style: `fill: ${colour}`, class: "snn-said" };
    drawing.append(svg("text", t < step ? look : { ...look, opacity: 0.35 }, name));
  });
  stepLabels(drawing, x, 272, steps);
  drawing.append(svg("text", { x: left - 6, y: 272, "text-anchor": "end" }, "at step"));
  place.replaceChildren(drawing);
}

// Every spike of every neuron: a column for each layer within each step, as a spike crosses all layers in one.
const BAND = 40;

function drawRaster(canvas, network, run) {
  const depth = network.layers.length, [steps] = run.spikes[0].shape, wide = steps * depth;
  Object.assign(canvas, { width: wide, height: depth * BAND });
  const sheet = new ImageData(wide, depth * BAND);
  network.layers.forEach((_, at) => {
    const spikes = run.spikes[at], size = spikes.length / steps, bins = Math.min(BAND, size);
    for (let step = 0; step < steps; step++) {
      const plus = new Float64Array(bins), minus = new Float64Array(bins);
      for (let neuron = 0; neuron < size; neuron++) {
        const spike = spikes[step * size + neuron];
        if (spike) (spike > 0 ? plus : minus)[Math.floor((neuron * bins) / size)]++;
      }
      for (let row = 0; row < BAND; row++) {
        const bin = Math.floor((row * bins) / BAND), fired = plus[bin] + minus[bin];
        if (!fired) continue;
        // A spike that is taken back is seen among many that are not.
        const colour = minus[bin] ? FALL : RISE, alpha = 255 * (0.3 + 0.7 * Math.min(1, (fired * bins) / size));
        sheet.data.set([...colour, alpha], 4 * ((at * BAND + row) * wide + step * depth + at));
      }
    }
  });
  canvas.getContext("2d").putImageData(sheet, 0, 0);
}

// ---- what a run says ----

// Totals that the words need: spikes of each layer and step, neurons that still fire later, the softmax's share.
function summarize(network, run) {
  const steps = run.spikes[0].shape[0];
  run.fired = run.spikes.map(spikes => {
    const size = spikes.length / steps, plus = Array(steps).fill(0), minus = Array(steps).fill(0), last = Array(steps).fill(0);
    for (let neuron = 0; neuron < size; neuron++) {
      let latest = 0;
      for (let step = 0; step < steps; step++) {
        const spike = spikes[step * size + neuron];
        if (!spike) continue;
        (spike > 0 ? plus : minus)[step]++;
        latest = step;
      }
      for (let step = 0; step < latest; step++) last[step]++;
    }
    return { plus, minus, pending: last };
  });
  const count = network.classes.length;
  run.sure = run.answers.map((answer, t) => {
    const scores = run.scores.subarray(t * count, (t + 1) * count);
    return 1 / scores.reduce((sum, score) => sum + Math.exp(network.scale * (score - scores[answer])), 0);
  });
  return run;
}

function words(network, item, run, step) {
  const name = c => `“${escape(network.classes[c])}”`, steps = run.answers.length;
  const answer = run.answers[step - 1], final = run.answers[steps - 1];
  let since = steps;
  while (since > 1 && run.answers[since - 2] === final) since--;
  const right = item.label === null ? "" : answer === item.label ? " ✓" : ` ✗ (true: ${name(item.label)})`;
  const later = run.fired.reduce((sum, layer) => sum + layer.pending[step - 1], 0);
  const spikes = run.fired.slice(1).reduce((sum, layer) =>
    sum + [...layer.plus.slice(0, step), ...layer.minus.slice(0, step)].reduce((a, b) => a + b, 0), 0);
  return [
    `${escape(item.name)}, after step ${step}: <b>${name(answer)}</b>${right}, ${(100 * run.sure[step - 1]).toFixed(0)} % sure`,
    `it stays with ${name(final)} from step ${since} on`,
    run.ann === null ? null : `the quantized ANN says ${name(run.ann)}`,
    `${spikes.toLocaleString("en")} hidden spikes so far`,
    run.settled && run.settled < step ? `silent since step ${run.settled + 1}`
      : `${later.toLocaleString("en")} neurons will still fire${run.settled ? "" : ", and perhaps beyond this run"}`,
  ].filter(Boolean).join(" · ");
}

// ---- the explorer ----

async function sample(page, shown) {
  const { network, steps, images } = shown, depth = network.layers.length;
  const one = images.pixels.length / images.pixels.shape[0], count = images.pixels.shape[0];
  const title = at => `${at} · ${network.layers[at].name}`;
  const items = Array.from({ length: count }, (_, index) => ({
    key: String(index), name: `Image ${index}`, label: images.labels[index], settled: images.settled[index],
    pixels: images.pixels.subarray(index * one, (index + 1) * one), says: t => images.answers[(t - 1) * count + index],
  }));
  const runs = Object.fromEntries(Object.entries(shown.runs).map(([key, run]) => [key, summarize(network, run)]));
  const state = { item: items[shown.sample], step: shown.step, layer: Math.min(1, depth - 1), neuron: 0, counts: false };
  let awake = false, run = runs[state.item.key], rows = [];

  // The bar: which images, which one, which step.
  const shows = [["all images", "all"], ["only wrong at T", "wrong"], ["slowest to settle", "slow"],
    ...network.classes.map((name, c) => [`class “${name}”`, c])];
  const filter = control({ kind: "choice", label: "images", options: shows, value: "all",
    help: "Which images stand in the row to choose from" }, value => { state.show = value; list(); });
  const strip = make("div", { className: "snn-thumbs", role: "listbox", "aria-label": "image" });
  const time = player(steps, state.step, value => { state.step = value; if (state.show === "wrong") list(); draw(); });
  const note = make("span", { className: "snn-note", innerHTML: images.note });
  const own = ownPicture(shown.draw, async (pixels, shape) => {
    const found = await page.ask({ ask: "answer", values: { pixels: btoa(String.fromCharCode(...pixels)), shape } });
    const number = items.filter(item => item.own).length + 1;
    const item = { key: `own ${number}`, name: `Your picture ${number}`, label: null, own: true, settled: found.run.settled,
      pixels: found.pixels, says: t => found.run.answers[t - 1] };
    runs[item.key] = summarize(network, found.run);
    items.unshift(item);
    state.show = "all"; filter.set("all");
    await open(item);
    time.move(steps);
  }, error => page.say(`⚠ ${escape(error.message)}`, true));
  page.bar.append(make("div", { className: "snn-choose" }, filter.row, strip, own.opener), own.panel, time.row, note);

  function wanted(item) {
    if (!awake && !runs[item.key]) return false;
    if (state.show === "wrong") return item.label !== null && item.says(state.step) !== item.label;
    return typeof state.show === "number" ? item.label === state.show : true;
  }
  function list() {
    const chosen = items.filter(wanted);
    // Zero has not settled at all.
    if (state.show === "slow") chosen.sort((a, b) => (b.settled || Infinity) - (a.settled || Infinity));
    strip.replaceChildren(...chosen.map(item => {
      const said = item.label === null ? item.name : `${item.name}, class ${network.classes[item.label]}`;
      const thumb = make("button", { type: "button", className: "snn-thumb", title: said, role: "option", "aria-label": said,
        onclick: () => open(item), tabIndex: -1 }, picture(item.pixels, images.pixels.shape.slice(1)));
      item.thumb = thumb;
      return thumb;
    }));
    if (!chosen.length) strip.append(make("span", { textContent: "none" }));
    mark();
  }
  function mark() {
    for (const item of items) item.thumb?.setAttribute("aria-selected", item === state.item);
    const there = state.item.thumb?.isConnected ? state.item.thumb : strip.querySelector("button");
    strip.querySelectorAll("button").forEach(thumb => { thumb.tabIndex = thumb === there ? 0 : -1; });
  }
  strip.addEventListener("keydown", event => {
    const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!move) return;
    event.preventDefault();
    const thumbs = [...strip.querySelectorAll("button")], at = thumbs.indexOf(document.activeElement) + move;
    thumbs[Math.max(0, Math.min(thumbs.length - 1, at))]?.focus();
    document.activeElement.click();
  });
  document.addEventListener("annsnn-sample", ({ detail }) => {
    if (!page.box.isConnected) return;
    page.box.scrollIntoView({ block: "start" });
    open(items.find(item => item.key === String(detail)));
  });

  let latest;
  async function open(item) {
    if (!item) return;
    latest = item;
    if (!runs[item.key]) {
      try {
        const { run: made } = await page.ask({ ask: "answer", values: { sample: Number(item.key) } });
        runs[item.key] = summarize(network, made);
      } catch (error) {
        page.say(`⚠ ${escape(error.message)}`, true);
        return;
      }
    }
    if (latest !== item) return;
    Object.assign(state, { item });
    run = runs[item.key];
    drawImage();
    drawRaster(raster, network, run);
    if (item.thumb === undefined || item.own) list();
    mark();
    choose(state.layer, state.neuron);
  }

  // Maps of the layers, channels side by side; a click opens the neuron.
  const image = make("div", { className: "snn-image" });
  const readout = make("div", { className: "snn-readout", textContent: "Point at a map to read it, click to choose a neuron." });
  const kind = control({ kind: "choice", label: "maps show", options: [["spikes at T", false], ["counts up to T", true]],
    value: false, help: "Spikes of the step (+1 blue, −1 orange), or net counts so far: deeper blue is more" },
  value => { state.counts = value; draw(); });
  const maps = network.layers.map((layer, at) => {
    const canvas = make("canvas", { role: "img" }), marker = make("div", { className: "snn-marker" });
    const caption = make("figcaption"), frame = make("div", { className: "snn-map" }, canvas, marker);
    const figure = make("figure", {}, caption, frame);
    return { layer, at, canvas, marker, caption, frame, figure, index: mosaic(layer.shape), size: layer.shape.reduce((a, b) => a * b) };
  });
  for (const { at, frame, index, size } of maps) {
    const under = event => {
      const box = frame.getBoundingClientRect();
      const column = Math.floor(((event.clientX - box.left) / box.width) * index.wide);
      const row = Math.floor(((event.clientY - box.top) / box.height) * index.high);
      return index.cells[row * index.wide + column] ?? -1;
    };
    frame.onclick = event => { if (under(event) >= 0) choose(at, under(event)); };
    frame.onmousemove = event => {
      const neuron = under(event);
      if (neuron < 0) return;
      const spike = run.spikes[at][(state.step - 1) * size + neuron];
      readout.textContent = `${title(at)}, ${where(at, neuron)}: ${spike ? `spike ${spike > 0 ? "+1" : "−1"}` : "silent"} ` +
        `at step ${state.step}, count ${counted(at, neuron)}`;
    };
  }
  const counted = (at, neuron) => {
    let sum = 0;
    for (let step = 0; step < state.step; step++) sum += run.spikes[at][step * maps[at].size + neuron];
    return sum;
  };
  const split = (at, neuron) => {
    const [, height, width] = network.layers[at].shape;
    return [Math.floor(neuron / (height * width)), Math.floor((neuron % (height * width)) / width), neuron % width];
  };
  const where = (at, neuron) => split(at, neuron).map((value, i) => `${["channel", "row", "column"][i]} ${value}`).join(", ");

  // The neuron: chosen by a click, or by its numbers.
  const layers = network.layers.map((_, at) => [title(at), at]);
  const place = make("div", { className: "snn-controls snn-place" });
  const level = control({ kind: "choice", label: "layer", options: layers, value: state.layer,
    help: "Layer 0 encodes the image: its threshold climbs by itself" }, at => choose(at, liveliest(at)));
  const coordinates = ["channel", "row", "column"].map((label, axis) => {
    const input = make("input", { type: "number", min: 0, value: 0 }), id = `snn-place-${++names}`;
    input.id = id;
    input.onchange = () => {
      const [channels, height, width] = network.layers[state.layer].shape, most = [channels, height, width];
      const values = coordinates.map(({ input: other }, i) => Math.max(0, Math.min(most[i] - 1, Number(other.value) || 0)));
      choose(state.layer, (values[0] * height + values[1]) * width + values[2]);
    };
    return { input, axis, node: make("div", { className: "snn-control" }, make("label", { htmlFor: id, textContent: label }), input) };
  });
  place.append(level.row, ...coordinates.map(({ node }) => node),
    button("Liveliest neuron", "The neuron of this layer that corrects itself most", () => choose(state.layer, liveliest(state.layer))));
  function liveliest(at) {
    const { size } = maps[at], lively = new Uint16Array(size);
    run.spikes[at].forEach((spike, i) => { if (spike) lively[i % size] += spike > 0 ? 1 : 4; });
    return lively.indexOf(Math.max(...lively));
  }
  function choose(at, neuron) {
    Object.assign(state, { layer: at, neuron });
    level.set(at);
    for (const { input, axis } of coordinates) {
      const most = network.layers[at].shape[axis] - 1;
      Object.assign(input, { max: most, disabled: most === 0, value: split(at, neuron)[axis] });
    }
    rows = history(network, run, state.item.pixels, at, neuron);
    for (const map of maps) {
      map.marker.hidden = map.at !== at;
      const [row, column] = map.index.place(map.at === at ? neuron : 0);
      const part = { left: column / map.index.wide, top: row / map.index.high, width: 1 / map.index.wide, height: 1 / map.index.high };
      for (const [side, share] of Object.entries(part)) map.marker.style[side] = `${100 * share}%`;
    }
    draw();
  }

  const trace = make("div", { className: "snn-drawing" }), legend = make("div", { className: "snn-legend" });
  legend.innerHTML = `<span class="snn-ink">● membrane U</span> <span style="color:${GREEN}">━ θₙ₊₁: +1 from here</span>
    <span style="color:${ORANGE}">╍ θₙ: −1 below</span> <span class="snn-bandkey">■ silent between</span>
    <span style="color:${BLUE}">▲ +1</span> <span style="color:${VERMILION}">▼ −1</span>
    <span style="color:${PURPLE}">┅ ANN's code</span> <span style="color:${ORANGE}">★ image silent</span>`;
  const why = make("div", { className: "snn-why" }), scores = make("div", { className: "snn-drawing" });
  const table = make("div", { className: "snn-steps", tabIndex: 0, role: "region", "aria-label": "the neuron step by step" });
  const raster = make("canvas", { className: "snn-raster", role: "img", "aria-label": "Every spike: neurons by step" });
  const cursor = make("div", { className: "snn-now" });
  raster.onclick = event => {
    const box = raster.getBoundingClientRect(), column = Math.floor(((event.clientX - box.left) / box.width) * raster.width);
    const row = Math.min(raster.height - 1, Math.floor(((event.clientY - box.top) / box.height) * raster.height));
    const at = Math.floor(row / BAND), { size } = maps[at], step = Math.floor(column / depth);
    const from = Math.floor(((row % BAND) * size) / BAND), to = Math.max(from + 1, Math.floor((((row % BAND) + 1) * size) / BAND));
    const fired = run.spikes[at].subarray(step * size + from, step * size + to).findIndex(spike => spike);
    choose(at, from + Math.max(0, fired));
    time.move(step + 1);
  };
  const rasterName = `Every spike: the neurons of ${depth} layers, each layer a part of every step`;
  const bands = make("div", { className: "snn-bands" }, ...network.layers.map((_, at) => make("span", { textContent: title(at) })));
  const axis = make("div", { className: "snn-axis" }, ...Array.from({ length: steps }, (_, t) => make("span", { textContent: t + 1 })));
  const names_ = text => make("div", { className: "snn-name", textContent: text });
  const neuronName = names_(""), whyName = names_("");
  page.body.append(make("div", { className: "snn-panels" },
    make("section", {}, make("div", { className: "snn-row" }, kind.row), make("div", { className: "snn-maps" },
      make("figure", { className: "snn-input" }, make("figcaption", { textContent: "image" }), image), ...maps.map(map => map.figure)), readout),
    make("section", {}, neuronName, place, trace, legend),
    make("section", {}, whyName, why),
    make("section", {}, names_("Step by step"), table),
    make("section", {}, names_("Class scores over time"), scores),
    make("section", {}, names_(rasterName), make("div", { className: "snn-spikes" }, bands,
      make("div", { className: "snn-plot" }, raster, cursor), axis))));

  const patch = make("div", { className: "snn-marker" });
  function drawImage() {
    image.replaceChildren(picture(state.item.pixels, images.pixels.shape.slice(1)), patch);
    image.firstChild.setAttribute("aria-hidden", "true");
  }
  function drawMaps() {
    for (const { at, canvas, caption, index, size } of maps) {
      const start = (state.step - 1) * size, { plus, minus } = run.fired[at];
      let text = `${plus[state.step - 1].toLocaleString("en")} × +1, ${minus[state.step - 1].toLocaleString("en")} × −1`;
      if (state.counts) {
        const sums = new Int16Array(size);
        let total = 0, whole = 1;
        for (let i = 0; i < size; i++) {
          let sum = 0;
          for (let step = 0; step < steps; step++) {
            sum += run.spikes[at][step * size + i];
            if (step === state.step - 1) sums[i] = sum;
          }
          whole = Math.max(whole, sum);
          total += sums[i];
        }
        paint(canvas, index, neuron => amount(sums[neuron], whole));
        text = `${total.toLocaleString("en")} in all, full blue is ${whole}`;
      } else paint(canvas, index, neuron => signed(run.spikes[at][start + neuron], 1));
      caption.replaceChildren(make("b", { textContent: title(at) }), ` ${text}`);
      canvas.setAttribute("aria-label", `layer ${title(at)}: ${text}`);
    }
  }
  function drawWhy() {
    const { layer: at, neuron, step } = state, { sum, parts } = arrivals(network, run, state.item.pixels, at, neuron, step - 1);
    const before = step > 1 ? rows[step - 2].u : 0, { u, low, high, before: n, spike } = rows[step - 1];
    const most = values => values.reduce((largest, value) => Math.max(largest, Math.abs(value)), 1);
    let up = 0;
    const sheets = parts.flatMap(({ from, shape, inputs, weights }) => {
      const index = mosaic(shape), products = inputs.map((value, i) => value * weights[i]);
      up += products.reduce((total, value) => total + Math.max(0, value), 0);
      const arrived = from !== null ? `spikes of ${title(from)}` : step > 1 ? "nothing: the image came once" : "pixels";
      return [[arrived, inputs, from === null ? value => grey(value) : signed],
        [`kernel of channel ${split(at, neuron)[0]}`, weights, signed], ["their product", products, signed],
      ].map(([name, values, colour]) => {
        const canvas = make("canvas", { role: "img", "aria-label": name }), largest = most(values);
        paint(canvas, index, i => colour(values[i], largest));
        return make("figure", {}, make("figcaption", { textContent: name }), canvas);
      });
    });
    const rule = at === 0
      ? high === null ? "all levels are over: silent" : spike ? `≥ θ<sub>${step}</sub> = ${told(high)}: fires` : `&lt; θ<sub>${step}</sub> = ${told(high)}: silent`
      : spike > 0 ? `≥ θ<sub>${n + 1}</sub> = ${told(high)}: <b>+1</b>, count ${n} → ${n + 1}`
      : spike < 0 ? `&lt; θ<sub>${n}</sub> = ${told(low)}: <b>−1</b>, count ${n} → ${n - 1}`
      : `between θ<sub>${n}</sub> = ${told(low)} and θ<sub>${n + 1}</sub> = ${told(high)}: silent, count ${n}`;
    const text = make("div", { className: "snn-sum" });
    text.innerHTML = `U = ${told(before)} + (${told(up)} − ${told(up - sum)}) = <b>${told(u)}</b> ${rule}`;
    whyName.textContent = `Why is U what it is? What arrived at step ${step}`;
    why.replaceChildren(text, make("div", { className: "snn-sheets" }, ...sheets));
    const [, height, width] = images.pixels.shape.slice(1), { top, left, tall, broad } = parts[0].patch;
    patch.hidden = parts[0].from !== null;
    const sides = { left: left / width, top: top / height, width: broad / width, height: tall / height };
    for (const [side, share] of Object.entries(sides)) patch.style[side] = `${100 * share}%`;
  }
  function drawTable() {
    const encoder = state.layer === 0, head = ["t", "U", ...(encoder ? ["θₜ"] : ["θₙ", "θₙ₊₁"]), "decision", "count n"];
    const line = ({ u, low, high, before, spike }, t) => {
      const cells = [t + 1, told(u), ...(encoder ? [] : [told(low)]), told(high), spike > 0 ? "▲ +1" : spike < 0 ? "▼ −1" : "silent", before + spike];
      const row = make("tr", { onclick: () => time.move(t + 1) }, ...cells.map(cell => make("td", { textContent: cell })));
      if (t + 1 === state.step) row.setAttribute("aria-current", "step");
      row.className = t < state.step ? "" : "snn-later";
      return row;
    };
    table.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...head.map(name => make("th", { textContent: name, scope: "col" })))),
      make("tbody", {}, ...rows.map(line))));
  }
  function draw() {
    const { item, layer, neuron, step } = state, code = run.codes ? run.codes[layer][neuron] : null;
    neuronName.textContent = `Neuron in ${title(layer)}, ${where(layer, neuron)}`;
    drawMaps();
    drawNeuron(trace, rows, step, code, run.settled && run.settled < steps ? run.settled + 1 : 0);
    drawWhy();
    drawTable();
    drawScores(scores, run, network.classes, item.label, step);
    cursor.style.left = `${(100 * (step - 1)) / steps}%`;
    cursor.style.width = `${100 / steps}%`;
    page.say(words(network, item, run, step));
    page.box.dispatchEvent(new CustomEvent("annsnn-drawn"));
  }

  list();
  state.neuron = liveliest(state.layer);
  await open(state.item);
  new ResizeObserver(() => draw()).observe(page.body);
  // For the tests, which compare it with what Python says.
  page.box.explorer = { state, run: () => run, rows: () => rows, items, open, choose };
  return {
    wake(on) {
      const changed = on !== awake;
      awake = on;
      own.enable(on);
      if (changed) list();
    },
  };
}

// A canvas to draw on with mouse, finger or pen, and a picture from a file.
function ownPicture(drawable, found, failed) {
  const side = 168, canvas = make("canvas", { width: side, height: side, className: "snn-pad", "aria-label": "draw here", role: "img" });
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const clear = () => { pen.fillStyle = "black"; pen.fillRect(0, 0, side, side); };
  const grab = (source, channels) => {
    const { data, width, height } = source.getImageData(0, 0, source.canvas.width, source.canvas.height);
    const pixels = new Uint8Array(channels * width * height);
    for (let cell = 0; cell < width * height; cell++) {
      for (let c = 0; c < channels; c++) pixels[c * width * height + cell] = data[4 * cell + c];
    }
    return [pixels, [channels, height, width]];
  };
  const tell = (pixels, shape) => found(pixels, shape).catch(failed);
  const at = event => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * side, ((event.clientY - box.top) / box.height) * side];
  };
  clear();
  Object.assign(pen, { strokeStyle: "white", lineWidth: 15, lineCap: "round", lineJoin: "round" });
  canvas.onpointerdown = event => {
    canvas.setPointerCapture(event.pointerId);
    pen.beginPath();
    pen.moveTo(...at(event));
    canvas.onpointermove = move => { pen.lineTo(...at(move)); pen.stroke(); };
  };
  canvas.onpointerup = () => { canvas.onpointermove = null; tell(...grab(pen, 1)); };
  const file = make("input", { type: "file", accept: "image/*", id: `snn-file-${++names}` });
  file.onchange = async () => {
    try {
      const bitmap = await createImageBitmap(file.files[0]), scale = Math.min(1, 160 / Math.max(bitmap.width, bitmap.height));
      const sheet = make("canvas", { width: Math.max(1, bitmap.width * scale), height: Math.max(1, bitmap.height * scale) }).getContext("2d");
      sheet.fillStyle = "white";
      sheet.fillRect(0, 0, sheet.canvas.width, sheet.canvas.height);
      sheet.drawImage(bitmap, 0, 0, sheet.canvas.width, sheet.canvas.height);
      tell(...grab(sheet, 3));
    } catch {
      failed(new Error(`${file.files[0]?.name ?? "this file"} is not a picture that the browser can read`));
    }
  };
  const upload = make("div", { className: "snn-control" }, make("label", { htmlFor: file.id, textContent: "or a picture" }), file);
  const pad = drawable ? [canvas, button("Clear", "An empty sheet", clear)] : [];
  const panel = make("div", { className: "snn-own", hidden: true }, ...pad, upload);
  const name = drawable ? "✎ Draw your own" : "Your own picture";
  const opener = button(name, "Draw with mouse, finger or pen, or take a picture from a file", () => {
    panel.hidden = !panel.hidden;
    opener.setAttribute("aria-expanded", !panel.hidden);
  });
  return { panel, opener, enable: on => { opener.disabled = !on; opener.hidden = !on; panel.hidden ||= !on; } };
}
