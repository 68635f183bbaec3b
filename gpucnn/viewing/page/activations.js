// Activations, in double precision; what comes of them is rounded to float32 once, where it is stored.

export const ACTIVATIONS = {
  relu: x => (x > 0 ? x : Number.isNaN(x) ? x : 0),
  sigmoid: x => logistic(x),
  tanh: x => Math.tanh(x),
  leaky_relu: (x, options) => (x <= 0 ? x * Math.fround(options.negative_slope) : x),
  elu: (x, options) => (x <= 0 ? Math.expm1(x) * Math.fround(options.alpha) : x),
  gelu: (x, options) => x * (options.approximate ? 0.5 * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x))) : normal(x)),
  silu: x => x * logistic(x),
  relu6: x => atMostSix(x),
  hard_sigmoid: x => atMostSix(x + 3) / 6,
  hard_swish: x => x * (atMostSix(x + 3) / 6),
};

// values, where the numbers before the activation stand, as what comes of them; softmax works along rows of `length`.
export function activate(values, name, options, length) {
  if (!name) return values;
  if (name === "softmax") {
    for (let start = 0; start < values.length; start += length) softmax(values.subarray(start, start + length));
    return values;
  }
  const apply = ACTIVATIONS[name];
  for (let i = 0; i < values.length; i++) values[i] = apply(values[i], options);
  return values;
}

// eˣ / Σ eˣ, shifted by the largest.
export function softmax(row) {
  let most = -Infinity;
  for (const x of row) if (x > most || Number.isNaN(x)) most = x;
  const powers = new Float64Array(row.length);
  let sum = 0;
  for (let i = 0; i < row.length; i++) sum += powers[i] = Math.exp(row[i] - most);
  for (let i = 0; i < row.length; i++) row[i] = powers[i] / sum;
}

const atMostSix = x => (x <= 0 ? 0 : x >= 6 ? 6 : x);

function logistic(x) {
  const decay = Math.exp(-Math.abs(x));
  return (x >= 0 ? 1 : decay) / (1 + decay);
}

// Φ, the normal distribution.
const normal = x => 0.5 * erfc(-x * Math.SQRT1_2);

// The complementary error function: W. J. Cody, Mathematics of Computation 23, 1969; the quotients of gpucnn/ops/cpu/_erf.py.
const SMALL = [
  [1.85777706184603153e-1, 3.1611237438705656, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3],
  [1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3],
];
const MIDDLE = [
  [
    2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1, 2.98635138197400131e2, 8.8195222124176909e2,
    1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3,
  ],
  [
    1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3, 3.29079923573345963e3,
    4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3,
  ],
];
const LARGE = [
  [
    1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1, 1.60837851487422766e-2,
    6.58749161529837803e-4,
  ],
  [1.0, 2.56852019228982242, 1.87295284992346725, 5.27905102951428412e-1, 6.05183413124413191e-2, 2.33520497626869185e-3],
];

function erfc(x) {
  const size = Math.abs(x);
  let result;
  if (Number.isNaN(x)) return x;
  if (size <= 0.46875) return 1 - x * quotient(x * x, SMALL);
  if (size <= 4) result = Math.exp(-size * size) * quotient(size, MIDDLE);
  else {
    const inverse = 1 / (size * size);
    result = (Math.exp(-size * size) * (1 / Math.sqrt(Math.PI) - inverse * quotient(inverse, LARGE))) / size;
  }
  return x < 0 ? 2 - result : result;
}

const quotient = (x, [above, below]) => above.reduce((sum, c) => sum * x + c, 0) / below.reduce((sum, c) => sum * x + c, 0);
