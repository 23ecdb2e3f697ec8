// Scalars over training: a searchable picker with several at once, and a chart for each.

import {trendBand} from './bands.js';
import {cross, hover, register} from './crosshair.js';
import {element, legend, menu} from './dom.js';
import {crossLines, drawLines} from './lines.js';
import {chosenStep, page} from './model.js';
import {counted, format} from './numbers.js';
import * as save from './save.js';
import {switched} from './state.js';
import {LOG_TRENDS, sections, shortName, trendName} from './texts.js';

const {state, ui} = page;
let available = []; // names
let charts = []; // {name, root, canvas, read, view, shown}
let perform = null; // the actions

export function build(actions) {
  perform = actions;
  ui.search = element('input', {type: 'search', placeholder: 'find a statistic', ariaLabel: 'find a statistic', oninput: list});
  ui.names = element('div', {className: 'names'});
  ui.picked = element('summary', {textContent: 'Statistics'});
  ui.picker = element('details', {className: 'picker'}, ui.picked, element('div', {className: 'popup'}, ui.search, ui.names));
  ui.charts = element('div', {className: 'charts'});
  ui.overTraining = element('section', {}, element('h2', {textContent: 'Over training'}), element('div', {className: 'bar'}, ui.picker), ui.charts);
  return ui.overTraining;
}

const chosen = () => {
  const found = state.trends.filter((name) => available.includes(name));
  return found.length || !state.trends.length ? found : available.slice(0, 1);
};

/** The statistics that there are, for the chosen layer and the optimizer. */
export function showPicker(names) {
  available = sections(names).flatMap(([, of]) => of);
  ui.overTraining.hidden = !names.length;
  list();
}

function list() {
  const text = ui.search.value.trim().toLowerCase();
  const on = new Set(chosen());
  const parts = sections(available.filter((name) => `${name} ${trendName(name)}`.toLowerCase().includes(text)));
  ui.names.replaceChildren(...parts.flatMap(([title, names]) => [
    element('b', {textContent: title}),
    ...names.map((name) => {
      const box = element('input', {type: 'checkbox', checked: on.has(name), name,
        onchange: () => perform.setTrends(switched(chosen(), name))});
      return element('label', {}, box, shortName(name));
    })]));
  ui.picked.textContent = `Statistics: ${on.size} of ${available.length}`;
}

/** Makes the charts of the chosen statistics, and returns their names. */
export function show() {
  list();
  const names = chosen();
  const old = new Map(charts.map((chart) => [chart.name, chart]));
  charts = names.map((name) => old.get(name) ?? makeChart(name));
  ui.charts.replaceChildren(...charts.map(({root}) => root));
  ui.charts.classList.toggle('one', charts.length === 1);
  return names;
}

function makeChart(name) {
  const chart = {name, view: null, shown: []};
  chart.canvas = element('canvas', {className: 'trend', ariaLabel: `${trendName(name)} over training`,
    onmousemove: (event) => chart.view && hover({step: chart.view.x(event.offsetX)}), onmouseleave: () => hover(null),
    onclick: (event) => chart.view && perform.setStep(Math.round(chart.view.x(event.offsetX)))});
  chart.read = element('div', {className: 'legend'});
  const saving = menu('Save', [
    ['SVG', 'The chart as a vector graphic', () => save.linesSvg(name, lines(chart), options(chart))],
    ['CSV', 'The curves shown', () => save.trendTable(name, chart.shown)]]);
  const remove = element('button', {textContent: '×', title: 'Remove this chart', ariaLabel: `remove ${trendName(name)}`,
    onclick: () => perform.setTrends(switched(chosen(), name))});
  chart.root = element('div', {className: 'card'},
    element('header', {}, element('span', {className: 'title', textContent: trendName(name)}), saving, remove), chart.canvas, chart.read);
  return chart;
}

register({draw, point});

export function draw() {
  for (const chart of charts) {
    chart.shown = page.entries.flatMap((entry) => {
      const trends = entry.runs.map((run) => page.runs.get(run)?.trends.get(chart.name));
      const known = trends.filter((trend) => trend?.steps.length);
      const reason = trends.some((trend) => trend?.unreadable) ? 'unreadable' : 'not logged';
      if (!known.length) return trends.some(Boolean) ? [{entry, reason, steps: [], y: []}] : [];
      return [entry.group ? {entry, ...trendBand(known, state.band === 'range')} : {entry, steps: known[0].steps, y: known[0].values}];
    });
    chart.view = chart.shown.length ? drawLines(chart.canvas, lines(chart), options(chart)) : null;
    read(chart);
  }
}

const lines = ({shown}) => shown.map(({entry, steps, y, low, high}) => ({x: steps, y, color: entry.color,
  thin: entry.inside !== null || shown.length > 20, band: low ? {low, high} : undefined}));

const options = ({name}) => ({
  log: LOG_TRENDS.test(name),
  xLabel: 'training step',
  yLabel: trendName(name).split(':')[0],
  at: chosenStep(),
  xRange: state.zoom?.slice(0, 2),
});

function point() {
  for (const chart of charts) {
    if (!chart.view) continue;
    crossLines(chart.canvas, chart.view, cross?.step);
    read(chart);
  }
}

function read({shown, read: where, name}) {
  const step = cross?.step;
  const short = trendName(name).split(':')[0];
  const texts = shown.map(({steps, y, low, high, n, reason}) => {
    if (!steps.length) return reason;
    const i = Math.max(steps.findLastIndex((s) => s <= (step ?? state.zoom?.[1] ?? Infinity)), 0);
    return low ? `median ${format(y[i])} (${format(low[i])} to ${format(high[i])}, ${counted(n[i], 'run')})` : `${format(y[i])}`;
  });
  legend(where, shown.map(({entry}) => entry), step === undefined ? `${short}, latest` : `${short} at step ${Math.round(step)}`, texts);
}
