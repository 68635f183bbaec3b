// What the network gets, beside the drawing; in it the receptive field of the value that is looked at.
import { paintImage, reach } from "./colours.js";
import { $ } from "./elements.js";
import { fields } from "./field.js";
import { choose, on, state, unitNow } from "./state.js";

let shape = [];

export function openSeen(input) {
  shape = input;
  const canvas = $("seen");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "What the network gets; enter shows it as a layer");
  canvas.addEventListener("click", () => choose(0));
  canvas.addEventListener("keydown", event => event.key === "Enter" && choose(0));
  on("outputs", paintSeen);
  on("unit", frame);
  on("node", frame);
}

function paintSeen() {
  paintImage($("seen"), state.input, shape, shape[0] === 3 ? 1 : Math.max(1, reach(state.input)));
  frame();
}

// The receptive field of the value that is looked at, framed in the input.
function frame() {
  const unit = unitNow();
  const mark = $("field");
  const [, height, width] = shape;
  const box = unit === null || state.node === 0 ? null : fields(state.network.nodes, state.node, unit).get(0);
  mark.hidden = !box;
  $("spot").hidden = unit === null || state.node !== 0;
  if (!$("spot").hidden)
    put(
      $("spot"),
      { top: Math.floor(unit / width) % height, bottom: Math.floor(unit / width) % height, left: unit % width, right: unit % width },
      [height, width],
    );
  if (!box) {
    $("seen-caption").textContent = `What the network gets: ${shape[0] > 1 ? `${shape[0]} × ` : ""}${height} × ${width}`;
    return;
  }
  put(mark, box, [height, width]);
  const [down, across] = [box.bottom - box.top + 1, box.right - box.left + 1];
  const all = box.top === 0 && box.left === 0 && down === height && across === width;
  $("seen-caption").textContent = all
    ? "This value sees the whole input"
    : `This value sees ${down} × ${across} of ${height} × ${width} pixels`;
}

// A frame over a canvas of height × width pixels, in per cent of it.
export function put(mark, box, [height, width]) {
  mark.style.top = `${(100 * box.top) / height}%`;
  mark.style.left = `${(100 * box.left) / width}%`;
  mark.style.height = `${(100 * (box.bottom - box.top + 1)) / height}%`;
  mark.style.width = `${(100 * (box.right - box.left + 1)) / width}%`;
}
