// Requests to the server side, `plugin.py`. Addresses are relative: they survive TensorBoard's
// `--path_prefix`.

async function get(route, parameters) {
  const query = new URLSearchParams(parameters).toString();
  const response = await fetch(`./${route}${query ? `?${query}` : ''}`);
  if (!response.ok) throw new Error(await response.text());
  return response;
}

// TensorBoard writes what JSON has no number for as a string.
export const json = async (route, parameters) => JSON.parse(await (await get(route, parameters)).text(), (_, value) =>
  value === 'NaN' ? NaN : value === 'Infinity' ? Infinity : value === '-Infinity' ? -Infinity : value);

/** A grid: the header's fields, and `values`, its log10 norms by record and timestep. */
export async function grid(parameters) {
  const buffer = await (await get('grid', parameters)).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  return {...header, values: new Float32Array(buffer, 4 + length)};
}
