// An explorer on a page: its bar of controls, what they show, and the kernel that answers them where there is one.
// The same text runs in JupyterLab, in an exported page and in a file of its own; it asks for nothing from elsewhere.

// An element with properties (those with a hyphen, and "role", are attributes) and children.
export function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.filter(child => child !== null));
  return node;
}

const ARRAYS = { int8: Int8Array, uint8: Uint8Array, int16: Int16Array, int32: Int32Array, float64: Float64Array };

// What Python packed: {dtype, shape, data} anywhere in a value becomes a typed array that has a `shape`.
export async function unpack(value) {
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
    typed.setAttribute("aria-label", "type a value");
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

export function control(about, changed) {
  const { nodes, set, get } = CONTROLS[about.kind](about, changed);
  const id = unique();
  nodes[0].id = id;
  nodes[1]?.setAttribute("aria-label", `${about.label}, as a number`);
  const label = make("label", { htmlFor: id, textContent: about.label });
  const row = make("div", { className: `snn-control snn-${about.kind}`, title: about.help ?? "" }, label, ...nodes);
  if (about.help) nodes[0].setAttribute("aria-description", about.help);
  return { row, set, get, enable: on => nodes.forEach(node => { node.disabled = !on; }) };
}

export function button(label, help, onclick) {
  return make("button", { type: "button", textContent: label, title: help, onclick });
}

// The time step, and the button that plays it. Nobody is asked: what it moves is in the page.
export function player(steps, step, changed) {
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

// Draw an explorer into its box. about: what `Explorer.about` says.
export async function mount(box, about) {
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
  const body = make("div", { className: "snn-body" });
  const lead = make("div", { className: "snn-lead", textContent: about.caption });
  box.replaceChildren(head, lead, bar, body);

  function say(text, wrong = false) {
    status.classList.toggle("snn-wrong", wrong);
    status.innerHTML = text;
  }
  const page = { box, bar, body, status, progress, hint, say, to, ask };

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
    body.replaceChildren();
    view = await VIEWS[shown.view](page, await unpack(shown));
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
    box.classList.toggle("snn-asleep", !awake);
    view?.wake?.(awake);
    if (awake) hint.remove();
    else if (about.hint) body.append(hint);
    if (state === "stale") { to.state = "open"; stale = true; renew(); }
  }
  to.listeners.add(heard);
  await build(about.shown);
  new IntersectionObserver(entries => { seen = entries.some(e => e.isIntersecting); renew(); }).observe(box);
}

export const escape = text => make("i", { textContent: text }).innerHTML;

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
  const wanted = newest(question => page.ask({ ask: "answer", values: question }, show), show, error => {
    page.say(`⚠ ${escape(error.message)}`, true);
  });
  for (const about of shown.controls) {
    made[about.name] = control(about, value => { values[about.name] = value; moved(); });
    rows.append(made[about.name].row);
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
  function enable() {
    buttons.forEach(one => { one.disabled = !awake; });
    for (const { name, enabled_by: by, disabled_by: unless, shown_by: only } of shown.controls) {
      made[name].enable(awake && (!by || Boolean(values[by])) && !(unless && values[unless]));
      made[name].row.hidden = Boolean(only) && !values[only];
    }
  }
  function moved() { enable(); wanted({ ...values }); }

  const plots = {}, grid = make("div", { className: "snn-figures" });
  const below = make("div", { className: "snn-below" });
  page.body.append(grid, below);
  async function show(found) {
    page.say(found.line);
    below.innerHTML = found.below ?? "";
    if (found.images) below.append(gallery(found.images));
    if (!globalThis.Plotly && page.to.state !== "open") return;
    await plotly(page.to);
    for (const [name, { data, layout }] of Object.entries(found.figures)) {
      plots[name] ??= grid.appendChild(make("div", { className: found.wide === name ? "snn-wide" : "" }));
      plots[name].style.height = `${layout.height}px`;
      await Plotly.react(plots[name], data, layout, { displaylogo: false, responsive: true });
    }
    page.box.dispatchEvent(new CustomEvent("annsnn-drawn"));
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

// Images that a setting answers otherwise; a click opens one in the explorer of single images.
function gallery({ title, images, pixels }) {
  const one = pixels.length / Math.max(1, images.length);
  const cells = images.map(({ sample, text, true: label }, index) => {
    const open = () => document.dispatchEvent(new CustomEvent("annsnn-sample", { detail: sample }));
    const title = `image ${sample}, class ${label}: open it`;
    const node = make("button", { type: "button", className: "snn-thumb", title, onclick: open });
    node.append(picture(pixels.subarray(index * one, (index + 1) * one), pixels.shape.slice(1)));
    node.append(make("span", { textContent: text }), make("span", { textContent: `true ${label}` }));
    return node;
  });
  const name = make("div", { className: "snn-name", textContent: title });
  return make("div", {}, name, make("div", { className: "snn-thumbs snn-wrap" }, ...cells));
}

// One image, uint8 [C, H, W], as a canvas of its own size.
export function picture(pixels, [channels, height, width]) {
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
      const found = await page.ask({ ask: "answer", values: { name } });
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
