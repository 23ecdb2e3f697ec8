// TensorBoard's colours of runs. Pure functions: what is read of TensorBoard's page is in `host.js`.

// Those of the Time Series dashboard, on white and on dark grey.
const PALETTE = [['#425066', '#8e98a3'], ['#12b5cb', '#12b5cb'], ['#e52592', '#e52592'], ['#f9ab00', '#f9ab00'],
  ['#9334e6', '#9334e6'], ['#7cb342', '#7cb342'], ['#e8710a', '#e8710a']];
const NO_GROUP = ['#e0e0e0', '#3b3b3b']; // of a run that TensorBoard's own grouping leaves out

const inMode = (pair, dark) => pair[dark ? 1 : 0];
const ofNumber = (number, dark) => inMode(PALETTE[number % PALETTE.length], dark);

/**
 * run -> colour, as TensorBoard has it: by the run's place in its list, or by its group if the user has TensorBoard
 * colour runs by a regular expression. `order`: all runs in TensorBoard's order.
 */
export function runColors(order, regex, dark) {
  let expression = null;
  try {
    expression = regex === null ? null : new RegExp(regex);
  } catch {
    // TensorBoard gives no colours then.
  }
  const numbers = new Map();
  return new Map(order.map((run) => {
    if (regex === null) return [run, ofNumber(numbers.set(run, numbers.size).get(run), dark)];
    const match = expression && run.match(expression);
    if (!match) return [run, inMode(NO_GROUP, dark)];
    const group = match.length > 1 ? JSON.stringify(match.slice(1)) : '';
    if (!numbers.has(group)) numbers.set(group, numbers.size);
    return [run, ofNumber(numbers.get(group), dark)];
  }));
}

/** Colour of a group: that of its runs if they share one, else by its place among the groups. */
export function groupColor(runs, place, colors, dark) {
  const found = new Set(runs.map((run) => colors.get(run)));
  return found.size === 1 && runs.length > 1 ? [...found][0] : ofNumber(place, dark);
}
