// TensorBoard's Gradient flow tab. TensorBoard imports this module and calls `render()`.

import {drawTrend, redraw} from './charts.js';
import * as controls from './controls.js';
import {grid, json, ofOneRun, ofRuns} from './data.js';
import {element} from './dom.js';
import * as host from './host.js';
import {allSteps, divisor, inZoom, page, zoomedPart} from './model.js';
import {PALETTE, byName, divide} from './numbers.js';
import * as choice from './state.js';
import {VIEWS} from './texts.js';

const REFRESH_MS = 30000;

const {state, ui} = page;
let tags = {}; // run -> tag -> metadata

const actions = {
  set: (changes) => change(changes, update),
  setStep: (step) => change({step}, fetchStep),
  setTrend: (trend) => change({trend}, fetchTrend),
  setScale: (scale) => change({scale}, redraw),
  reload: () => attempt(reload),
};

export async function render() {
  Object.assign(state, choice.read(host.fragment()));
  const sheet = element('link', {rel: 'stylesheet', href: './style.css'});
  document.head.append(sheet);
  await new Promise((done) => (sheet.onload = sheet.onerror = done));
  controls.build(actions);
  host.followDarkMode(redraw);
  host.onReload(() => attempt(reloadIfNew));
  host.onFragment(followLink);
  await attempt(reload);
  new ResizeObserver(redraw).observe(document.body);
  setInterval(() => host.visible() && !document.hidden && attempt(reloadIfNew), REFRESH_MS);
}

// State.

function change(changes, then) {
  Object.assign(state, changes);
  save();
  return attempt(then);
}

const save = () => host.setFragment(choice.write(host.fragment(), state));

/** The address has changed: another tab of TensorBoard, or a link that the user has opened. */
function followLink() {
  const linked = choice.read(host.fragment());
  if (linked && choice.write('', linked) !== choice.write('', state)) {
    Object.assign(state, linked);
    attempt(update);
  } else if (!linked && host.visible()) save();
}

async function attempt(work) {
  try {
    await work();
    ui.message.hidden = true;
  } catch (error) {
    ui.message.hidden = false;
    ui.message.textContent = `Could not load: ${error.message}`;
    console.warn(error);
  }
}

// Data.

async function reload() {
  tags = await json('tags');
  await update();
}

async function reloadIfNew() {
  const latest = await json('tags');
  if (JSON.stringify(latest) === JSON.stringify(tags)) return;
  tags = latest;
  await update();
}

// Of several requests the latest one wins: the user has moved on.
let updates = 0;
let steps = 0;
let trends = 0;

/** Fetches all that is shown and draws it. */
async function update() {
  const mine = ++updates;
  const all = Object.entries(tags).flatMap(([run, of]) => Object.values(of).map(({layer}) => ({run, layer})));
  ui.empty.hidden = all.length > 0;
  ui.main.hidden = !all.length;
  if (!all.length) return;
  const layers = [...new Set(all.map((one) => one.layer))].sort(byName);
  // Unless one is chosen, the layer that most runs have.
  const runsWith = (name) => new Set(all.filter((one) => one.layer === name).map((one) => one.run)).size;
  const commonest = layers.reduce((best, name) => (runsWith(name) > runsWith(best) ? name : best));
  const layer = (page.layer = layers.includes(state.layer) ? state.layer : commonest);
  const {view} = state;
  const tag = VIEWS[view].tag(layer);
  const having = Object.keys(tags).filter((run) => tags[run][tag]).sort(byName);
  const matching = choice.matching(having, state.filter);
  const runs = choice.chosen(matching, state, controls.MAX_RUNS);
  const colors = colorOf(runs);
  controls.showChoice(actions, layers, matching, runs, colors);
  ui.noLags.hidden = view !== 'lag' || having.length > 0;
  ui.nothing.textContent = having.length && !runs.length ? 'No run is chosen.' : '';
  ui.views.hidden = !runs.length;
  // A run without any tag is one whose series TensorBoard could not list.
  const unlisted = Object.keys(tags).filter((run) => !Object.keys(tags[run]).length)
    .map((run) => ({run, reason: 'Its event files announce data that they do not hold.'}));
  controls.showUnreadable(unlisted);
  if (!runs.length) {
    page.shown = [];
    return;
  }
  // About as many cells as a heatmap has pixels.
  const part = {tag, rows: runs.length > 2 ? 400 : 1000, cols: 300, reduce: state.merge, ...zoomedSteps(), ...zoomedPart()};
  const [statistics, ...found] = await Promise.all([
    json('statistics', {layer}),
    ...runs.map(async (run) => {
      const [cells, summary] = await Promise.all([ofOneRun(grid({run, ...part})), ofOneRun(json('summary', {run, tag}))]);
      return {run, tag, meta: tags[run][tag], color: colors.get(run), cells: cells?.values ? cells : null, summary, images: {}};
    }),
  ]);
  if (mine !== updates) return;
  const unreadable = found.filter(({summary}) => summary?.unreadable).map(({run, summary}) => ({run, reason: summary.unreadable}));
  controls.showUnreadable([...unreadable, ...unlisted]);
  // A run may be listed and have no profile.
  const shown = (page.shown = found.filter(({summary}) => summary && !summary.unreadable));
  ui.views.hidden = !shown.length;
  if (!shown.length) {
    ui.nothing.textContent = 'The chosen runs have no profiles that can be read.';
    return;
  }
  const base = divisor();
  for (const item of shown) item.grid = base && item.cells ? divide(item.cells, base.cells) : item.cells;
  controls.showCards(actions);
  controls.showTable();
  controls.showTrends(statistics);
  redraw(); // the heatmaps; the charts below keep what they show until theirs arrives
  await Promise.all([fetchStep(), fetchTrend()]);
}

const zoomedSteps = () => (state.zoom ? {s0: state.zoom[0], s1: state.zoom[1]} : {});

async function fetchStep() {
  const mine = ++steps;
  const {shown} = page;
  if (!shown.length) return;
  const step = (page.step = controls.showStep(allSteps()));
  const asked = {tag: shown[0].tag, step, ...zoomedPart()};
  const profiles = step === undefined ? [] : await json('profiles', ofRuns(shown.map((item) => item.run), asked));
  if (mine !== steps || shown !== page.shown) return;
  // A run that has no step as early as this one comes with its first.
  shown.forEach((item, i) => (item.profile = profiles[i]?.norms && inZoom(profiles[i].step) ? profiles[i] : null));
  redraw();
}

async function fetchTrend() {
  const mine = ++trends;
  const {shown} = page;
  const name = ui.trend.value;
  if (!name || !shown.length) return;
  const found = await json('trends', ofRuns(shown.map((item) => item.run), {layer: page.layer, name}));
  if (mine !== trends || shown !== page.shown) return;
  shown.forEach((item, i) => (item.trend = {steps: [], values: [], ...found[i]}));
  drawTrend();
}

// Colours: a run keeps its own as long as it is shown, and no two that are shown share one.

const remembered = new Map();
function colorOf(runs) {
  const found = new Map();
  const free = new Set(PALETTE);
  for (const keep of [true, false]) {
    for (const run of runs) {
      if (found.has(run) || keep !== free.has(remembered.get(run))) continue;
      const color = keep ? remembered.get(run) : free.values().next().value;
      free.delete(color);
      found.set(run, color);
      remembered.set(run, color);
    }
  }
  return found;
}
