// Line charts on a canvas. Independent of TensorBoard.

import {drawAxes, line, prepare, recall, remember, variable, wholeTicks} from './axes.js';
import {logTicks, range, ticks} from './numbers.js';

const ROWS = 8; // of marks, above each other

/**
 * Draws lines. `series`: [{x, y, color, thin, band: {low, high}, fit: [[x, log10 y], [x, log10 y]] or null,
 * mark: {x, text}}]. A band is the area between two curves at the same x.
 * On a logarithmic y axis exact zeros are marked at the bottom, non-finite values on top, null not at all.
 * `scale`: [low, high] of that axis in log10, each null for that of the data. `xRange`: range of the x axis, by
 * default all. `cuts`: vertical lines; `at`: x of the chosen step.
 */
export function drawLines(canvas, series, {log, xLabel, yLabel, xText = String, cuts = [], at, scale, xRange}) {
  const frame = prepare(canvas);
  const {context, box} = frame;
  const usable = (v) => Number.isFinite(v) && (!log || v > 0);
  const place = (v) => (log ? Math.log10(v) : v);
  const wide = (found, none) => (!found ? none : found[1] > found[0] ? found : [found[0] - 0.5, found[0] + 0.5]);
  const [xLow, xHigh] = wide(xRange ?? range(series.flatMap((s) => s.x)), [0, 1]);
  const seen = (s) => [s.y, s.band?.low, s.band?.high].filter(Boolean).flatMap((ys) =>
    ys.filter((v, i) => usable(v) && s.x[i] >= xLow && s.x[i] <= xHigh).map(place));
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
  const area = (xs, {low, high}, fill) => {
    // A zero on a logarithmic axis is at the bottom; where nothing is known the area ends.
    const y = (v) => (usable(v) ? toY(place(v)) : log && v === 0 ? box.y + box.h : null);
    let edge = [];
    const close = () => {
      if (edge.length > 1) {
        context.beginPath();
        [...edge.map(([x, , top]) => [x, top]), ...edge.reverse().map(([x, bottom]) => [x, bottom])].forEach(([x, v], i) =>
          (i ? context.lineTo(x, v) : context.moveTo(x, v)));
        context.fill();
      }
      edge = [];
    };
    context.fillStyle = fill;
    context.globalAlpha = 0.2;
    xs.forEach((x, i) => (y(low[i]) === null || y(high[i]) === null ? close() : edge.push([toX(x), y(low[i]), y(high[i])])));
    close();
    context.globalAlpha = 1;
  };
  const upright = (v) => line(context, [[toX(v), box.y], [toX(v), box.y + box.h]]);
  context.strokeStyle = variable('--muted');
  context.setLineDash([3, 4]);
  cuts.forEach(upright);
  if (at !== undefined) upright(at);
  context.setLineDash([]);
  for (const {x: xs, color: stroke, band} of series) if (band) area(xs, band, stroke);
  for (const [number, {x: xs, y: ys, color: stroke, thin, fit, mark}] of series.entries()) {
    context.setLineDash([]);
    context.strokeStyle = context.fillStyle = stroke;
    context.lineWidth = thin ? 0.8 : 1.6;
    context.globalAlpha = thin ? 0.6 : 1;
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
      // One row of marks per line, as far as there is space.
      if (log && ys[i] === 0) context.fillRect(toX(xs[i]) - 1.5, box.y + box.h - 5 - 4 * (number % ROWS), 3, 3);
      else if (ys[i] !== null && !Number.isFinite(ys[i])) context.fillText('×', toX(xs[i]), box.y + 7 + 7 * (number % ROWS));
    }
    context.lineWidth = context.globalAlpha = 1;
    context.setLineDash([6, 4]);
    if (fit) line(context, fit.map(([a, b]) => [toX(a), toY(b)]));
    if (mark) {
      upright(mark.x);
      context.textAlign = toX(mark.x) > box.x + box.w - 60 ? 'right' : 'left';
      context.fillText(` ${mark.text} `, toX(mark.x), box.y + box.h - 10 - 13 * (number % ROWS));
    }
  }
  context.restore();
  remember(canvas);
  return {box, toX, toY, place, usable, low: xLow, high: xHigh, x: (px) => xLow + ((px - box.x) / box.w) * (xHigh - xLow)};
}

/** Draws the pointer's x above a chart that `drawLines` has returned `view` of, or removes it. */
export function crossLines(canvas, {box, toX, low, high}, x) {
  const context = recall(canvas);
  if (context && x >= low && x <= high) line(context, [[toX(x), box.y], [toX(x), box.y + box.h]]);
}
