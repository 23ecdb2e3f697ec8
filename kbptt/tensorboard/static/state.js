// The user's choices and their encoding in a link. Pure functions.

const PREFIX = 'p.gradient_flow.'; // TensorBoard's prefix for the part of a plugin in the address

const text = {write: (v) => v, read: (t) => t};
const whole = {write: String, read: (t) => (/^-?\d+$/.test(t) ? Number(t) : undefined)};
const oneOf = (...values) => ({write: (v) => v, read: (t) => (values.includes(t) ? t : undefined)});
const json = (valid) => ({write: JSON.stringify, read: (t) => {
  try {
    const value = JSON.parse(t);
    return valid(value) ? value : undefined;
  } catch {
    return undefined; // a damaged or edited link
  }
}});
const names = json((v) => Array.isArray(v) && v.every((name) => typeof name === 'string'));
const number = (v) => v === null || Number.isFinite(v);

// Name -> [default, encoding].
const FIELDS = {
  kind: ['dL_dh', text],
  layer: ['', text], // a name, or a position: `layerChoices`
  axis: ['timestep', oneOf('timestep', 'lag')],
  merge: ['mean', oneOf('mean', 'max', 'min')],
  filter: ['', text],
  runs: [null, names], // exactly these, or null: all that match the filter, but those in `off`
  off: [[], names],
  step: [null, whole], // null: the latest
  base: ['', text],
  trends: [['decay'], names],
  group: [null, names], // keys of `groupKeys`; null: by folder, if there are many runs
  open: [[], names], // groups shown run by run
  band: ['quartiles', oneOf('quartiles', 'range')],
  zoom: [null, json((v) => Array.isArray(v) && v.length === 4 && v.every(Number.isInteger))], // s0, s1, t0, t1
  bounds: [{}, json((v) => v !== null && typeof v === 'object' && !Array.isArray(v) && Object.values(v).every(Number.isFinite))], // thresholds of findings
  scale: [null, json((v) => Array.isArray(v) && v.length === 2 && v.every(number))], // log10; null: of the data
};

// Names in links of earlier versions.
const OLD = {
  view: (value) => ['kind', value === 'lag' ? 'dL_dh_by_lag' : 'dL_dh'],
  trend: (value) => ['trends', JSON.stringify([value])],
};

export const initial = () => Object.fromEntries(Object.entries(FIELDS).map(([name, [value]]) => [name, value]));

/** The state that TensorBoard's fragment `#plugin&key=value…` holds, or null if it holds none. */
export function read(hash) {
  const state = initial();
  let found = false;
  for (const part of hash.replace(/^#/, '').split('&')) {
    const [key, value] = part.split('=');
    let name;
    let decoded;
    try {
      [name, decoded] = [decodeURIComponent(key), decodeURIComponent(value)];
    } catch {
      continue;
    }
    if (!name.startsWith(PREFIX) || value === undefined) continue;
    name = name.slice(PREFIX.length);
    if (Object.hasOwn(OLD, name)) [name, decoded] = OLD[name](decoded);
    const got = Object.hasOwn(FIELDS, name) ? FIELDS[name][1].read(decoded) : undefined;
    if (got === undefined) continue;
    state[name] = got;
    found = true;
  }
  return found ? state : null;
}

/** The fragment with its state replaced; the parts of others are kept. */
export function write(hash, state) {
  const others = hash.replace(/^#/, '').split('&').filter((part) => part && !part.startsWith(PREFIX));
  // The first part is the name of the tab.
  if (!others.length || others[0].includes('=')) others.unshift('gradient_flow');
  const own = Object.entries(FIELDS)
    .filter(([name, [value]]) => JSON.stringify(state[name]) !== JSON.stringify(value))
    .map(([name, [, field]]) => [PREFIX + name, field.write(state[name])].map(encodeURIComponent).join('='));
  return `#${[...others, ...own].join('&')}`;
}

/** The runs that match the filter: a regular expression or, if invalid as such, a part of the name. */
export function matching(runs, filter) {
  let matches;
  try {
    const expression = new RegExp(filter, 'i');
    matches = (run) => expression.test(run);
  } catch {
    matches = (run) => run.toLowerCase().includes(filter.toLowerCase());
  }
  return runs.filter(matches);
}

/** The matching runs that are shown. */
export const chosen = (runs, {runs: only, off}) => {
  const listed = new Set(only ?? off);
  return runs.filter((run) => (only ? listed.has(run) : !listed.has(run)));
};

/** The list without an element that it has, or with one that it lacks. */
export const switched = (list, one) => (list.includes(one) ? list.filter((other) => other !== one) : [...list, one]);

/** `runs` and `off` after a click that shows or hides some runs. */
export function toggle({runs, off}, some, on) {
  const without = (list) => list.filter((run) => !some.includes(run));
  if (runs) return {runs: on ? [...without(runs), ...some] : without(runs), off: []};
  return {runs: null, off: on ? without(off) : [...without(off), ...some]};
}
