// Heatmaps on a canvas, and their colour bar. Independent of TensorBoard.

import {drawAxes, line, prepare, recall, remember, variable, wholeTicks} from './axes.js';
import {INF, NAN, ZERO, color, logTicks} from './numbers.js';

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
 * Draws the heatmap of a grid `data`. `scale`: [low, high] in log10, the same for all heatmaps;
 * `lag`: the y axis counts from the end; `at`: the chosen step; `images`: a cache of the cells' image. Returns the
 * maps from pixels to step and timestep and back, and the box.
 */
export function drawHeatmap(canvas, data, {scale, diverging, lag, yLabel, at, images}) {
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
  context.strokeStyle = variable('--accent');
  context.setLineDash([3, 3]);
  if (at >= x.low && at <= x.high) line(context, [[toX(at), box.y], [toX(at), box.y + box.h]]);
  context.setLineDash([]);
  remember(canvas);
  return {
    box,
    step: (px) => x.low + ((px - box.x) / box.w) * (x.high - x.low),
    timestep: (py) => y.low + ((box.y + box.h - py) / box.h) * (y.high - y.low),
    toX,
    toY,
    x,
    y,
  };
}

/** Draws the crosshair {step, t, drag} above a heatmap that `drawHeatmap` has returned `view` of. */
export function crossHeatmap(canvas, {box, toX, toY, x, y}, cross) {
  const context = recall(canvas);
  if (!context || !cross) return;
  if (cross.step >= x.low && cross.step <= x.high) {
    line(context, [[toX(cross.step), box.y], [toX(cross.step), box.y + box.h]]);
  }
  if (cross.t >= y.low && cross.t <= y.high) line(context, [[box.x, toY(cross.t)], [box.x + box.w, toY(cross.t)]]);
  if (cross.drag) {
    const [a, b] = cross.drag;
    context.strokeRect(Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.abs(a[0] - b[0]), Math.abs(a[1] - b[1]));
  }
}

/** Draws the colour bar of `scale`. */
export function drawScale(canvas, scale, diverging) {
  const {context} = prepare(canvas, '--page');
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
