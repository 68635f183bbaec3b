// What the network is given: a drawing, an image that came along, one from outside, or numbers; and what becomes of it on the way.
import { paintImage } from "./colours.js";
import { $, button, complain, el } from "./elements.js";
import { count, product } from "./numbers.js";
import { grey, Pad } from "./pad.js";
import { bitmapOf, fileIn, hasCamera, openCamera } from "./pictures.js";
import { asInk, prepared, scaled, shrink } from "./prepare.js";
import { openSeen } from "./seen.js";
import { state, tell } from "./state.js";

const INKS = ["#000000", "#ffffff", "#d7301f", "#fe9929", "#41ab5d", "#2b8cbe"];
let pad = null;
let shape = [];
let stopCamera = null;

export function openInput() {
  shape = state.network.nodes[0].shape;
  if (shape.length !== 3) return openNumbers();
  const { model } = state;
  pad = new Pad($("pad"), shape.slice(1), model.dark, down => {
    state.drawing = down;
    fromPad();
  });
  const [, height, width] = shape;
  $("pad").setAttribute("role", "img");
  $("pad").setAttribute(
    "aria-label",
    `Drawing board of ${height} by ${width} cells. Arrow keys move, space draws a dot, shift with an arrow draws a line, delete clears.`,
  );
  $("pad-caption").textContent = "Mouse, finger, pen – or arrow keys and space";
  $("brush").value = 40;
  $("brush").addEventListener("input", event => (pad.brush = 0.02 + (0.16 * event.target.value) / 100));
  $("clear").addEventListener("click", () => pad.clear());
  $("undo").addEventListener("click", () => pad.undo());
  $("erase").addEventListener("click", () => {
    pad.erasing = !pad.erasing;
    $("erase").setAttribute("aria-pressed", pad.erasing);
  });
  if (shape[0] === 3) {
    const swatches = INKS.map(colour =>
      button("", () => choosePen(colour), {
        class: "ink",
        style: { background: colour },
        "aria-label": `Pen ${colour}`,
        "aria-pressed": colour === pad.ink,
      }),
    );
    $("inks").append(...swatches);
  }
  if (model.prepare) {
    $("prepare-label").hidden = false;
    const { box, name, by } = model.prepare;
    $("prepare-words").textContent = `as ${name}`;
    $("prepare-label").title =
      `Brought to the network as the makers of ${name} brought theirs: scaled into a box of ${box} × ${box} pixels, centred by ${by === "mass" ? "its mass" : "its frame"}`;
    $("prepare").addEventListener("change", fromPad);
  }
  openSources();
  openPictures();
  openSeen(shape);
}

function choosePen(colour) {
  pad.ink = colour;
  pad.erasing = false;
  $("erase").setAttribute("aria-pressed", false);
  [...$("inks").children].forEach((each, i) => each.setAttribute("aria-pressed", INKS[i] === colour));
}

// The board as the network's bytes (C, H, W).
function bytesOfPad() {
  const [depth, height, width] = shape;
  const image = pad.pixels();
  const all = { left: 0, top: 0, width: image.width, height: image.height };
  if (depth === 3) {
    const planes = [0, 1, 2].map(c => Float64Array.from({ length: image.width * image.height }, (_, i) => image.data[4 * i + c]));
    return Uint8Array.from(
      planes.flatMap(plane => [...shrink(plane, image.width, all, width, height)]),
      Math.round,
    );
  }
  const plane = grey(image);
  const rule = state.model.prepare;
  const bytes =
    rule && $("prepare").checked
      ? prepared(plane, image.width, rule, width, height)
      : Uint8Array.from(shrink(plane, image.width, all, width, height), Math.round);
  const found = new Uint8Array(depth * height * width);
  for (let c = 0; c < depth; c++) found.set(bytes, c * height * width);
  return found;
}

function fromPad() {
  complain("");
  give(bytesOfPad(), null);
}

// Bytes to the network.
function give(bytes, picture) {
  state.bytes = bytes;
  state.input = scaled(bytes);
  state.picture = picture;
  tell("input");
  [...$("pictures").children].forEach((each, i) => each.setAttribute("aria-pressed", i === picture));
}

// For an address: the image of a number, or the bytes of a drawing.
export function takeInput(number, drawn) {
  if (!pad) return false;
  if (drawn) {
    pad.put(drawn, shape);
    give(drawn, null);
    return true;
  }
  const known = number >= 0 && number < state.model.titles.length;
  if (known) pick(number);
  return known;
}

export function firstInput() {
  if (!pad) return;
  if (state.model.titles.length) pick(Math.min(state.model.titles.length - 1, 7));
  else fromPad();
}

function pick(number) {
  const size = product(shape);
  const bytes = state.images.slice(number * size, (number + 1) * size);
  complain("");
  pad.remember();
  pad.put(bytes, shape);
  give(bytes, number);
}

