// Grey for images, blue to red about zero for explanations.

const POSITIVE = [202, 0, 32];
const NEGATIVE = [5, 113, 176];
const DECADES = 2;

// The scale of an image: its range, logarithmic where it is positive over more than two decades.
export function imageScale(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (Number.isNaN(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) [low, high] = [0, 1];
  const log = low > 0 && Math.log10(high / low) > DECADES;
  const span = log ? Math.log(high / low) : high - low;
  const grey = (value) => (span > 0 ? (log ? Math.log(value / low) : value - low) / span : 0.5);
  return { low, high, log, grey };
}

export function largest(values) {
  let most = 0;
  for (const value of values) if (Math.abs(value) > most) most = Math.abs(value);
  return most;
}

export function paintImage(pixels, values, scale) {
  for (let i = 0; i < values.length; i += 1) {
    const level = Math.round(255 * Math.min(Math.max(scale.grey(values[i]), 0), 1));
    pixels.set(Number.isNaN(values[i]) ? [0, 0, 0, 0] : [level, level, level, 255], 4 * i);
  }
}

// The more opaque the larger; the square root lets weak parts be seen.
export function paintSigned(pixels, values, most, opacity) {
  for (let i = 0; i < values.length; i += 1) {
    const share = Number.isNaN(values[i]) || most === 0 ? 0 : Math.min(Math.abs(values[i]) / most, 1);
    pixels.set([...(values[i] < 0 ? NEGATIVE : POSITIVE), Math.round(255 * opacity * Math.sqrt(share))], 4 * i);
  }
}
