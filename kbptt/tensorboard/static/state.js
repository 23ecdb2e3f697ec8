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
  view: ['timestep', oneOf('timestep', 'lag')],
  layer: ['', text],
  axis: ['timestep', oneOf('timestep', 'lag')],
  merge: ['mean', oneOf('mean', 'max', 'min')],
  filter: ['', text],
  runs: [null, names], // exactly these, or null: all that match the filter, but those in `off`
  off: [[], names],
  step: [null, whole], // null: the latest
  base: ['', text],
  trend: ['decay', text],
  zoom: [null, json((v) => Array.isArray(v) && v.length === 4 && v.every(Number.isInteger))], // s0, s1, t0, t1
  scale: [null, json((v) => Array.isArray(v) && v.length === 2 && v.every(number))], // log10; null: of the data
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
    const field = name.startsWith(PREFIX) && FIELDS[name.slice(PREFIX.length)];
    const got = field && value !== undefined ? field[1].read(decoded) : undefined;
    if (got === undefined) continue;
    state[name.slice(PREFIX.length)] = got;
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

/** The matching runs to show: all or, if too many, about equally many of each folder. */
export function chosen(runs, state, most) {
  const wanted = state.runs ? runs.filter((run) => state.runs.includes(run)) : runs.filter((run) => !state.off.includes(run));
  if (wanted.length <= most) return wanted;
  // The first of every folder, then the second: the seeds of one method must not take all places.
  const counts = new Map();
  const ranks = new Map(wanted.map((run) => {
    const folder = run.slice(0, Math.max(run.lastIndexOf('/'), 0));
    counts.set(folder, (counts.get(folder) ?? -1) + 1);
    return [run, counts.get(folder)];
  }));
  const first = [...wanted].sort((a, b) => ranks.get(a) - ranks.get(b)).slice(0, most); // a stable sort
  return wanted.filter((run) => first.includes(run));
}

/** `runs` and `off` after a click on a run's box. `all`: the matching runs; `shown`: those shown before. */
export function toggle(state, run, on, all, shown) {
  const without = (list) => list.filter((other) => other !== run);
  const others = all.filter((other) => !state.off.includes(other));
  // If not all fit, deselecting one must not bring in another: the choice becomes explicit.
  if (state.runs || others.length > shown.length) return {runs: on ? [...without(shown), run] : without(shown), off: []};
  return {runs: null, off: on ? without(state.off) : [...state.off, run]};
}
