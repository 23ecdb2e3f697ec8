// The page's elements: controls, tables, and cards for the charts.

import {hover} from './charts.js';
import {element, labelled, options, runName, swatch} from './dom.js';
import {allSteps, lagged, page} from './model.js';
import {INF, NAN, PALETTE, ZERO, folders, format, median} from './numbers.js';
import * as choice from './state.js';
import {LAG_SNIPPET, SNIPPET, SPECIAL, TRENDS, trendName, verdictNote} from './texts.js';

const {state, ui} = page;

export const MAX_RUNS = PALETTE.length;

/**
 * Makes the elements. `actions`: `set(changes)` of the state, which updates everything; `setStep(step)`,
 * `setTrend(name)` and `setScale(scale)`, which update less; `reload()`.
 */
export function build(actions) {
  let typing = 0;
  const changed = (name, more = {}) => (event) => actions.set({[name]: event.target.value, ...more});
  ui.view = element('select', {onchange: changed('view', {zoom: null})});
  options(ui.view, [['timestep', 'by timestep t'], ['lag', 'by lag k']], state.view);
  ui.layer = element('select', {onchange: changed('layer', {zoom: null})});
  ui.merge = element('select', {title: 'Value of a cell that covers several steps or timesteps', onchange: changed('merge')});
  options(ui.merge, [['mean', 'geometric mean'], ['max', 'largest'], ['min', 'smallest']], state.merge);
  ui.axis = element('select', {onchange: changed('axis', {zoom: null})});
  options(ui.axis, [['timestep', 'timestep t'], ['lag', 'lag from the end']], state.axis);
  ui.axisLabel = labelled('y axis', ui.axis);
  ui.low = element('input', {className: 'norm', ariaLabel: 'smallest norm of the scale', onchange: () => readScale(actions)});
  ui.high = element('input', {className: 'norm', ariaLabel: 'largest norm of the scale', onchange: () => readScale(actions)});
  ui.filter = element('input', {type: 'search', placeholder: 'filter runs (regex)', ariaLabel: 'filter runs', value: state.filter,
    oninput: () => {
      clearTimeout(typing);
      typing = setTimeout(() => actions.set({filter: ui.filter.value}), 200);
    }});
  ui.base = element('select', {className: 'run', onchange: changed('base')});
  ui.trend = element('select', {ariaLabel: 'statistic', onchange: (event) => actions.setTrend(event.target.value)});
  ui.slider = element('input', {type: 'range', min: 0, step: 1, ariaLabel: 'training step', oninput: (event) => {
    const at = Number(event.target.value);
    const steps = allSteps();
    actions.setStep(at === steps.length - 1 && !state.zoom ? null : steps[at]);
  }});
  ui.step = element('span', {className: 'step'});
  ui.scale = element('canvas', {className: 'scale'});
  ui.scaleLabel = element('span', {className: 'muted'});
  ui.title = element('h2');
  ui.profileTitle = element('h2');
  ui.cards = element('div', {className: 'cards'});
  ui.profile = element('canvas', {className: 'wide', ariaLabel: 'profile at one step', onmouseleave: () => hover(null),
    onmousemove: (event) => ui.profileView && hover({profile: Math.round(ui.profileView.x(event.offsetX))})});
  ui.profileRead = element('div', {className: 'legend'});
  ui.profileNote = element('p', {className: 'note'});
  ui.trends = element('canvas', {className: 'wide', ariaLabel: 'statistic over training',
    onmousemove: (event) => ui.trendView && hover({step: ui.trendView.x(event.offsetX)}), onmouseleave: () => hover(null),
    onclick: (event) => ui.trendView && actions.setStep(Math.round(ui.trendView.x(event.offsetX)))});
  ui.trendRead = element('div', {className: 'legend'});
  ui.table = element('table');
  ui.folderTable = element('table');
  ui.folders = element('div', {},
    element('p', {className: 'note', textContent: 'Medians over the runs of a folder, such as the seeds of a method:'}), ui.folderTable);
  ui.thresholds = element('p', {className: 'note'});
  ui.message = element('p', {className: 'error', role: 'alert', hidden: true});
  ui.nothing = element('p', {className: 'note', role: 'status'});
  ui.reset = element('button', {textContent: 'Zoom out', onclick: () => actions.set({zoom: null})});
  const reload = () => element('button', {textContent: 'Reload', onclick: () => actions.reload()});
  ui.runs = element('div', {className: 'bar runs'}, reload(), ui.reset, ui.filter);
  ui.noLags = element('div', {hidden: true},
    element('p', {textContent: 'No run has gradients by lag for this layer. To measure them:'}),
    element('pre', {textContent: LAG_SNIPPET}));
  ui.special = SPECIAL.norm.map(() => element('span'));
  const legend = [ZERO, NAN, INF].map((rgb, i) => element('span', {className: 'muted cell'}, swatch(`rgb(${rgb})`), ui.special[i]));
  ui.unreadable = element('ul', {className: 'unreadable', hidden: true});
  ui.overTraining = element('div', {},
    element('h2', {textContent: 'Over training'}),
    element('div', {className: 'card'}, element('div', {className: 'bar'}, ui.trend), ui.trends, ui.trendRead));
  ui.views = element('div', {},
    ui.title,
    element('div', {className: 'bar'}, ui.scale, ui.scaleLabel, ...legend),
    ui.cards,
    element('p', {className: 'note', textContent: 'All runs share one colour scale. Click: profile at that step. '
      + 'Drag: zoom. Double click: zoom out. Dashed lines: where truncation cuts the gradient.'}),
    ui.profileTitle,
    element('div', {className: 'card'}, element('div', {className: 'bar'}, ui.slider, ui.step), ui.profile, ui.profileRead, ui.profileNote),
    element('h2', {textContent: 'Verdict'}),
    element('div', {className: 'card scroll'}, ui.table, ui.folders, ui.thresholds),
    ui.overTraining);
  ui.main = element('div', {hidden: true},
    element('div', {className: 'bar'}, labelled('Gradient', ui.view), labelled('Layer', ui.layer), ui.axisLabel,
      labelled('Aggregate by', ui.merge), labelled('Norms from', ui.low), labelled('to', ui.high), labelled('Divide by run', ui.base)),
    ui.runs, ui.nothing, ui.unreadable, ui.noLags, ui.views);
  ui.empty = element('div', {hidden: true},
    element('h2', {textContent: 'No gradient flow in this log directory yet'}),
    element('p', {textContent: 'Train with a recurrent kbptt layer and this callback:'}),
    element('pre', {textContent: SNIPPET}),
    reload());
  document.body.append(ui.message, ui.empty, ui.main);
}

