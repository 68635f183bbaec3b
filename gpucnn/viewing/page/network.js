// A network: its nodes, in the order in which they run, and their arrays.
import { activate } from "./activations.js";
import { OPERATIONS } from "./layers.js";
import { product } from "./numbers.js";

const ARRAYS = ["weight", "bias", "mean", "variance"];

export class Network {
  // nodes: as gpucnn/viewing/graph.py describes them. weights: the numbers that they speak of, one array behind the other.
  constructor(nodes, weights) {
    this.nodes = nodes.map(node => ({ ...node, from: node.inputs.length ? nodes[node.inputs[0]].shape : [] }));
    this.trained = this.nodes.map(node => {
      const arrays = {};
      for (const name of ARRAYS) if (node[name]) arrays[name] = weights.subarray(node[name].at, node[name].at + product(node[name].shape));
      return arrays;
    });
    this.arrays = [...this.trained];
  }

  // Other weights for a node; null for those it was trained with.
  edit(id, weight) {
    this.arrays[id] = weight ? { ...this.trained[id], weight } : this.trained[id];
  }

  // What every node puts out for one input: Float32Arrays; null where that cannot be known, which is behind a layer of somebody's own.
  // given: the outputs of such layers, by their names, for an input that came with the page.
  run(input, given = {}) {
    const outputs = [];
    for (const node of this.nodes)
      outputs.push(
        node.op === "input"
          ? input
          : this.output(
              node,
              node.inputs.map(id => outputs[id]),
              given,
            ),
      );
    return outputs;
  }

  output(node, inputs, given) {
    if (node.op === "opaque") return given[node.name] ?? null;
    if (inputs.includes(null)) return null;
    const values = OPERATIONS[node.op](node, inputs, this.arrays[node.id]);
    return activate(values, node.activation, node.options, node.shape[node.shape.length - 1]);
  }
}
