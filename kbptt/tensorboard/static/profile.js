// The profile at one step: a line for each run, a line with a band for each group.

import {cross, hover, register} from './crosshair.js';
import {element, legend, menu} from './dom.js';
import {crossLines, drawLines} from './lines.js';
import {allSteps, axisLabel, divisor, kind, lagged, page, profileOf} from './model.js';
import {cell, counted, format, statistic} from './numbers.js';
import * as save from './save.js';

const {state, ui} = page;
let shown = []; // {entry, profile, y, low, high}
let view = null;

export function build(actions) {
  ui.profile = element('canvas', {className: 'wide', ariaLabel: 'profile at one step', onmouseleave: () => hover(null),
    onmousemove: (event) => view && hover({x: Math.round(view.x(event.offsetX)), px: event.offsetY})});
  ui.profileRead = element('div', {className: 'legend'});
  ui.profileNote = element('p', {className: 'note'});
  ui.slider = element('input', {type: 'range', min: 0, step: 1, ariaLabel: 'training step', oninput: (event) => actions.setStep(stepAt(Number(event.target.value)))});
  ui.step = element('span', {className: 'step'});
  ui.profileTitle = element('h2');
  const svg = () => save.linesSvg(`profile_step_${page.step}`, lines(), options());
  const saving = menu('Save', [
    ['SVG', 'The chart as a vector graphic', svg],
    ['CSV', 'The curves shown', () => save.profileTable(shown, page.step, kind())]]);
  return element('section', {}, ui.profileTitle,
    element('div', {className: 'card'}, element('div', {className: 'bar'}, ui.slider, ui.step, saving), ui.profile, ui.profileRead, ui.profileNote));
}

