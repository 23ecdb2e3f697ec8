// Drawing on canvas: colours, axes, heatmaps and line charts. Knows nothing of TensorBoard.

// 48 colours of matplotlib's viridis.
const VIRIDIS = (
  '44015446085c47106348186a481f70482677472d7b463480443a834241863f47883d4d8a3a538b38598c355f8d32648e' +
  '306a8e2e6f8e2b748e29798e277e8e25838e23888e218e8d20928c1f988b1e9d891fa28722a78525ac822cb17e32b67a' +
  '3bbb7544bf7050c46a5ac86467cc5c73d0567fd34e8ed6459bd93caadc32b8de29c8e020d5e21ae5e419f1e51dfde725'
).match(/../g).map((h) => parseInt(h, 16));

export const ZERO = [16, 16, 16];
export const NAN = [255, 47, 209];
export const INF = [255, 90, 31];
export const PALETTE = ['#1f77b4', '#ff7f0e', '#2ca02c', '#d62728', '#9467bd', '#8c564b', '#e377c2',
  '#7f7f7f', '#bcbd22', '#17becf'];

const MARGIN = {left: 52, right: 12, top: 8, bottom: 34};

/** Colour of a fraction in [0, 1] as [r, g, b]. */
export function viridis(fraction) {
  const last = VIRIDIS.length / 3 - 1;
  const x = Math.min(Math.max(fraction, 0), 1) * last;
  const i = Math.min(Math.floor(x), last - 1);
  return [0, 1, 2].map((c) => {
    const a = VIRIDIS[3 * i + c];
    return Math.round(a + (x - i) * (VIRIDIS[3 * i + 3 + c] - a));
  });
}

/** Short text of a number: plain in the middle, with an exponent at the ends. */
export function format(value) {
  if (value === null || value === undefined) return '–';
  if (!Number.isFinite(value)) return Number.isNaN(value) ? 'NaN' : value > 0 ? '∞' : '−∞';
  if (value === 0) return '0';
  const size = Math.abs(value);
  return size >= 1e-3 && size < 1e5 ? String(+value.toPrecision(4)) : value.toExponential(2);
}

/** Round ticks within [low, high]. */
export function ticks(low, high, count, whole = false) {
  if (!(high > low)) return [low];
  const raw = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(raw));
  let step = power * [1, 2, 5, 10].find((m) => m * power >= raw * 0.999);
  if (whole) step = Math.max(1, Math.round(step));
  const found = [];
  for (let x = Math.ceil(low / step - 1e-9) * step; x <= high + step * 1e-9; x += step) {
    found.push(Math.abs(x) < step * 1e-6 ? 0 : x);
  }
  return found;
}

function prepare(canvas, background = '--card') {
  const ratio = window.devicePixelRatio || 1;
  const {clientWidth: width, clientHeight: height} = canvas;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext('2d');
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  const style = getComputedStyle(document.body);
  const color = (name) => style.getPropertyValue(name).trim();
  context.fillStyle = color(background);
  context.fillRect(0, 0, width, height);
  context.font = '11px Roboto, sans-serif';
  const box = {
    x: MARGIN.left,
    y: MARGIN.top,
    w: Math.max(width - MARGIN.left - MARGIN.right, 10),
    h: Math.max(height - MARGIN.top - MARGIN.bottom, 10),
  };
  return {context, box, color, ratio};
}

/** Draws axes; `x` and `y` are {low, high, label, text, ticks}. */
function drawAxes({context, box, color}, x, y, gridlines) {
  const toX = (v) => box.x + ((v - x.low) / (x.high - x.low)) * box.w;
  const toY = (v) => box.y + box.h - ((v - y.low) / (y.high - y.low)) * box.h;
  context.strokeStyle = color('--line');
  context.fillStyle = color('--muted');
  context.lineWidth = 1;
  context.textAlign = 'center';
  context.textBaseline = 'top';
  for (const v of x.ticks) {
    context.fillText(x.text(v), toX(v), box.y + box.h + 5);
    line(context, [[toX(v), box.y + box.h], [toX(v), box.y + box.h + 3]]);
    if (gridlines) line(context, [[toX(v), box.y], [toX(v), box.y + box.h]]);
  }
  context.fillText(x.label, box.x + box.w / 2, box.y + box.h + 19);
  context.textAlign = 'right';
  context.textBaseline = 'middle';
  for (const v of y.ticks) {
    context.fillText(y.text(v), box.x - 6, toY(v));
    line(context, [[box.x - 3, toY(v)], [box.x, toY(v)]]);
    if (gridlines) line(context, [[box.x, toY(v)], [box.x + box.w, toY(v)]]);
  }
  context.save();
  context.translate(9, box.y + box.h / 2);
  context.rotate(-Math.PI / 2);
  context.textAlign = 'center';
  context.fillText(y.label, 0, 0);
  context.restore();
  context.strokeRect(box.x + 0.5, box.y + 0.5, box.w - 1, box.h - 1);
  return {toX, toY};
}

