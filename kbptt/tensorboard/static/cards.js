// The heatmaps: a card for each run or group. Only those in view are fetched and drawn.

import {cross, hover, redraw, register} from './crosshair.js';
import {grids, ofEach} from './data.js';
import {badge, element, menu, runName, swatch} from './dom.js';
import {crossHeatmap, drawHeatmap, drawScale} from './heatmap.js';
import {visible} from './host.js';
import {axisLabel, chosenStep, divisor, failed, kind, lagged, page, zoomedPart} from './model.js';
import {INF, NAN, ZERO, cell, counted, divide, format, sharedScale} from './numbers.js';
import * as save from './save.js';
import {switched} from './state.js';
import {SPECIAL} from './texts.js';

const MARGIN = 300; // pixels beyond the view that are fetched in advance
const AT_ONCE = {entries: 4, runs: 60}; // in one request

const {state, ui} = page;
const made = new Map(); // an entry's key -> its card
const observer = new IntersectionObserver(seen, {rootMargin: `${MARGIN}px`});
let perform = null; // the actions
let scale = [-1, 0]; // of the heatmaps, log10

export function build(actions) {
  perform = actions;
  ui.title = element('h2');
  ui.scale = element('canvas', {className: 'scale'});
  ui.scaleLabel = element('span', {className: 'muted'});
  ui.special = SPECIAL.norm.map(() => element('span'));
  ui.cards = element('div', {className: 'cards heatmaps'});
  const colors = [ZERO, NAN, INF].map((rgb, i) => element('span', {className: 'muted cell'}, swatch(`rgb(${rgb})`), ui.special[i]));
  return element('section', {},
    ui.title,
    element('div', {className: 'bar'}, ui.scale, ui.scaleLabel, ...colors),
    ui.cards,
    element('p', {className: 'note', textContent: 'All heatmaps share one colour scale, set by those drawn so far. Click: profile at that step. '
      + 'Drag: zoom. Double-click: zoom out. Dashed lines: where truncation cuts the gradient.'}));
}

// Cards.

export function show() {
  for (const entry of page.entries) {
    const card = (entry.card = made.get(entry.key) ?? makeCard(entry.key));
    card.entry = entry;
    card.canvas.ariaLabel = `heatmap of ${entry.label}`;
    head(entry);
    card.root.classList.toggle('inside', entry.inside !== null);
  }
  const roots = page.entries.map(({card}) => card.root);
  const present = [...ui.cards.children];
  if (roots.length !== present.length || roots.some((root, i) => root !== present[i])) ui.cards.replaceChildren(...roots);
  ui.cards.classList.toggle('few', roots.length < 3);
  const keys = new Set(page.entries.map(({key}) => key));
  for (const [key, {root}] of made) {
    if (keys.has(key)) continue;
    observer.unobserve(root);
    made.delete(key);
  }
}

/** The card's header: also when the verdict has come. */
export function head(entry) {
  const {card, label, group, runs, color} = entry;
  const open = group && state.open.includes(label);
  const toggle = () => perform.set({open: switched(state.open, label)});
  const drawn = (work) => () => entry.grid && work();
  card.header.replaceChildren(
    swatch(color), runName(label),
    ...(group ? [element('button', {textContent: `${open ? '▾' : '▸'} ${counted(runs.length, 'run')}`,
      ariaExpanded: String(open), title: open ? 'Show the group as one' : 'Show its runs', onclick: toggle})] : []),
    ...(group ? [] : verdictOf(runs[0])),
    menu('Save', [
      ['PNG', 'The heatmap as an image', drawn(() => save.png(entry, ui.scale))],
      ['SVG', 'The heatmap as a vector graphic', drawn(() => save.heatmapSvg(entry, options(entry), [scale, Boolean(divisor())]))],
      ['CSV', 'The cells shown', drawn(() => save.cells(entry))],
      ...(group ? [] : [['CSV of all profiles', 'Every recorded value', () => save.profiles(runs[0], page.runs.get(runs[0]).tag)]]),
    ]));
}

const verdictOf = (run) => {
  const {summary} = page.runs.get(run);
  return summary?.verdict && kind().gradient ? [badge(summary)] : [];
};

function makeCard(key) {
  const card = {canvas: element('canvas', {tabIndex: 0}), read: element('div', {className: 'read'}), header: element('header')};
  card.root = element('div', {className: 'card'}, card.header, card.canvas, card.read);
  card.root.card = card;
  made.set(key, card);
  listen(card);
  observer.observe(card.root);
  return card;
}

// Loading.

const near = ({card}) => {
  const {top, bottom, width} = card.root.getBoundingClientRect();
  return width > 0 && bottom > -MARGIN && top < window.innerHeight + MARGIN;
};

