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

/**
 * Make the children of `shown` those of `wanted`. Elements with the same data-key stay the same elements. What stays
 * is left where it is as far as possible: an element that is moved loses the focus.
 */
export function morph(shown, wanted) {
  const kept = new Map();
  for (const node of shown.childNodes) if (keyOf(node)) kept.set(keyOf(node), node);
  const keys = new Set([...wanted.childNodes].map(keyOf));
  const stays = (node) => keyOf(node) && keys.has(keyOf(node));
  let here = shown.firstChild;
  for (const next of [...wanted.childNodes]) {
    const key = keyOf(next);
    const match = key ? kept.get(key) : sameKind(here, next, stays);
    if (!match || match.nodeName !== next.nodeName) {
      shown.insertBefore(next, here);
      continue;
    }
    while (here !== match && here && !stays(here)) here = removed(here);
    if (here === match) here = here.nextSibling;
    else if (shown.moveBefore) shown.moveBefore(match, here);
    else shown.insertBefore(match, here);
    update(match, next);
  }
  while (here) here = removed(here);
}

/** The first of these siblings without a key that is such an element too, before any that stays. */
function sameKind(node, wanted, stays) {
  while (node && !stays(node)) {
    if (!keyOf(node) && node.nodeName === wanted.nodeName) return node;
    node = node.nextSibling;
  }
  return null;
}

/** Takes the node out; the next one. */
function removed(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
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
