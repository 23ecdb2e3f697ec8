// TensorBoard's Gradient flow tab. TensorBoard imports this module and calls `render()`.

import {grid, json} from './data.js';
import {element, labelled, options, swatch} from './dom.js';
import * as draw from './draw.js';

const MAX_RUNS = 12;
const REFRESH_MS = 30000;
const TRENDS = {
  decay: 'decay per timestep',
  half_life: 'half-life (timesteps)',
  horizon: 'horizon: last timesteps with 90 %',
  first_last_ratio: 'first / last ratio',
  zero_fraction: 'fraction of exact zeros',
  nonfinite_fraction: 'fraction of NaN and Inf',
};
const LOG_TRENDS = ['first_last_ratio', 'half_life', 'horizon'];
const SNIPPET = `import keras
import kbptt

model = keras.Sequential([
    kbptt.LSTM(64, truncation=64),   # in place of keras.layers.LSTM
    keras.layers.Dense(1),
])
model.compile("adam", "mse")
model.fit(x, y, callbacks=[kbptt.callbacks.GradientFlow("runs/a", log_freq=50)])`;

const state = {layer: null, lag: false, reduce: 'mean', filter: '', hidden: [], step: null, baseline: '',
  trend: 'decay', range: null};
let tags = {}; // run -> tag -> metadata
let shown = []; // {run, tag, meta, color, grid, summary, profile, view}
let cross = null; // what the pointer is at, in every heatmap: {step, lag, drag}
const ui = {};

export async function render() {
  restore();
  const sheet = element('link', {rel: 'stylesheet', href: './style.css'});
  document.head.append(sheet);
  await new Promise((done) => (sheet.onload = sheet.onerror = done));
  followDarkMode();
  build();
  await reload();
  window.addEventListener('resize', redraw);
  setInterval(() => document.hidden || reload(true), REFRESH_MS);
}

// Data.

async function reload(onlyIfNew = false) {
  try {
    const latest = await json('tags');
    if (onlyIfNew && JSON.stringify(latest) === JSON.stringify(tags)) return;
    tags = latest;
    await update();
  } catch (error) {
    fail(error);
  }
}

/** Fetches all that is shown and draws it. */
let generation = 0;
async function update() {
  save();
  const mine = ++generation;
  const runs = Object.keys(tags).filter((run) => Object.keys(tags[run]).length).sort();
  const layers = [...new Set(runs.flatMap((run) => Object.values(tags[run]).map((m) => m.layer)))].sort();
  ui.empty.hidden = layers.length > 0;
  ui.main.hidden = !layers.length;
  if (!layers.length) return;
  if (!layers.includes(state.layer)) state.layer = layers[0];
  options(ui.layer, layers, state.layer);
  const tag = `gradient_flow/${state.layer}/dL_dh`;
  const having = runs.filter((run) => tags[run][tag]);
  const colors = Object.fromEntries(runs.map((run, i) => [run, draw.PALETTE[i % draw.PALETTE.length]]));
  const matching = having.filter((run) => run.toLowerCase().includes(state.filter.toLowerCase()));
  const chosen = matching.filter((run) => !state.hidden.includes(run)).slice(0, MAX_RUNS);
  drawRuns(matching, chosen, colors);
  options(ui.baseline, ['', ...chosen], chosen.includes(state.baseline) ? state.baseline : (state.baseline = ''), 'none');
  try {
    const range = state.range || {};
    const next = await Promise.all(chosen.map(async (run) => {
      const [cells, summary] = await Promise.all([
        grid({run, tag, rows: 500, cols: 300, reduce: state.reduce, ...range}).catch(() => null),
        json('summary', {run, tag}),
      ]);
      return {run, tag, meta: tags[run][tag], color: colors[run], grid: cells, summary};
    }));
    if (mine !== generation) return; // the user has moved on
    shown = next;
    ui.message.textContent = matching.length - state.hidden.filter((r) => matching.includes(r)).length > MAX_RUNS
      ? `Only the first ${MAX_RUNS} runs are shown: filter them.` : '';
    buildCards();
    await chooseStep();
    redraw();
  } catch (error) {
    fail(error);
  }
}

async function chooseStep() {
  const steps = allSteps();
  if (!steps.length) return;
  ui.slider.max = steps.length - 1;
  let at = state.step === null ? steps.length - 1 : steps.findLastIndex((s) => s <= state.step);
  if (at < 0) at = 0;
  ui.slider.value = at;
  ui.step.textContent = `step ${steps[at]}`;
  const query = new URLSearchParams({tag: shown[0].tag, step: steps[at]});
  for (const item of shown) query.append('run', item.run);
  const mine = generation;
  const profiles = await json('profiles', query);
  if (mine !== generation) return;
  for (const item of shown) item.profile = profiles.find((p) => p.run === item.run);
}

