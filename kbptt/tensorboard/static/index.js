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

/** The address has changed: a different tab of TensorBoard, or a link was opened. */
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

// Counters of requests: only the answer to the latest one is shown.
let updates = 0;
let steps = 0;
let trends = 0;

/** Fetches and draws everything. */
async function update() {
  const mine = ++updates;
  const all = Object.entries(tags).flatMap(([run, of]) => Object.values(of).map(({layer}) => ({run, layer})));
  ui.empty.hidden = all.length > 0;
  ui.main.hidden = !all.length;
  if (!all.length) return;
  const layers = [...new Set(all.map((one) => one.layer))].sort(byName);
  // By default the layer that most runs have.
  const runsWith = (name) => new Set(all.filter((one) => one.layer === name).map((one) => one.run)).size;
  const commonest = layers.reduce((best, name) => (runsWith(name) > runsWith(best) ? name : best));
  const layer = (page.layer = layers.includes(state.layer) ? state.layer : commonest);
  const {view} = state;
  const tag = VIEWS[view].tag(layer);
  const having = Object.keys(tags).filter((run) => tags[run][tag]).sort(byName);
  const matching = choice.matching(having, state.filter);
  ui.noLags.hidden = view !== 'lag' || having.length > 0;
  const fetched = new Map(); // run -> its data
  let runs;
  for (;;) {
    // A run that cannot be shown must not take the place of one that can.
    const readable = matching.filter((run) => !failed.has(version(run, tag)));
    runs = choice.chosen(readable, state, controls.MAX_RUNS);
    controls.showChoice(actions, layers, readable, runs, colorOf(runs));
    const missing = runs.filter((run) => !fetched.has(run));
    if (!missing.length) break;
    const items = await Promise.all(missing.map((run) => fetchRun(run, tag, runs.length > 2 ? 400 : 1000)));
    if (mine !== updates) return;
    for (const item of items) fetched.set(item.run, item);
  }
  const statistics = await json('statistics', {layer});
  if (mine !== updates) return;
  const unreadable = matching.map((run) => failed.get(version(run, tag))).filter((one) => one?.reason);
  // A run without any tag is one whose series TensorBoard could not list.
  const unlisted = Object.keys(tags).filter((run) => !Object.keys(tags[run]).length)
    .map((run) => ({run, reason: 'Its event files announce data that they do not hold.'}));
  controls.showUnreadable([...unreadable, ...unlisted]);
  const colors = colorOf(runs);
  const shown = (page.shown = runs.map((run) => ({...fetched.get(run), color: colors.get(run)})));
  ui.views.hidden = !shown.length;
  const chosen = choice.chosen(matching, state, 1).length;
  ui.nothing.textContent = shown.length || !having.length ? '' : chosen ? 'None of the chosen runs can be shown.' : 'No run is chosen.';
  if (!shown.length) return;
  const base = divisor();
  for (const item of shown) item.grid = base && item.cells ? divide(item.cells, base.cells) : item.cells;
  controls.showCards(actions);
  controls.showTable();
  controls.showTrends(statistics);
  redraw(); // the heatmaps; the other charts wait for their data
  await Promise.all([fetchStep(), fetchTrend()]);
}

// Runs that could not be shown, until they change.
const failed = new Map(); // version -> {run, reason}; without a reason if there was nothing
const version = (run, tag) => JSON.stringify([run, tag, tags[run][tag]]);

/** Grid and summary of a run, with about one cell per pixel. */
async function fetchRun(run, tag, rows) {
  const [key, meta] = [version(run, tag), tags[run][tag]];
  const part = {run, tag, rows, cols: 300, reduce: state.merge, ...zoomedSteps(), ...zoomedPart()};
  const [cells, summary] = await Promise.all([ofOneRun(grid(part)), ofOneRun(json('summary', {run, tag}))]);
  // A run may be listed and have no profile.
  if (!summary || summary.unreadable) failed.set(key, {run, reason: summary?.unreadable});
  return {run, tag, meta, cells: cells?.values ? cells : null, summary, images: {}};
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
  // A run that starts after this step is returned with its first step.
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

// Colours: unique among the runs shown, and kept while a run is shown.

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
