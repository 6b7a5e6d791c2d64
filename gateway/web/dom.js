// Pages as trees: `h` makes one, `morph` brings what is shown in line with it and keeps focus and inputs.

/** h("button", {class: "x", onclick: …}, "text", child, …); null and false children are left out. */
export function h(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node[name] = value;
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((one) => one !== null && one !== false && one !== undefined));
  return node;
}

const HANDLERS = ["onclick", "onsubmit", "onchange", "oninput", "onkeydown"];

/** Make the children of `shown` those of `wanted`. Elements with the same data-key stay the same elements. */
export function morph(shown, wanted) {
  const kept = new Map();
  for (const node of shown.childNodes) if (keyOf(node)) kept.set(keyOf(node), node);
  let here = shown.firstChild;
  for (const next of [...wanted.childNodes]) {
    const key = keyOf(next);
    const match = key ? kept.get(key) : here && !keyOf(here) && here.nodeName === next.nodeName ? here : null;
    if (!match || match.nodeName !== next.nodeName) {
      shown.insertBefore(next, here);
      continue;
    }
    if (match === here) here = here.nextSibling;
    else shown.insertBefore(match, here);
    update(match, next);
  }
  while (here) {
    const next = here.nextSibling;
    here.remove();
    here = next;
  }
}

function keyOf(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.dataset.key : undefined;
}

function update(node, next) {
  if (node.nodeType !== Node.ELEMENT_NODE) {
    if (node.nodeValue !== next.nodeValue) node.nodeValue = next.nodeValue;
    return;
  }
  for (const { name } of [...node.attributes]) if (!next.hasAttribute(name)) node.removeAttribute(name);
  for (const { name, value } of [...next.attributes]) {
    if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  }
  for (const name of HANDLERS) if (node[name] !== next[name]) node[name] = next[name];
  morph(node, next);
}
