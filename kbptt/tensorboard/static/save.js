// Files of what is shown: PNG, SVG and CSV.

import {variable} from './axes.js';
import {drawHeatmap, drawScale} from './heatmap.js';
import {drawLines} from './lines.js';
import {divisor, kind, page} from './model.js';
import {SvgCanvas} from './svg.js';

const {ui} = page;

const fileName = (text) => text.replace(/[^\w.-]+/g, '_').replace(/^[_.]+/, '').replace(/_+/g, '_').slice(0, 150) || 'gradient_flow';

function download(name, blob) {
  const link = document.createElement('a');
  Object.assign(link, {href: URL.createObjectURL(blob), download: name});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const heading = ({label}) => `${label} · ${page.layer} · ${ui.scaleLabel.textContent}`;

/** The heatmap of an entry with its heading and the colour bar. */
export function png(entry, bar) {
  const {canvas} = entry.card;
  const ratio = canvas.width / canvas.clientWidth;
  const made = document.createElement('canvas');
  [made.width, made.height] = [canvas.width, canvas.height + Math.round(66 * ratio)];
  const context = made.getContext('2d');
  context.fillStyle = variable('--card');
  context.fillRect(0, 0, made.width, made.height);
  context.drawImage(canvas, 0, 24 * ratio);
  context.drawImage(bar, 0, canvas.height + 26 * ratio);
  context.scale(ratio, ratio);
  context.fillStyle = variable('--text');
  context.font = '13px Roboto, sans-serif';
  context.fillText(heading(entry), 8, 17);
  made.toBlob((blob) => download(`${fileName(`${entry.label}_${page.layer}`)}.png`, blob));
}

const svg = (name, canvas) => download(`${fileName(name)}.svg`, new Blob([String(canvas)], {type: 'image/svg+xml'}));

export function heatmapSvg(entry, options, [scale, diverging]) {
  const {clientWidth, clientHeight} = entry.card.canvas;
  const target = new SvgCanvas(clientWidth, clientHeight + 66);
  // Cells at the resolution of the screen; axes and texts as drawings.
  const chart = new SvgCanvas(clientWidth, clientHeight);
  drawHeatmap(chart, entry.grid, {...options, images: {}});
  const bar = new SvgCanvas(ui.scale.clientWidth, ui.scale.clientHeight);
  drawScale(bar, scale, diverging);
  const {context} = target;
  context.fillStyle = variable('--card');
  context.fillRect(0, 0, clientWidth, clientHeight + 66);
  context.fillStyle = variable('--text');
  context.font = '13px sans-serif';
  context.fillText(heading(entry), 8, 17);
  context.parts.push(`<g transform="translate(0 24)">${chart.context.parts.join('')}</g>`,
    `<g transform="translate(0 ${clientHeight + 26})">${bar.context.parts.join('')}</g>`);
  svg(`${entry.label}_${page.layer}`, target);
}

export function linesSvg(name, lines, options) {
  const target = new SvgCanvas(900, 360);
  drawLines(target, lines, options);
  svg(`${page.layer}_${name}`, target);
}

// CSV. Names of runs are foreign text: a spreadsheet must not take one for a formula.

const quoted = (text) => {
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
};
const value = (v) => (v === null || v === undefined ? '' : typeof v === 'number' ? String(v) : quoted(String(v)));

/** The text of a table: names of the columns, then rows. */
export const csv = (names, rows) => [names, ...rows].map((row) => row.map(value).join(',')).join('\n') + '\n';

const table = (name, names, rows) => download(`${fileName(name)}.csv`, new Blob([csv(names, rows)], {type: 'text/csv'}));

const kindOf = ({group}) => (group ? 'group' : 'run');

/** The cells of an entry's heatmap: one line each, with the steps and timesteps that it covers. */
export function cells(entry) {
  const {grid} = entry;
  const by = kind().by_lag ? 'lag' : 'timestep';
  const rows = [];
  const end = grid.timesteps - 1;
  for (let i = 0; i < grid.rows; i++) {
    for (let j = 0; j < grid.cols; j++) {
      const log = grid.values[i * grid.cols + j];
      if (log === grid.missing) continue;
      const [first, last] = [grid.timestep_edges[j], grid.timestep_edges[j + 1] - 1];
      const place = kind().by_lag ? [end - last, end - first] : [first, last];
      rows.push([entry.label, grid.runs.length, grid.first_steps[i], grid.last_steps[i], ...place, 10 ** log]);
    }
  }
  table(`${entry.label}_${page.layer}_cells`,
    [kindOf(entry), 'runs', 'first_step', 'last_step', `first_${by}`, `last_${by}`, divisor() ? 'ratio' : kind().name], rows);
}

/** Every recorded profile of a run, written by the server. */
export function profiles(run, tag) {
  const link = document.createElement('a');
  Object.assign(link, {href: `./export?${new URLSearchParams({run, tag, format: 'csv'})}`, download: ''});
  link.click();
}

/** The curves of the profile: of a run its values, of a group median and band. */
export function profileTable(shown, step, {by_lag: byLag, name}) {
  const by = byLag ? 'lag' : 'timestep';
  const rows = shown.flatMap(({entry, profile, y, low, high}) => y.map((norm, i) => {
    const [first, last] = [profile.edges[i], profile.edges[i + 1] - 1];
    const end = profile.timesteps - 1;
    const place = byLag ? [end - last, end - first] : [first, last];
    return [kindOf(entry), entry.label, profile.n?.[i] ?? 1, profile.one?.step ?? step, ...place, norm, low?.[i], high?.[i]];
  }));
  table(`${page.layer}_${name}_step_${step}`,
    ['kind', 'name', 'runs', 'step', `first_${by}`, `last_${by}`, divisor() ? 'ratio' : name, 'band_low', 'band_high'], rows);
}

export function trendTable(name, shown) {
  const rows = shown.flatMap(({entry, steps, y, low, high, n}) => steps.map((step, i) =>
    [kindOf(entry), entry.label, n?.[i] ?? 1, step, y[i], low?.[i], high?.[i]]));
  table(`${page.layer}_${name}`, ['kind', 'name', 'runs', 'step', name, 'band_low', 'band_high'], rows);
}
