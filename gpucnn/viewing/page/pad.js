// The drawing board: mouse, finger, pen, or arrow keys and space on the network's own grid.
import { $, arrow } from "./elements.js";

const UNDO = 30;

export class Pad {
  // shape: [height, width] of the network's images. dark: light ink on dark paper. changed(down): after whatever was drawn; `down` while
  // the pen is.
  constructor(canvas, [height, width], dark, changed) {
    this.canvas = canvas;
    this.grid = [height, width];
    this.cell = Math.max(1, Math.ceil(280 / Math.max(height, width)));
    canvas.width = width * this.cell;
    canvas.height = height * this.cell;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.paper = dark ? "#000000" : "#ffffff";
    this.ink = dark ? "#ffffff" : "#000000";
    this.erasing = false;
    this.brush = 0.085; // of the larger side: the strokes of MNIST are some two pixels of 28
    this.changed = changed;
    this.before = [];
    this.at = [height >> 1, width >> 1];
    this.last = null;
    this.wipe();
    this.listen();
  }

  wipe() {
    this.context.fillStyle = this.paper;
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
  }

  clear() {
    this.remember();
    this.wipe();
    this.changed(false);
  }

  remember() {
    this.before.push(this.pixels());
    if (this.before.length > UNDO) this.before.shift();
  }

  undo() {
    const last = this.before.pop();
    if (!last) return;
    this.context.putImageData(last, 0, 0);
    this.changed(false);
  }

  pixels() {
    return this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
  }

  get radius() {
    return (this.brush * Math.max(this.canvas.width, this.canvas.height)) / 2;
  }

  dot([x, y], radius = this.radius) {
    this.context.fillStyle = this.erasing ? this.paper : this.ink;
    this.context.beginPath();
    this.context.arc(x, y, radius, 0, 2 * Math.PI);
    this.context.fill();
  }

  line(from, to, radius = this.radius) {
    this.context.strokeStyle = this.erasing ? this.paper : this.ink;
    this.context.lineWidth = 2 * radius;
    this.context.lineCap = this.context.lineJoin = "round";
    this.context.beginPath();
    this.context.moveTo(...from);
    this.context.lineTo(...to);
    this.context.stroke();
  }

  listen() {
    const { canvas } = this;
    let box = null; // while the pen is down the board stays where it is
    const where = event => {
      return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
    };
    canvas.addEventListener("pointerdown", event => {
      if (event.button !== 0) return;
      event.preventDefault();
      canvas.focus({ preventScroll: true });
      try {
        canvas.setPointerCapture(event.pointerId);
      } catch {
        // a pointer that has gone by now
      }
      this.remember();
      box = canvas.getBoundingClientRect();
      this.last = where(event);
      this.dot(this.last);
      this.changed(true);
    });
    canvas.addEventListener("pointermove", event => {
      if (!this.last) return;
      const events = event.getCoalescedEvents?.() ?? [];
      for (const each of events.length ? events : [event]) {
        const now = where(each);
        this.line(this.last, now);
        this.last = now;
      }
      this.changed(true);
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      canvas.addEventListener(end, () => {
        if (!this.last) return;
        this.last = null;
        this.changed(false);
      });
    }
    canvas.addEventListener("keydown", event => this.key(event));
    canvas.addEventListener("focus", () => canvas.matches(":focus-visible") && this.show());
    canvas.addEventListener("blur", () => ($("cursor").hidden = true));
  }

  key(event) {
    if ((event.ctrlKey || event.metaKey) && event.key === "z") {
      event.preventDefault();
      return this.undo();
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = arrow(event);
    const [height, width] = this.grid;
    const from = this.centre();
    if (step) this.at = [Math.min(height - 1, Math.max(0, this.at[0] + step[0])), Math.min(width - 1, Math.max(0, this.at[1] + step[1]))];
    else if (event.key === "Delete" || event.key === "Backspace") this.clear();
    else if (event.key !== " ") return;
    event.preventDefault();
    if (event.key === " " || (step && event.shiftKey)) {
      this.remember();
      const radius = Math.max(this.radius, this.cell / 2); // a cell at least
      if (step) this.line(from, this.centre(), radius);
      else this.dot(this.centre(), radius);
      this.changed(false);
    }
    this.show();
    $("spoken").textContent =
      `row ${this.at[0] + 1}, column ${this.at[1] + 1}${event.key === " " || (step && event.shiftKey) ? ", drawn" : ""}`;
  }

  centre() {
    return [(this.at[1] + 0.5) * this.cell, (this.at[0] + 0.5) * this.cell];
  }

  // The keyboard's place.
  show() {
    const [height, width] = this.grid;
    const mark = $("cursor");
    mark.hidden = false;
    mark.style.left = `${(100 * this.at[1]) / width}%`;
    mark.style.top = `${(100 * this.at[0]) / height}%`;
    mark.style.width = `${100 / width}%`;
    mark.style.height = `${100 / height}%`;
  }

  // Puts the network's own pixels on the board, RGB or grey, (C, H, W) of bytes.
  put(bytes, [depth, height, width]) {
    const image = new ImageData(width, height);
    const size = height * width;
    for (let i = 0; i < size; i++) {
      for (let c = 0; c < 3; c++) image.data[4 * i + c] = bytes[(depth === 3 ? c * size : 0) + i];
      image.data[4 * i + 3] = 255;
    }
    const small = new OffscreenCanvas(width, height);
    small.getContext("2d").putImageData(image, 0, 0);
    this.context.imageSmoothingEnabled = false;
    this.context.drawImage(small, 0, 0, this.canvas.width, this.canvas.height);
    this.context.imageSmoothingEnabled = true;
  }

  // Puts an image or a frame of a film on the board: all of it, or as much as covers the board. turn: what is done to its pixels.
  lay(source, [width, height], cover, turn = null) {
    const { canvas, context } = this;
    const scale = (cover ? Math.max : Math.min)(canvas.width / width, canvas.height / height);
    const [wide, high] = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
    const between = new OffscreenCanvas(wide, high);
    const other = between.getContext("2d", { willReadFrequently: true });
    other.fillStyle = "#ffffff"; // under what is transparent, as gpucnn reads its images
    other.fillRect(0, 0, wide, high);
    other.imageSmoothingQuality = "high";
    other.drawImage(source, 0, 0, wide, high);
    if (turn) other.putImageData(turn(other.getImageData(0, 0, wide, high)), 0, 0);
    this.wipe();
    context.drawImage(between, Math.round((canvas.width - wide) / 2), Math.round((canvas.height - high) / 2));
  }
}

// The brightness of pixels (ITU-R BT.601, as gpucnn has it), 0 … 255.
export function grey(image) {
  const { data } = image;
  const found = new Float64Array(image.width * image.height);
  for (let i = 0, at = 0; i < found.length; i++, at += 4) {
    found[i] = Math.floor((299 * data[at] + 587 * data[at + 1] + 114 * data[at + 2] + 500) / 1000);
  }
  return found;
}
