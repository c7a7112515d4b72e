// An explorer on a page: its bar of controls, what they show, and the kernel that answers them where there is one.
// The same text runs in JupyterLab, in an exported page and in a file of its own; it asks for nothing from elsewhere.

// An element with properties (those with a hyphen, and "role", are attributes) and children.
function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children);
  return node;
}

const ARRAYS = { int8: Int8Array, uint8: Uint8Array, int16: Int16Array, int32: Int32Array, float64: Float64Array };

// What Python packed: {dtype, shape, data} anywhere in a value becomes a typed array that has a `shape`.
async function unpack(value) {
  if (value?.dtype && "data" in value) {
    const packed = Uint8Array.from(atob(value.data), letter => letter.charCodeAt(0));
    const bytes = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    const array = new ARRAYS[value.dtype](await new Response(bytes).arrayBuffer());
    return Object.assign(array, { shape: value.shape });
  }
  if (Array.isArray(value) && typeof value[0] === "object") return Promise.all(value.map(unpack));
  if (value === null || typeof value !== "object" || Array.isArray(value)) return value;
  const parts = Object.entries(value).map(async ([name, part]) => [name, await unpack(part)]);
  return Object.fromEntries(await Promise.all(parts));
}

// ---- the kernel ----

// Explorers and the kernel's ends of their lines come in any order: they meet here, by name.
const lines = (globalThis.annSnnLines ??= new Map());

function line(id) {
  if (!lines.has(id)) {
    const made = { state: "none", listeners: new Set() };
    made.tell = what => { made.state = what; made.listeners.forEach(listener => listener(what)); };
    lines.set(id, made);
  }
  return lines.get(id);
}

// The kernel's end: an invisible widget. Answers carry the number of what was asked.
function initialize({ model }) {
  const to = line(model.get("page"));
  const waiting = new Map();
  let number = 0;
  model.on("msg:custom", (message, buffers) => {
    const asked = waiting.get(message.number);
    if (message.stale) to.tell("stale");
    else if (message.progress !== undefined) asked?.progress(message.progress);
    else if (message.part) asked?.part(message.part);
    else if (asked) {
      waiting.delete(message.number);
      if (message.error) asked.reject(new Error(message.error));
      else asked.resolve(message.code ? buffers[0] : unpack(message.answer));
    }
  });
  to.ask = (question, progress = () => {}, part = () => {}) => new Promise((resolve, reject) => {
    waiting.set(++number, { resolve, reject, progress, part });
    model.send({ number, ...question });
  });
  to.tell("open");
  return () => {
    for (const { reject } of waiting.values()) reject(new Error("the kernel has gone: run this cell again"));
    to.tell("closed");
  };
}

export default { initialize };

// plotly.js, once for a page: an exported page has it already, a kernel sends it.
function plotly(to) {
  globalThis.annSnnPlotly ??= globalThis.Plotly ? Promise.resolve() : to.ask({ ask: "plotly" }).then(code =>
    new Promise((onload, onerror) => {
      const src = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
      document.head.append(make("script", { src, onload, onerror }));
    }));
  return globalThis.annSnnPlotly;
}

// ---- controls ----

// Explorers share a document, and each of them has this code.
const unique = () => `snn-control-${(globalThis.annSnnControls = (globalThis.annSnnControls ?? 0) + 1)}`;

// What is moved, and the row it stands in: a name, a help as its tooltip, the input itself.
const CONTROLS = {
  range({ low, high, step, value, digits = 0 }, changed) {
    const slide = make("input", { type: "range", min: low, max: high, step, value });
    const typed = make("input", { type: "number", min: low, max: high, step, value: value.toFixed(digits) });
    const set = number => { slide.value = number; typed.value = (+slide.value).toFixed(digits); };
    slide.oninput = () => { set(+slide.value); changed(+slide.value); };
    typed.onchange = () => { set(+typed.value || low); changed(+slide.value); };
    return { nodes: [slide, typed], set };
  },
  choice({ options, value }, changed) {
    const list = make("select", { onchange: () => changed(options[list.selectedIndex][1]) });
    list.append(...options.map(([label]) => make("option", { textContent: label })));
    const set = chosen => { list.selectedIndex = options.findIndex(([, one]) => one === chosen); };
    set(value);
    return { nodes: [list], set };
  },
  number({ low, value }, changed) {
    const typed = make("input", { type: "number", min: low, value, onchange: () => changed(+typed.value) });
    return { nodes: [typed], set: number => { typed.value = number; }, get: () => +typed.value };
  },
  check({ value }, changed) {
    const box = make("input", { type: "checkbox", checked: value, onchange: () => changed(box.checked) });
    return { nodes: [box], set: on => { box.checked = on; } };
  },
};