/** The step at a place of the slider; null is the latest, which moves on as training does. */
function stepAt(place) {
  const steps = allSteps();
  return place === steps.length - 1 && !state.zoom ? null : steps[place];
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

// The x axis: t, the negative lag (the past is on the left), or the lag k.
const toX = ({timesteps}, t) => (kind().by_lag ? timesteps - 1 - t : state.axis === 'lag' ? t - timesteps + 1 : t);
const toT = ({timesteps}, x) => (kind().by_lag ? timesteps - 1 - x : state.axis === 'lag' ? timesteps - 1 + x : x);

/** Range of the x axis within the zoom. */
function zoomedX() {
  if (!state.zoom) return undefined;
  const [, , from, to] = state.zoom;
  return !kind().by_lag && state.axis === 'lag' ? [1 - to, -from] : [from, to - 1];
}

const at = (profile, values, t) => values?.[cell(profile.edges, t)] ?? null;

/** The values of a profile, divided by those of the divisor at the same lag. */
function values(profile, base) {
  const divide = (list) => (base ? list?.map((value, i) => {
    const t = (profile.edges[i] + profile.edges[i + 1] - 1) / 2;
    const other = at(base, base.y, t - profile.timesteps + base.timesteps);
    return other === null || value === null ? null : value === 0 ? 0 : value / other;
  }) : list);
  return {y: divide(profile.y), low: divide(profile.low), high: divide(profile.high)};
}

const centers = ({edges}) => edges.slice(1).map((edge, i) => (edges[i] + edge - 1) / 2);

function lines() {
  return shown.map(({entry, profile, y, low, high}) => {
    const one = profile.one;
    const mark = kind().by_lag && one?.window && one.window < one.timesteps ? {x: one.window - 0.5, text: `K = ${one.window}`} : undefined;
    return {x: centers(profile).map((t) => toX(profile, t)), y, color: entry.color, mark, thin: entry.inside !== null || shown.length > 20,
      band: low ? {low, high} : undefined,
      fit: !one?.fit || divisor() || shown.length > 6 ? undefined : one.fit.map(([t, v]) => [toX(one, t), v])};
  });
}

function options() {
  const same = new Set(shown.map(({profile}) => JSON.stringify([profile.one?.cuts, profile.timesteps])));
  const first = shown[0].profile.one;
  return {
    log: true,
    xLabel: axisLabel(),
    xText: (v) => String(Math.abs(v)),
    yLabel: divisor() ? 'ratio' : kind().symbol,
    cuts: same.size === 1 && first && !kind().by_lag ? first.cuts.map((t) => toX(first, t - 0.5)) : [],
    scale: divisor() ? undefined : state.scale,
    xRange: zoomedX(),
  };
}

register({draw: drawProfile, point});

export function drawProfile() {
  const base = divisor();
  const divided = base && profileOf(base);
  shown = page.entries.flatMap((entry) => {
    const profile = profileOf(entry);
    return profile ? [{entry, profile, ...values(profile, divided)}] : [];
  });
  ui.profile.hidden = ui.profileNote.hidden = !shown.length;
  const name = kind().by_lag ? 'Profile by lag' : 'Profile';
  ui.profileTitle.textContent = `${name} at one step${divided ? `, divided by that of ${base.label}` : ''}`;
  if (!shown.length) {
    view = null;
    ui.profileRead.textContent = 'No profile in this range.';
    return;
  }
  const all = lines();
  view = drawLines(ui.profile, all, options());
  point();
  const banded = all.some(({band}) => band);
  const fitted = all.some(({fit}) => fit);
  const steps = new Set([...page.runs.values()].map(({profile}) => profile?.step).filter((step) => step !== undefined));
  const notes = [
    banded && `Lines with a band: median over the runs of a group, and their ${state.band === 'range' ? 'full range' : 'interquartile range'}.`,
    (fitted || kind().by_lag) && `Dashed: ${[fitted && 'least-squares fit', kind().by_lag && 'the window K'].filter(Boolean).join(', ')}.`,
    `Squares below: ${divided ? 'a ratio of 0' : 'exactly 0'}. Crosses on top: NaN or infinite.`,
    steps.size > 1 && 'For each run, the last profile at or before this step.'];
  ui.profileNote.textContent = notes.filter(Boolean).join(' ');
}

/** x under the pointer, in this chart or, by lag, in a heatmap. */
function crossX() {
  if (cross?.x !== undefined) return cross.x;
  if (cross?.lag === undefined || !shown.length) return undefined;
  const {profile} = shown[0];
  return toX(profile, profile.timesteps - 1 - cross.lag);
}

function point() {
  if (!view) return;
  const x = crossX();
  crossLines(ui.profile, view, x);
  const read = cross?.x !== undefined;
  const {symbol} = kind();
  const name = divisor() ? 'ratio' : symbol;
  const texts = shown.map(({entry, profile, y, low, high}) => {
    if (!read) {
      if (divisor()) return '';
      if (profile.one) return kind().by_lag && profile.one.window ? `window K = ${profile.one.window}` : `decay ${statistic(profile.one.decay)} per ${kind().by_lag ? 'lag' : 'timestep'}`;
      return counted(entry.runs.length, 'run');
    }
    const t = toT(profile, x);
    const [value, from, to] = [y, low, high].map((list) => at(profile, list, t));
    if (!(t >= 0 && t < profile.timesteps) || value === null) return '–';
    return low ? `median ${name} = ${format(value)} (${format(from)} to ${format(to)}, ${counted(at(profile, profile.n, t), 'run')})` : `${name} = ${format(value)}`;
  });
  const longest = shown[0].profile;
  const where = !read ? '' : lagged() ? `step ${page.step} · lag ${Math.abs(x)}`
    : `step ${page.step} · timestep t = ${x} · lag ${longest.timesteps - 1 - x}`;
  const near = read && cross.px !== undefined ? nearest(x) : null;
  legend(ui.profileRead, shown.map(({entry}) => entry), where, texts, near);
}

/** The entry whose curve is nearest to the pointer. */
function nearest(x) {
  let best = [25, null]; // pixels
  for (const {entry, profile, y} of shown) {
    const value = at(profile, y, toT(profile, x));
    if (value === null || !view.usable(value)) continue;
    const distance = Math.abs(view.toY(view.place(value)) - cross.px);
    if (distance < best[0]) best = [distance, entry];
  }
  return best[1];
}
