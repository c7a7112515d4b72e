// What a run says of a neuron, from the spikes of all layers and the kernels: nothing is asked of the kernel.

// What reached a neuron at a step, and by how much that moved its membrane; for each source of its inputs the patch
// [C, h, w], the kernel's weights, and where in the source the patch lies.
function arrivals(network, run, pixels, at, neuron, step) {
  const layer = network.layers[at], [outputs] = layer.shape;
  const [channel, row, column] = placeIn(layer.shape, neuron);
  let sum = 0;
  const parts = layer.inputs.map(input => {
    const { from, weight, stride, padding, dilation, groups, amplitude, gain } = input;
    const [channels, rows, columns] = input.in_shape;
    const [, deep, tall, broad] = weight.shape, count = deep * tall * broad;
    const first = Math.floor((channel * groups) / outputs) * deep;
    const top = row * stride - padding, left = column * stride - padding;
    const weights = weight.subarray(channel * count, (channel + 1) * count), inputs = new Float64Array(count);
    // The image is there at the first step only.
    const source = from === null ? (step ? null : pixels) : run.spikes[from];
    const start = from === null ? 0 : step * channels * rows * columns;
    let total = 0;
    for (let c = first, i = 0; source && c < first + deep; c++) {
      for (let y = top; y < top + tall * dilation; y += dilation) {
        for (let x = left; x < left + broad * dilation; x += dilation, i++) {
          if (y < 0 || x < 0 || y >= rows || x >= columns) continue;
          inputs[i] = amplitude * source[start + (c * rows + y) * columns + x];
          total += inputs[i] * weights[i];
        }
      }
    }
    const factor = gain === null ? 1 : gain[channel];
    if (layer.maximum) {
      const places = { channel, top, left, tall, broad };
      sum += largest(input, run, places, step + 1) - largest(input, run, places, step);
    } else {
      sum += factor * total;
    }
    const patch = { top, left, tall: (tall - 1) * dilation + 1, broad: (broad - 1) * dilation + 1 };
    return { from, shape: [deep, tall, broad], inputs, weights, factor, patch };
  });
  return { sum, parts };
}

// The largest count in a window of a layer after so many steps; nothing outside the map is one.
function largest(input, run, { channel, top, left, tall, broad }, steps) {
  const { dilation } = input, [channels, rows, columns] = input.in_shape, spikes = run.spikes[input.from];
  let found = -Infinity;
  for (let y = top; y < top + tall * dilation; y += dilation) {
    for (let x = left; x < left + broad * dilation; x += dilation) {
      if (y < 0 || x < 0 || y >= rows || x >= columns) continue;
      let count = 0;
      for (let t = 0; t < steps; t++) count += spikes[((t * channels + channel) * rows + y) * columns + x];
      found = Math.max(found, count);
    }
  }
  return found;
}

// The membrane after every step, and what each step compared it with: [{u, low, high, before, spike}, …]
function history(network, run, pixels, at, neuron) {
  const layer = network.layers[at], [channel] = placeIn(layer.shape, neuron);
  const size = layer.shape.reduce((a, b) => a * b);
  // θ of a count: columns of the tables begin with the least count but one.
  const threshold = (table, count) => {
    const [, columns] = table.shape, column = count - 1 - layer.lowest;
    return column >= 0 && column < columns ? table[channel * columns + column] : null;
  };
  let u = 0, n = 0;
  return Array.from({ length: run.answers.length }, (_, step) => {
    u += arrivals(network, run, pixels, at, neuron, step).sum;
    const spike = run.spikes[at][step * size + neuron], before = n;
    n += spike;
    // The encoder's threshold climbs by itself, and nothing is taken back.
    if (at === 0) return { u, low: null, high: threshold(layer.rising, step + 1), before, spike };
    return { u, low: threshold(layer.falling, before), high: threshold(layer.rising, before + 1), before, spike };
  });
}
