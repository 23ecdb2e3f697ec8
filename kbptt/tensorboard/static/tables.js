// The verdicts: a row for each run or group, from one summary of each run; and the runs that cannot be shown.

import {head} from './cards.js';
import {inParts, json, ofRuns} from './data.js';
import {badge, element, runName, swatch} from './dom.js';
import {bounds, failed, kind, page} from './model.js';
import {counted, format, median} from './numbers.js';
import {verdictNote} from './texts.js';

const AT_ONCE = 40; // runs in one request
const KEYS = ['decay', 'half_life', 'horizon', 'first_last_ratio', 'zero_fraction', 'nonfinite_fraction'];

const {ui} = page;
let perform = null; // the actions

export function build(actions) {
  perform = actions;
  ui.table = element('table');
  ui.thresholds = element('p', {className: 'note'});
  ui.verdicts = element('section', {}, element('h2', {textContent: 'Verdict'}),
    element('div', {className: 'card'}, element('div', {className: 'scroll'}, ui.table), ui.thresholds));
  return ui.verdicts;
}

export const buildUnreadable = () => (ui.unreadable = element('ul', {className: 'unreadable', hidden: true}));

/** Lists runs whose event files cannot be shown. */
export function showUnreadable() {
  ui.unreadable.hidden = !page.unreadable.length;
  ui.unreadable.replaceChildren(...page.unreadable.map(({run, reason}) =>
    element('li', {}, badge({verdict: 'unreadable', reason}), ' ', runName(run), ' ', element('span', {className: 'muted', textContent: reason}))));
}

/** Fetches the summaries that are missing. */
export async function load(current) {
  const missing = [...page.runs.values()].filter((item) => item.summary === undefined).map(({run}) => run);
  let failures = false;
  const ask = (part) => json('summary', [...ofRuns(part, {}, (run) => [['run', run], ['tag', page.runs.get(run).tag]]), ...bounds()]);
  await inParts(missing, AT_ONCE, ask, (part, answers) => {
    for (const answer of answers) {
      const item = page.runs.get(answer.run);
      if (failed(answer.run, answer)) failures = true;
      else if (item) item.summary = answer;
    }
    show();
    for (const entry of page.entries) if (!entry.group && part.includes(entry.runs[0])) head(entry);
  }, current, 2);
  if (failures && current()) await perform.again();
}

const row = (cells, kind = 'td') => element('tr', {}, ...cells.map((content) =>
  content instanceof Node ? element(kind, {}, content) : element(kind, {textContent: content})));

/** A row for each entry, as far as its summaries are known. */
export function show() {
  ui.verdicts.hidden = !kind().gradient;
  if (ui.verdicts.hidden) return;
  const summaries = [...page.runs.values()].map(({summary}) => summary).filter(Boolean);
  const windows = summaries.some(({window}) => window);
  const names = ['decay', 'half-life', 'horizon', kind().by_lag ? 'last/first lag' : 'first/last', 'zeros', 'NaN/Inf'];
  const grouped = page.entries.some(({group}) => group);
  const reasons = page.entries.some(({group}) => !group); // a group has as many as runs
  const body = page.entries.map((entry) => {
    const known = entry.runs.map((run) => page.runs.get(run).summary).filter(Boolean);
    const name = element('span', {className: `cell${entry.inside ? ' inside' : ''}`}, swatch(entry.color), runName(entry.label));
    const values = KEYS.map((key) => format(median(known.map((summary) => summary[key]))));
    const made = row([name, ...(grouped ? [String(entry.runs.length)] : []), verdicts(entry, known), ...values,
      ...(windows ? [one(known, ({window}) => window ?? 'full')] : []),
      one(known, ({first_step: first, last_step: last}) => (first === last ? String(last) : `${first}–${last}`)),
      ...(reasons ? [entry.group ? '' : known[0]?.reason ?? ''] : [])]);
    if (reasons) made.lastChild.className = 'reason';
    return made;
  });
  const header = row([grouped ? 'group' : 'run', ...(grouped ? ['runs'] : []), 'verdict', ...names, ...(windows ? ['window K'] : []), 'steps', ...(reasons ? ['why'] : [])], 'th');
  if (reasons) header.lastChild.className = 'reason';
  ui.table.replaceChildren(header, ...body);
  if (!summaries.length) return;
  ui.thresholds.textContent = (grouped ? 'Numbers of a group are medians over its runs. ' : '') + verdictNote(summaries[0].thresholds)
    + (kind().by_lag || [...page.runs.values()].some(({meta}) => meta.loss === 'all')
      ? ' If every timestep has an output, the sum of their gradients does not show the reach, so the last gradients by lag are judged, within the window.' : '');
}

/** What all summaries have in common, else that they differ. */
const one = (summaries, of) => {
  const found = new Set(summaries.map(of));
  return found.size > 1 ? 'various' : found.size ? String([...found][0]) : '';
};

function verdicts({group, runs}, known) {
  if (!known.length) return '…';
  if (!group) return badge(known[0]);
  const counts = new Map();
  for (const {verdict} of known) counts.set(verdict, (counts.get(verdict) ?? 0) + 1);
  const badges = [...counts].sort(([, a], [, b]) => b - a).map(([verdict, count]) =>
    badge({verdict, reason: `${count} of ${counted(runs.length, 'run')}`}, `${count} ${verdict}`));
  return element('span', {className: 'cell'}, ...badges, ...(known.length < runs.length ? ['…'] : []));
}
