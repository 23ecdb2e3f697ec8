// The page's frame: what is shown and how, around the charts.

import * as cards from './cards.js';
import {closeMenus, element, labelled, options} from './dom.js';
import {kind, page} from './model.js';
import * as findings from './findings.js';
import * as profile from './profile.js';
import * as sidebar from './sidebar.js';
import * as tables from './tables.js';
import {LAG_SNIPPET, SNIPPET} from './texts.js';
import * as trends from './trends.js';

const {state, ui} = page;

/**
 * Makes the elements. `actions`: `set(changes)` of the state, which updates everything; `setStep(step)`,
 * `setTrends(names)`, `setScale(scale)` and `setBand(band)`, which update less; `reload()`; `again()` and `attempt(work)`.
 */
export function build(actions) {
  const changed = (name, more = {}) => (event) => actions.set({[name]: event.target.value, ...more});
  ui.kind = element('select', {onchange: changed('kind', {zoom: null})});
  ui.layer = element('select', {onchange: changed('layer', {zoom: null})});
  ui.merge = element('select', {title: 'Value of a cell that covers several steps or timesteps', onchange: changed('merge')});
  options(ui.merge, [['mean', 'geometric mean'], ['max', 'largest'], ['min', 'smallest']], state.merge);
  ui.axis = element('select', {onchange: changed('axis', {zoom: null})});
  options(ui.axis, [['timestep', 'timestep t'], ['lag', 'lag from the end']], state.axis);
  ui.axisLabel = labelled('y axis', ui.axis);
  ui.band = element('select', {title: 'What the band around the median of a group covers', onchange: (event) => actions.setBand(event.target.value)});
  options(ui.band, [['quartiles', 'quartiles'], ['range', 'all runs']], state.band);
  ui.bandLabel = labelled('Band', ui.band);
  ui.low = element('input', {className: 'norm', ariaLabel: 'smallest norm of the scale', onchange: () => readScale(actions)});
  ui.high = element('input', {className: 'norm', ariaLabel: 'largest norm of the scale', onchange: () => readScale(actions)});
  ui.base = element('select', {className: 'run', onchange: changed('base')});
  ui.message = element('p', {className: 'error', role: 'alert', hidden: true});
  ui.nothing = element('p', {className: 'note', role: 'status'});
  ui.reset = element('button', {textContent: 'Zoom out', onclick: () => actions.set({zoom: null})});
  const reload = () => element('button', {textContent: 'Reload', onclick: () => actions.reload()});
  ui.noLags = element('div', {hidden: true},
    element('p', {textContent: 'No run has gradients by lag for this layer. To measure them:'}),
    element('pre', {textContent: LAG_SNIPPET}));
  ui.views = element('div', {}, cards.build(actions), profile.build(actions), tables.build(actions), findings.build(actions), trends.build(actions));
  ui.controls = element('div', {className: 'bar controls'}, labelled('Show', ui.kind), labelled('Layer', ui.layer), ui.axisLabel,
    labelled('Aggregate by', ui.merge), ui.bandLabel, labelled('Norms from', ui.low), labelled('to', ui.high), labelled('Divide by run', ui.base),
    reload(), ui.reset);
  ui.main = element('div', {className: 'main', hidden: true}, sidebar.build(actions),
    element('main', {}, ui.controls, ui.nothing, tables.buildUnreadable(), ui.noLags, ui.views));
  ui.empty = element('div', {hidden: true},
    element('h2', {textContent: 'No gradient flow in this log directory yet'}),
    element('p', {textContent: 'Train with a recurrent kbptt layer and this callback:'}),
    element('pre', {textContent: SNIPPET}),
    reload());
  document.body.append(ui.message, ui.empty, ui.main);
  closeMenus();
}

/** Shows the state and what there is to choose from. */
export function show() {
  const existing = new Set(Object.values(page.tags).flatMap((of) => Object.values(of).map((meta) => meta.kind)));
  // By lag has its own explanation of how to get it.
  const kinds = page.kinds.filter(({name, by_lag: byLag}) => byLag || existing.has(name));
  options(ui.kind, kinds.map(({name, label}) => [name, label]), kind().name);
  layers();
  ui.axis.value = state.axis;
  ui.axisLabel.hidden = kind().by_lag;
  ui.merge.value = state.merge;
  ui.band.value = state.band;
  ui.bandLabel.hidden = !page.entries.some(({group}) => group);
  options(ui.base, [['', 'none'], ...page.entries.map(({label}) => [label, label])],
    page.entries.some(({label}) => label === state.base) ? state.base : '');
  const norm = (v) => (v === null ? '' : String(+(10 ** v).toPrecision(6)));
  [ui.low.value, ui.high.value] = (state.scale || [null, null]).map(norm);
  ui.reset.hidden = !state.zoom;
  ui.noLags.hidden = !kind().by_lag || page.having > 0;
  const {size} = page.chosen;
  const none = state.runs?.length || page.matching.length || !page.unreadable.length ? 'No run is selected.' : 'None of the selected runs can be shown.';
  ui.nothing.textContent = size || !page.having ? '' : none;
  tables.showUnreadable();
}

/** Names first, then positions; an open list is not replaced while it is the same. */
function layers() {
  const key = JSON.stringify(page.layers);
  if (ui.layer.dataset.key !== key) {
    ui.layer.dataset.key = key;
    const made = (byPosition) => page.layers.filter((one) => one.byPosition === byPosition)
      .map(({value, text}) => element('option', {value, textContent: text}));
    const places = made(true);
    ui.layer.replaceChildren(...made(false), ...(places.length ? [element('optgroup', {label: 'by position in the model'}, ...places)] : []));
  }
  ui.layer.value = page.layer;
  ui.layer.title = ui.layer.selectedOptions[0]?.textContent ?? ''; // it may be cut
}

function readScale(actions) {
  const given = [ui.low, ui.high].map(({value}) => (value.trim() === '' ? null : Math.log10(Number(value))));
  const wrong = given.some((v) => v !== null && !Number.isFinite(v)) || (!given.includes(null) && given[0] >= given[1]);
  for (const input of [ui.low, ui.high]) input.classList.toggle('wrong', wrong);
  if (!wrong) actions.setScale(given.every((v) => v === null) ? null : given);
}
