// Which runs are shown together: layers at the same place in their models, runs of one group. Pure functions.

import {byName, counted} from './numbers.js';

const ORDINAL = /^#(\d+)$/; // the choice of a layer by its position; no layer has such a name

/**
 * The layers to choose from: [{value, text, byPosition}]. `tags`: run -> tag -> {layer, kind, position}. A position is
 * offered where runs have different names for it, such as `lstm` and `lstm_1`.
 */
export function layerChoices(tags, kind) {
  const all = Object.entries(tags).flatMap(([run, of]) => Object.values(of).map((meta) => ({run, ...meta})));
  const names = [...new Set(all.map(({layer}) => layer))].sort(byName);
  const at = new Map();
  for (const {layer, position} of all) at.set(position, new Set([...(at.get(position) ?? []), layer]));
  const places = [...at].filter(([, found]) => found.size > 1).sort(([a], [b]) => a - b);
  const having = (value) => new Set(all.filter((one) => one.kind === kind && isChosen(one, value)).map(({run}) => run)).size;
  return [
    ...names.map((name) => ({value: name, text: name, byPosition: false})),
    ...places.map(([position, found]) => {
      const [first, second, ...more] = [...found].sort(byName);
      return {value: `#${position}`, byPosition: true,
        text: `layer ${position + 1}: ${first}, ${second}${more.length ? `, … (${more.length + 2} names)` : ''}`};
    }),
  ].map((one) => ({...one, runs: having(one.value)}));
}

/** The choice that most runs have; a name rather than a position. */
export const commonest = (choices) =>
  choices.reduce((best, one) => (!best || one.runs > best.runs ? one : best), null)?.value ?? '';

const isChosen = ({layer, position}, value) => {
  const place = ORDINAL.exec(value);
  return place ? position === Number(place[1]) : layer === value;
};

/** The tag of each run for a kind of tensor and a choice of `layerChoices`: run -> [tag, its metadata]. */
export function chosenTags(tags, kind, value) {
  const found = new Map();
  for (const run of Object.keys(tags).sort(byName)) {
    const entry = Object.entries(tags[run]).find(([, meta]) => meta.kind === kind && isChosen(meta, value));
    if (entry) found.set(run, entry);
  }
  return found;
}

/** The options of a run: its HParams or, if it has none, those of the nearest directory above it. */
export function optionsOf(run, options) {
  for (let name = run; ; name = name.slice(0, Math.max(name.lastIndexOf('/'), 0))) {
    if (Object.hasOwn(options, name)) return options[name];
    if (!name) return Object.hasOwn(options, '.') ? options['.'] : {};
  }
}

const folder = (run) => run.slice(0, Math.max(run.lastIndexOf('/'), 0)) || run;

/** What runs can be grouped by: [{key, text}]; options that differ between the runs come first. */
export function groupKeys(runs, options) {
  const values = new Map();
  for (const run of runs) {
    for (const [name, value] of Object.entries(optionsOf(run, options))) {
      if (!values.has(name)) values.set(name, new Set());
      values.get(name).add(value);
    }
  }
  const named = [...values].sort(([a, x], [b, y]) => (y.size > 1) - (x.size > 1) || byName(a, b));
  return [{key: 'folder', text: 'folder'}, ...named.map(([name, found]) => ({key: `option:${name}`,
    text: `${name} (${counted(found.size, 'value')})`}))];
}

/** By folder if there are many runs and several of them in one; else not. */
export function defaultKeys(runs, many = 12) {
  const folders = new Set(runs.map(folder));
  return runs.length > many && folders.size > 1 && folders.size <= runs.length / 2 ? ['folder'] : [];
}

/** [{label, runs}] in natural order; without keys none. `keys` are those of `groupKeys`. */
export function groups(runs, options, keys) {
  if (!keys.length) return [];
  const found = new Map();
  for (const run of runs) {
    const of = optionsOf(run, options);
    const part = (key) => {
      if (key === 'folder') return folder(run);
      const name = key.slice('option:'.length);
      return `${name} = ${Object.hasOwn(of, name) ? of[name] : '–'}`;
    };
    const label = keys.map(part).join(', ');
    found.set(label, [...(found.get(label) ?? []), run]);
  }
  return [...found].sort(([a], [b]) => byName(a, b)).map(([label, members]) => ({label, runs: members}));
}
