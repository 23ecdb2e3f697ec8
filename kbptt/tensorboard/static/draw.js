// Drawing on canvas: axes, heatmaps and line charts. Independent of TensorBoard.

import {INF, NAN, ZERO, cell, color, logTicks, range, ticks} from './numbers.js';

const MARGIN = {left: 60, right: 12, top: 10, bottom: 36};

function prepare(canvas, background = '--card') {
  const ratio = window.devicePixelRatio || 1;
  const {clientWidth: width, clientHeight: height} = canvas;
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  const context = canvas.getContext('2d');
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  const style = getComputedStyle(document.body);
  const variable = (name) => style.getPropertyValue(name).trim();
  context.fillStyle = variable(background);
  context.fillRect(0, 0, width, height);
  context.font = '12px Roboto, sans-serif';
  const box = {
    x: MARGIN.left,
    y: MARGIN.top,
    w: Math.max(width - MARGIN.left - MARGIN.right, 10),
    h: Math.max(height - MARGIN.top - MARGIN.bottom, 10),
  };
  return {context, box, variable, ratio};
}

/** Draws axes; `x` and `y` are {low, high, label, ticks: [{value, text}]}. Returns value to pixel. */
function drawAxes({context, box, variable}, x, y, gridlines) {
  const toX = (v) => box.x + ((v - x.low) / (x.high - x.low)) * box.w;
  const toY = (v) => box.y + box.h - ((v - y.low) / (y.high - y.low)) * box.h;
  context.strokeStyle = variable('--line');
  context.fillStyle = variable('--muted');
  context.lineWidth = 1;
  context.textBaseline = 'top';
  for (const {value, text} of x.ticks) {
    // The outermost labels stay within the canvas.
    const half = context.measureText(text).width / 2;
    context.textAlign = 'center';
    context.fillText(text, Math.min(toX(value), box.x + box.w + MARGIN.right - half), box.y + box.h + 6);
    line(context, [[toX(value), box.y + box.h], [toX(value), box.y + box.h + 4]]);
    if (gridlines) line(context, [[toX(value), box.y], [toX(value), box.y + box.h]]);
  }
  context.textAlign = 'center';
  context.fillText(x.label, box.x + box.w / 2, box.y + box.h + 21);
  context.textAlign = 'right';
  context.textBaseline = 'middle';
  for (const {value, text} of y.ticks) {
    context.fillText(text, box.x - 6, toY(value));
    line(context, [[box.x - 4, toY(value)], [box.x, toY(value)]]);
    if (gridlines) line(context, [[box.x, toY(value)], [box.x + box.w, toY(value)]]);
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

const wholeTicks = (low, high, count, text = String) => ticks(low, high, count, true).map((value) => ({value, text: text(value)}));

/** The heatmap's cells as an image of this size in pixels. */
function paint(data, scale, diverging, width, height) {
  const image = document.createElement('canvas');
  [image.width, image.height] = [width, height];
  const context = image.getContext('2d');
  const pixels = context.createImageData(width, height);
  const words = new Uint32Array(pixels.data.buffer);
  const word = ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  const colors = Array.from({length: 256}, (_, i) => word(color(i / 255, diverging)));
  const [zero, nan, inf] = [ZERO, NAN, INF].map(word);
  const {step_edges: steps, timestep_edges: times, cols, values, missing} = data;
  const of = (value) => {
    if (Number.isNaN(value)) return nan;
    if (value === Infinity) return inf;
    if (value === -Infinity) return zero;
    return colors[Math.round(255 * Math.min(Math.max((value - scale[0]) / (scale[1] - scale[0]), 0), 1))];
  };
  const pixel = (edges, size) => edges.map((e) => ((e - edges[0]) / (edges[edges.length - 1] - edges[0])) * size);
  const [px, py] = [pixel(steps, width), pixel(times, height)];
  const fill = (i, j, value) => {
    const [x0, y0] = [Math.min(Math.floor(px[i]), width - 1), Math.min(Math.floor(py[j]), height - 1)];
    const [x1, y1] = [Math.max(Math.ceil(px[i + 1]), x0 + 1), Math.max(Math.ceil(py[j + 1]), y0 + 1)];
    for (let y = y0; y < y1; y++) words.fill(value, (height - 1 - y) * width + x0, (height - 1 - y) * width + x1);
  };
  // Rare values last, so that no neighbour in the same pixel hides them.
  for (const rare of [false, true]) {
    for (let i = 0; i + 1 < steps.length; i++) {
      for (let j = 0; j < cols; j++) {
        const value = values[i * cols + j];
        if (value !== missing && (Number.isNaN(value) || value === Infinity) === rare) fill(i, j, of(value));
      }
    }
  }
  context.putImageData(pixels, 0, 0);
  return image;
}

/**
 * Draws one run's heatmap of a grid `data`. `scale`: [low, high] in log10, the same for all runs;
 * `lag`: the y axis counts from the end; `at`: the chosen step; `cross`: {step, lag, drag}; `images`:
 * a cache of the cells' image. Returns the maps from pixels to step and timestep, and the box.
 */
export function drawHeatmap(canvas, data, {scale, diverging, lag, yLabel, at, cross, images}) {
  const frame = prepare(canvas);
  const {context, box, ratio} = frame;
  const {step_edges: sx, timestep_edges: ty, timesteps} = data;
  const x = {low: sx[0], high: sx[sx.length - 1], label: 'training step'};
  const y = {low: ty[0] - 0.5, high: ty[ty.length - 1] - 0.5, label: yLabel};
  const [width, height] = [Math.round(box.w * ratio), Math.round(box.h * ratio)];
  const key = [scale, diverging, width, height].join();
  if (images.data !== data || images.key !== key) {
    Object.assign(images, {data, key, image: paint(data, scale, diverging, width, height)});
  }
  context.drawImage(images.image, box.x, box.y, box.w, box.h);
  x.ticks = wholeTicks(x.low, x.high, box.w / 70);
  const last = timesteps - 1;
  y.ticks = lag
    ? wholeTicks(Math.max(last - y.high, 0), last - y.low, box.h / 35).map((t) => ({value: last - t.value, text: t.text}))
    : wholeTicks(y.low, y.high, box.h / 35);
  const {toX, toY} = drawAxes(frame, x, y, false);
  for (const [number, [row, cuts]] of data.cuts.entries()) {
    const next = data.cuts[number + 1];
    const [left, right] = [toX(sx[row]), next ? toX(sx[next[0]]) : box.x + box.w];
    for (const t of cuts) {
      if (!(t - 0.5 > y.low && t - 0.5 < y.high)) continue;
      // White on dark and dark on white: visible on every colour.
      for (const [style, dash] of [['#ffffff', 0], ['#202020', 4]]) {
        context.strokeStyle = style;
        context.lineDashOffset = dash;
        context.setLineDash([4, 4]);
        line(context, [[left, toY(t - 0.5)], [right, toY(t - 0.5)]]);
      }
    }
  }
  context.strokeStyle = frame.variable('--accent');
  context.setLineDash([3, 3]);
  if (at >= x.low && at <= x.high) line(context, [[toX(at), box.y], [toX(at), box.y + box.h]]);
  context.setLineDash([]);
  if (cross) {
    if (cross.step >= x.low && cross.step <= x.high) {
      line(context, [[toX(cross.step), box.y], [toX(cross.step), box.y + box.h]]);
    }
    const t = last - cross.lag;
    if (t >= y.low && t <= y.high) line(context, [[box.x, toY(t)], [box.x + box.w, toY(t)]]);
    if (cross.drag) {
      const [a, b] = cross.drag;
      context.strokeRect(Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.abs(a[0] - b[0]), Math.abs(a[1] - b[1]));
    }
  }
  return {
    box,
    step: (px) => x.low + ((px - box.x) / box.w) * (x.high - x.low),
    timestep: (py) => y.low + ((box.y + box.h - py) / box.h) * (y.high - y.low),
  };
}

/** Draws the colour bar of `scale`. */
export function drawScale(canvas, scale, diverging) {
  const {context, variable} = prepare(canvas, '--page');
  const width = canvas.clientWidth - 60;
  for (let x = 0; x < width; x++) {
    context.fillStyle = `rgb(${color(x / (width - 1), diverging).join()})`;
    context.fillRect(30 + x, 4, 1.5, 12);
  }
  context.fillStyle = variable('--muted');
  context.textAlign = 'center';
  context.textBaseline = 'top';
  for (const {value, text} of logTicks(...scale, width / 60)) {
    context.fillText(text, 30 + ((value - scale[0]) / (scale[1] - scale[0])) * width, 20);
  }
}

/**
 * Draws lines. `series`: [{x, y, color, fit: [[x, log10 y], [x, log10 y]] or null, mark: {x, text}}].
 * On a logarithmic y axis exact zeros are marked at the bottom, non-finite values on top, null not at all.
 * `scale`: [low, high] of that axis in log10, each null for that of the data. `xRange`: range of the x axis, by
 * default all. `cuts`: vertical lines; `cursor`, `at`: x of the pointer and of the chosen step.
 */
export function drawLines(canvas, series, {log, xLabel, yLabel, xText = String, cuts = [], at, cursor, scale, xRange}) {
  const frame = prepare(canvas);
  const {context, box} = frame;
  const usable = (v) => Number.isFinite(v) && (!log || v > 0);
  const place = (v) => (log ? Math.log10(v) : v);
  const wide = (found, none) => (!found ? none : found[1] > found[0] ? found : [found[0] - 0.5, found[0] + 0.5]);
  const [xLow, xHigh] = wide(xRange ?? range(series.flatMap((s) => s.x)), [0, 1]);
  const seen = (s) => s.y.filter((v, i) => usable(v) && s.x[i] >= xLow && s.x[i] <= xHigh).map(place);
  let [yLow, yHigh] = wide(range(series.flatMap(seen)), [-1, 0]);
  const pad = 0.04 * (yHigh - yLow);
  [yLow, yHigh] = [scale?.[0] ?? yLow - pad, scale?.[1] ?? yHigh + pad];
  const x = {low: xLow, high: xHigh, label: xLabel, ticks: wholeTicks(xLow, xHigh, box.w / 70, xText)};
  const y = {low: yLow, high: yHigh, label: yLabel};
  const plain = () => ticks(yLow, yHigh, box.h / 35).map((value) => ({value, text: String(value).replace('-', '−')}));
  y.ticks = log ? logTicks(yLow, yHigh, box.h / 35) : plain();
  const {toX, toY} = drawAxes(frame, x, y, true);
  context.save();
  context.beginPath();
  context.rect(box.x, box.y, box.w, box.h);
  context.clip();
  const upright = (v) => line(context, [[toX(v), box.y], [toX(v), box.y + box.h]]);
  context.strokeStyle = frame.variable('--muted');
  context.setLineDash([3, 4]);
  cuts.forEach(upright);
  if (at !== undefined) upright(at);
  for (const [number, {x: xs, y: ys, color: stroke, fit, mark}] of series.entries()) {
    context.setLineDash([]);
    context.strokeStyle = context.fillStyle = stroke;
    context.lineWidth = 1.6;
    context.textAlign = 'center';
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
      // One row of marks per run.
      if (log && ys[i] === 0) context.fillRect(toX(xs[i]) - 1.5, box.y + box.h - 5 - 4 * number, 3, 3);
      else if (ys[i] !== null && !Number.isFinite(ys[i])) context.fillText('×', toX(xs[i]), box.y + 7 + 7 * number);
    }
    context.lineWidth = 1;
    context.setLineDash([6, 4]);
    if (fit) line(context, fit.map(([a, b]) => [toX(a), toY(b)]));
    if (mark) {
      upright(mark.x);
      context.textAlign = toX(mark.x) > box.x + box.w - 60 ? 'right' : 'left';
      context.fillText(` ${mark.text} `, toX(mark.x), box.y + box.h - 10 - 13 * number);
    }
  }
  context.setLineDash([]);
  context.lineWidth = 1;
  context.strokeStyle = frame.variable('--accent');
  if (cursor !== undefined) upright(cursor);
  context.restore();
  return {box, x: (px) => xLow + ((px - box.x) / box.w) * (xHigh - xLow)};
}
