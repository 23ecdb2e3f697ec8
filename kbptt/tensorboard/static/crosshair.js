// The pointer's place in any chart, which all charts show, and the redrawing of them all.

import {visible} from './host.js';
import {page} from './model.js';

const charts = []; // {draw, point}

/** `draw()` draws a chart from the page's data; `point(cross)` draws the crosshair above it and names the values there. */
export const register = (chart) => charts.push(chart);

// {step, lag, x (of the profile), drag, entry}: as far as the chart with the pointer has them; null without pointer.
export let cross = null;

let drawing = 0;
let pointing = 0;

/** Draws every chart, once per frame. */
export function redraw() {
  drawing ||= requestAnimationFrame(() => {
    drawing = 0;
    if (!page.entries.length || !visible()) return;
    for (const {draw} of charts) draw();
    for (const {point} of charts) point(cross);
  });
}

/** Moves the crosshair, or removes it (null). */
export function hover(at) {
  cross = at;
  pointing ||= requestAnimationFrame(() => {
    pointing = 0;
    if (page.entries.length && visible()) for (const {point} of charts) point(cross);
  });
}
