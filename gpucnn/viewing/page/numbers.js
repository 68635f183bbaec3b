// Numbers: how they come into the page, and how they are written for people.

// The bytes behind base64, in pieces: a string of 80 million letters at once is more than some browsers take.
export function bytesOf(text) {
  const step = 4 << 18;
  const parts = [];
  let size = 0;
  for (let start = 0; start < text.length; start += step) {
    const piece = atob(text.slice(start, start + step));
    const bytes = new Uint8Array(piece.length);
    for (let i = 0; i < piece.length; i++) bytes[i] = piece.charCodeAt(i);
    parts.push(bytes);
    size += bytes.length;
  }
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

// What bytes hold, as float32: numbers of 32 bits, or of 16.
export function floatsOf(bytes, dtype) {
  if (dtype === "float32") return new Float32Array(bytes.buffer, 0, bytes.length >> 2);
  const halves = new Uint16Array(bytes.buffer, 0, bytes.length >> 1);
  return Float32Array.from(halves, half);
}

// A float16 of IEEE 754 by its bits: a sign, 5 bits of exponent, 10 of fraction.
function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent ? sign * 2 ** (exponent - 25) * (1024 + fraction) : sign * 2 ** -24 * fraction;
}

// A number in at most `digits` digits that count, with a real minus sign.
export function shown(value, digits = 4) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  let text;
  if (size >= 1e6 || size < 1e-4) text = value.toExponential(Math.min(digits - 1, 2)).replace("e", "·10^");
  else text = Number(value.toPrecision(digits)).toString();
  return text.replaceAll("-", "−").replace(/\^\+?(.*)$/, (_, power) => [...power].map(sign => RAISED[sign] ?? sign).join(""));
}

const RAISED = { "−": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

// With so many places behind the point: numbers that stand below one another, and are to be added up.
export function fixed(value, places = 3) {
  if (!Number.isFinite(value)) return shown(value);
  const text = value.toFixed(places);
  return Number(text) === 0 ? (0).toFixed(places) : text.replace("-", "−");
}

export function percent(value) {
  if (!Number.isFinite(value)) return shown(value);
  if (value > 0 && value < 0.001) return "< 0.1 %";
  if (value < 1 && value > 0.999) return "> 99.9 %";
  return `${(100 * value).toFixed(1)} %`;
}

export const count = number => number.toLocaleString("en-US");

export const product = sizes => sizes.reduce((all, size) => all * size, 1);
