// The state of the page, shared by the modules that fetch, build and draw.

import * as choice from './state.js';

export const page = {
  state: choice.initial(),
  // One per run that is shown: {run, tag, meta, color, cells, grid (cells, divided by a run or not), summary,
  // profile, trend, card, images, view}.
  shown: [],
  step: undefined, // of the profile: the chosen one or, within a zoom, the nearest to it
  layer: '', // the chosen one, by default the most common
  ui: {}, // elements
};

/** Whether the y axis of the heatmaps counts from the end. */
export const lagged = () => page.state.view === 'lag' || page.state.axis === 'lag';

/** The run that divides all others, if it is shown. */
export const divisor = () => page.shown.find((item) => item.run === page.state.base && item.cells);

/** Whether a training step is within the zoom. */
export const inZoom = (step) => !page.state.zoom || (step >= page.state.zoom[0] && step <= page.state.zoom[1]);

/** Steps of all runs within the zoom. */
export const allSteps = () =>
  [...new Set(page.shown.flatMap((item) => item.summary.steps))].filter(inZoom).sort((a, b) => a - b);

/** The part of the profiles to request, by timestep or by lag from the end. */
export const zoomedPart = () => {
  if (!page.state.zoom) return {};
  const [, , from, to] = page.state.zoom;
  return lagged() ? {l0: from, l1: to} : {t0: from, t1: to};
};