function openPictures() {
  const { titles, source, note } = state.model;
  titles.forEach((title, i) => {
    const small = el("canvas", { "aria-hidden": "true" });
    paintImage(small, scaled(state.images.subarray(i * product(shape), (i + 1) * product(shape))), shape);
    $("pictures").append(
      el(
        "button",
        {
          type: "button",
          class: "picture",
          title,
          "aria-label": `Image ${i + 1}: ${title}`,
          "aria-pressed": "false",
          onclick: () => pick(i),
        },
        small,
        el("span", {}, title),
      ),
    );
  });
  $("pictures-note").textContent = [titles.length ? `Or pick one of the ${source}` : "", note].filter(Boolean).join(": ");
}

function openSources() {
  const file = $("file");
  $("upload").addEventListener("click", () => file.click());
  file.addEventListener("change", () => {
    if (file.files[0]) fromFile(file.files[0]);
    file.value = "";
  });
  addEventListener("paste", event => {
    const pasted = fileIn(event.clipboardData);
    if (!pasted) return;
    event.preventDefault();
    fromFile(pasted);
  });
  let depth = 0;
  const dropping = shown => ($("drop").hidden = !shown);
  addEventListener("dragenter", event => {
    event.preventDefault();
    depth++;
    dropping(true);
  });
  addEventListener("dragleave", () => dropping(--depth > 0));
  addEventListener("dragover", event => event.preventDefault());
  addEventListener("drop", event => {
    event.preventDefault();
    depth = 0;
    dropping(false);
    const dropped = fileIn(event.dataTransfer);
    if (dropped) fromFile(dropped);
    else complain("What was dropped is not a file: drop an image from a folder, or paste one.");
  });
  if (!hasCamera()) return;
  $("camera").hidden = false;
  $("camera").addEventListener("click", camera);
  for (const id of ["snap", "camera-off"]) $(id).addEventListener("click", closeCamera);
}

async function fromFile(file) {
  try {
    const bitmap = await bitmapOf(file);
    complain("");
    pad.remember();
    lay(bitmap, [bitmap.width, bitmap.height]);
    bitmap.close();
  } catch (error) {
    complain(error.message);
  }
}

// An image that has the network's size is taken pixel by pixel, as gpucnn predict does; others are brought to the board and prepared.
function lay(source, size) {
  const [depth, height, width] = shape;
  if (size[0] === width && size[1] === height) {
    const exact = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    exact.fillStyle = "#ffffff";
    exact.fillRect(0, 0, width, height);
    exact.drawImage(source, 0, 0);
    const image = exact.getImageData(0, 0, width, height);
    const bytes = new Uint8Array(depth * height * width);
    if (depth === 3)
      for (let i = 0; i < bytes.length; i++) bytes[i] = image.data[4 * (i % (height * width)) + Math.floor(i / (height * width))];
    else for (let c = 0; c < depth; c++) bytes.set(grey(image), c * height * width);
    pad.put(bytes, shape);
    give(bytes, null);
    return;
  }
  const digits = state.model.prepare && $("prepare").checked;
  pad.lay(source, size, !digits, digits ? inked : null);
  fromPad();
}

function inked(image) {
  const values = asInk(grey(image), image.width);
  values.forEach((value, i) => image.data.fill(value, 4 * i, 4 * i + 3));
  return image;
}

async function camera() {
  if (stopCamera) return closeCamera();
  try {
    const video = $("video");
    const stop = await openCamera(video);
    complain("");
    pad.remember();
    const timer = setInterval(() => video.videoWidth && lay(video, [video.videoWidth, video.videoHeight]), 100);
    stopCamera = () => {
      clearInterval(timer);
      stop();
    };
    $("camera-box").hidden = false;
  } catch (error) {
    complain(error.message);
  }
}

function closeCamera() {
  stopCamera?.();
  stopCamera = null;
  $("camera-box").hidden = true;
}

// A network that takes rows of numbers: they are typed.
function openNumbers() {
  const length = product(shape);
  for (const id of ["pad-tools", "sources", "pictures"]) $(id).hidden = true;
  document.querySelector(".boards").hidden = true;
  $("input-title").textContent = "The input";
  $("numbers-box").hidden = false;
  $("numbers-label").textContent =
    `This network takes ${count(length)} numbers, not an image. Type or paste them, parted by spaces or commas.`;
  const read = () => {
    const values = $("numbers")
      .value.split(/[\s,;]+/)
      .filter(Boolean)
      .map(Number);
    const bad = values.findIndex(value => !Number.isFinite(value));
    if (bad >= 0) return complain(`Number ${bad + 1} cannot be read as one.`);
    if (values.length !== length) return complain(`${count(values.length)} numbers were given, and the network takes ${count(length)}.`);
    complain("");
    state.input = Float32Array.from(values);
    state.bytes = state.picture = null;
    tell("input");
  };
  $("numbers").addEventListener("input", read);
  $("numbers").value = Array.from({ length }, (_, i) => Math.round(100 * Math.sin(i + 1)) / 100).join(" ");
  read();
}
