// Maps of neurons as pictures: channels side by side, a cell for each neuron, and what a pointer is over.

const QUIET = [128, 128, 128, 31], RISE = [27, 127, 192], FALL = [213, 94, 0];

// Channel, row and column of a neuron of a map [C, H, W].
function placeIn([, height, width], neuron) {
  const rest = neuron % (height * width);
  return [Math.floor(neuron / (height * width)), Math.floor(rest / width), rest % width];
}

// How many channels of a map [C, H, W] lie side by side, and the cells between two.
function mosaic([channels, height, width]) {
  const columns = Math.max(1, Math.round(Math.sqrt((1.8 * channels * height) / width)));
  const gap = height === 1 && width === 1 ? 0 : 1, rows = Math.ceil(channels / columns);
  const wide = columns * (width + gap) - gap, high = rows * (height + gap) - gap;
  // The neuron in each cell of the sheet, −1 between channels.
  const cells = new Int32Array(wide * high).fill(-1);
  const place = neuron => {
    const [channel, row, column] = placeIn([channels, height, width], neuron);
    return [Math.floor(channel / columns) * (height + gap) + row, (channel % columns) * (width + gap) + column];
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
// The colours of whole numbers least … most side by side, some of them named below.
function scale(colour, least, most) {
  const length = most - least + 1, canvas = make("canvas", { "aria-hidden": "true" });
  paint(canvas, { wide: length, high: 1, cells: Int32Array.from({ length }, (_, cell) => cell) },
    cell => colour(least + cell, most));
  const numbers = ticks(least, most, 6).filter(Number.isInteger).map(number => {
    const name = make("span", { textContent: told(number).replace("-", "−") });
    name.style.left = `${(100 * (number - least + 0.5)) / length}%`;
    return name;
  });
  const bar = make("div", { className: "snn-scale" }, canvas, make("div", {}, ...numbers));
  bar.style.maxWidth = `${30 * length}px`;
  return bar;
}

const grey = value => [value, value, value, 255];

