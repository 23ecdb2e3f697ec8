// Draws what `page` holds: heatmaps, profile and trend, with one crosshair through all of them.

import {element, runName, swatch} from './dom.js';
import * as draw from './draw.js';
import {visible} from './host.js';
import {divisor, lagged, page} from './model.js';
import {cell, format, sharedScale, statistic} from './numbers.js';
import {LOG_TRENDS, SPECIAL, VIEWS, title, trendName} from './texts.js';

const {state, ui} = page;
let scale = [-1, 0]; // of the heatmaps, log10
let cross = null; // the position of the pointer in any chart: {step, lag, profile, drag, item}

export function redraw() {
  const {shown} = page;
  if (!shown.length || !visible()) return;
  const base = divisor();
  const auto = sharedScale(shown.map((item) => item.grid), Boolean(base));
  scale = base ? auto : auto.map((v, i) => state.scale?.[i] ?? v);
  if (!(scale[1] > scale[0])) scale = auto;
  [ui.low.placeholder, ui.high.placeholder] = auto.map((v) => format(10 ** v));
  ui.low.disabled = ui.high.disabled = Boolean(base);
  ui.title.textContent = title(state.view, base?.run);
  ui.special.forEach((text, i) => (text.textContent = SPECIAL[base ? 'ratio' : 'norm'][i]));
  ui.scaleLabel.textContent = base ? `ratio to ${base.run}` : VIEWS[state.view].norm;
  draw.drawScale(ui.scale, scale, Boolean(base));
  drawAll();
}

function drawAll() {
  drawHeatmaps();
  drawProfile();
  drawTrend();
}

let drawing = 0;
/** Moves the crosshair, or removes it (null). */
export function hover(at) {
  cross = at;
  // Once per frame.
  drawing ||= requestAnimationFrame(() => {
    drawing = 0;
    drawAll();
  });
}

/** The step to mark: not the latest, unless zoomed. */
const chosenStep = () => (state.step === null && !state.zoom ? undefined : page.step);

function drawHeatmaps() {
  const divided = Boolean(divisor());
  for (const item of page.shown) {
    const {canvas, read} = item.card;
    const {grid: cells} = item;
    if (!cells) {
      item.view = null;
      canvas.width = 0;
      read.textContent = 'No profile in this range.';
      continue;
    }
    item.view = draw.drawHeatmap(canvas, cells, {
      scale,
      diverging: divided,
      lag: lagged(),
      yLabel: state.view === 'lag' ? 'lag k' : state.axis === 'lag' ? 'lag from the end' : 'timestep t',
      at: chosenStep(),
      images: item.images,
      cross: cross && {...cross, lag: cross.lag ?? profileLag(item), drag: cross.item === item ? cross.drag : null},
    });
    read.textContent = readCell(cells);
  }
}

function readCell(cells) {
  if (cross?.lag === undefined) {
    const count = (n, name) => (n ? ` · ${name} ${n}` : '');
    return `${cells.records} profile${cells.records === 1 ? '' : 's'}${count(cells.zero, 'exact zeros')}${count(cells.nan, 'NaN')}${
      count(cells.inf, 'infinite')}${count(cells.damaged, 'damaged records')}`;
  }
  const t = cells.timesteps - 1 - cross.lag;
  const [row, column] = [cell(cells.step_edges, cross.step), cell(cells.timestep_edges, t)];
  if (row < 0 || column < 0) return '';
  const value = cells.values[row * cells.cols + column];
  const text = value === cells.missing ? 'no such timestep' : value === -Infinity ? 'exactly 0'
    : `${divisor() ? 'ratio ' : ''}${format(Number.isFinite(value) ? 10 ** value : value)}`;
  // The steps and timesteps that the cell covers.
  const steps = span(cells.first_steps[row], cells.last_steps[row]);
  const [first, last] = [cells.timestep_edges[column], cells.timestep_edges[column + 1] - 1];
  const end = cells.timesteps - 1;
  return `step ${steps} · ${state.view === 'lag' ? '' : `t = ${span(first, last)} · `}lag ${span(end - last, end - first)} · ${text}`;
}

const span = (first, last) => (first === last ? String(first) : `${first}–${last}`);

// The profile's x axis: t, the negative lag (the past is on the left), or the lag k.
const profileX = ({timesteps}, t) => (state.view === 'lag' ? timesteps - 1 - t : state.axis === 'lag' ? t - timesteps + 1 : t);
const profileT = ({timesteps}, x) => (state.view === 'lag' ? timesteps - 1 - x : state.axis === 'lag' ? timesteps - 1 + x : x);

function profileLag({profile}) {
  return cross?.profile === undefined || !profile ? undefined : profile.timesteps - 1 - profileT(profile, cross.profile);
}

