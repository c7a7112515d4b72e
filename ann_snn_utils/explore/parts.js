// The parts of the explorer of one image. Each is made once from the view, and drawn again whenever it moves.

const name = text => make("div", { className: "snn-name", textContent: text });

// Lay a frame over some cells of a picture: shares of its width and height.
function frame(marker, left, top, width, height) {
  for (const [side, share] of Object.entries({ left, top, width, height })) marker.style[side] = `${100 * share}%`;
}

// The neuron of a layer with the most spikes, those taken back counting more.
function liveliest({ network, run }, at) {
  const size = network.layers[at].shape.reduce((a, b) => a * b), lively = new Uint16Array(size);
  run.spikes[at].forEach((spike, index) => { if (spike) lively[index % size] += spike > 0 ? 1 : 4; });
  return lively.indexOf(lively.reduce((a, b) => Math.max(a, b)));
}

// Net counts of a layer after a step, and the least and largest that any of its neurons has in the whole run.
function counts(run, at, step) {
  const [steps] = run.spikes[at].shape, size = run.spikes[at].length / steps;
  const sums = new Int16Array(size), all = new Int16Array(size);
  let least = 0, largest = 1;
  for (let t = 0; t < steps; t++) {
    for (let neuron = 0; neuron < size; neuron++) {
      const sum = (all[neuron] += run.spikes[at][t * size + neuron]);
      if (sum > largest) largest = sum;
      if (sum < least) least = sum;
      if (t < step) sums[neuron] = sum;
    }
  }
  return { sums, least, largest };
}

// The image, and a map of every layer: a click opens a neuron.
function mapsPart(view) {
  const { network, images } = view, shape = images.pixels.shape.slice(1);
  let counted = false;
  const kind = control({
    kind: "choice", label: "maps show", options: [["spikes at T", false], ["counts up to T", true]], value: counted,
    help: "Spikes of the step (+1 blue, −1 orange), or net counts so far: deeper blue is more",
  }, value => { counted = value; opened(); draw(); });
  const saves = [["GIF", ".gif"], ["page", ".html"]].map(([label, suffix]) =>
    button(`Save as ${label}`, `Write all time steps of this image to a ${label} of its own`, async () => {
      try {
        const { path } = await view.answer({ save: suffix, sample: +view.item.key });
        readout.textContent = `Written: ${path}`;
      } catch (error) {
        readout.textContent = `⚠ ${error.message}`;
      }
    }));
  const hint = "Point at a map to read it, click to choose a neuron.";
  const readout = make("div", { className: "snn-readout", textContent: hint });
  const image = make("div", { className: "snn-image" }), patch = make("div", { className: "snn-marker" });
  const maps = network.layers.map((layer, at) => {
    const canvas = make("canvas", { role: "img" }), marker = make("div", { className: "snn-marker" });
    const box = make("div", { className: "snn-map" }, canvas, marker), caption = make("figcaption");
    const index = mosaic(layer.shape), size = layer.shape.reduce((a, b) => a * b);
    const under = event => {
      const [right, down] = pointed(box, event);
      return index.cells[Math.floor(down * index.high) * index.wide + Math.floor(right * index.wide)] ?? -1;
    };
    box.onclick = event => { if (under(event) >= 0) view.choose(at, under(event)); };
    box.onmousemove = event => {
      const neuron = under(event);
      if (neuron < 0) return;
      const spike = view.run.spikes[at][(view.step - 1) * size + neuron];
      const did = spike ? `spike ${spike > 0 ? "+1" : "−1"}` : "silent";
      const count = counts(view.run, at, view.step).sums[neuron], place = view.where(at, neuron);
      readout.textContent = `${view.title(at)}, ${place}: ${did} at step ${view.step}, count ${count}`;
    };
    const colours = make("div");
    const figure = make("figure", {}, caption, box, colours);
    return { at, canvas, marker, caption, index, size, colours, figure };
  });

  function draw() {
    for (const { at, canvas, marker, caption, index, size } of maps) {
      let text;
      if (counted) {
        const { sums, largest } = counts(view.run, at, view.step);
        paint(canvas, index, neuron => amount(sums[neuron], largest));
        text = `${told(sums.reduce((a, b) => a + b, 0))} in all`;
      } else {
        const { plus, minus } = view.run.fired[at], start = (view.step - 1) * size;
        paint(canvas, index, neuron => signed(view.run.spikes[at][start + neuron], 1));
        text = `+${told(plus[view.step - 1])}, −${told(minus[view.step - 1])}`;
      }
      caption.replaceChildren(make("b", { textContent: view.title(at) }), ` ${text}`);
      canvas.setAttribute("aria-label", `layer ${view.title(at)}: ${text}`);
      marker.hidden = at !== view.layer;
      const [row, column] = index.place(marker.hidden ? 0 : view.neuron);
      frame(marker, column / index.wide, row / index.high, 1 / index.wide, 1 / index.high);
    }
    // A neuron of the encoder looks at a part of the image.
    const [part] = arrivals(network, view.run, view.item.pixels, view.layer, view.neuron, 0).parts;
    const { top, left, tall, broad } = part.patch, [, height, width] = shape;
    patch.hidden = part.from !== null;
    frame(patch, left / width, top / height, broad / width, tall / height);
  }
  const input = make("figure", {}, make("figcaption", { textContent: "image" }), image);
  const grid = make("div", { className: "snn-maps" }, input, ...maps.map(({ figure }) => figure));
  let awake = false;
  const enable = () => saves.forEach(save => { save.disabled = !awake || view.item?.label === null; });
  // The colours stay those of the whole run while time moves.
  function opened() {
    image.replaceChildren(picture(view.item.pixels, shape), patch);
    enable();
    for (const { at, colours } of maps) {
      const { least, largest } = counts(view.run, at, 0);
      colours.replaceChildren(counted ? scale(amount, least, largest) : scale(signed, -1, 1));
    }
  }
  const top = make("div", { className: "snn-place" }, kind.row, ...saves);
  return { nodes: [top, grid, readout], draw, opened, wake(on) { awake = on; enable(); } };
}