function seen(records) {
  let arrived = false;
  for (const {target, isIntersecting} of records) {
    const {entry, canvas} = target.card;
    if (isIntersecting) arrived = true;
    else if (entry.images.image) {
      // Hundreds of pictures would take hundreds of megabytes.
      entry.images = {};
      canvas.width = 0;
    }
  }
  if (arrived) {
    perform.attempt(async () => {
      await load();
      await complete();
    });
    redraw();
  }
}

/** What the grid of an entry depends on. */
function wanted(entry) {
  const many = page.entries.length;
  const rows = many > 30 ? 200 : many > 2 ? 400 : 1000;
  return {rows, cols: many > 30 ? 150 : 300, reduce: state.merge, ...zoomedSteps(), ...zoomedPart()};
}
const zoomedSteps = () => (state.zoom ? {s0: state.zoom[0], s1: state.zoom[1]} : {});
const versionOf = (entry) => JSON.stringify([wanted(entry), entry.runs.map((run) => page.runs.get(run)?.key)]);

let latest = 0;
const asked = new Map(); // entry -> the version of its grid that is on its way

/** Fetches the grids of the cards in view, and of the divisor: at first of samples of what takes long to read. */
export const load = () => fetchGrids(false);

/** Fetches the grids of all records in place of those of samples. */
export const complete = () => fetchGrids(true);

async function fetchGrids(whole) {
  const mine = ++latest;
  let failures = false;
  await ofEach(parts(whole), async (part) => {
    for (const {entry, cells, version} of await ask(part, whole)) {
      if (version !== versionOf(entry)) continue; // meanwhile something else is wanted
      Object.assign(entry, {cells, loaded: version, divided: undefined});
      for (const one of cells.failed) if (failed(one.run, one)) failures = true;
    }
    if (!failures) prepare();
  }, () => mine === latest);
  if (failures) await perform.again();
  else prepare();
}

/** What is to be fetched, in parts for one request each. */
function parts(whole) {
  // While a different tab of TensorBoard is open nothing is in view.
  const first = visible() ? near : (entry) => page.entries.indexOf(entry) < 6;
  const missing = page.entries.filter((entry) => {
    const version = versionOf(entry);
    const lacks = whole ? entry.loaded === version && entry.cells.sampled : entry.loaded !== version;
    return lacks && asked.get(entry) !== version + whole && (first(entry) || entry.label === state.base);
  });
  const found = [];
  for (const entry of missing) {
    const last = found[found.length - 1];
    const runs = last?.reduce((sum, {runs: of}) => sum + of.length, 0);
    if (last && last.length < AT_ONCE.entries && runs + entry.runs.length <= AT_ONCE.runs && missing.length > 3) last.push(entry);
    else found.push([entry]);
  }
  return found;
}

async function ask(entries, whole) {
  const versions = entries.map(versionOf);
  entries.forEach((entry, i) => asked.set(entry, versions[i] + whole));
  const pairs = entries.flatMap(({runs}, i) => runs.flatMap((run) => [['run', run], ['tag', page.runs.get(run).tag], ['group', i]]));
  try {
    const found = await grids([...Object.entries({...wanted(entries[0]), sample: whole ? 0 : 1}), ...pairs]);
    return found.map((cells, i) => ({entry: entries[i], cells, version: versions[i]}));
  } finally {
    entries.forEach((entry, i) => asked.get(entry) === versions[i] + whole && asked.delete(entry));
  }
}

/** Divides what is loaded, if it is to be. */
function prepare() {
  const base = divisor();
  for (const entry of page.entries) {
    if (!entry.cells?.rows) entry.grid = null;
    else if (!base) entry.grid = entry.cells;
    else if (entry.divided !== base.cells) entry.grid = divide(entry.cells, base.cells);
    entry.divided = base?.cells;
  }
  redraw();
}

// Drawing.

register({draw, point});

function draw() {
  const base = divisor();
  const {symbol, title} = kind();
  const auto = sharedScale(page.entries.map(({grid}) => grid), Boolean(base));
  scale = base ? auto : auto.map((v, i) => state.scale?.[i] ?? v);
  if (!(scale[1] > scale[0])) scale = auto;
  [ui.low.placeholder, ui.high.placeholder] = auto.map((v) => format(10 ** v));
  ui.low.disabled = ui.high.disabled = Boolean(base);
  ui.title.textContent = base ? `${symbol} divided by that of ${base.label}` : title;
  ui.special.forEach((text, i) => (text.textContent = SPECIAL[base ? 'ratio' : 'norm'][i]));
  ui.scaleLabel.textContent = base ? `ratio to ${base.label}` : symbol;
  drawScale(ui.scale, scale, Boolean(base));
  for (const entry of page.entries) if (near(entry)) drawOne(entry);
}

const options = (entry) => ({
  scale,
  diverging: Boolean(divisor()),
  lag: lagged(),
  yLabel: axisLabel(),
  at: chosenStep(),
  images: entry.images,
});

