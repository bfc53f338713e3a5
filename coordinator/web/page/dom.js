// Elements. Text only ever becomes a text node, so nothing that a job says can become markup.

// make("td", {class: "num", title: "x"}, "text", child, ...): null and false children are left out.
export function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  append(element, children);
  return element;
}

export function append(element, children) {
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

// Touches the page only if something has changed, so that selections and screen readers are left alone.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const SVG = "http://www.w3.org/2000/svg";
export function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  append(element, children);
  return element;
}

// A bar that is `share` full; its meaning is in `label`.
export function meter(share, label, kind) {
  const inner = make("span", {class: "fill " + (kind || "")});
  inner.style.width = Math.max(0, Math.min(1, share || 0)) * 100 + "%";
  return make("span", {class: "meter", role: "img", "aria-label": label}, inner);
}

export function empty(title, text) {
  return make("div", {class: "empty"}, make("p", {class: "empty-title"}, title), text ? make("p", {}, text) : null);
}
