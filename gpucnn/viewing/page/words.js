// What a layer is, in words for a beginner; and its numbers.
import { count, product } from "./numbers.js";

const times = sizes => sizes.join(" × ");
const some = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
const of = ([a, b]) => (a === b ? `${a} × ${a}` : `${a} × ${b}`);

const KINDS = {
  Input: "input",
  Conv2D: "convolution",
  DepthwiseConv2D: "depthwise conv",
  ConvTranspose2D: "transposed conv",
  LocallyConnected2D: "locally connected",
  Dense: "dense",
  BatchNorm2D: "batch norm",
  MaxPool2D: "max pooling",
  AvgPool2D: "average pooling",
  GlobalAvgPool2D: "global average",
  GlobalMaxPool2D: "global maximum",
  ZeroPad2D: "zero padding",
  Flatten: "flatten",
  Dropout: "dropout",
  Residual: "residual sum",
  Concat: "concat",
  Softmax: "softmax",
};
const ACTIVATION = {
  relu: "ReLU",
  sigmoid: "sigmoid",
  softmax: "softmax",
  tanh: "tanh",
  leaky_relu: "leaky ReLU",
  elu: "ELU",
  gelu: "GELU",
  silu: "SiLU",
  relu6: "ReLU6",
  hard_sigmoid: "hard sigmoid",
  hard_swish: "hard swish",
};
const CURVES = {
  relu: "what is negative becomes 0",
  sigmoid: "everything is squeezed between 0 and 1",
  softmax: "values become shares of a whole: positive, their sum 1",
  tanh: "everything is squeezed between −1 and 1",
  leaky_relu: "what is negative is made small",
  elu: "what is negative levels off",
  gelu: "what is negative fades out softly",
  silu: "what is negative fades out softly",
  relu6: "what is negative becomes 0, and what is above 6 becomes 6",
  hard_sigmoid: "everything is cut off below 0 and above 1, on a straight line from −3 to 3",
  hard_swish: "what is below −3 becomes 0, and what is between −3 and 3 is made smaller",
};

export const kindOf = node => KINDS[node.kind] ?? ACTIVATION[node.activation] ?? node.kind;
export const activationName = name => ACTIVATION[name] ?? name;
export const shapeText = shape => times(shape);

// One or two sentences on what the layer does.
export function sentence(node) {
  const then = node.activation && node.op !== "pass" ? ` Then ${ACTIVATION[node.activation]}: ${CURVES[node.activation]}.` : "";
  return (SENTENCES[node.op]?.(node) ?? "") + then;
}

// What a layer that looks at all maps below looks at.
function below(node) {
  const maps = node.from[0];
  if (node.inputs[0] === 0) return maps === 1 ? "the image" : `the ${count(maps)} channels of the image`;
  if (node.groups > 1) return `${count(maps / node.groups)} of the ${count(maps)} maps below`;
  return maps === 1 ? "the map below" : `all ${count(maps)} maps below`;
}

const SENTENCES = {
  input: node =>
    node.shape.length === 3
      ? `What the network is given: ${some(node.shape[0], "channel")} of ${of(node.shape.slice(1))} pixels, each a number from 0 (dark) to 1 (bright).`
      : `What the network is given: a row of ${count(node.shape[0])} numbers.`,
  conv: node => {
    const { kernel, stride, same } = node.window;
    const step = Math.max(...stride) > 1 ? `, in steps of ${stride[0] === stride[1] ? stride[0] : of(stride)}` : "";
    const rim = same ? ` Zeros around the edge ${Math.max(...stride) > 1 ? "let them reach it" : "keep the size"}.` : "";
    const spread = Math.max(...node.window.dilation) > 1 ? ` Its taps lie ${Math.max(...node.window.dilation)} pixels apart.` : "";
    if (Math.max(...kernel) === 1 && node.groups === 1) {
      return `${some(node.shape[0], "filter")} of 1 × 1 ${node.shape[0] === 1 ? "mixes" : "mix"} the ${count(node.from[0])} maps below, each pixel by itself${step}.`;
    }
    const each = node.groups === node.from[0] && node.groups > 1;
    const one = node.shape[0] === 1;
    const where = each
      ? "Each map below is looked at by a filter of its own"
      : `${some(node.shape[0], "filter")} of ${of(kernel)} pixels ${one ? "slides" : "slide"} over ${below(node)}`;
    return `${where}${step}; ${one ? "it" : "each"} writes a map that is bright where it finds the small pattern that it has learned to look for.${rim}${spread}`;
  },
  transposed: node =>
    `Makes images larger: every pixel below lays its filter of ${of(node.window.kernel)} down, scaled by its value, ${Math.max(...node.window.stride)} pixels from the last one, and what overlaps is added up.`,
  local: node =>
    `Like a convolution, but every place has filters of its own, ${some(node.shape[0], "filter")} of ${of(node.window.kernel)} each: nothing is shared.`,
  dense: node => `Each of the ${some(node.shape[0], "unit")} weighs all ${count(node.from[0])} values below and adds them up: it votes.`,
  norm: () => "Each map is shifted and scaled by what was usual for it in training, so that the next layer finds numbers of one size.",
  max_pool: node =>
    `Of each window of ${of(node.window.kernel)} pixels only the largest is kept: the maps get smaller, and it no longer matters exactly where something was.`,
  avg_pool: node => `Each window of ${of(node.window.kernel)} pixels becomes its mean: the maps get smaller and smoother.`,
  global_avg: node =>
    `Each map of ${of(node.from.slice(1))} becomes one number, its mean: how much of its pattern there is, wherever it is.`,
  global_max: node => `Each map of ${of(node.from.slice(1))} becomes one number, its largest: whether its pattern is anywhere.`,
  pad: () => "Zeros are put around each map.",
  flatten: node => `The ${count(node.from[0])} maps are laid out as one long row of ${count(node.shape[0])} numbers; nothing is computed.`,
  pass: node =>
    node.kind === "Dropout"
      ? `In training ${Math.round(100 * node.rate)} % of the values are set to 0 at random, so that the network relies on none of them; here everything passes.`
      : node.name === "probabilities" && node.activation === "softmax"
        ? "The votes become probabilities: e to the power of each, divided by the sum of all."
        : `${ACTIVATION[node.activation]}: ${CURVES[node.activation]}.`,
  add: () => "What the layers made and what went around them are added up: layers need only learn what to change.",
  concat: node => `The maps of the ${node.inputs.length} branches are put one behind the other.`,
  opaque: () =>
    "A layer of somebody’s own: this page cannot compute it. For the images that came with the page its output came along, from Python.",
};

// How many weights, and how the number comes about: "32 × 1 × 3 × 3 = 288 weights + 32 biases = 320".
export function weightsText(node) {
  if (node.op === "opaque") return node.parameters ? `${some(node.parameters, "parameter")}` : "no parameters";
  if (!node.weight) return "no weights";
  const { shape } = node.weight;
  const size = product(shape);
  const first = shape.length > 1 ? `${times(shape)} = ${some(size, "weight")}` : some(size, "weight");
  if (!node.bias) return first;
  const more = product(node.bias.shape);
  return `${first} + ${count(more)} ${more === 1 ? "bias" : "biases"} = ${count(size + more)}`;
}
