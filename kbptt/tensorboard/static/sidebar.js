// The list of runs: filter, groups, what is shown. Only the rows in view have elements, so 500 runs are no burden.

import {element, options, runName, swatch} from './dom.js';
import {colorOfGroup, page} from './model.js';
import {counted} from './numbers.js';
import * as choice from './state.js';

const ROW = 24; // pixels, as in style.css

const {state, ui} = page;
let rows = []; // {label, text, runs, group, inside: the label of its group}
let perform = null; // the actions

export function build(actions) {
  perform = actions;
  let typing = 0;
  ui.filter = element('input', {type: 'search', placeholder: 'filter runs (regex)', ariaLabel: 'filter runs', value: state.filter,
    oninput: () => {
      clearTimeout(typing);
      typing = setTimeout(() => actions.set({filter: ui.filter.value}), 200);
    }});
  ui.group = element('select', {ariaLabel: 'group runs by', onchange: () => regroup(0, ui.group.value)});
  ui.groupThen = element('select', {ariaLabel: 'and by', onchange: () => regroup(1, ui.groupThen.value)});
  const button = (textContent, title, changes) =>
    element('button', {textContent, title, onclick: () => actions.set(changes())});
  ui.count = element('span', {className: 'muted'});
  ui.openAll = button('Open', 'Show every group run by run', () =>
    ({open: state.open.length ? [] : page.groups.map(({label}) => label)}));
  ui.spacer = element('div', {className: 'rows'});
  ui.list = element('div', {className: 'list', tabIndex: -1, onscroll: drawRows});
  ui.list.append(ui.spacer);
  new ResizeObserver(drawRows).observe(ui.list);
  return element('aside', {className: 'runs'},
    ui.filter,
    element('div', {className: 'pair'}, element('label', {}, 'Group by', ui.group), ui.groupThenLabel = element('label', {}, 'and', ui.groupThen)),
    element('div', {className: 'bar buttons'},
      button('All', 'Show all runs that match the filter', () => (state.filter ? choice.toggle(state, page.matching, true) : {runs: null, off: []})),
      button('None', 'Show no run', () => (state.filter ? choice.toggle(state, page.matching, false) : {runs: [], off: []})),
      ui.openAll, ui.count),
    ui.list);
}

function regroup(place, key) {
  const keys = [...page.keys];
  if (key) keys[place] = key;
  else keys.splice(place);
  perform.set({group: [...new Set(keys)], open: [], base: ''});
}

export function show() {
  if (document.activeElement !== ui.filter) ui.filter.value = state.filter;
  options(ui.group, [['', 'nothing'], ...page.groupKeys.map(({key, text}) => [key, text])], page.keys[0] ?? '');
  options(ui.groupThen, [['', '–'], ...page.groupKeys.filter(({key}) => key !== page.keys[0]).map(({key, text}) => [key, text])], page.keys[1] ?? '');
  ui.groupThenLabel.hidden = !page.keys.length || page.groupKeys.length < 2;
  ui.openAll.hidden = !page.groups.length;
  ui.openAll.textContent = state.open.length ? 'Close groups' : 'Open groups';
  ui.count.textContent = `${page.chosen.size} of ${counted(page.matching.length, 'run')}${page.groups.length ? ` in ${counted(page.groups.length, 'group')}` : ''}`;
  // Below its folder a run is shown by the rest of its name.
  const run = (name, inside) => ({label: name, runs: [name], group: false, inside,
    text: inside && name.startsWith(`${inside}/`) ? name.slice(inside.length + 1) : name});
  rows = page.groups.length
    ? page.groups.flatMap(({label, runs}) => [{label, runs, group: true, text: label},
      ...(state.open.includes(label) ? runs.map((name) => run(name, label)) : [])])
    : page.matching.map((name) => run(name, null));
  ui.spacer.style.height = `${rows.length * ROW}px`;
  drawn = '';
  drawRows();
}

let drawn = '';

function drawRows() {
  const first = Math.max(Math.floor(ui.list.scrollTop / ROW) - 5, 0);
  const last = Math.min(Math.ceil((ui.list.scrollTop + ui.list.clientHeight) / ROW) + 5, rows.length);
  const range = `${first} ${last}`;
  if (range === drawn) return;
  drawn = range;
  const focused = document.activeElement?.closest('.row')?.dataset.label;
  ui.spacer.replaceChildren(...rows.slice(first, last).map((row, i) => makeRow(row, first + i)));
  if (focused) [...ui.spacer.children].find((row) => row.dataset.label === focused)?.querySelector('input').focus();
}

function makeRow({label, text, runs, group, inside}, place) {
  const shown = runs.filter((run) => page.chosen.has(run)).length;
  const box = element('input', {type: 'checkbox', checked: shown > 0, indeterminate: shown > 0 && shown < runs.length,
    ariaLabel: `show ${label}`, onchange: () => perform.set(choice.toggle(state, runs, box.checked))});
  const open = group && state.open.includes(label);
  const toggle = () => perform.set({open: choice.switched(state.open, label)});
  const arrow = group ? element('button', {className: 'arrow', textContent: open ? '▾' : '▸', ariaExpanded: String(open),
    ariaLabel: `${open ? 'close' : 'open'} ${label}`, onclick: toggle}) : null;
  const only = element('button', {className: 'only', textContent: 'only', title: 'Show only this',
    onclick: () => perform.set({runs, off: []})});
  const color = group ? colorOfGroup(label) : page.colors.get(label);
  const made = element('div', {className: `row${inside ? ' inside' : ''}`}, ...(arrow ? [arrow] : []),
    element('label', {title: label}, box, swatch(color ?? 'var(--muted)', shown > 0), runName(text)),
    ...(group ? [element('span', {className: 'muted', textContent: shown === runs.length ? runs.length : `${shown}/${runs.length}`})] : []),
    only);
  made.dataset.label = label;
  made.style.top = `${place * ROW}px`;
  return made;
}
