// The state of the page, shared by the modules that fetch, build and draw.

import {profileBand} from './bands.js';
import {groupColor, runColors} from './colors.js';
import {chosenTags, commonest, defaultKeys, groupKeys, groups, layerChoices} from './grouping.js';
import * as host from './host.js';
import * as choice from './state.js';

export const page = {
  state: choice.initial(),
  kinds: [], // what can be shown: the server's `layout.KINDS`
  order: [], // all runs in TensorBoard's order
  options: {}, // run -> its HParams
  tags: {}, // run -> tag -> {layer, kind, position, …}
  layers: [], // `layerChoices`
  layer: '', // the chosen one
  having: 0, // how many runs have it
  matching: [], // those that match the filter and can be shown
  unreadable: [], // {run, reason} of those that cannot
  chosen: new Set(), // names of those that are shown
  colors: new Map(), // run -> TensorBoard's colour
  keys: [], // of `groupKeys`: by which they are grouped
  groups: [], // of those: {label, runs}; none if they are not grouped
  groupKeys: [],
  // What is drawn, in order: {key, label, runs, color, group (more than one run as one), inside (its group's key or null),
  // cells (its grid), grid (divided or not)}. A group that is open is followed by its runs.
  entries: [],
  runs: new Map(), // run -> {run, tag, meta, color, profile, trends, summary, findings} of those that are shown
  thresholds: null, // name -> bound of the findings: the server's, with the user's changes
  rules: {}, // finding -> what records it needs
  step: undefined, // of the profile: the chosen one or, within a zoom, the nearest to it
  ui: {}, // elements
};

const {state} = page;

export const kind = () => page.kinds.find(({name}) => name === state.kind) ?? page.kinds[0];

/** Whether the y axis of the heatmaps counts from the end. */
export const lagged = () => kind().by_lag || state.axis === 'lag';

/** What the profiles run over, as an axis says it. */
export const axisLabel = () => (kind().by_lag ? 'lag k' : lagged() ? 'lag from the end' : 'timestep t');

/** The step to mark: not the latest, unless zoomed. */
export const chosenStep = () => (state.step === null && !state.zoom ? undefined : page.step);

/** The thresholds that the user has changed, as parameters of a request. */
export const bounds = () => Object.entries(state.bounds).map(([name, value]) => ['threshold', `${name}=${value}`]);

// Runs that could not be shown, until they change.
const failures = new Map(); // version -> {run, reason}; without a reason if there was nothing
const version = (run, tag) => JSON.stringify([run, tag, page.tags[run][tag]]);

/** Notes what the server says of a run: `unreadable` or `missing`. Returns whether it failed. */
export function failed(run, {unreadable, missing}) {
  const shown = page.runs.get(run);
  if (unreadable === undefined && missing === undefined) return false;
  if (shown) failures.set(version(run, shown.tag), {run, reason: unreadable});
  return true;
}

/** What `entries` and `runs` are, from the tags and the user's choice. Returns false if there is nothing at all. */
export function select() {
  if (!Object.values(page.tags).some((of) => Object.keys(of).length)) return false;
  const {name} = kind();
  page.layers = layerChoices(page.tags, name);
  page.layer = page.layers.some(({value}) => value === state.layer) ? state.layer : commonest(page.layers);
  const tagged = chosenTags(page.tags, name, page.layer);
  const isFailed = (run) => failures.has(version(run, tagged.get(run)[0]));
  const all = choice.matching([...tagged.keys()], state.filter);
  page.having = tagged.size;
  page.matching = all.filter((run) => !isFailed(run));
  page.unreadable = [
    ...all.filter(isFailed).map((run) => failures.get(version(run, tagged.get(run)[0]))).filter(({reason}) => reason),
    // A run without any tag is one whose series TensorBoard could not list.
    ...Object.keys(page.tags).filter((run) => !Object.keys(page.tags[run]).length)
      .map((run) => ({run, reason: 'Its event files declare more data than they contain.'})),
  ];
  page.keys = state.group ?? defaultKeys(page.matching);
  page.groupKeys = groupKeys(page.matching, page.options);
  page.groups = groups(page.matching, page.options, page.keys);
  page.colors = runColors(page.order, host.colorRegex(), host.isDark());
  const chosen = choice.chosen(page.matching, state);
  page.chosen = new Set(chosen);
  const before = page.runs;
  page.runs = new Map(chosen.map((run) => {
    const [tag, meta] = tagged.get(run);
    const key = version(run, tag);
    const kept = before.get(run)?.key === key ? before.get(run) : {trends: new Map()};
    return [run, {...kept, key, run, tag, meta, color: page.colors.get(run) ?? '#888888'}];
  }));
  const old = new Map(page.entries.map((entry) => [entry.key, entry]));
  page.entries = entriesOf(chosen).map((entry) => Object.assign(old.get(entry.key) ?? {images: {}}, entry));
  return true;
}

function entriesOf(chosen) {
  const single = (run, inside = null) =>
    ({key: `run:${run}`, label: run, runs: [run], color: page.runs.get(run).color, group: false, inside});
  if (!page.groups.length) return chosen.map((run) => single(run));
  return page.groups.flatMap(({label, runs}, place) => {
    const shown = runs.filter((run) => page.chosen.has(run));
    if (!shown.length) return [];
    const color = groupColor(runs, place, page.colors, host.isDark());
    const group = {key: `group:${label}`, label, runs: shown, color, group: true, inside: null};
    return [group, ...(state.open.includes(label) ? shown.map((run) => single(run, group.key)) : [])];
  });
}

/** Colour of a group in the list of runs, also of one that is not shown. */
export const colorOfGroup = (label) => {
  const place = page.groups.findIndex((group) => group.label === label);
  return groupColor(page.groups[place].runs, place, page.colors, host.isDark());
};

/** The entry that divides all others, if it is shown and known. */
export const divisor = () => page.entries.find((entry) => entry.label === state.base && entry.cells?.rows);

/** Whether a training step is within the zoom. */
export const inZoom = (step) => !state.zoom || (step >= state.zoom[0] && step <= state.zoom[1]);

/** Steps of all runs, as far as they are known, within the zoom. */
export const allSteps = () => {
  const found = new Set();
  for (const {steps} of page.runs.values()) for (const step of steps ?? []) if (inZoom(step)) found.add(step);
  return [...found].sort((a, b) => a - b);
};

/** The part of the profiles to request, by timestep or by lag from the end. */
export const zoomedPart = () => {
  if (!state.zoom) return {};
  const [, , from, to] = state.zoom;
  return lagged() ? {l0: from, l1: to} : {t0: from, t1: to};
};

/** The curve of an entry at the step of the profiles, with a band for a group; null if there is none. */
export function profileOf(entry) {
  const profiles = entry.runs.map((run) => page.runs.get(run)?.profile).filter(Boolean);
  if (!profiles.length) return null;
  if (!entry.group) return {...profiles[0], y: profiles[0].norms, one: profiles[0]};
  const known = entry.profile; // the same profiles make the same band
  if (known?.whole === state.band && known.of.length === profiles.length && known.of.every((one, i) => one === profiles[i])) {
    return known.band;
  }
  const band = profileBand(profiles, state.band === 'range');
  entry.profile = {of: profiles, whole: state.band, band};
  return band;
}