function control(about, changed) {
  const { nodes, set, get } = CONTROLS[about.kind](about, changed);
  const id = unique();
  nodes[0].id = id;
  nodes[1]?.setAttribute("aria-label", `${about.label}, as a number`);
  const label = make("label", { htmlFor: id, textContent: about.label });
  const row = make("div", { className: "snn-control", title: about.help ?? "" }, label, ...nodes);
  if (about.help) nodes[0].setAttribute("aria-description", about.help);
  return { row, set, get, enable: on => nodes.forEach(node => { node.disabled = !on; }) };
}

// Where in a node a pointer is: shares of its width and height.
function pointed(node, { clientX, clientY }) {
  const { left, top, width, height } = node.getBoundingClientRect();
  return [(clientX - left) / width, (clientY - top) / height];
}

function button(label, help, onclick) {
  return make("button", { type: "button", textContent: label, title: help, onclick });
}

// The time step, and the button that plays it. Nobody is asked: what it moves is in the page.
function player(steps, step, changed) {
  const about = { kind: "range", label: "time step T", low: 1, high: steps, step: 1, value: step };
  about.help = "Slices the finished run at T: nothing is computed anew.";
  const slider = control(about, value => { pause(); move(value); });
  const play = button("▶ Play", "Move through the time steps", () => (timer ? pause() : start()));
  let now = step, timer;
  const move = value => { now = value; slider.set(value); changed(value); };
  const pause = () => { clearInterval(timer); timer = 0; play.textContent = "▶ Play"; };
  function start() {
    move(now < steps ? now : 1);
    timer = setInterval(() => (play.isConnected && now < steps ? move(now + 1) : pause()), 700);
    play.textContent = "⏸ Pause";
  }
  slider.row.append(play);
  slider.row.classList.add("snn-player");
  return { row: slider.row, move };
}

// ---- the page ----

// Draw an explorer into its box. about: what `Explorer.html` tells of it.
async function mount(box, about) {
  if (!box || box.dataset.mounted) return;
  box.dataset.mounted = "yes";
  // JupyterLab's own keys (letters, digits, arrows) would be taken from the control in focus.
  box.addEventListener("focusin", ({ target }) => { target.dataset.lmSuppressShortcuts = "true"; });
  const to = line(about.id);
  const status = make("div", { className: "snn-status", role: "status" });
  const progress = make("progress", { max: 1, value: 0, hidden: true, "aria-label": "progress" });
  const hint = make("div", { className: "snn-hint", textContent: about.hint });
  const head = make("div", { className: "snn-title", role: "heading", "aria-level": "3" }, about.title);
  const bar = make("div", { className: "snn-bar" });
  const body = make("div");
  const lead = make("div", { className: "snn-lead", textContent: about.caption });
  box.replaceChildren(head, lead, bar, body);

  function say(text, wrong = false) {
    status.classList.toggle("snn-wrong", wrong);
    status.innerHTML = text;
  }
  const fail = error => say(`⚠ ${escape(error.message)}`, true);
  const answer = (values, part) => ask({ ask: "answer", values }, part);
  const page = { box, bar, body, to, say, fail, answer };

  async function ask(question, part) {
    if (to.state === "none" || to.state === "closed") throw new Error(about.hint);
    const late = setTimeout(() => { progress.hidden = false; progress.removeAttribute("value"); }, 300);
    try {
      return await to.ask(question, done => {
        if (typeof done === "string") say(done);
        else { progress.hidden = false; progress.value = done; }
      }, part);
    } finally {
      clearTimeout(late);
      progress.hidden = true;
    }
  }

  let view;
  async function build(shown) {
    bar.replaceChildren();
    for (const plot of body.querySelectorAll(".js-plotly-plot")) Plotly.purge(plot);
    body.replaceChildren();
    view = await VIEWS[shown.view](page, shown);
    bar.append(make("div", { className: "snn-words" }, status, progress, ...(view.buttons ?? [])));
    heard(to.state);
  }

  // Another network was chosen: this explorer is made anew when it is looked at.
  let seen = true, stale = false;
  async function renew() {
    if (!(seen && stale)) return;
    stale = false;
    box.classList.add("snn-stale");
    try {
      await build(await ask({ ask: "rebuild" }));
    } catch (error) {
      say(escape(error.message), true);
    }
    box.classList.remove("snn-stale");
  }
  function heard(state) {
    const awake = state === "open" || state === "stale";
    view?.wake?.(awake);
    if (awake) hint.remove();
    else if (about.hint) body.append(hint);
    if (state === "stale") { to.state = "open"; stale = true; renew(); }
  }
  to.listeners.add(heard);
  await build(await unpack(about.shown));
  new IntersectionObserver(entries => { seen = entries.some(e => e.isIntersecting); renew(); }).observe(box);
}

