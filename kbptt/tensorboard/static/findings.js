// What is wrong with the runs shown, what to try, and the bounds, which the user may change.

import {inParts, json, ofRuns} from './data.js';
import {badge, element, runName, swatch} from './dom.js';
import {bounds, kind, page} from './model.js';

const AT_ONCE = 20; // runs in one request

const {ui, state} = page;
let perform = null; // the actions

export function build(actions) {
  ui.findings = element('ul', {className: 'findings'});
  ui.judged = element('p', {className: 'note'});
  ui.bounds = element('div', {className: 'bounds'});
  ui.ill = element('section', {className: 'ill'}, element('h2', {textContent: 'What is wrong, and what to try'}),
    element('div', {className: 'card'}, ui.findings, ui.judged,
      element('details', {className: 'thresholds'}, element('summary', {textContent: 'Thresholds'}), ui.bounds)));
  perform = actions;
  return ui.ill;
}

function setBound(name, value) {
  const changed = {...state.bounds};
  if (Number.isFinite(value)) changed[name] = value;
  else delete changed[name];
  for (const item of page.runs.values()) item.findings = item.summary = undefined;
  perform.set({bounds: changed});
}

/** Fetches what is missing. */
export async function load(current) {
  const missing = [...page.runs.values()].filter((item) => item.findings === undefined).map(({run}) => run);
  const ask = async (part) => [await json('findings', [...ofRuns(part, {}, (run) => [['run', run]]), ...bounds()])];
  await inParts(missing, AT_ONCE, ask, (part, [{thresholds, rules, runs}]) => {
    Object.assign(page, {thresholds, rules});
    for (const answer of runs) if (page.runs.has(answer.run)) page.runs.get(answer.run).findings = answer;
    show();
  }, current, 2);
}

/** An item for each kind of finding with what to try, and in it a line for each run or group that has it. */
export function show() {
  ui.ill.hidden = !kind().gradient;
  if (ui.ill.hidden) return;
  const known = [...page.runs.values()].map(({findings}) => findings).filter(Boolean);
  const found = new Map();
  for (const row of page.entries.flatMap(rowsOf)) {
    const {name} = row.finding;
    found.set(name, [...(found.get(name) ?? []), row]);
  }
  ui.findings.replaceChildren(...[...found.values()].map((rows) => {
    const [{finding: {name, advice, docs}}] = rows;
    return element('li', {},
      element('div', {}, badge({verdict: name, reason: ''}), ' ', element('b', {textContent: 'Try: '}), `${advice} (${docs})`),
      ...rows.map(lineOf));
  }));
  ui.judged.textContent = known.length ? judged(known, found.size) : '…';
  showBounds();
}

const lineOf = ({entry, where, finding}) => element('div', {className: 'cell'}, swatch(entry.color), runName(entry.label),
  element('span', {textContent: where}),
  element('span', {className: 'muted', textContent: finding.reason}));

/** What was found in an entry: of a group one for each finding, with how many runs have it. */
function rowsOf(entry) {
  const answers = entry.runs.map((run) => page.runs.get(run)?.findings).filter(Boolean);
  if (!entry.group) return (answers[0]?.findings ?? []).map((finding) => ({entry, where: finding.where || 'model', finding}));
  const found = new Map();
  for (const {findings} of answers) {
    for (const name of new Set(findings.map((one) => one.name))) {
      const before = found.get(name) ?? {finding: findings.find((one) => one.name === name), count: 0};
      found.set(name, {...before, count: before.count + 1});
    }
  }
  return [...found.values()].map(({finding, count}) => ({entry, where: `${count} of ${answers.length}`, finding}));
}

function judged(known, rows) {
  const sure = Object.keys(page.rules).filter((name) => known.every((answer) => answer.judged.includes(name)));
  const open = Object.entries(page.rules).filter(([name]) => !sure.includes(name)).map(([name, needs]) => `${name} (needs ${needs})`);
  return `${rows ? '' : 'Nothing wrong was found. '}Judged for all runs: ${sure.join(', ') || 'nothing yet'}.`
    + (open.length ? ` Not judged for all runs: ${open.join('; ')}.` : '');
}

/** The bounds as fields; an empty one is the default again. */
function showBounds() {
  const names = Object.keys(page.thresholds ?? {});
  if (ui.bounds.contains(document.activeElement)) return; // the user is typing
  ui.bounds.replaceChildren(...names.map((name) => {
    const value = state.bounds[name] ?? page.thresholds[name];
    const field = element('input', {type: 'number', step: 'any', min: 0, value, onchange: () => setBound(name, field.value === '' ? NaN : field.valueAsNumber)});
    return element('label', {}, name.replaceAll('_', ' '), field);
  }));
}
