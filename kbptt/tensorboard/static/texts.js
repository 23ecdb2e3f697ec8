// Texts of the page.

/** Meaning of the special colours, in the order of `cards.js`. */
export const SPECIAL = {
  norm: ['exactly 0', 'NaN', 'infinite'],
  ratio: ['0: the norm is exactly 0', 'NaN', 'infinite: or the divisor is exactly 0'],
};

// Statistics: what each is called. Others are shown under the name of their tag.
const STATISTICS = {
  decay: 'decay per timestep',
  half_life: 'half-life (timesteps)',
  horizon: 'horizon: last timesteps with 90 %',
  first_last_ratio: 'first / last ratio',
  zero_fraction: 'fraction of exact zeros',
  nonfinite_fraction: 'fraction of NaN and Inf',
  truncation: 'selected window K',
  lag_decay: 'β: decay per lag',
  relative_bias: 'relative bias of the window',
  gradient_penalty: 'gradient penalty',
  spectral_radius: 'spectral radius',
  lyapunov_exponent: 'Lyapunov exponent',
  dead_units: 'dead units (fraction)',
  saturated_units: 'saturated units (fraction)',
  'optimizer/nonfinite_steps': 'steps with a NaN or infinite gradient',
  'optimizer/global_norm': 'global norm of the weight gradients',
  'optimizer/clip_rate': 'clip rate',
  'optimizer/threshold': 'clipping threshold',
  'optimizer/norm_after': 'global norm after clipping',
  'optimizer/skipped': 'optimizer steps skipped',
};
// Statistics with a logarithmic axis.
export const LOG_TRENDS = /update_to_weight|half_life|horizon|norm|relative_bias|truncation|threshold|penalty|ratio/;
const known = Object.keys(STATISTICS);

/** Sections of the picker, [title, names]: the layer's own statistics, then each group's, the known ones first. */
export function sections(names) {
  const place = (name) => (known.includes(name) ? known.indexOf(name) : known.length);
  const found = new Map();
  for (const name of [...names].sort((a, b) => place(a) - place(b))) {
    const title = name.includes('/') ? name.slice(0, name.lastIndexOf('/')).replaceAll('/', ' › ') : 'layer';
    found.set(title, [...(found.get(title) ?? []), name]);
  }
  return [...found];
}

/** A statistic's name below the title of its section. */
export const shortName = (name) => STATISTICS[name] ?? name.slice(name.lastIndexOf('/') + 1).replaceAll('_', ' ');

export function trendName(name) {
  const variable = name.match(/^variables\/(.*)\/([^/]*)$/);
  if (variable) return `${variable[1]}: ${variable[2].replaceAll('_', ' ')}`;
  return STATISTICS[name] || name.replaceAll('_', ' ');
}

export const SNIPPET = `import keras
import kbptt

model = keras.Sequential([
    kbptt.LSTM(64, truncation=64),   # instead of keras.layers.LSTM
    keras.layers.Dense(1),
])
model.compile("adam", "mse")
model.fit(x, y, callbacks=[kbptt.callbacks.GradientFlow("runs/a", log_freq=50)])`;

export const LAG_SNIPPET = `kbptt.callbacks.GradientFlow("runs/a", lag_data=(x_val[:32], y_val[:32]))
# or, which also chooses the truncation window:
kbptt.callbacks.AdaptiveTruncation(tolerance=0.5, data=(x_val[:32], y_val[:32]), log_dir="runs/a")`;

/** Explains the verdicts, with the bounds of the server. */
export const verdictNote = ({vanishing, decaying, growing, exploding, dark, unsteady}) =>
  'Verdict and numbers describe one profile, the geometric mean of the last quarter of the profiles (column “steps”). '
  + 'Decay is that of its last window. The verdict compares the two ends of the fitted line, far to near: '
  + `vanishing below ${vanishing}, decaying below ${decaying}, healthy, growing above ${growing}, exploding above ${
    exploding}. Also vanishing if more than ${100 * dark} % of the timesteps reached get less than ${
    vanishing} of the largest norm. Cut off: neither vanishing nor exploding, but the earliest timesteps in reach, more than ${
    100 * dark} %, get exactly 0: through random cuts or resets, or a saturated or dead recurrence. Non-finite: NaN or Inf in any of `
  + `these profiles. Unsteady: no bad verdict now, but in more than ${100 * unsteady} % of all profiles.`;