const allSteps = () => [...new Set(shown.flatMap((item) => item.summary.steps))].sort((a, b) => a - b);

// Page.

function build() {
  const changed = (name) => (event) => {
    state[name] = event.target.value;
    update();
  };
  ui.layer = element('select', {onchange: changed('layer')});
  ui.reduce = element('select', {onchange: changed('reduce')});
  options(ui.reduce, ['mean', 'max', 'min'], state.reduce);
  ui.axis = element('select', {onchange: (event) => {
    state.lag = event.target.value === 'lag from the end';
    save();
    redraw();
  }});
  options(ui.axis, ['timestep t', 'lag from the end'], state.lag ? 'lag from the end' : 'timestep t');
  ui.filter = element('input', {type: 'search', placeholder: 'filter runs', value: state.filter, ariaLabel: 'filter runs',
    oninput: changed('filter')});
  ui.baseline = element('select', {onchange: changed('baseline')});
  ui.trend = element('select', {onchange: (event) => {
    state.trend = event.target.value;
    save();
    redraw();
  }});
  ui.trend.append(...Object.entries(TRENDS).map(([value, textContent]) => element('option', {value, textContent})));
  ui.trend.value = state.trend;
  ui.slider = element('input', {type: 'range', min: 0, step: 1, ariaLabel: 'training step', oninput: async (event) => {
    state.step = allSteps()[event.target.value];
    save();
    try {
      await chooseStep();
      redraw();
    } catch (error) {
      fail(error);
    }
  }});
  ui.step = element('span');
  ui.scale = element('canvas', {className: 'scale'});
  ui.runs = element('div', {className: 'bar runs'});
  ui.cards = element('div', {className: 'cards'});
  ui.profile = element('canvas', {className: 'wide', onmousemove: readProfile});
  ui.profileRead = element('div', {className: 'read'});
  ui.trends = element('canvas', {className: 'wide'});
  ui.table = element('table');
  ui.thresholds = element('p', {className: 'note'});
  ui.message = element('p', {className: 'note', role: 'status'});
  ui.reset = element('button', {textContent: 'Zoom out', hidden: true, onclick: () => {
    state.range = null;
    update();
  }});
  const legend = [['exactly 0', draw.ZERO], ['NaN', draw.NAN], ['infinite', draw.INF]].map(([name, rgb]) =>
    labelled('', element('span', {}, swatch(`rgb(${rgb})`), ` ${name}`)));
  ui.main = element('div', {hidden: true},
    element('div', {className: 'bar'}, labelled('Layer', ui.layer), labelled('y axis', ui.axis),
      labelled('Merge cells by', ui.reduce), ui.filter,
      element('button', {textContent: 'Reload', onclick: () => reload()}), ui.reset),
    ui.runs,
    element('h2', {textContent: '‖∂L/∂h‖ of every timestep over training'}),
    element('div', {className: 'bar'}, ui.scale, ...legend),
    ui.cards,
    element('p', {className: 'note', textContent: 'All runs share one colour scale. Click: profile at that step. '
      + 'Drag: zoom. Double click: zoom out. Dashed lines: where truncation cuts the gradient.'}),
    element('h2', {textContent: 'Profile at one step'}),
    element('div', {className: 'card'},
      element('div', {className: 'bar'}, ui.slider, ui.step, labelled('Divide by run', ui.baseline)),
      ui.profile, ui.profileRead),
    element('h2', {textContent: 'Verdict'}),
    element('div', {className: 'card'}, ui.table, ui.thresholds),
    element('h2', {textContent: 'Over training'}),
    element('div', {className: 'card'}, element('div', {className: 'bar'}, ui.trend), ui.trends));
  ui.empty = element('div', {hidden: true},
    element('h2', {textContent: 'No gradient flow in this log directory yet'}),
    element('p', {textContent: 'Train with a recurrent layer of kbptt and its callback:'}),
    element('pre', {textContent: SNIPPET}),
    element('button', {textContent: 'Reload', onclick: () => reload()}));
  document.body.append(ui.message, ui.empty, ui.main);
}

function drawRuns(matching, chosen, colors) {
  ui.runs.replaceChildren(...matching.map((run) => {
    const box = element('input', {type: 'checkbox', checked: chosen.includes(run), onchange: () => {
      state.hidden = box.checked ? state.hidden.filter((other) => other !== run) : [...state.hidden, run];
      update();
    }});
    return element('label', {}, box, swatch(colors[run]), run);
  }));
}

