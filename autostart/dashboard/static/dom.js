// Elements from plain values. Text is only ever set as text: names of services, paths and lines of
// output are anybody's.

const SVG = "http://www.w3.org/2000/svg";

// `attributes`: what begins with "on" is a listener, false and null are left out.
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function drawn(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export function icon(name, label = null) {
  const use = drawn("use", { href: `#icon-${name}` });
  const spoken = label === null ? { "aria-hidden": "true" } : { role: "img", "aria-label": label };
  return drawn("svg", { class: `icon icon-${name}`, viewBox: "0 0 16 16", ...spoken }, use);
}

// A change that changes nothing costs no layout.
export function setText(element, text) {
  const only = element.firstChild;
  if (only !== null && only === element.lastChild && only.nodeType === Node.TEXT_NODE) {
    if (only.data !== text) only.data = text;
  } else if (only !== null || text !== "") {
    element.textContent = text;
  }
}

export function setAttribute(element, name, value) {
  if (value === null || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else {
    const text = value === true ? "" : String(value);
    if (element.getAttribute(name) !== text) element.setAttribute(name, text);
  }
}

export const setHidden = (element, hidden) => setAttribute(element, "hidden", hidden);

// Makes the children of `parent` these, in this order, and moves only what stands wrong.
export function setChildren(parent, wanted) {
  let place = parent.firstChild;
  for (const child of wanted) {
    if (child === place) place = place.nextSibling;
    else parent.insertBefore(child, place);
  }
  while (place !== null) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

export const byId = (id) => document.getElementById(id);
