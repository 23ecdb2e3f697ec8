// Requests to the server, `plugin.py`. Relative addresses work with TensorBoard's `--path_prefix`.

/** By POST: an address has no space for the names of many runs. */
async function ask(route, parameters) {
  const body = new URLSearchParams(parameters);
  const response = await fetch(`./${route}`, {method: 'POST', body}).catch((error) => {
    throw new Error(`TensorBoard is not responding (${error.message}). Is it still running?`);
  });
  if (!response.ok) throw new Error(await response.text());
  return response;
}

// TensorBoard encodes NaN and infinities, which JSON lacks, as strings.
export const json = async (route, parameters) => JSON.parse(await (await ask(route, parameters)).text(), (_, value) =>
  value === 'NaN' ? NaN : value === 'Infinity' ? Infinity : value === '-Infinity' ? -Infinity : value);

/** Grids, one for each group: the header's fields, and `values`, its log10 norms by record and timestep. */
export async function grids(parameters) {
  const buffer = await (await ask('grid', parameters)).arrayBuffer();
  const found = [];
  for (let at = 0; at < buffer.byteLength; ) {
    const length = new DataView(buffer).getUint32(at, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, at + 4, length)));
    const values = new Float32Array(buffer, at + 4 + length, header.rows * header.cols);
    found.push({...header, values});
    at += 4 + length + values.byteLength;
  }
  return found;
}

/** Parameters with [name, value] pairs for each of `runs`. */
export const ofRuns = (runs, parameters, pairs) => [...Object.entries(parameters), ...runs.flatMap(pairs)];

/** Does `work(part)` for each of `parts`, several at a time, in their order; until `current()` is false. */
export async function ofEach(parts, work, current, together = 3) {
  const left = [...parts];
  const one = async () => {
    while (left.length && current()) await work(left.shift());
  };
  await Promise.all(Array.from({length: Math.min(together, left.length)}, one));
}

/**
 * Asks for parts of `size` of the items: `ask(part)` returns a list. Calls `each(part, answers)` as they come. `current()`
 * becomes false when nobody waits for the answers any more.
 */
export function inParts(items, size, ask, each, current, together) {
  const parts = [];
  for (let at = 0; at < items.length; at += size) parts.push(items.slice(at, at + size));
  const work = async (part) => {
    const answers = await ask(part);
    if (current()) each(part, answers);
  };
  return ofEach(parts, work, current, together);
}