/** Shows the state and the available runs in the controls. */
export function showChoice(actions, layers, matching, runs, colors) {
  const {view} = state;
  ui.view.value = view;
  options(ui.layer, layers.map((layer) => [layer, layer]), page.layer);
  ui.axis.value = state.axis;
  ui.axisLabel.hidden = view === 'lag';
  ui.merge.value = state.merge;
  if (document.activeElement !== ui.filter) ui.filter.value = state.filter;
  options(ui.base, [['', 'none'], ...runs.map((run) => [run, run])], runs.includes(state.base) ? state.base : '');
  const norm = (v) => (v === null ? '' : String(+(10 ** v).toPrecision(6)));
  [ui.low.value, ui.high.value] = (state.scale || [null, null]).map(norm);
  ui.reset.hidden = !state.zoom;
  const full = runs.length === MAX_RUNS;
  const button = (textContent, changes) => element('button', {textContent, onclick: () => actions.set(changes)});
  const boxes = matching.map((run) => {
    const checked = runs.includes(run);
    const box = element('input', {type: 'checkbox', checked, disabled: full && !checked,
      onchange: () => actions.set(choice.toggle(state, run, box.checked, matching, runs))});
    const title = box.disabled ? `${run}\n(${MAX_RUNS} runs at once: deselect one first)` : run;
    return element('label', {title}, box, swatch(colors.get(run) || 'var(--card)'), runName(run));
  });
  const focused = boxes.findIndex((label) => label.title === document.activeElement?.closest('label')?.title);
  // The filter is not replaced: the user may be typing.
  while (ui.filter.nextSibling) ui.filter.nextSibling.remove();
  ui.runs.append(button('All', {runs: null, off: []}), button('None', {runs: [], off: []}),
    element('span', {className: 'muted', textContent: `${runs.length} of ${matching.length} runs`}), ...boxes);
  if (focused >= 0) boxes[focused].firstChild.focus();
}

