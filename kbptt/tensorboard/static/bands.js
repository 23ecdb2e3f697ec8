// One curve with a band for several runs. Pure functions.

import {cell, quantile} from './numbers.js';

/** Of numbers at one x: {y: the median, low, high, n} without those that are unknown; `y` NaN if none is a number. */
function summary(values, whole) {
  const known = values.filter((v) => v !== null && v !== undefined);
  const sorted = known.filter((v) => !Number.isNaN(v)).sort((a, b) => a - b);
  if (!sorted.length) return {y: known.length ? NaN : null, low: null, high: null, n: known.length};
  const [low, high] = whole ? [sorted[0], sorted[sorted.length - 1]] : [quantile(sorted, 0.25), quantile(sorted, 0.75)];
  return {y: quantile(sorted, 0.5), low, high, n: known.length};
}

const columns = (found) => Object.fromEntries(['y', 'low', 'high', 'n'].map((name) => [name, found.map((one) => one[name])]));

/**
 * Profiles {edges, norms, timesteps} at the same lag from the end: {edges, timesteps, y, low, high, n}. `whole`: the
 * band is from the smallest to the largest run instead of between the quartiles.
 */
export function profileBand(profiles, whole) {
  const longest = profiles.reduce((best, one) => (one.timesteps > best.timesteps ? one : best));
  const {edges, timesteps} = longest;
  const norm = (profile, t) => profile.norms[cell(profile.edges, t - timesteps + profile.timesteps)] ?? null;
  const same = profiles.every((one) => one.timesteps === timesteps && one.norms.length === longest.norms.length
    && one.edges[0] === edges[0]);
  const found = longest.norms.map((_, i) => summary(profiles.map((one) =>
    (same ? one.norms[i] : norm(one, (edges[i] + edges[i + 1] - 1) / 2))), whole));
  return {edges, timesteps, ...columns(found)};
}

/** Trends {steps, values} at the same step: {steps, y, low, high, n}; of each run the last value up to that step. */
export function trendBand(trends, whole, most = 300) {
  const all = [...new Set(trends.flatMap(({steps}) => steps))].sort((a, b) => a - b);
  const steps = all.length <= most ? all
    : Array.from({length: most}, (_, i) => all[Math.round((i * (all.length - 1)) / (most - 1))]);
  const at = trends.map(() => -1);
  const found = steps.map((step) => summary(trends.map(({steps: own, values}, i) => {
    while (at[i] + 1 < own.length && own[at[i] + 1] <= step) at[i]++;
    return at[i] < 0 || step > own[own.length - 1] ? null : values[at[i]];
  }), whole));
  return {steps, ...columns(found)};
}