function line(context, points) {
  context.beginPath();
  points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.stroke();
}

/** Index of the cell whose edges enclose `value`, -1 outside. */
export function cell(edges, value) {
  if (value < edges[0] || value >= edges[edges.length - 1]) return -1;
  let low = 0;
  let high = edges.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (edges[middle] <= value) low = middle;
    else high = middle;
  }
  return low;
}

/**
 * Draws one run's heatmap. `data`: the grid's header and values; `scale`: {low, high} in log10, the
 * same for all runs; `cuts`: timesteps at which the gradient is cut. Returns how to get back from
 * pixels to (step, timestep), and the box.
 */
export function drawHeatmap(canvas, data, scale, cuts, lag, cross) {
  const frame = prepare(canvas);
  const {context, box, ratio} = frame;
  const {step_edges: sx, timestep_edges: ty, cols, values, timesteps} = data;
  const x = {low: sx[0], high: sx[sx.length - 1], label: 'training step'};
  const y = {low: ty[0] - 0.5, high: ty[ty.length - 1] - 0.5, label: lag ? 'lag from the end' : 'timestep t'};
  const width = Math.round(box.w * ratio);
  const height = Math.round(box.h * ratio);
  const image = context.createImageData(width, height);
  const colors = Array.from({length: 256}, (_, i) => viridis(i / 255));
  const columnOf = Array.from({length: height}, (_, py) =>
    cell(ty, y.high + 0.5 - ((py + 0.5) / height) * (y.high - y.low)));
  for (let px = 0; px < width; px++) {
    const row = cell(sx, x.low + ((px + 0.5) / width) * (x.high - x.low));
    for (let py = 0; py < height; py++) {
      const value = values[row * cols + columnOf[py]];
      if (value === undefined || value === data.missing) continue;
      let rgb;
      if (Number.isNaN(value)) rgb = NAN;
      else if (value === Infinity) rgb = INF;
      else if (value === -Infinity) rgb = ZERO;
      else rgb = colors[Math.round(255 * Math.min(Math.max((value - scale.low) / (scale.high - scale.low), 0), 1))];
      const at = 4 * (py * width + px);
      [image.data[at], image.data[at + 1], image.data[at + 2], image.data[at + 3]] = [...rgb, 255];
    }
  }
  context.putImageData(image, Math.round(box.x * ratio), Math.round(box.y * ratio));
  x.ticks = ticks(x.low, x.high, box.w / 70, true);
  x.text = (v) => String(v);
  y.ticks = lag
    ? ticks(timesteps - 1 - y.high, timesteps - 1 - y.low, box.h / 35, true).map((v) => timesteps - 1 - v)
    : ticks(y.low, y.high, box.h / 35, true);
  y.text = (v) => String(Math.round(lag ? timesteps - 1 - v : v));
  const {toX, toY} = drawAxes(frame, x, y, false);
  context.setLineDash([4, 4]);
  context.strokeStyle = 'rgba(255, 255, 255, 0.75)';
  if (cuts.length <= 60) {
    for (const t of cuts) {
      if (t > y.low && t < y.high) line(context, [[box.x, toY(t - 0.5)], [box.x + box.w, toY(t - 0.5)]]);
    }
  }
  context.setLineDash([]);
  if (cross) {
    context.strokeStyle = frame.color('--accent');
    if (cross.step >= x.low && cross.step <= x.high) {
      line(context, [[toX(cross.step), box.y], [toX(cross.step), box.y + box.h]]);
    }
    const t = cross.lag === undefined ? undefined : timesteps - 1 - cross.lag;
    if (t >= y.low && t <= y.high) line(context, [[box.x, toY(t)], [box.x + box.w, toY(t)]]);
  }
  if (cross && cross.drag) {
    const [a, b] = cross.drag;
    context.strokeRect(Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.abs(a[0] - b[0]), Math.abs(a[1] - b[1]));
  }
  return {
    box,
    step: (px) => x.low + ((px - box.x) / box.w) * (x.high - x.low),
    timestep: (py) => y.low + ((box.y + box.h - py) / box.h) * (y.high - y.low),
  };
}

/** One log10 colour scale {low, high} for all `grids`; those without a finite value are null. */
export function sharedScale(grids) {
  const finite = grids.filter((g) => g && g.min !== null);
  if (!finite.length) return {low: -1, high: 0};
  const low = Math.min(...finite.map((g) => g.min));
  const high = Math.max(...finite.map((g) => g.max));
  return high - low < 0.1 ? {low: low - 0.5, high: high + 0.5} : {low, high};
}

