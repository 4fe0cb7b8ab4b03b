// The arithmetic of one convolution. Numbers only, no page.

export class Impossible extends Error {}

function whole(name, value, least, why) {
  if (!Number.isInteger(value)) throw new Impossible(`${name} must be a whole number.`);
  if (value < least) throw new Impossible(`${name} ${value} is too small: ${why}`);
}

// How many places a kernel takes along one side, and how that is worked out.
export function outputSize(size, kernel, stride, padding) {
  whole("Stride", stride, 1, "the kernel would never move on.");
  whole("Padding", padding, 0, "pixels can be added around the picture, not taken away.");
  if (padding > size) throw new Impossible(`Padding ${padding} is too large: beyond the picture's own ${size} pixels it only adds paper.`);
  const padded = size + 2 * padding;
  if (kernel > padded) throw new Impossible(`A kernel of ${kernel} × ${kernel} does not fit into ${size} + 2·${padding} = ${padded} pixels.`);
  const result = Math.floor((padded - kernel) / stride) + 1;
  const left_over = (padded - kernel) % stride;
  const quotient = `(${size} + 2·${padding} − ${kernel}) / ${stride}`;
  const formula = `${left_over ? `⌊${quotient}⌋` : quotient} + 1 = ${result}`;
  // Of what is left over, the padding comes first.
  return { result, formula, left_over, unreached: Math.min(size, Math.max(0, left_over - padding)) };
}

// The window under the kernel at (row, column), 0 outside of the picture.
export function patchAt(values, size, kernel, stride, padding, row, column) {
  const [top, left] = [row * stride - padding, column * stride - padding];
  const inside = (position) => position >= 0 && position < size;
  const patch = Array.from({ length: kernel }, (_, y) =>
    Array.from({ length: kernel }, (_, x) => (inside(top + y) && inside(left + x) ? values[(top + y) * size + left + x] : null)),
  );
  return { patch, box: { top, left, height: kernel, width: kernel } };
}

export function multiplyAdd(patch, kernel) {
  return patch.reduce((sum, line, y) => sum + line.reduce((part, value, x) => part + (value ?? 0) * kernel[y][x], 0), 0);
}

// Slide `kernel`, rows of numbers, over a square picture.
export function convolve(values, size, kernel, stride, padding) {
  const { result } = outputSize(size, kernel.length, stride, padding);
  return Float32Array.from({ length: result * result }, (_, index) => {
    const { patch } = patchAt(values, size, kernel.length, stride, padding, Math.floor(index / result), index % result);
    return multiplyAdd(patch, kernel);
  });
}

// Mean of squares of factor × factor pixels.
export function shrink(values, size, factor) {
  const small = size / factor;
  return Float32Array.from({ length: small * small }, (_, index) => {
    const [row, column] = [Math.floor(index / small) * factor, (index % small) * factor];
    let sum = 0;
    for (let y = 0; y < factor; y++) for (let x = 0; x < factor; x++) sum += values[(row + y) * size + column + x];
    return sum / (factor * factor);
  });
}

const fill = (side, value) => Array.from({ length: side }, (_, y) => Array.from({ length: side }, (_, x) => value(x, y)));
const middle = (side) => (side - 1) / 2;

export const KERNELS = {
  smooth: (side) => fill(side, () => Number((1 / side ** 2).toFixed(4))),
  "vertical edge": (side) => fill(side, (x) => Math.sign(x - middle(side))),
  "horizontal edge": (side) => fill(side, (_, y) => Math.sign(y - middle(side))),
  sharpen: (side) => fill(side, (x, y) => (x === middle(side) && y === middle(side) ? side ** 2 : -1)),
  "nothing (identity)": (side) => fill(side, (x, y) => Number(x === middle(side) && y === middle(side))),
};
