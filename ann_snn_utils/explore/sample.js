// One image in the network: the row of images, the time step, and the parts that follow both. All T steps are in
// the page; what moves in time is drawn from them here.

VIEWS.sample = sample;

// Totals that the words need: spikes of each layer and step, neurons that still fire later, the softmax's share.
function summarize(network, run) {
  const steps = run.answers.length, zeros = () => Array(steps).fill(0);
  run.fired = run.spikes.map(spikes => {
    const size = spikes.length / steps, plus = zeros(), minus = zeros(), pending = zeros();
    for (let neuron = 0; neuron < size; neuron++) {
      let latest = 0;
      for (let step = 0; step < steps; step++) {
        const spike = spikes[step * size + neuron];
        if (!spike) continue;
        (spike > 0 ? plus : minus)[step]++;
        latest = step;
      }
      for (let step = 0; step < latest; step++) pending[step]++;
    }
    return { plus, minus, pending };
  });
  const count = network.classes.length;
  run.sure = run.answers.map((answer, t) => {
    const scores = run.scores.subarray(t * count, (t + 1) * count);
    return 1 / scores.reduce((sum, score) => sum + Math.exp(network.scale * (score - scores[answer])), 0);
  });
  return run;
}

// What the network says of an image after a step: how soon, and how sure.
function words({ network, item, run, step }) {
  const name = c => `“${escape(network.classes[c])}”`, steps = run.answers.length;
  const answer = run.answers[step - 1], final = run.answers[steps - 1];
  let since = steps;
  while (since > 1 && run.answers[since - 2] === final) since--;
  const right = item.label === null ? "" : answer === item.label ? " ✓" : ` ✗ (true: ${name(item.label)})`;
  const add = (sum, value) => sum + value;
  const later = run.fired.map(layer => layer.pending[step - 1]).reduce(add, 0);
  const spikes = run.fired.slice(1).flatMap(({ plus, minus }) => [...plus.slice(0, step), ...minus.slice(0, step)]);
  const sure = `${(100 * run.sure[step - 1]).toFixed(0)} % sure`;
  return [
    `${escape(item.name)}, after step ${step}: <b>${name(answer)}</b>${right}, ${sure}`,
    `it stays with ${name(final)} from step ${since} on`,
    `the quantized ANN says ${name(run.ann)}`,
    `${told(spikes.reduce(add, 0))} hidden spikes so far`,
    run.settled && run.settled < step ? `silent since step ${run.settled + 1}`
      : `${told(later)} neurons will still fire${run.settled ? "" : ", and perhaps beyond this run"}`,
  ].join(" · ");
}

async function sample(page, shown) {
  const { network, steps, images } = shown;
  const runs = Object.fromEntries(Object.entries(shown.runs).map(([key, run]) => [key, summarize(network, run)]));
  // What the parts draw: an image and its run, a step, a neuron and its history.
  const first = Math.min(1, network.layers.length - 1);
  const view = { network, steps, images, step: shown.step, layer: first, neuron: 0, answer: page.answer };
  view.title = at => `${at} · ${network.layers[at].name}`;
  view.place = (at, neuron) => placeIn(network.layers[at].shape, neuron);
  view.where = (at, neuron) => {
    const [channel, row, column] = view.place(at, neuron);
    return `channel ${channel}, row ${row}, column ${column}`;
  };
  const rows = (layer = view.layer, neuron = view.neuron) =>
    history(network, view.run, view.item.pixels, layer, neuron);
  view.choose = (layer, neuron) => {
    Object.assign(view, { layer, neuron, rows: rows(layer, neuron) });
    draw();
  };
  view.move = step => time.move(step);

  const row = imageRow(view, images, key => key in runs, open);
  const time = player(steps, view.step, step => {
    view.step = step;
    row.moved();
    draw();
  });
  const own = ownPicture(shown.draw, async (pixels, shape) => {
    const letters = Array.from(pixels, pixel => String.fromCharCode(pixel)).join("");
    const found = await page.answer({ pixels: btoa(letters), shape });
    const item = row.add(found.pixels, found.run);
    runs[item.key] = summarize(network, found.run);
    await open(item);
    time.move(steps);
  }, page.fail);
  const note = make("span", { className: "snn-note", innerHTML: images.note });
  page.bar.append(make("div", { className: "snn-choose" }, ...row.nodes, own.opener), own.panel, time.row, note);

  // Two columns where there is room, one below the other where there is not.
  const columns = [[mapsPart, scoresPart], [neuronPart, whyPart, stepsPart, rasterPart]]
    .map(column => column.map(part => part(view)));
  const parts = columns.flat();
  const panels = make("div", { className: "snn-panels" }, ...columns.map(column =>
    make("div", { className: "snn-column" }, ...column.map(({ nodes }) => make("section", {}, ...nodes)))));
  page.body.append(panels);
  function draw() {
    parts.forEach(part => part.draw());
    page.say(words(view));
  }

  let latest;
  async function open(item) {
    if (!item) return;
    latest = item;
    try {
      runs[item.key] ??= summarize(network, (await page.answer({ sample: +item.key })).run);
    } catch (error) {
      page.fail(error);
      return;
    }
    // Another one was chosen while the kernel answered.
    if (latest !== item) return;
    Object.assign(view, { item, run: runs[item.key] });
    row.mark();
    parts.forEach(part => part.opened?.());
    view.choose(view.layer, view.neuron);
  }
  // Other explorers open images here.
  document.addEventListener("annsnn-sample", ({ detail }) => {
    // Of another network that this box showed before.
    if (!panels.isConnected) return;
    page.box.scrollIntoView({ block: "start" });
    const item = row.items.find(item => item.key === String(detail));
    if (item) open(item);
    else page.fail(new Error(`image ${detail} is not among the ${row.items.length} images of this box`));
  });

  view.run = runs[shown.sample];
  view.neuron = liveliest(view, view.layer);
  await open(row.items[shown.sample]);
  let width = panels.clientWidth;
  new ResizeObserver(() => {
    if (!panels.isConnected || panels.clientWidth === width) return;
    width = panels.clientWidth;
    draw();
  }).observe(panels);
  // For the tests, which compare it with what Python says.
  page.box.explorer = { items: row.items, open, choose: view.choose, rows, run: () => view.run };
  return {
    wake(on) {
      own.enable(on);
      row.wake(on);
      parts.forEach(part => part.wake?.(on));
    },
  };
}

