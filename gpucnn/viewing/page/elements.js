// Elements of the page, by their id, and new ones. What a model or a file is called becomes text here, and never HTML.

export const $ = id => document.getElementById(id);

// el("p", { class: "soft", onclick: …, dataset: {…} }, "text", other, …)
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "dataset") Object.assign(made.dataset, value);
    else if (name === "style") for (const [key, text] of Object.entries(value)) made.style.setProperty(key, text);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter(child => child !== null && child !== undefined));
  return made;
}

export const button = (text, onclick, more = {}) => el("button", { type: "button", onclick, ...more }, text);

// Once for the next frame, however often it is asked for.
export function soon(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      work();
    });
  };
}

export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

// Arrow keys as a step [rows, columns]; null for other keys.
export function arrow(event) {
  return { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? null;
}

export function complain(text) {
  const place = $("input-error");
  place.textContent = text;
  place.hidden = !text;
}
