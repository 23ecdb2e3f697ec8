// Elements of the page. Names of runs and layers are untrusted: always set as properties such as
// `textContent`, never as HTML.

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  Object.assign(made, properties);
  made.append(...children);
  return made;
}

/** Fills a select with [value, text] pairs. */
export function options(select, pairs, chosen) {
  const made = pairs.map(([value, textContent]) => element('option', {value, textContent}));
  const same = made.length === select.options.length && made.every((one, i) => one.value === select.options[i].value);
  if (!same) select.replaceChildren(...made); // replacing them would close an open list
  select.value = chosen;
}

export function labelled(text, control) {
  return element('label', {}, text, control);
}

export const swatch = (color) => {
  const made = element('span', {className: 'swatch'});
  made.style.background = color;
  return made;
};

/** A name, cut at its beginning if too long: runs differ at the end. */
export const runName = (run) => element('span', {className: 'name', title: run}, element('bdi', {textContent: run}));