// The images to choose from, all of them or some. ready: whether an image can be shown without the kernel.
function imageRow(view, images, ready, open) {
  const { network } = view, shape = images.pixels.shape.slice(1), [count] = images.pixels.shape;
  const one = images.pixels.length / count;
  const items = Array.from({ length: count }, (_, index) => ({
    key: String(index),
    name: `Image ${images.first + index}`,
    label: images.labels[index],
    settled: images.settled[index],
    pixels: images.pixels.subarray(index * one, (index + 1) * one),
    says: step => images.answers[(step - 1) * count + index],
  }));
  const options = [["all images", "all"], ["only wrong at T", "wrong"], ["slowest to settle", "slow"],
    ...network.classes.map((name, index) => [`class “${name}”`, index])];
  const help = "Which images stand in the row to choose from";
  let which = "all", awake = false;
  const filter = control({ kind: "choice", label: "images", options, value: which, help }, value => {
    which = value;
    list();
  });
  const strip = make("div", { className: "snn-thumbs", role: "listbox", "aria-label": "image" });

  function wanted(item) {
    if (!awake && !ready(item.key)) return false;
    if (which === "wrong") return item.label !== null && item.says(view.step) !== item.label;
    return typeof which === "number" ? item.label === which : true;
  }
  function thumb(item) {
    const said = item.label === null ? item.name : `${item.name}, class ${network.classes[item.label]}`;
    const look = { type: "button", className: "snn-thumb", title: said, role: "option", "aria-label": said };
    item.thumb ??= make("button", { ...look, onclick: () => open(item) }, picture(item.pixels, shape));
    return item.thumb;
  }
  function list() {
    const chosen = items.filter(wanted);
    // Zero has not settled at all.
    if (which === "slow") chosen.sort((a, b) => (b.settled || Infinity) - (a.settled || Infinity));
    strip.replaceChildren(...chosen.map(thumb));
    if (!chosen.length) strip.append("none");
    mark();
  }
  function mark() {
    for (const item of items) item.thumb?.setAttribute("aria-selected", item === view.item);
    const thumbs = [...strip.querySelectorAll("button")];
    // One of them is reached by Tab, the others by arrow keys.
    const there = thumbs.includes(view.item?.thumb) ? view.item.thumb : thumbs[0];
    for (const node of thumbs) node.tabIndex = node === there ? 0 : -1;
  }
  strip.addEventListener("keydown", event => {
    const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!move) return;
    event.preventDefault();
    const thumbs = [...strip.querySelectorAll("button")], at = thumbs.indexOf(document.activeElement) + move;
    const next = thumbs[Math.max(0, Math.min(thumbs.length - 1, at))];
    next?.focus();
    next?.click();
  });
  list();
  return {
    nodes: [filter.row, strip], items, mark,
    moved() { if (which === "wrong") list(); },
    wake(on) {
      if (on === awake) return;
      awake = on;
      list();
    },
    add(pixels, run) {
      const number = items.filter(item => item.label === null).length + 1;
      const says = step => run.answers[step - 1], { settled } = run;
      const item = { key: `own ${number}`, name: `Your picture ${number}`, label: null, settled, pixels, says };
      items.unshift(item);
      which = "all";
      filter.set(which);
      list();
      return item;
    },
  };
}