function readScale(actions) {
  const given = [ui.low, ui.high].map(({value}) => (value.trim() === '' ? null : Math.log10(Number(value))));
  const wrong = given.some((v) => v !== null && !Number.isFinite(v)) || (!given.includes(null) && given[0] >= given[1]);
  for (const input of [ui.low, ui.high]) input.classList.toggle('wrong', wrong);
  if (!wrong) actions.setScale(given.every((v) => v === null) ? null : given);
}

const cards = new Map(); // run -> its elements

function makeCard(actions) {
  const card = {canvas: element('canvas', {tabIndex: 0}), read: element('div', {className: 'read'}), header: element('header')};
  card.root = element('div', {className: 'card'}, card.header, card.canvas, card.read);
  listen(card, actions);
  return card;
}

/** Lists runs, {run, reason}, whose event files cannot be shown. */
export function showUnreadable(found) {
  ui.unreadable.hidden = !found.length;
  ui.unreadable.replaceChildren(...found.map(({run, reason}) =>
    element('li', {}, badge({verdict: 'unreadable', reason}), ' ', runName(run), ' ', element('span', {className: 'muted', textContent: reason}))));
}

/** Moves the slider to the last of these steps up to the chosen one, and returns it. */
export function showStep(steps) {
  const {step} = state;
  const at = step === null ? steps.length - 1 : Math.max(steps.findLastIndex((s) => s <= step), 0);
  ui.slider.max = steps.length - 1;
  ui.slider.value = at;
  ui.slider.disabled = !steps.length;
  ui.step.textContent = steps.length ? `step ${steps[at]}${step === null && !state.zoom ? ' (latest)' : ''}` : '';
  return steps[at];
}

/** One card per run. Cards are reused, and so keep the focus. */
export function showCards(actions) {
  for (const item of page.shown) {
    const card = (item.card = cards.get(item.run) || makeCard(actions));
    cards.set(item.run, card);
    card.item = item;
    card.canvas.ariaLabel = `heatmap of ${item.run}`;
    const png = element('button', {textContent: 'PNG', title: 'Save this heatmap', onclick: () => savePng(card)});
    const csv = element('a', {textContent: 'CSV', title: 'Save all profiles',
      href: `./export?${new URLSearchParams({run: item.run, tag: item.tag, format: 'csv'})}`});
    card.header.replaceChildren(swatch(item.color), runName(item.run), badge(item.summary), png, csv);
  }
  const roots = page.shown.map((item) => item.card.root);
  const present = [...ui.cards.children];
  if (roots.length !== present.length || roots.some((root, i) => root !== present[i])) ui.cards.replaceChildren(...roots);
  ui.cards.classList.toggle('few', roots.length < 3);
}

const badge = (summary) =>
  element('span', {className: `verdict ${summary.verdict}`, textContent: summary.verdict, title: summary.reason});

const fileName = (item) => `${item.run}_${page.layer}`.replace(/[^\w.-]+/g, '_').replace(/^[_.]+/, '').replace(/_+/g, '_');

