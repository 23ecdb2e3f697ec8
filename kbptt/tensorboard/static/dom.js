// Elements of the page. Names of runs and layers are foreign text: they arrive here as properties
// such as `textContent`, never as HTML.

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  Object.assign(made, properties);
  made.append(...children);
  return made;
}

export function options(select, values, chosen, none = '') {
  select.replaceChildren(...values.map((value) => element('option', {value, textContent: value || none})));
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