const LEGEND = [["●", "inherit", "membrane U"], ["━", GREEN, "θₙ₊₁: +1 from here"], ["╍", ORANGE, "θₙ: −1 below"],
  ["■", SKY, "silent between"], ["▲", BLUE, "+1"], ["▼", VERMILION, "−1"], ["┅", PURPLE, "ANN's code"],
  ["★", ORANGE, "image silent"]];

// One neuron, chosen by its numbers too, between its thresholds.
function neuronPart(view) {
  const { network, steps } = view, heading = name("");
  const options = network.layers.map((_, at) => [view.title(at), at]);
  const help = "Layer 0 encodes the image: its threshold climbs by itself";
  const layer = control({ kind: "choice", label: "layer", options, value: view.layer, help },
    at => view.choose(at, liveliest(view, at)));
  const numbers = ["channel", "row", "column"].map(label =>
    control({ kind: "number", label, low: 0, value: 0 }, () => {
      const shape = network.layers[view.layer].shape, [, height, width] = shape;
      const within = (number, most) => Math.max(0, Math.min(most, Math.round(number) || 0));
      const [c, y, x] = numbers.map(({ get }, axis) => within(get(), shape[axis] - 1));
      view.choose(view.layer, (c * height + y) * width + x);
    }));
  const most = button("Liveliest neuron", "The neuron of this layer that corrects itself most",
    () => view.choose(view.layer, liveliest(view, view.layer)));
  const place = make("div", { className: "snn-place" }, layer.row, ...numbers.map(({ row }) => row), most);
  const trace = make("div", { className: "snn-drawing" }), legend = make("div", { className: "snn-legend" });
  for (const [sign, colour, said] of LEGEND) {
    const mark = make("b", { textContent: `${sign} `, "aria-hidden": "true" });
    mark.style.color = colour;
    legend.append(make("span", {}, mark, said));
  }
  function draw() {
    const { layer: at, neuron, run } = view;
    heading.textContent = `Neuron in ${view.title(at)}, ${view.where(at, neuron)}`;
    layer.set(at);
    numbers.forEach((number, axis) => {
      number.set(view.place(at, neuron)[axis]);
      number.enable(network.layers[at].shape[axis] > 1);
    });
    const silent = run.settled && run.settled < steps ? run.settled + 1 : 0;
    drawNeuron(trace, view.rows, view.step, run.codes[at][neuron], silent);
  }
  return { nodes: [heading, place, trace, legend], draw };
}