/** Range of the profile's x axis within the zoom. */
function zoomedX() {
  if (!state.zoom) return undefined;
  const [, , from, to] = state.zoom;
  return state.view !== 'lag' && state.axis === 'lag' ? [1 - to, -from] : [from, to - 1];
}

function drawProfile() {
  if (page.shown.some((item) => item.profile === undefined)) return; // keep the previous chart until all have arrived
  const items = page.shown.filter((item) => item.profile);
  ui.profile.hidden = ui.profileNote.hidden = !items.length;
  if (!items.length) {
    ui.profileRead.textContent = 'No profile in this range.';
    return;
  }
  const divided = divisor();
  const base = divided?.profile;
  ui.profileTitle.textContent = base ? `Profile at one step, divided by that of ${divided.run}` : 'Profile at one step';
  // Runs of different lengths are compared at the same lag from the end.
  const norm = ({profile}, t) => {
    const of = (p, at) => p.norms[cell(p.edges, at)] ?? null;
    if (!base) return of(profile, t);
    const [value, other] = [of(profile, t), of(base, t - profile.timesteps + base.timesteps)];
    return other === null ? null : value === 0 ? 0 : value / other;
  };
  const lines = items.map((item) => {
    const {profile} = item;
    const centers = profile.norms.map((_, i) => (profile.edges[i] + profile.edges[i + 1] - 1) / 2);
    const mark = state.view === 'lag' && profile.window && profile.window < profile.timesteps
      ? {x: profile.window - 0.5, text: `K = ${profile.window}`} : undefined;
    return {x: centers.map((t) => profileX(profile, t)), y: centers.map((t) => norm(item, t)), color: item.color, mark,
      fit: base || !profile.fit ? undefined : profile.fit.map(([t, v]) => [profileX(profile, t), v])};
  });
  const same = new Set(items.map(({profile}) => JSON.stringify([profile.cuts, profile.timesteps])));
  const cuts = same.size === 1 && state.view !== 'lag' ? items[0].profile.cuts.map((t) => profileX(items[0].profile, t - 0.5)) : [];
  const lag = state.view === 'lag';
  ui.profileView = draw.drawLines(ui.profile, lines, {
    log: true,
    xLabel: lag ? 'lag k' : state.axis === 'lag' ? 'lag from the end' : 'timestep t',
    xText: (v) => String(Math.abs(v)),
    yLabel: base ? 'ratio' : VIEWS[state.view].norm,
    cuts,
    cursor: cross?.profile ?? (cross?.lag === undefined ? undefined
      : profileX(items[0].profile, items[0].profile.timesteps - 1 - cross.lag)),
    scale: base ? undefined : state.scale,
    xRange: zoomedX(),
  });
  const x = cross?.profile;
  legend(ui.profileRead, items, x === undefined ? '' : `${lag || state.axis === 'lag' ? 'lag' : 't ='} ${Math.abs(x)}`, (item) => {
    if (x === undefined && base) return '';
    if (x === undefined) return lag && item.profile.window ? `window ${item.profile.window}` : `decay ${statistic(item.profile.decay)}`;
    const t = profileT(item.profile, x);
    return t >= 0 && t < item.profile.timesteps ? format(norm(item, t)) : '';
  });
  const late = items.some(({profile}) => profile.step !== items[0].profile.step)
    ? ' Of each run the last profile at or before this step.' : '';
  const dashed = [...(base ? [] : ['least-squares fit']), ...(lag ? ['the window K'] : [])].join(', ');
  ui.profileNote.textContent = `${dashed && `Dashed: ${dashed}. `}Squares below: ${base ? 'a ratio of 0' : 'exactly 0'}. `
    + `Crosses on top: NaN or infinite.${late}`;
}

/** A legend of the runs' colours, with a text for each. */
function legend(where, items, head, text) {
  where.replaceChildren(...(head ? [element('b', {textContent: head})] : []), ...items.map((item) =>
    element('span', {className: 'cell'}, swatch(item.color), runName(item.run),
      element('span', {className: 'value', textContent: text(item)}))));
}

export function drawTrend() {
  const items = page.shown.filter((item) => item.trend);
  if (!items.length) return;
  const name = ui.trend.value;
  ui.trendView = draw.drawLines(ui.trends, items.map(({trend, color}) => ({x: trend.steps, y: trend.values, color})), {
    log: LOG_TRENDS.test(name),
    xLabel: 'training step',
    yLabel: trendName(name).split(':')[0],
    at: chosenStep(),
    cursor: cross?.step,
    xRange: state.zoom?.slice(0, 2),
  });
  const step = cross?.step;
  legend(ui.trendRead, items, step === undefined ? '' : `step ${Math.round(step)}`, ({trend}) => {
    if (!trend.steps.length) return trend.unreadable ? 'unreadable' : 'not logged';
    const until = step ?? state.zoom?.[1] ?? Infinity;
    return format(trend.values[Math.max(trend.steps.findLastIndex((s) => s <= until), 0)]);
  });
}
