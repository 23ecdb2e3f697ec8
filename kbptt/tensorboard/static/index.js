// TensorBoard's Gradient flow tab. TensorBoard imports this module and calls `render()`.

import * as cards from './cards.js';
import {redraw} from './crosshair.js';
import {inParts, json, ofRuns} from './data.js';
import {element} from './dom.js';
import * as findings from './findings.js';
import * as host from './host.js';
import {allSteps, failed, inZoom, kind, page, select, zoomedPart} from './model.js';
import {drawProfile, showStep} from './profile.js';
import * as sidebar from './sidebar.js';
import * as choice from './state.js';
import * as tables from './tables.js';
import * as toolbar from './toolbar.js';
import * as trends from './trends.js';

const REFRESH_MS = 30000;
const AT_ONCE = 100; // runs in one request

const {state, ui} = page;

const actions = {
  set: (changes) => change(changes, update),
  setStep: (step) => change({step}, fetchProfiles),
  setTrends: (names) => change({trends: names}, fetchTrends),
  setScale: (scale) => change({scale}, redraw),
  setBand: (band) => change({band}, redraw),
  reload: () => attempt(reload),
  // Something failed: who is shown has to be found out again.
  again: () => attempt(update),
  attempt,
};

export async function render() {
  Object.assign(state, choice.read(host.fragment()));
  const sheet = element('link', {rel: 'stylesheet', href: './style.css'});
  document.head.append(sheet);
  await new Promise((done) => (sheet.onload = sheet.onerror = done));
  toolbar.build(actions);
  host.followDarkMode(() => {
    redraw();
    if (page.kinds.length) attempt(update); // the colours of runs differ
  });
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
  const [tags, runs] = await Promise.all([json('tags'), json('runs')]);
  Object.assign(page, runs, {tags});
  await update();
}

async function reloadIfNew() {
  const latest = await json('tags');
  if (JSON.stringify(latest) === JSON.stringify(page.tags)) return;
  Object.assign(page, await json('runs'), {tags: latest});
  await update();
}

// Counters of requests: only the answer to the latest one is shown.
let updates = 0;
let profiles = 0;
let drawnTrends = 0;

/** Finds out what is shown, then fetches and draws it: first what is in view. */
async function update() {
  const mine = ++updates;
  const any = select();
  ui.empty.hidden = any;
  ui.main.hidden = !any;
  if (!any) return;
  toolbar.show();
  sidebar.show();
  ui.views.hidden = !page.entries.length;
  if (!page.entries.length) return;
  cards.show();
  tables.show();
  findings.show();
  // One after the other, as they stand on the page: at the same time each would only wait for the others.
  await cards.load();
  if (mine !== updates) return;
  await fetchProfiles();
  if (mine !== updates) return;
  await listTrends(mine);
  if (mine !== updates) return;
  await cards.complete();
  if (mine === updates && [...page.runs.values()].some(({sampled}) => sampled)) await fetchProfiles(0);
  if (mine === updates && kind().gradient) await tables.load(() => mine === updates);
  if (mine === updates && kind().gradient) await findings.load(() => mine === updates);
}

const wanted = (runs, parameters) => ofRuns(runs, parameters, (run) => [['run', run], ['tag', page.runs.get(run).tag]]);

/** The step to ask for: undefined for the latest of each run. */
function askedStep() {
  const steps = allSteps();
  if (state.step === null && !state.zoom) return undefined;
  if (steps.length) return showStep(steps);
  const [first, last] = state.zoom ?? [-Infinity, Infinity];
  return Math.min(Math.max(state.step ?? last, first), last);
}

async function fetchProfiles(sample = 1) {
  const mine = ++profiles;
  const runs = [...page.runs.keys()];
  if (!runs.length) return;
  if (allSteps().length) page.step = showStep(allSteps());
  const step = askedStep();
  const points = Math.max(100, Math.min(1000, Math.round(60000 / runs.length)));
  const parameters = {points, sample, ...(step === undefined ? {} : {step}), ...zoomedPart()};
  const current = () => mine === profiles;
  let failures = false;
  await inParts(runs, AT_ONCE, (part) => json('profiles', wanted(part, parameters)), (part, answers) => {
    for (const answer of answers) {
      const item = page.runs.get(answer.run);
      if (failed(answer.run, answer)) failures = true;
      // A run that starts after this step is returned with its first step.
      else if (item) Object.assign(item, {steps: answer.steps, sampled: answer.sampled, profile: answer.norms.length && inZoom(answer.step) ? answer : null});
    }
    page.step = showStep(allSteps());
    drawProfile();
  }, current);
  if (!current()) return;
  if (failures) return actions.again();
  redraw();
  // The steps were not known before: within a zoom the nearest may be a different one.
  if (state.zoom && page.step !== undefined && page.step !== step) await fetchProfiles(sample);
}

async function listTrends(mine) {
  const layers = [...new Set([...page.runs.values()].map(({meta}) => meta.layer))];
  const names = await json('statistics', layers.map((layer) => ['layer', layer]));
  if (mine !== updates) return;
  trends.showPicker(names);
  await fetchTrends();
}

async function fetchTrends() {
  const mine = ++drawnTrends;
  const names = trends.show();
  if (!names.length) return;
  const ask = (part) => json('trends', [...names.map((name) => ['name', name]),
    ...ofRuns(part, {}, (run) => [['run', run], ['layer', page.runs.get(run).meta.layer]])]);
  await inParts([...page.runs.keys()], AT_ONCE, ask, (part, answers) => {
    for (const answer of answers) page.runs.get(answer.run)?.trends.set(answer.name, {steps: [], values: [], ...answer});
    trends.draw();
  }, () => mine === drawnTrends);
}