function badge(summary) {
  return element('span', {className: `verdict ${summary.verdict}`, textContent: summary.verdict, title: summary.reason});
}

function buildCards() {
  ui.reset.hidden = !state.range;
  ui.cards.replaceChildren(...shown.map((item) => {
    item.canvas = element('canvas', {tabIndex: 0, ariaLabel: `heatmap of ${item.run}`});
    item.read = element('div', {className: 'read'});
    const png = element('button', {textContent: 'PNG', title: 'Save this heatmap', onclick: () => item.canvas.toBlob((blob) => {
      const link = element('a', {href: URL.createObjectURL(blob), download: `${item.run.replace(/[^\w.-]+/g, '_')}.png`});
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    })});
    const csv = element('a', {textContent: 'CSV', title: 'Save all profiles',
      href: `./export?${new URLSearchParams({run: item.run, tag: item.tag, format: 'csv'})}`});
    listen(item);
    return element('div', {className: 'card'},
      element('header', {}, swatch(item.color), element('span', {className: 'name', textContent: item.run, title: item.run}),
        badge(item.summary), png, csv),
      item.canvas, item.read);
  }));
  const row = (cells, kind = 'td') => element('tr', {}, ...cells.map((cell) =>
    cell instanceof Node ? element(kind, {}, cell) : element(kind, {textContent: cell})));
  const last = (item, key) => draw.format(item.summary[key][item.summary[key].length - 1]);
  const body = shown.map((item) => {
    const made = row([element('span', {}, swatch(item.color), ` ${item.run}`), badge(item.summary),
      ...Object.keys(TRENDS).map((key) => last(item, key)), String(item.summary.last_step), item.summary.reason]);
    made.lastChild.className = 'reason';
    return made;
  });
  const head = row(['run', 'verdict', 'decay', 'half-life', 'horizon', 'first/last', 'zeros', 'NaN/Inf', 'step', 'why'], 'th');
  head.lastChild.className = 'reason';
  ui.table.replaceChildren(head, ...body);
  if (!shown.length) return;
  const {vanishing, exploding} = shown[0].summary.thresholds;
  ui.thresholds.textContent = `Vanishing: the fitted gradient at the far end of its reach (the window, under truncation) is below ${
    vanishing} of that at the last timestep; exploding: above ${exploding}; non-finite: NaN or Inf in the last quarter of the `
    + 'profiles. The numbers are those of the last profile.' + (shown.some((item) => item.meta.loss === 'all')
    ? ' Where every timestep has an output of its own, its direct gradient can hide one that vanishes.' : '');
}

function listen(item) {
  let start = null;
  const at = (event) => [event.offsetX, event.offsetY];
  const inside = (value, low, size) => Math.min(Math.max(value, low), low + size);
  item.canvas.onmousedown = (event) => (start = at(event));
  item.canvas.onmousemove = (event) => {
    if (!item.view) return;
    const t = Math.round(item.view.timestep(event.offsetY));
    cross = {step: item.view.step(event.offsetX), lag: item.grid.timesteps - 1 - t, drag: start && [start, at(event)], item};
    drawHeatmaps();
  };
  item.canvas.onmouseleave = () => {
    start = cross = null;
    drawHeatmaps();
  };
  item.canvas.onmouseup = async (event) => {
    if (!item.view || !start) return;
    const [a, b] = [start, at(event)];
    start = null;
    const {box} = item.view;
    if (Math.abs(a[0] - b[0]) + Math.abs(a[1] - b[1]) < 6) {
      state.step = Math.round(item.view.step(b[0]));
      save();
      await chooseStep().catch(fail);
      redraw();
      return;
    }
    const steps = [a[0], b[0]].map((x) => item.view.step(inside(x, box.x, box.w))).sort((p, q) => p - q);
    const times = [a[1], b[1]].map((y) => item.view.timestep(inside(y, box.y, box.h))).sort((p, q) => p - q);
    cross = null;
    state.range = {s0: Math.floor(steps[0]), s1: Math.ceil(steps[1]),
      t0: Math.max(0, Math.round(times[0])), t1: Math.max(1, Math.round(times[1]) + 1)};
    update();
  };
  item.canvas.ondblclick = () => {
    state.range = null;
    update();
  };
  item.canvas.onkeydown = (event) => {
    const move = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!move) return;
    event.preventDefault();
    ui.slider.value = Number(ui.slider.value) + move;
    ui.slider.dispatchEvent(new Event('input'));
  };
}