function drawOne(entry) {
  const {canvas, read} = entry.card;
  if (!entry.grid) {
    entry.view = null;
    canvas.width = 0;
    read.textContent = entry.cells && entry.loaded === versionOf(entry) ? 'No profile in this range.' : 'Loading …';
    return;
  }
  entry.view = drawHeatmap(canvas, entry.grid, options(entry));
  read.textContent = readCell(entry);
}

/** The lag under the pointer in an entry's heatmap: by timestep runs of different lengths differ. */
const crossT = ({grid}) => (cross.lag === undefined ? undefined : grid.timesteps - 1 - cross.lag);

function point() {
  for (const entry of page.entries) {
    if (!entry.view || !near(entry)) continue;
    crossHeatmap(entry.card.canvas, entry.view, cross && {...cross, t: crossT(entry), drag: cross.entry === entry ? cross.drag : null});
    entry.card.read.textContent = readCell(entry);
  }
}

/** What is under the pointer, every value with its name. */
function readCell(entry) {
  const {grid: cells, runs, group} = entry;
  const of = group ? `geometric mean of ${counted(cells.runs.length, 'run')} · ` : '';
  if (cross?.lag === undefined || cross.step === undefined) {
    const count = (n, name) => (n ? ` · ${name} ${n}` : '');
    return `${of}${cells.sampled ? 'a sample of ' : ''}${counted(cells.records, 'profile')}${count(cells.zero, 'exact zeros')}${count(cells.nan, 'NaN')}${
      count(cells.inf, 'infinite')}${count(cells.damaged, 'damaged records')}${
      cells.runs.length < runs.length ? ` · ${counted(runs.length - cells.runs.length, 'run')} without profile here` : ''}`;
  }
  const [row, column] = [cell(cells.step_edges, cross.step), cell(cells.timestep_edges, crossT(entry))];
  if (row < 0 || column < 0) return '';
  const value = cells.values[row * cells.cols + column];
  const name = divisor() ? 'ratio' : kind().symbol;
  const text = value === cells.missing ? 'no such timestep' : value === -Infinity ? `${name} exactly 0`
    : `${name} = ${format(Number.isFinite(value) ? 10 ** value : value)}`;
  // The steps and timesteps that the cell covers.
  const [first, last] = [cells.timestep_edges[column], cells.timestep_edges[column + 1] - 1];
  const end = cells.timesteps - 1;
  const t = kind().by_lag ? '' : `timestep t = ${span(first, last)} · `;
  return `${of}step ${span(cells.first_steps[row], cells.last_steps[row])} · ${t}lag ${span(end - last, end - first)} · ${text}`;
}

const span = (first, last) => (first === last ? String(first) : `${first}–${last}`);

// Input.

/** Click: step. Drag: zoom. Arrow keys: next step. */
function listen(card) {
  let start = null;
  const at = (event) => [event.offsetX, event.offsetY];
  const inside = (value, low, size) => Math.min(Math.max(value, low), low + size);
  card.canvas.onmousedown = (event) => (start = at(event));
  card.canvas.onmousemove = (event) => {
    const {entry} = card;
    if (!entry.view) return;
    const last = entry.grid.timesteps - 1;
    const t = Math.min(Math.max(Math.round(entry.view.timestep(event.offsetY)), 0), last);
    hover({step: entry.view.step(event.offsetX), lag: last - t, drag: start && [start, at(event)], entry});
  };
  card.canvas.onmouseleave = () => {
    start = null;
    hover(null);
  };
  card.canvas.onmouseup = (event) => {
    const {entry} = card;
    if (!entry.view || !start) return;
    const [a, b] = [start, at(event)];
    start = null;
    const {box} = entry.view;
    if (Math.abs(a[0] - b[0]) + Math.abs(a[1] - b[1]) < 6) {
      perform.setStep(Math.round(entry.view.step(b[0])));
      return;
    }
    const steps = [a[0], b[0]].map((x) => entry.view.step(inside(x, box.x, box.w))).sort((p, q) => p - q);
    const times = [a[1], b[1]].map((y) => Math.round(entry.view.timestep(inside(y, box.y, box.h)))).sort((p, q) => p - q);
    const last = entry.grid.timesteps - 1;
    const [from, to] = lagged() ? [last - times[1], last - times[0]] : times;
    hover(null);
    perform.set({zoom: [Math.floor(steps[0]), Math.ceil(steps[1]), Math.max(from, 0), Math.min(to, last) + 1]});
  };
  card.canvas.ondblclick = () => perform.set({zoom: null});
  card.canvas.onkeydown = (event) => {
    const move = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!move) return;
    event.preventDefault();
    ui.slider.value = Number(ui.slider.value) + move;
    ui.slider.dispatchEvent(new Event('input'));
  };
}
