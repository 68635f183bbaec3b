// Where the network runs: in a worker, made of this page's own script, so that drawing never waits; on the page's own thread where the
// browser allows no worker.
import { Network } from "./network.js";

// Within the worker.
export function serve() {
  let network;
  self.onmessage = ({ data }) => {
    if (data.nodes) network = new Network(data.nodes, data.weights);
    else if ("edit" in data) network.edit(data.edit, data.weight);
    else {
      const began = performance.now();
      const outputs = network.run(data.input, data.given);
      self.postMessage({ outputs, took: performance.now() - began });
    }
  };
}

// On the page. `answer` gets ({outputs, took, input, note}) of the newest input; older ones that nobody has begun with are passed over.
export class Runner {
  constructor(nodes, weights, source, answer) {
    this.answer = answer;
    this.running = null;
    this.waiting = null;
    this.worker = null;
    try {
      const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
      this.worker = new Worker(address);
      this.worker.onmessage = ({ data }) => this.done(data);
      this.worker.onerror = event => {
        event.preventDefault();
        this.alone(nodes, weights);
      };
      this.worker.postMessage({ nodes, weights });
    } catch {
      this.alone(nodes, weights);
    }
  }

  alone(nodes, weights) {
    this.worker = null;
    this.network = new Network(nodes, weights);
    for (const [id, weight] of this.edits) this.network.edit(id, weight);
    const missed = this.waiting ?? this.running;
    this.running = this.waiting = null;
    if (missed) this.run(missed);
  }

  edits = new Map();

  edit(id, weight) {
    this.edits.set(id, weight);
    if (this.worker) this.worker.postMessage({ edit: id, weight });
    else this.network.edit(id, weight);
  }

  // asked: {input, given, …}: whatever else is in it comes back with the answer.
  run(asked) {
    if (this.running) {
      this.waiting = asked;
      return;
    }
    this.running = asked;
    if (this.worker) this.worker.postMessage({ input: asked.input, given: asked.given });
    else {
      setTimeout(() => {
        const began = performance.now();
        const outputs = this.network.run(asked.input, asked.given);
        this.done({ outputs, took: performance.now() - began });
      });
    }
  }

  done({ outputs, took }) {
    const asked = this.running;
    const next = this.waiting;
    this.running = this.waiting = null;
    this.answer({ ...asked, outputs, took });
    if (next) this.run(next);
  }
}
