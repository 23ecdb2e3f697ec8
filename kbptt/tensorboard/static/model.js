// What the page shows. One object: the modules that fetch, build and draw share it.

import * as choice from './state.js';

export const page = {
  state: choice.initial(),
  // One per run that is shown: {run, tag, meta, color, cells, grid (cells, divided by a run or not), summary,
  // profile, trend, card, images, view}.
  shown: [],
  layer: '', // the chosen one or, without a choice, the commonest
  ui: {}, // elements
};

/** Whether the y axis of the heatmaps counts from the end. */
export const lagged = () => page.state.view === 'lag' || page.state.axis === 'lag';

/** The run by which all are divided, if it is shown. */
export const divisor = () => page.shown.find((item) => item.run === page.state.base && item.cells);

export const allSteps = () => [...new Set(page.shown.flatMap((item) => item.summary.steps))].sort((a, b) => a - b);
