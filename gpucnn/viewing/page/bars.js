// Values of a layer that has no maps: a line for each of a few, bars in rows for many.
import { colourOf, sharp } from "./colours.js";
import { arrow, el } from "./elements.js";
import { percent, shown } from "./numbers.js";
import { barRow } from "./scores.js";
import { classOf, hover, pin, state, unitNow } from "./state.js";

const ROWS = 12; // of bars on a page

// Few values: a line for each, with its name.
export function listOf(node, box) {
  const rows = Array.from({ length: node.shape[0] }, () => barRow(pin, hover));
  box.className = `list${(classOf(node, 0) ?? "").length > 2 ? " named" : ""}`;
  box.replaceChildren(...rows.map(row => row.element));
  const isShare = ["softmax", "sigmoid"].includes(node.activation);
  return {
    paint: values => {
      const [low, high] = isShare ? [0, 1] : [Math.min(0, ...values), Math.max(0, ...values)];
      rows.forEach((row, i) =>
        row.update(i, classOf(node, i) ?? `${i + 1}`, values[i], low, high, isShare ? percent(values[i]) : shown(values[i])),
      );
    },
    mark: unit => rows.forEach((row, i) => row.element.classList.toggle("chosen", i === unit)),
  };
}

// How many bars stand in a row of a box, and how many on a page.
const acrossOf = box => Math.max(16, Math.min(128, Math.floor(box.clientWidth / 9)));
export const perPage = box => acrossOf(box) * ROWS;

// Many values: bars in rows, in one canvas, from the value `first` on.
export function barsOf(node, box, first) {
  const across = acrossOf(box);
  const total = node.shape[0];
  const each = across * ROWS;
  const shownNow = Math.min(each, total - first);
  const rows = Math.ceil(shownNow / across);
  const canvas = el("canvas", {
    class: "bars",
    tabindex: "0",
    role: "img",
    "aria-label": `${total} values as bars. Arrow keys move through them.`,
  });
  box.className = "";
  box.replaceChildren(canvas);
  const width = Math.max(200, box.clientWidth);
  const tall = rows > 5 ? 46 : 84; // few rows have more room
  const room = tall - 8;
  const height = rows * tall;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const unitAt = event => {
    const frame = canvas.getBoundingClientRect();
    const row = Math.min(rows - 1, Math.max(0, Math.floor(((event.clientY - frame.top) / frame.height) * rows)));
    const column = Math.min(across - 1, Math.max(0, Math.floor(((event.clientX - frame.left) / frame.width) * across)));
    return Math.min(first + row * across + column, first + shownNow - 1);
  };
  canvas.addEventListener("pointermove", event => event.pointerType !== "touch" && hover(unitAt(event)));
  canvas.addEventListener("pointerleave", () => hover(null));
  canvas.addEventListener("click", event => pin(unitAt(event)));
  canvas.addEventListener("keydown", event => {
    const step = arrow(event);
    if (!step) return;
    event.preventDefault();
    const at = state.unit ?? first - step[1] - step[0] * across;
    pin(Math.min(first + shownNow - 1, Math.max(first, at + step[1] + step[0] * across)));
  });
  let last = null;
  const draw = (values, unit) => {
    const [context] = sharp(canvas, width, height);
    const [plus, minus, accent, line] = ["plus", "minus", "accent", "line"].map(colourOf);
    const [low, high] = values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [0, 0]);
    const span = high - low || 1;
    for (let i = 0; i < shownNow; i++) {
      const [row, column] = [Math.floor(i / across), i % across];
      const value = values[first + i];
      const zero = row * tall + 4 + (high / span) * room;
      const x = (column * width) / across;
      if (column === 0) {
        context.fillStyle = line;
        context.fillRect(0, zero - 0.5, width, 1);
      }
      const size = (value / span) * room;
      context.fillStyle = first + i === unit ? accent : value < 0 ? minus : plus;
      context.fillRect(
        x + 0.5,
        Math.min(zero, zero - size),
        Math.max(1, width / across - 1.5),
        Math.max(Math.abs(size), first + i === unit ? 3 : 0),
      );
    }
  };
  return {
    paint: values => draw((last = values), unitNow()),
    mark: unit => last && draw(last, unit),
  };
}