/** First timestep of every truncation window but the first: where the gradient is cut. */
export function cuts(meta, timesteps) {
  const window = Number(meta.window);
  // Sliding windows (with a stride of their own) overlap: no timestep is a sharp cut.
  if (!(window >= 1) || window >= timesteps || meta.stride) return [];
  const first = meta.align === 'start' ? window : timesteps % window || window;
  return Array.from({length: Math.ceil((timesteps - first) / window)}, (_, i) => first + i * window);
}

/** Draws the colour bar of `scale` horizontally. */
export function drawScale(canvas, scale) {
  const {context, color} = prepare(canvas, '--page');
  const width = canvas.clientWidth - 40;
  for (let x = 0; x < width; x++) {
    context.fillStyle = `rgb(${viridis(x / (width - 1)).join()})`;
    context.fillRect(20 + x, 4, 1.5, 12);
  }
  context.fillStyle = color('--muted');
  context.textAlign = 'center';
  context.textBaseline = 'top';
  for (const v of ticks(scale.low, scale.high, width / 60)) {
    context.fillText(`1e${+v.toPrecision(3)}`, 20 + ((v - scale.low) / (scale.high - scale.low)) * width, 20);
  }
}

/**
 * Draws lines. `series`: [{x: [], y: [], color, fit: {decay} | undefined}]; a logarithmic y axis
 * leaves out what is not positive and marks exact zeros at the bottom, non-finite values on top.
 */
export function drawLines(canvas, series, {log, xLabel, yLabel, whole = true, cuts = [], at}) {
  const frame = prepare(canvas);
  const {context, box} = frame;
  const usable = (v) => Number.isFinite(v) && (!log || v > 0);
  const place = (v) => (log ? Math.log10(v) : v);
  const range = (numbers) => numbers.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  let [xLow, xHigh] = range(series.flatMap((s) => s.x));
  let [yLow, yHigh] = range(series.flatMap((s) => s.y.filter(usable).map(place)));
  if (!(xHigh > xLow)) [xLow, xHigh] = Number.isFinite(xLow) ? [xLow - 0.5, xLow + 0.5] : [0, 1];
  if (!(yHigh > yLow)) [yLow, yHigh] = Number.isFinite(yLow) ? [yLow - 0.5, yLow + 0.5] : [-1, 0];
  const pad = 0.04 * (yHigh - yLow);
  const x = {low: xLow, high: xHigh, label: xLabel, text: (v) => String(v), ticks: ticks(xLow, xHigh, box.w / 70, whole)};
  const y = {low: yLow - pad, high: yHigh + pad, label: yLabel};
  y.ticks = ticks(y.low, y.high, box.h / 35, log && y.high - y.low > 2);
  y.text = (v) => (log ? `1e${+v.toPrecision(3)}` : format(v));
  const {toX, toY} = drawAxes(frame, x, y, true);
  context.save();
  context.beginPath();
  context.rect(box.x, box.y, box.w, box.h);
  context.clip();
  context.strokeStyle = frame.color('--muted');
  context.setLineDash([3, 4]);
  if (cuts.length <= 60) for (const t of cuts) line(context, [[toX(t - 0.5), box.y], [toX(t - 0.5), box.y + box.h]]);
  if (at !== undefined) line(context, [[toX(at), box.y], [toX(at), box.y + box.h]]);
  for (const [number, {x: xs, y: ys, color, fit}] of series.entries()) {
    context.setLineDash([]);
    context.strokeStyle = context.fillStyle = color;
    context.lineWidth = 1.6;
    let run = [];
    for (let i = 0; i <= ys.length; i++) {
      if (i < ys.length && usable(ys[i])) {
        run.push([toX(xs[i]), toY(place(ys[i]))]);
        continue;
      }
      if (run.length > 1) line(context, run);
      else if (run.length) context.fillRect(run[0][0] - 2, run[0][1] - 2, 4, 4);
      run = [];
      if (i === ys.length) break;
      if (log && ys[i] === 0) context.fillRect(toX(xs[i]) - 1.5, box.y + box.h - 5 - 4 * (number % 10), 3, 3);
      else if (!Number.isFinite(ys[i])) context.fillText('×', toX(xs[i]) - 3, box.y + 8);
    }
    if (fit && Number.isFinite(fit.decay)) {
      // The least-squares line goes through the mean of the points it was fitted to.
      const points = xs.map((v, i) => [v, ys[i]]).filter(([, v]) => usable(v)).map(([a, v]) => [a, place(v)]);
      const mean = (k) => points.reduce((sum, p) => sum + p[k], 0) / points.length;
      const [mx, my, slope] = [mean(0), mean(1), -Math.log10(fit.decay)];
      context.setLineDash([6, 4]);
      context.lineWidth = 1;
      line(context, [points[0][0], points[points.length - 1][0]].map((v) => [toX(v), toY(my + slope * (v - mx))]));
    }
  }
  context.restore();
  return {box, x: (px) => xLow + ((px - box.x) / box.w) * (xHigh - xLow)};
}
