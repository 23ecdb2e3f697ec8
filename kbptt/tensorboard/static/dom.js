// Elements of the page. Names of runs and layers are untrusted: always set as properties such as
// `textContent`, never as HTML.

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  Object.assign(made, properties);
  made.append(...children);
  return made;
}

/** Fills a select with [value, text] pairs, unless it has them: replacing them would close an open list. */
export function options(select, pairs, chosen) {
  const made = pairs.map(([value, textContent]) => element('option', {value, textContent}));
  const same = made.length === select.options.length && made.every((one, i) => one.isEqualNode(select.options[i]));
  if (!same) select.replaceChildren(...made);
  select.value = chosen;
}

export function labelled(text, control) {
  return element('label', {}, text, control);
}

export const swatch = (color, filled = true) => {
  const made = element('span', {className: filled ? 'swatch' : 'swatch off'});
  made.style.background = filled ? color : 'transparent';
  return made;
};

/** A name, cut at its beginning if too long: runs differ at the end. */
export const runName = (run) => element('span', {className: 'name', title: run}, element('bdi', {textContent: run}));

export const badge = ({verdict, reason}, textContent = verdict) =>
  element('span', {className: `verdict ${verdict}`, textContent, title: reason});

/** A small menu of [text, title, action]. */
export function menu(text, actions) {
  const made = element('details', {className: 'menu'}, element('summary', {textContent: text}));
  const items = actions.map(([textContent, title, action]) => element('button', {textContent, title, onclick: () => {
    made.open = false;
    action();
  }}));
  made.append(element('div', {className: 'popup'}, ...items));
  return made;
}

/** Closes menus when the user clicks elsewhere or presses Escape. */
export function closeMenus() {
  const close = (except) => {
    for (const open of document.querySelectorAll('details[open]')) if (open !== except) open.open = false;
  };
  document.addEventListener('click', (event) => close(event.target.closest('details')));
  document.addEventListener('keydown', (event) => event.key === 'Escape' && close(null));
}

const LEGEND = 60; // entries of a legend; further ones are in the list of runs

/** A legend of runs and groups {label, color}, with a text for each; `near` is emphasized. */
export function legend(where, entries, head, texts, near = null) {
  const one = (entry, i) => element('span', {className: `cell${entry === near ? ' near' : ''}`}, swatch(entry.color), runName(entry.label),
    element('span', {className: 'value', textContent: texts[i]}));
  const all = entries.map((entry, i) => [entry, i]);
  const shown = all.length <= LEGEND ? all : [...all.filter(([entry]) => entry === near), ...all.filter(([entry]) => entry !== near).slice(0, LEGEND - 1)];
  where.replaceChildren(...(head ? [element('b', {textContent: head})] : []), ...shown.map(([entry, i]) => one(entry, i)),
    ...(shown.length < all.length ? [element('span', {className: 'muted', textContent: `and ${all.length - shown.length} more`})] : []));
}
