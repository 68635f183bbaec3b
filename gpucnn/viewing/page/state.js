// What the page shows, and who wants to know when that changes.

export const state = {
  model: null, // the description that came with the page
  network: null, // Network, on this thread: for explanations, with the same weights as the worker's
  runner: null,
  images: null, // bytes of the images that came along
  input: null, // Float32Array that the network was given last
  picture: null, // number of the image that it came from; null for a drawing
  outputs: [], // of every node, for that input
  took: 0, // milliseconds
  node: 0, // the layer that is looked at
  unit: null, // the value that is pinned, as its place in the node's output
  auto: true, // nobody has chosen that value: it is the strongest
  hover: null, // the one under the mouse
  drawing: false, // while the pen is down: maps keep their places
  edits: new Map(), // "node:filter:channel" → {values, alone, name}
  sandbox: { rule: null, stride: null, at: 0 },
};

const listeners = new Map();

// Events: "input" (ask the network), "outputs" (it has answered), "node", "unit", "edits", "theme".
export function on(event, work) {
  if (!listeners.has(event)) listeners.set(event, []);
  listeners.get(event).push(work);
}

export function tell(event) {
  for (const work of listeners.get(event) ?? []) work();
}

export const nodeNow = () => state.network.nodes[state.node];
export const unitNow = () => state.hover ?? state.unit;

// What a value of the last layers stands for; null where it is not a class.
export function classOf(node, unit) {
  const { classes, nodes } = state.model;
  return node.shape.length === 1 && node.shape[0] === classes.length && node.id >= nodes.length - 2 ? classes[unit] : null;
}

export function choose(node, unit = null) {
  state.node = node;
  state.unit = unit;
  state.auto = unit === null;
  state.hover = null;
  tell("node");
  tell("unit");
}

export function hover(unit) {
  if (state.hover === unit) return;
  state.hover = unit;
  tell("unit");
}

export function pin(unit) {
  state.unit = unit;
  state.auto = false;
  state.hover = null;
  tell("unit");
}
