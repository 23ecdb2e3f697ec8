// What all charts draw: background, axes, the crosshair above them. On a canvas, or on what `svg.js` has in its place.

import {ticks} from './numbers.js';

export const MARGIN = {left: 60, right: 12, top: 10, bottom: 36};

/** A colour of style.css. */
export const variable = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();

const pictures = new WeakMap(); // canvas -> the chart without crosshair

export function prepare(canvas, background = '--card') {
  const ratio = canvas.ratio ?? (window.devicePixelRatio || 1);
  const {clientWidth: width, clientHeight: height} = canvas;
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  const context = canvas.getContext('2d');
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.fillStyle = variable(background);
  context.fillRect(0, 0, width, height);
  context.font = '12px Roboto, sans-serif';
  const box = {
    x: MARGIN.left,
    y: MARGIN.top,
    w: Math.max(width - MARGIN.left - MARGIN.right, 10),
    h: Math.max(height - MARGIN.top - MARGIN.bottom, 10),
  };
  return {context, box, ratio};
}

/** Draws axes; `x` and `y` are {low, high, label, ticks: [{value, text}]}. Returns value to pixel. */
export function drawAxes({context, box}, x, y, gridlines) {
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

export function line(context, points) {
  context.beginPath();
  points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.stroke();
}

export const wholeTicks = (low, high, count, text = String) => ticks(low, high, count, true).map((value) => ({value, text: text(value)}));

/** Keeps the chart as it is, to draw a crosshair above it as often as the pointer moves. */
export function remember(canvas) {
  if (canvas.ratio) return; // an SVG has no pointer
  const copy = document.createElement('canvas');
  [copy.width, copy.height] = [canvas.width, canvas.height];
  copy.getContext('2d').drawImage(canvas, 0, 0);
  pictures.set(canvas, copy);
}

/** The chart without crosshair, ready for one; null if nothing was drawn. */
export function recall(canvas) {
  const picture = pictures.get(canvas);
  if (!picture || picture.width !== canvas.width) return null;
  const context = canvas.getContext('2d');
  const ratio = window.devicePixelRatio || 1;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.drawImage(picture, 0, 0);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.setLineDash([]);
  context.lineWidth = 1;
  context.strokeStyle = variable('--accent');
  return context;
}
