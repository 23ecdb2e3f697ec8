// Pure functions: colours, ticks, cells, ratios, numbered names.

// 48 colours of matplotlib's viridis.
const VIRIDIS = (
  '44015446085c47106348186a481f70482677472d7b463480443a834241863f47883d4d8a3a538b38598c355f8d32648e' +
  '306a8e2e6f8e2b748e29798e277e8e25838e23888e218e8d20928c1f988b1e9d891fa28722a78525ac822cb17e32b67a' +
  '3bbb7544bf7050c46a5ac86467cc5c73d0567fd34e8ed6459bd93caadc32b8de29c8e020d5e21ae5e419f1e51dfde725'
).match(/../g).map((h) => parseInt(h, 16));
// ColorBrewer's RdBu, blue for less.
const DIVERGING = '2166ac4393c392c5ded1e5f0f7f7f7fddbc7f4a582d6604db2182b'.match(/../g).map((h) => parseInt(h, 16));

export const ZERO = [16, 16, 16];
export const NAN = [255, 47, 209];
export const INF = [255, 145, 0];

function interpolate(table, fraction) {
  const last = table.length / 3 - 1;
  const x = Math.min(Math.max(fraction, 0), 1) * last;
  const i = Math.min(Math.floor(x), last - 1);
  return [0, 1, 2].map((c) => Math.round(table[3 * i + c] + (x - i) * (table[3 * i + 3 + c] - table[3 * i + c])));
}

/** Colour of a fraction in [0, 1] as [r, g, b]; `diverging` is white in the middle. */
export const color = (fraction, diverging) => interpolate(diverging ? DIVERGING : VIRIDIS, fraction);

const superscript = (n) => String(n).replace(/./g, (c) => '⁰¹²³⁴⁵⁶⁷⁸⁹'[c] || '⁻');

/** Short text of a number: plain, or with a power of ten if very large or small. */
export function format(value) {
  if (value === null || value === undefined) return '–';
  if (!Number.isFinite(value)) return Number.isNaN(value) ? 'NaN' : value > 0 ? '∞' : '−∞';
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size >= 1e-3 && size < 1e5) return String(+value.toPrecision(4)).replace('-', '−');
  const [digits, power] = value.toExponential(2).split('e');
  return `${(+digits === 1 ? '' : `${+digits}·`).replace('-', '−')}10${superscript(+power)}`;
}

/** `format` for a statistic, which is NaN without a fit. */
export const statistic = (value) => format(Number.isNaN(value) ? null : value);

/** A number of things: 1 run, 2 runs. */
export const counted = (number, noun) => `${number} ${noun}${number === 1 ? '' : 's'}`;

/** Order of names in which seed 2 comes before seed 10. */
export const byName = new Intl.Collator('en', {numeric: true}).compare;

/** Round ticks within [low, high]. */
export function ticks(low, high, count, whole = false) {
  if (!(high > low)) return [low];
  const raw = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(raw));
  let step = power * [1, 2, 5, 10].find((m) => m * power >= raw * 0.999);
  if (whole) step = Math.max(1, Math.round(step));
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(+(i * step).toPrecision(12));
  return found;
}

/** Ticks {value, text} of a logarithmic axis from 10^low to 10^high. */
export function logTicks(low, high, count) {
  const named = (values) => values.map((value) => ({value, text: format(10 ** value)}));
  if (high - low < 1) return named(ticks(10 ** low, 10 ** high, count).filter((x) => x > 0).map(Math.log10));
  for (const within of [[1, 2, 5], [1, 3]]) {
    const found = [];
    for (let power = Math.floor(low); power <= high; power++) found.push(...within.map((m) => power + Math.log10(m)));
    const inside = found.filter((v) => v >= low - 1e-9 && v <= high + 1e-9);
    if (inside.length <= count) return named(inside);
  }
  return named(ticks(low, high, count, true));
}

/** Index of the cell whose edges enclose `value`, -1 outside. */
export function cell(edges, value) {
  if (!(value >= edges[0] && value < edges[edges.length - 1])) return -1;
  let low = 0;
  let high = edges.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (edges[middle] <= value) low = middle;
    else high = middle;
  }
  return low;
}

/** Smallest and largest of the finite numbers, or null. */
export function range(numbers) {
  let found = null;
  for (const v of numbers) if (Number.isFinite(v)) found = found ? [Math.min(found[0], v), Math.max(found[1], v)] : [v, v];
  return found;
}

/** Quantile of sorted numbers, linear between neighbours; of an infinite neighbour, that one. Null if there is none. */
export function quantile(sorted, fraction) {
  if (!sorted.length) return null;
  const at = fraction * (sorted.length - 1);
  const [low, high] = [sorted[Math.floor(at)], sorted[Math.ceil(at)]];
  return low === high ? low : low + (at - Math.floor(at)) * (high - low);
}

/** Median without missing values and NaN; null if there is none. */
export const median = (numbers) =>
  quantile(numbers.filter((v) => typeof v === 'number' && !Number.isNaN(v)).sort((x, y) => x - y), 0.5);

/** A common log10 colour scale [low, high] of all grids that are not null; at least 0.1 wide. */
export function sharedScale(grids, symmetric = false) {
  const all = range(grids.filter((cells) => cells && cells.min !== null).flatMap(({min, max}) => [min, max]));
  if (!all) return symmetric ? [-1, 1] : [-1, 0];
  let [low, high] = all;
  if (symmetric) [low, high] = [-Math.max(-low, high), Math.max(-low, high)];
  return high - low < 0.1 ? [low - 0.5, high + 0.5] : [low, high];
}

/** Log10 ratios of a grid to `base`, at equal steps and lags from the end. 0 / 0 is 0; x / 0 is infinite. */
export function divide(cells, base) {
  const at = (edges) => Array.from({length: edges.length - 1}, (_, i) => (edges[i] + edges[i + 1]) / 2);
  const columns = at(cells.timestep_edges).map((t) => cell(base.timestep_edges, t - cells.timesteps + base.timesteps));
  const values = new Float32Array(cells.values.length);
  at(cells.step_edges).forEach((step, i) => {
    const row = cell(base.step_edges, step);
    columns.forEach((column, j) => {
      const value = cells.values[i * cells.cols + j];
      const other = row < 0 || column < 0 ? base.missing : base.values[row * base.cols + column];
      const none = value === cells.missing || other === base.missing;
      values[i * cells.cols + j] = none ? cells.missing : value === -Infinity ? value : value - other;
    });
  });
  const finite = range(values.filter((v) => v !== cells.missing));
  return {...cells, values, min: finite && finite[0], max: finite && finite[1]};
}
