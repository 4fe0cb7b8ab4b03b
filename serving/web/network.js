// A network and what it made of one drawing: how each value came about. Numbers only, no page.

import { floats } from "./api.js";

const tensor = ({ shape, data }) => ({ shape, values: floats(data) });

export class Network {
  constructor({ model, layers, kernels }) {
    this.model = model;
    this.layers = layers;
    this.byName = new Map(layers.map((layer) => [layer.name, layer]));
    this.kernels = new Map(Object.entries(kernels).map(([name, content]) => [name, tensor(content)]));
    this.values = new Map();
  }

  // Take what POST /explain answered.
  fill({ pixels, layers }) {
    this.pixels = Float32Array.from(pixels.flat());
    this.values = new Map(Object.entries(layers).map(([name, content]) => [name, tensor(content)]));
  }

  // Shape as [maps, height, width]; a row of features is one map of height 1.
  extent(layer) {
    const shape = layer.output_shape;
    return shape.length === 3 ? shape : [1, 1, shape.at(-1)];
  }

  valuesOf(layer) {
    return this.values.get(layer.name).values;
  }

  incoming(layer) {
    if (layer.source === null) return { shape: [1, 28, 28], values: this.pixels };
    return { shape: this.extent(this.byName.get(layer.source)), values: this.values.get(layer.source).values };
  }

  // How the value at (map, row, column) came about.
  explain(layer, place) {
    const [, height, width] = this.extent(layer);
    const index = (place[0] * height + place[1]) * width + place[2];
    const value = this.valuesOf(layer)[index];
    const how = HOW[layer.kind] ?? plain;
    return { value, place, ...how(this, layer, place, index) };
  }
}

// The window of the incoming maps that a place sees: row by row, null outside of the picture.
function windowOf(incoming, layer, map, [, row, column]) {
  const [height, width] = layer.kernel_size;
  const top = row * layer.stride[0] - layer.padding[0];
  const left = column * layer.stride[1] - layer.padding[1];
  const [, rows, columns] = incoming.shape;
  const patch = Array.from({ length: height }, (_, y) =>
    Array.from({ length: width }, (_, x) => {
      const [r, c] = [top + y, left + x];
      return r >= 0 && r < rows && c >= 0 && c < columns ? incoming.values[(map * rows + r) * columns + c] : null;
    }),
  );
  return { patch, box: { top, left, height, width } };
}

const grid = (values, start, height, width) =>
  Array.from({ length: height }, (_, y) => Array.from(values.subarray(start + y * width, start + (y + 1) * width)));

const sumOfProducts = (patch, kernel) =>
  patch.reduce((sum, line, y) => sum + line.reduce((part, value, x) => part + (value ?? 0) * kernel[y][x], 0), 0);

function convolution(network, layer, place) {
  const incoming = network.incoming(layer);
  const weight = network.kernels.get(layer.weight);
  const bias = layer.bias ? network.kernels.get(layer.bias).values[place[0]] : 0;
  const [, perMap, height, width] = weight.shape;
  const group = Math.floor((place[0] * incoming.shape[0]) / weight.shape[0] / perMap) * perMap;
  const terms = Array.from({ length: perMap }, (_, number) => {
    const map = group + number;
    const { patch, box } = windowOf(incoming, layer, map, place);
    const kernel = grid(weight.values, (place[0] * perMap + number) * height * width, height, width);
    return { map, patch, kernel, box, sum: sumOfProducts(patch, kernel) };
  });
  return { kind: "products", terms, bias, source: layer.source };
}

function largest(network, layer, place) {
  const { patch, box } = windowOf(network.incoming(layer), layer, place[0], place);
  return { kind: "largest", terms: [{ map: place[0], patch, box }], source: layer.source };
}

function mean(network, layer, place) {
  const { patch, box } = windowOf(network.incoming(layer), layer, place[0], place);
  return { kind: "mean", terms: [{ map: place[0], patch, box }], source: layer.source };
}

function subsampling(network, layer, place) {
  const { patch, box } = windowOf(network.incoming(layer), layer, place[0], place);
  const factor = network.kernels.get(layer.weight).values[place[0]];
  const bias = network.kernels.get(layer.bias).values[place[0]];
  return { kind: "subsampling", terms: [{ map: place[0], patch, box }], factor, bias, source: layer.source };
}

function linear(network, layer, place, index) {
  const incoming = network.incoming(layer).values;
  const weight = network.kernels.get(layer.weight).values;
  const bias = layer.bias ? network.kernels.get(layer.bias).values[index] : 0;
  const row = weight.subarray(index * incoming.length, (index + 1) * incoming.length);
  const products = Array.from(row, (factor, position) => ({ position, value: incoming[position], factor, product: incoming[position] * factor }));
  const sum = products.reduce((total, { product }) => total + product, 0);
  products.sort((one, other) => Math.abs(other.product) - Math.abs(one.product));
  return { kind: "weighted", products, sum, bias, source: layer.source };
}

function batchNorm(network, layer, place, index) {
  const factor = network.kernels.get(layer.weight).values[place[0]];
  const bias = network.kernels.get(layer.bias).values[place[0]];
  return { kind: "scaled", before: network.incoming(layer).values[index], factor, bias, source: layer.source };
}

function globalMean(network, layer, [map]) {
  const { shape, values } = network.incoming(layer);
  const patch = grid(values, map * shape[1] * shape[2], shape[1], shape[2]);
  return { kind: "mean", terms: [{ map, patch, box: { top: 0, left: 0, height: shape[1], width: shape[2] } }], source: layer.source };
}

const elementwise = (formula) => (network, layer, place, index) => ({
  kind: "function",
  formula,
  before: layer.source === null && layer.kind !== "normalize" ? null : network.incoming(layer).values[index],
  source: layer.source,
  pixel: place,
});

function padding(network, layer, place) {
  const [, rows, columns] = network.incoming(layer).shape;
  const [, height, width] = network.extent(layer);
  const [row, column] = [place[1] - (height - rows) / 2, place[2] - (width - columns) / 2];
  const inside = row >= 0 && row < rows && column >= 0 && column < columns;
  return { kind: "text", text: inside ? `the same pixel of ${layer.source}` : "added around the picture: paper", source: layer.source, pixel: inside ? [place[0], row, column] : null };
}

function flatten(network, layer, place, index) {
  const [, rows, columns] = network.incoming(layer).shape;
  const map = Math.floor(index / (rows * columns));
  const [row, column] = [Math.floor(index / columns) % rows, index % columns];
  return { kind: "text", text: `position ${index} is map ${map}, row ${row}, column ${column}: (${map} · ${rows} + ${row}) · ${columns} + ${column} = ${index}`, source: layer.source, pixel: [map, row, column] };
}

function plain() {
  return { kind: "text", text: "a value between two layers, such as max(0, x) of the one before or of its sum with a shortcut", source: null };
}

const HOW = {
  convolution,
  "max-pool": largest,
  "avg-pool": mean,
  "global avg-pool": globalMean,
  subsampling,
  linear,
  padding,
  flatten,
  BatchNorm2d: batchNorm,
  normalize: elementwise("(x / 255 − 0.1307) / 0.3081"),
  ReLU: elementwise("max(0, x)"),
  ScaledTanh: elementwise("1.7159 · tanh(2/3 · x)"),
  Tanh: elementwise("tanh(x)"),
  SiLU: elementwise("x / (1 + e⁻ˣ)"),
  GELU: elementwise("GELU(x)"),
};