// What moved the membrane at this step, and what it was compared with.
function whyPart(view) {
  const { network } = view, heading = name(""), text = make("div", { className: "snn-sum" });
  const sheets = make("div", { className: "snn-sheets" });

  function decision({ low, high, before: n, spike }) {
    if (view.layer === 0) {
      if (high === null) return "all levels are over: silent";
      return `${spike ? "≥" : "&lt;"} θ<sub>${view.step}</sub> = ${told(high)}: ${spike ? "<b>+1</b>" : "silent"}`;
    }
    if (spike > 0) return `≥ θ<sub>${n + 1}</sub> = ${told(high)}: <b>+1</b>, count ${n} → ${n + 1}`;
    if (spike < 0) return `&lt; θ<sub>${n}</sub> = ${told(low)}: <b>−1</b>, count ${n} → ${n - 1}`;
    const above = low === null ? "" : `≥ θ<sub>${n}</sub> = ${told(low)}`;
    const below = high === null ? "its largest count" : `&lt; θ<sub>${n + 1}</sub> = ${told(high)}`;
    return `${above}${above && " and "}${below}: silent, count ${n}`;
  }
  function sheet(title, index, values, colour) {
    const canvas = make("canvas", { role: "img", "aria-label": title });
    const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 1);
    paint(canvas, index, cell => colour(values[cell], largest));
    return make("figure", {}, make("figcaption", { textContent: title }), canvas);
  }
  function draw() {
    const { layer: at, neuron, step, rows, run, item } = view, row = rows[step - 1];
    const { sum, parts } = arrivals(network, run, item.pixels, at, neuron, step - 1);
    const { maximum } = network.layers[at];
    let up = 0;
    sheets.replaceChildren(...parts.flatMap(({ from, shape, inputs, weights, factor }) => {
      const index = mosaic(shape), products = inputs.map((value, cell) => factor * value * weights[cell]);
      up += products.reduce((total, value) => total + Math.max(0, value), 0);
      const pixels = step > 1 ? "nothing: the image came once" : "pixels";
      const arrived = from === null ? pixels : `spikes of ${view.title(from)}`;
      const seen = sheet(arrived, index, inputs, from === null ? grey : signed);
      return maximum ? [seen] : [
        seen,
        sheet(`kernel of channel ${view.place(at, neuron)[0]}`, index, weights, signed),
        sheet("their product", index, products, signed),
      ];
    }));
    heading.textContent = `Why is U what it is? What arrived at step ${step}`;
    const before = step > 1 ? rows[step - 2].u : 0;
    // Spikes in a window change the largest count in it, which is not their sum.
    const made = maximum ? "the largest count in the window" : `${told(before)} + (${told(up)} − ${told(up - sum)})`;
    text.innerHTML = `U = ${made} = <b>${told(row.u)}</b> ${decision(row)}`;
  }
  return { nodes: [heading, text, sheets], draw };
}

// The neuron step by step, as a table: a click on a row goes there.
function stepsPart(view) {
  const look = { className: "snn-steps", tabIndex: 0, role: "region", "aria-label": "the neuron step by step" };
  const table = make("div", look);
  function draw() {
    const thresholds = view.layer === 0 ? ["θₜ"] : ["θₙ", "θₙ₊₁"];
    const head = ["t", "U", ...thresholds, "decision", "count n"];
    const lines = view.rows.map(({ u, low, high, before, spike }, t) => {
      const compared = view.layer === 0 ? [told(high)] : [told(low), told(high)];
      const decided = spike > 0 ? "▲ +1" : spike < 0 ? "▼ −1" : "silent";
      const cells = [t + 1, told(u), ...compared, decided, before + spike];
      const row = make("tr", { onclick: () => view.move(t + 1), className: t < view.step ? "" : "snn-later" },
        ...cells.map(textContent => make("td", { textContent })));
      if (t + 1 === view.step) row.setAttribute("aria-current", "step");
      return row;
    });
    const names = make("tr", {}, ...head.map(textContent => make("th", { textContent, scope: "col" })));
    table.replaceChildren(make("table", {}, make("thead", {}, names), make("tbody", {}, ...lines)));
  }
  return { nodes: [name("Step by step"), table], draw };
}

function scoresPart(view) {
  const drawing = make("div", { className: "snn-drawing" });
  const draw = () => drawScores(drawing, view.run, view.network.classes, view.item.label, view.step);
  return { nodes: [name("Class scores over time"), drawing], draw };
}

// Every spike: a click on one opens its neuron at its step.
function rasterPart(view) {
  const { network, steps } = view, depth = network.layers.length;
  const look = { className: "snn-raster", role: "img", "aria-label": "Every spike: neurons by step" };
  const canvas = make("canvas", look);
  const now = make("div", { className: "snn-now" });
  canvas.onclick = event => {
    const [right, down] = pointed(canvas, event), step = Math.floor(right * steps);
    const row = Math.min(canvas.height - 1, Math.floor(down * canvas.height));
    const at = Math.floor(row / BAND), size = view.run.spikes[at].length / steps, bins = Math.min(BAND, size);
    const bin = Math.floor(((row % BAND) * bins) / BAND), sign = Math.floor(right * 2 * steps * depth) % 2 ? -1 : 1;
    const [from, to] = [bin, bin + 1].map(bin => Math.ceil((bin * size) / bins));
    const spikes = view.run.spikes[at].subarray(step * size + from, step * size + to);
    const fired = spikes.indexOf(sign) < 0 ? spikes.findIndex(spike => spike) : spikes.indexOf(sign);
    view.choose(at, from + Math.max(0, fired));
    view.move(step + 1);
  };
  const names = network.layers.map((_, at) => make("span", { textContent: view.title(at) }));
  const axis = Array.from({ length: steps }, (_, t) => make("span", { textContent: t + 1 }));
  const plot = make("div", { className: "snn-spikes" }, make("div", { className: "snn-bands" }, ...names),
    make("div", { className: "snn-plot" }, canvas, now), make("div", { className: "snn-axis" }, ...axis));
  return {
    nodes: [name(`Every spike: the neurons of ${depth} layers, each layer a part of every step, +1 left of −1`), plot],
    draw: () => frame(now, (view.step - 1) / steps, 0, 1 / steps, 1),
    opened: () => drawRaster(canvas, network, view.run),
  };
}