function savePng({canvas, item}) {
  const ratio = canvas.width / canvas.clientWidth;
  const made = element('canvas', {width: canvas.width, height: canvas.height + Math.round(66 * ratio)});
  const context = made.getContext('2d');
  const style = getComputedStyle(document.body);
  context.fillStyle = style.getPropertyValue('--card');
  context.fillRect(0, 0, made.width, made.height);
  context.drawImage(canvas, 0, 24 * ratio);
  context.drawImage(ui.scale, 0, canvas.height + 26 * ratio);
  context.scale(ratio, ratio);
  context.fillStyle = style.getPropertyValue('--text');
  context.font = '13px Roboto, sans-serif';
  context.fillText(`${item.run} · ${page.layer} · ${ui.scaleLabel.textContent}`, 8, 17);
  made.toBlob((blob) => {
    const link = element('a', {href: URL.createObjectURL(blob), download: `${fileName(item)}.png`});
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}

const row = (cells, kind = 'td') => element('tr', {}, ...cells.map((content) =>
  content instanceof Node ? element(kind, {}, content) : element(kind, {textContent: content})));

export function showTable() {
  const {shown} = page;
  const windows = shown.some((item) => item.summary.window);
  const keys = ['decay', 'half_life', 'horizon', 'first_last_ratio', 'zero_fraction', 'nonfinite_fraction'];
  const names = ['decay', 'half-life', 'horizon', state.view === 'lag' ? 'last/first lag' : 'first/last', 'zeros', 'NaN/Inf'];
  const values = (summaries) => keys.map((key) => format(median(summaries.map((summary) => summary[key]))));
  const steps = ({first_step: first, last_step: last}) => (first === last ? String(last) : `${first}–${last}`);
  const body = shown.map(({run, color, summary}) => {
    const name = element('span', {className: 'cell'}, swatch(color), runName(run));
    const made = row([name, badge(summary), ...values([summary]),
      ...(windows ? [summary.window ? String(summary.window) : 'full'] : []), steps(summary), summary.reason]);
    made.lastChild.className = 'reason';
    return made;
  });
  const head = row(['run', 'verdict', ...names, ...(windows ? ['window K'] : []), 'steps', 'why'], 'th');
  head.lastChild.className = 'reason';
  ui.table.replaceChildren(head, ...body);
  const groups = folders(shown);
  ui.folders.hidden = !groups.length;
  ui.folderTable.replaceChildren(row(['folder', 'runs', 'verdicts', ...names], 'th'), ...groups.map(([folder, items]) => {
    const verdicts = new Map();
    for (const {summary} of items) verdicts.set(summary.verdict, (verdicts.get(summary.verdict) || 0) + 1);
    const counts = [...verdicts].map(([verdict, count]) => (items.length > 1 ? `${count} ${verdict}` : verdict)).join(', ');
    return row([runName(folder), String(items.length), counts, ...values(items.map((item) => item.summary))]);
  }));
  ui.thresholds.textContent = verdictNote(shown[0].summary.thresholds) + (state.view === 'timestep' && shown.some((item) => item.meta.loss === 'all')
    ? ' With an output at every timestep, direct gradients can hide a vanishing one: see the gradient by lag.' : '');
}

export function showTrends(names) {
  const known = Object.keys(TRENDS).filter((name) => names.includes(name));
  const all = [...known, ...names.filter((name) => !known.includes(name))];
  ui.overTraining.hidden = !all.length;
  options(ui.trend, all.map((name) => [name, trendName(name)]), all.includes(state.trend) ? state.trend : all[0]);
}

/** Click: step. Drag: zoom. Arrow keys: next step. */
function listen(card, actions) {
  let start = null;
  const at = (event) => [event.offsetX, event.offsetY];
  const inside = (value, low, size) => Math.min(Math.max(value, low), low + size);
  card.canvas.onmousedown = (event) => (start = at(event));
  card.canvas.onmousemove = (event) => {
    const {item} = card;
    if (!item.view) return;
    const last = item.grid.timesteps - 1;
    const t = Math.min(Math.max(Math.round(item.view.timestep(event.offsetY)), 0), last);
    hover({step: item.view.step(event.offsetX), lag: last - t, drag: start && [start, at(event)], item});
  };
  card.canvas.onmouseleave = () => {
    start = null;
    hover(null);
  };
  card.canvas.onmouseup = (event) => {
    const {item} = card;
    if (!item.view || !start) return;
    const [a, b] = [start, at(event)];
    start = null;
    const {box} = item.view;
    if (Math.abs(a[0] - b[0]) + Math.abs(a[1] - b[1]) < 6) {
      actions.setStep(Math.round(item.view.step(b[0])));
      return;
    }
    const steps = [a[0], b[0]].map((x) => item.view.step(inside(x, box.x, box.w))).sort((p, q) => p - q);
    const times = [a[1], b[1]].map((y) => Math.round(item.view.timestep(inside(y, box.y, box.h)))).sort((p, q) => p - q);
    const last = item.grid.timesteps - 1;
    const [from, to] = lagged() ? [last - times[1], last - times[0]] : times;
    hover(null);
    actions.set({zoom: [Math.floor(steps[0]), Math.ceil(steps[1]), Math.max(from, 0), Math.min(to, last) + 1]});
  };
  card.canvas.ondblclick = () => actions.set({zoom: null});
  card.canvas.onkeydown = (event) => {
    const move = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!move) return;
    event.preventDefault();
    ui.slider.value = Number(ui.slider.value) + move;
    ui.slider.dispatchEvent(new Event('input'));
  };
}
