// Requests to the server, `plugin.py`. Relative addresses work with TensorBoard's `--path_prefix`.

async function get(route, parameters) {
  const query = new URLSearchParams(parameters).toString();
  const response = await fetch(`./${route}${query ? `?${query}` : ''}`).catch((error) => {
    throw new Error(`TensorBoard does not answer (${error.message}). Is it still running?`);
  });
  if (!response.ok) throw Object.assign(new Error(await response.text()), {status: response.status});
  return response;
}

// TensorBoard encodes NaN and infinities, which JSON lacks, as strings.
export const json = async (route, parameters) => JSON.parse(await (await get(route, parameters)).text(), (_, value) =>
  value === 'NaN' ? NaN : value === 'Infinity' ? Infinity : value === '-Infinity' ? -Infinity : value);

/** The result, null if there is none, or {unreadable: reason}: a run without data must not hide the others. */
export async function ofOneRun(asked) {
  try {
    return await asked;
  } catch (error) {
    if (error.status === 404) return null;
    if (error.status === 422) return {unreadable: error.message};
    throw error;
  }
}

/** A grid: the header's fields, and `values`, its log10 norms by record and timestep. */
export async function grid(parameters) {
  const response = await get('grid', parameters);
  const buffer = await response.arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  return {...header, values: new Float32Array(buffer, 4 + length)};
}

/** Parameters with one `run` for each of `runs`. */
export const ofRuns = (runs, parameters) => [...Object.entries(parameters), ...runs.map((run) => ['run', run])];