const escape = text => make("i", { textContent: text }).innerHTML;

// Ask for the answer to the newest values, one question at a time: what came in between is never asked.
function newest(ask, show, fail) {
  let busy = false, next;
  return async function wanted(values) {
    next = values;
    if (busy) return;
    busy = true;
    while (next) {
      const asked = next;
      next = undefined;
      try {
        const found = await ask(asked);
        if (!next) await show(found);
      } catch (error) {
        if (!next) fail(error);
      }
    }
    busy = false;
  };
}

// Ways to show what an explorer found, by name.
const VIEWS = { figures, networks };

// Controls above figures: every move is answered by the kernel, with figures as plotly's JSON.
async function figures(page, shown) {
  const values = Object.fromEntries(shown.controls.map(about => [about.name, about.value]));
  const initial = { ...values };
  const rows = make("div", { className: "snn-controls" });
  const made = {};
  // Answers by what was asked, the oldest forgotten. Where they come quickly, what a slider that goes on moving will
  // ask next is asked ahead.
  const answers = new Map();
  let ahead, slow = true;
  function ask(asked, part) {
    const key = JSON.stringify(asked);
    if (!answers.has(key)) {
      const since = performance.now();
      const answer = page.answer(asked, part);
      answers.set(key, answer);
      answer.then(() => { slow = performance.now() - since > 1000; }, () => answers.delete(key));
      if (answers.size > 32) answers.delete(answers.keys().next().value);
    }
    return answers.get(key);
  }
  const wanted = newest(asked => ask(asked, show), async found => {
    await show(found);
    if (ahead && !slow) ask(question(ahead)).catch(() => {});
    ahead = undefined;
  }, page.fail);
  for (const about of shown.controls) {
    const { name, kind, low, high, digits } = about;
    made[name] = control(about, value => {
      const next = +(2 * value - values[name]).toFixed(digits);
      values[name] = value;
      if (about.in_page) return moveInTime();
      ahead = kind === "range" && next >= low && next <= high ? { [name]: next } : undefined;
      return moved();
    });
    rows.append(made[name].row);
  }
  const buttons = [button("Reset", "All controls back to where they were", () => {
    Object.assign(values, initial, shown.pins ? { pinned: [] } : {});
    shown.controls.forEach(({ name }) => made[name].set(values[name]));
    moved();
  })];
  if (shown.pins) {
    values.pinned = [];
    buttons.unshift(button("Pin this setting", "Keep its curve and its row, beside the next one", () => {
      values.pinned = [...values.pinned, { ...values, pinned: [] }].slice(-2);
      moved();
    }));
  }
  page.bar.append(rows);

  let awake = false;
  // A condition names a control that is set, or a control and the value that it has.
  const holds = by => Array.isArray(by) ? values[by[0]] === by[1] : Boolean(values[by]);
  function enable() {
    buttons.forEach(one => { one.disabled = !awake; });
    for (const { name, enabled_by: by, disabled_by: unless, shown_by: only } of shown.controls) {
      made[name].enable(awake && (!by || holds(by)) && !(unless && holds(unless)));
      made[name].row.hidden = Boolean(only) && !holds(only);
    }
  }
  // What is in the page is not asked for: an answer holds all of it.
  const still = Object.fromEntries(shown.controls.filter(one => one.in_page).map(({ name, value }) => [name, value]));
  const question = changed => ({ ...values, ...still, ...changed });
  function moved() { enable(); wanted(question()); }

  const plots = {}, grid = make("div", { className: "snn-figures" });
  const below = make("div", { className: "snn-below" });
  page.body.append(grid, below);
  let last = shown;
  // What an answer says at the chosen time step, where it has one; changes: of its figures.
  function tell() {
    const told = last.at?.[values.step - 1] ?? last;
    page.say(told.line);
    below.innerHTML = told.below ?? "";
    if (told.images) below.append(gallery(told.images, last.pixels));
    return told.changes ?? {};
  }
  // Put the time step into a figure.
  function at({ data, layout }, change) {
    for (const mark of layout.shapes ?? []) if (mark.name === "step") mark.x0 = mark.x1 = values.step;
    if (change) {
      Object.assign(data[0], change.trace);
      layout.title.text = change.title;
    }
  }
  async function draw(name) {
    const { data, layout } = last.figures[name];
    await Plotly.react(plots[name], data, layout, { displaylogo: false, responsive: true });
  }
  async function show(found) {
    last = found;
    const changes = tell();
    if (!globalThis.Plotly && page.to.state !== "open") return;
    await plotly(page.to);
    for (const [name, figure] of Object.entries(found.figures)) {
      plots[name] ??= grid.appendChild(make("div", { className: found.wide === name ? "snn-wide" : "" }));
      plots[name].style.height = `${figure.layout.height}px`;
      at(figure, changes[name]);
      await draw(name);
    }
  }
  async function moveInTime() {
    const changes = tell();
    for (const [name, plot] of Object.entries(plots)) {
      at(last.figures[name], changes[name]);
      if (changes[name]) await draw(name);
      else moveMarks(plot);
    }
  }
  await show(shown);
  new ResizeObserver(() => {
    for (const plot of Object.values(plots)) if (plot.clientWidth) Plotly.Plots.resize(plot);
  }).observe(grid);
  return {
    buttons,
    wake(on) {
      const first = on && !awake;
      awake = on;
      enable();
      if (first && !grid.childElementCount) show(shown);
    },
  };
}

