// Drawings over time steps: a neuron between its thresholds, class scores, every spike.

const BLUE = "#1B7FC0", VERMILION = "#D55E00", GREEN = "#009E73", ORANGE = "#E69F00", PURPLE = "#CC79A7",
  SKY = "#56B4E9";

const svg = (tag, attributes = {}, ...children) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

const across = (x1, x2, y, style) => svg("line", { x1, x2, y1: y, y2: y, ...style });

function ticks(low, high, most) {
  const rough = (high - low) / most, unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find(factor => factor * unit >= rough);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high; value += step) found.push(value);
  return found;
}

function told(value) {
  if (value === null) return "–";
  return Number.isInteger(value) ? value.toLocaleString("en") : value.toPrecision(6);
}

// A panel of a drawing over time steps: its scales and axes. box: [left, top, width, height] in pixels.
function panel(drawing, [left, top, width, height], [low, high], steps, title, most = 5) {
  const x = step => left + ((step - 0.5) / steps) * width;
  const y = value => top + height - ((value - low) / (high - low)) * height;
  for (const value of ticks(low, high, most)) {
    const label = svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, told(+value.toFixed(9)));
    drawing.append(across(left, left + width, y(value), { class: "snn-grid" }), label);
  }
  const middle = top + height / 2;
  const turned = `rotate(-90 12 ${middle})`;
  drawing.append(svg("text", { x: 12, y: middle, "text-anchor": "middle", transform: turned }, title));
  return { x, y };
}

function stepLabels(drawing, x, y, steps) {
  const every = Math.ceil(steps / 16);
  for (let step = every; step <= steps; step += every) {
    drawing.append(svg("text", { x: x(step), y, "text-anchor": "middle" }, step));
  }
}

function path(points, style) {
  const d = points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  return svg("path", { d, ...style });
}

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
  const edges = (pick, scale, seen) => rows.slice(0, step).flatMap((row, i) => {
    const value = pick(row);
    return value === null || !seen(value) ? [] : [[x(i + 1) - half, scale(value), x(i + 1) + half]];
  });
  rows.slice(0, step).forEach((row, i) => {
    const ceiling = y(inside(row.high ?? high)), floor = y(inside(row.low ?? low));
    const box = { x: x(i + 1) - half, y: ceiling, width: 2 * half, height: Math.max(0, floor - ceiling) };
    drawing.append(svg("rect", { ...box, class: "snn-band" }));
  });
  for (const [pick, stroke, dash] of [[r => r.high, GREEN, ""], [r => r.low, ORANGE, "6 4"]]) {
    for (const [x1, level, x2] of edges(pick, y, value => value >= low && value <= high)) {
      drawing.append(across(x1, x2, level, { stroke, "stroke-width": 2.5, "stroke-dasharray": dash }));
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
  const stairs = edges(row => row.before + row.spike, lower.y, () => true);
  const corners = stairs.flatMap(([x1, level, x2]) => [[x1, level], [x2, level]]);
  drawing.append(path(corners, { fill: "none", stroke: BLUE, "stroke-width": 2 }));
  if (code !== null) {
    const look = { stroke: PURPLE, "stroke-width": 3, "stroke-dasharray": "2 4" };
    drawing.append(across(left, left + wide, lower.y(code), look));
  }
  if (silent && silent <= step) {
    const at = { x: x(silent), y: lower.y(counts[silent - 1]) + 5, "text-anchor": "middle", class: "snn-star" };
    drawing.append(svg("text", at, "★"));
  }
  place.replaceChildren(drawing);
}

// Class scores over time, and what the network says at each step.
function drawScores(place, run, classes, label, step) {
  const named = classes.map((name, c) => name.slice(0, 10) + (c === label ? " (true)" : ""));
  const [steps, count] = run.scores.shape, width = place.clientWidth || 600, left = 68;
  const wide = width - left - 24 - 7 * Math.max(...named.map(({ length }) => length));
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
  // Names stand where their lines end, or as near as they find room, with a line to there.
  const best = [...rank].sort((a, b) => at(steps, b) - at(steps, a)).slice(0, 14), lowest = 212;
  let under = -Infinity;
  for (const [i, c] of best.entries()) {
    under = Math.min(Math.max(under + 12, y(at(steps, c)) + 4), lowest - 12 * (best.length - 1 - i));
    const look = stroke(c) ? { class: "snn-strong", style: `fill: ${stroke(c)}` } : {};
    const [ends, begins] = [[x(steps), y(at(steps, c))], [left + wide + 14, under - 4]];
    drawing.append(path([ends, begins], { fill: "none", class: "snn-faint" }));
    drawing.append(svg("text", { x: left + wide + 16, y: under, ...look }, named[c]));
  }
  drawing.append(svg("text", { x: left - 6, y: 250, "text-anchor": "end" }, "it says"));
  let first = 0;
  run.answers.forEach((answer, t) => {
    if (run.answers[t + 1] === answer) return;
    // One name and one line for all steps through which an answer stays.
    const fill = label === null || answer === label ? BLUE : VERMILION, half = 0.42 * wide / steps;
    const [from, to] = [x(first + 1) - half, x(t + 1) + half], opacity = first < step ? 1 : 0.5;
    const name = classes[answer].slice(0, Math.max(1, Math.floor((to - from) / 8)));
    const text = { x: (from + to) / 2, y: 246, "text-anchor": "middle", style: `fill: ${fill}`, opacity };
    drawing.append(svg("text", { ...text, class: "snn-said" }, name));
    drawing.append(svg("rect", { x: from, y: 252, width: to - from, height: 3, fill, opacity }));
    first = t + 1;
  });
  stepLabels(drawing, x, 272, steps);
  drawing.append(svg("text", { x: left - 6, y: 272, "text-anchor": "end" }, "at step"));
  place.replaceChildren(drawing);
}

// Every spike of every neuron: a column for each layer within each step, as a spike crosses all layers in one; its left
// half shows what was sent, its right half what was taken back.
const BAND = 40;

function drawRaster(canvas, network, run) {
  const depth = network.layers.length, [steps] = run.spikes[0].shape, wide = 2 * steps * depth;
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
        const bin = Math.floor((row * bins) / BAND);
        for (const [side, fired, colour] of [[0, plus[bin], RISE], [1, minus[bin], FALL]]) {
          if (!fired) continue;
          const alpha = 255 * (0.3 + 0.7 * Math.min(1, (fired * bins) / size));
          sheet.data.set([...colour, alpha], 4 * ((at * BAND + row) * wide + 2 * (step * depth + at) + side));
        }
      }
    }
  });
  canvas.getContext("2d").putImageData(sheet, 0, 0);
}