// Drawing.

function drawHeatmaps() {
  const shared = draw.sharedScale(shown.map((item) => item.grid));
  for (const item of shown) {
    const {grid: cells} = item;
    if (!cells) {
      item.read.textContent = 'No profile in this range.';
      continue;
    }
    item.view = draw.drawHeatmap(item.canvas, cells, shared, draw.cuts(item.meta, cells.timesteps), state.lag,
      cross && {...cross, drag: cross.item === item ? cross.drag : null});
    item.read.textContent = readCell(cells);
  }
}

function readCell(cells) {
  if (!cross) return `${cells.records} profiles · exact zeros ${cells.zero} · NaN ${cells.nan} · infinite ${cells.inf}`;
  const t = cells.timesteps - 1 - cross.lag;
  const [row, column] = [draw.cell(cells.step_edges, cross.step), draw.cell(cells.timestep_edges, t)];
  if (row < 0 || column < 0) return '';
  const value = cells.values[row * cells.cols + column];
  const text = value === cells.missing ? 'no such timestep' : value === -Infinity ? 'exactly 0'
    : draw.format(Number.isFinite(value) ? 10 ** value : value);
  return `step ${Math.round(cross.step)} · t = ${t} · lag ${cross.lag} · ${text}`;
}

function redraw() {
  if (!shown.length) return;
  draw.drawScale(ui.scale, draw.sharedScale(shown.map((item) => item.grid)));
  drawHeatmaps();
  drawProfile();
  drawTrends();
}

function drawProfile() {
  const base = shown.find((item) => item.run === state.baseline);
  const series = shown.filter((item) => item.profile).map((item) => {
    const {norms} = item.profile;
    const x = norms.map((_, t) => (state.lag ? t - norms.length + 1 : t));
    // Runs of different lengths are compared at the same lag from the end.
    const shift = base && base.profile ? base.profile.norms.length - norms.length : 0;
    const y = base && base.profile ? norms.map((v, t) => v / base.profile.norms[t + shift]) : norms;
    return {x, y, color: item.color, fit: base ? undefined : {decay: item.profile.decay}};
  });
  const same = new Set(shown.map((item) => JSON.stringify([item.meta.window, item.meta.align])));
  const [first] = shown;
  const lines = same.size === 1 && first.profile ? draw.cuts(first.meta, first.profile.norms.length) : [];
  ui.profileView = draw.drawLines(ui.profile, series, {
    log: true,
    xLabel: state.lag ? '− lag from the end' : 'timestep t',
    yLabel: base ? 'ratio to the chosen run' : '‖∂L/∂h‖',
    cuts: state.lag && first.profile ? lines.map((t) => t - first.profile.norms.length + 1) : lines,
  });
  ui.profileRead.textContent = 'Dashed: least-squares fit. Squares below: exactly 0. Crosses on top: NaN or infinite.';
}

function readProfile(event) {
  if (!ui.profileView) return;
  const x = Math.round(ui.profileView.x(event.offsetX));
  ui.profileRead.textContent = shown.filter((item) => item.profile).map((item) => {
    const {norms, step} = item.profile;
    const t = state.lag ? norms.length - 1 + x : x;
    return t in norms ? `${item.run} @ ${step}, t = ${t}: ${draw.format(norms[t])}` : '';
  }).filter(Boolean).join('   ·   ');
}

function drawTrends() {
  draw.drawLines(ui.trends, shown.map((item) => ({x: item.summary.steps, y: item.summary[state.trend], color: item.color})), {
    log: LOG_TRENDS.includes(state.trend),
    xLabel: 'training step',
    yLabel: TRENDS[state.trend].split(':')[0],
    at: state.step === null ? undefined : state.step,
  });
}

// State, theme, errors.

function save() {
  sessionStorage.setItem('kbptt.gradient_flow', JSON.stringify(state));
}

function restore() {
  try {
    Object.assign(state, JSON.parse(sessionStorage.getItem('kbptt.gradient_flow')) || {});
  } catch {
    // Damaged or forbidden storage: start from the defaults.
  }
}

function followDarkMode() {
  const host = window.parent.document.body;
  const apply = () => {
    document.body.classList.toggle('dark', host.classList.contains('dark-mode'));
    redraw();
  };
  apply();
  new MutationObserver(apply).observe(host, {attributes: true, attributeFilter: ['class']});
}

function fail(error) {
  ui.message.textContent = `Could not load: ${error.message}`;
}