// Move the marks of a figure's time step where they are drawn: plotly would draw all of the figure anew.
function moveMarks(plot) {
  (plot.layout.shapes ?? []).forEach(({ name, x0, xref }, index) => {
    if (name !== "step") return;
    const axis = plot._fullLayout[xref.replace("x", "xaxis")], x = axis._offset + axis.l2p(x0);
    const line = plot.querySelector(`.shape-group path[data-index="${index}"]`);
    line.setAttribute("d", line.getAttribute("d").replace(/([ML])[^,]+/g, `$1${x}`));
  });
}

// Images that a setting answers otherwise; a click opens one in the explorer of single images.
function gallery({ title, images }, pixels) {
  const one = pixels.length / pixels.shape[0];
  const cells = images.map(({ place, sample, text, true: label }) => {
    const open = () => document.dispatchEvent(new CustomEvent("annsnn-sample", { detail: sample }));
    const title = `image ${sample}, class ${label}: open it`;
    const node = make("button", { type: "button", className: "snn-thumb", title, onclick: open });
    node.append(picture(pixels.subarray(place * one, (place + 1) * one), pixels.shape.slice(1)));
    node.append(make("span", { textContent: text }), make("span", { textContent: `true ${label}` }));
    return node;
  });
  const name = make("div", { className: "snn-name", textContent: title });
  return make("div", {}, name, make("div", { className: "snn-thumbs snn-wrap" }, ...cells));
}

// One image, uint8 [C, H, W], as a canvas of its own size.
function picture(pixels, [channels, height, width]) {
  const canvas = make("canvas", { width, height, "aria-hidden": "true" });
  const sheet = new ImageData(width, height), plane = height * width;
  for (let cell = 0; cell < plane; cell++) {
    for (let colour = 0; colour < 3; colour++) {
      sheet.data[4 * cell + colour] = pixels[cell + plane * Math.min(colour, channels - 1)];
    }
    sheet.data[4 * cell + 3] = 255;
  }
  canvas.getContext("2d").putImageData(sheet, 0, 0);
  return canvas;
}

// The list of networks. Where one cannot be opened, the list goes back to the one that is.
async function networks(page, shown) {
  let current = shown.control.value;
  const list = control(shown.control, async name => {
    list.enable(false);
    try {
      const found = await page.answer({ name });
      current = name;
      page.say(found.line);
    } catch (error) {
      list.set(current);
      page.say(`⚠ ${escape(error.message)}<br>${escape(current)} stays.`, true);
    }
    list.enable(true);
  });
  page.bar.append(list.row);
  page.say(shown.line);
  return { wake: on => list.enable(on) };
}
