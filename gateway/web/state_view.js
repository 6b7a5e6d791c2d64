// The agent's state, and the menu of those that he may choose: nothing changes before he has chosen one.

import { commands } from "./api.js";
import { since } from "./call_card.js";
import { h } from "./dom.js";
import { stateText } from "./model.js";
import { t } from "./texts.js";

const MENU = "state-menu";
const PICKER = "state-picker";

export function statePicker(desk) {
  const agent = desk.picture?.agent;
  if (!agent) return null;
  const finish = () => desk.act(commands.chooseState(desk.login, "ready"));
  return h(
    "div",
    { class: "state" },
    h(
      "span",
      { class: `badge state-${agent.state}`, "data-key": "state", id: "state" },
      stateText(agent.state, agent.reason),
      " ",
      h("span", { class: "timer", ...since(agent.since) }),
    ),
    agent.next_state && agent.next_state !== agent.state
      ? h("span", { class: "next" }, t("then", { state: stateText(agent.next_state, agent.next_reason) }))
      : null,
    agent.state === "after_call_work" && h("button", { type: "button", class: "small", "data-key": "finish", onclick: finish }, t("finish_work")),
    picker(desk),
  );
}

/** A menu button after the pattern of the ARIA authoring practices. */
function picker(desk) {
  const open = desk.panels.has(MENU);
  const toggle = () => (open ? shut(desk) : focusOn(desk, 0));
  return h(
    "div",
    { id: PICKER, class: "picker", "data-key": "picker", onkeydown: (event) => keyed(desk, event) },
    h("button", { type: "button", "data-key": "toggle", "aria-haspopup": "menu", "aria-expanded": String(open), onclick: toggle }, t("change_state")),
    open && menu(desk),
  );
}

function menu(desk) {
  const choice = (state, reason = "") => {
    const choose = () => {
      leave(desk);
      void desk.act(commands.chooseState(desk.login, state, reason));
    };
    return h("button", { type: "button", role: "menuitem", tabindex: "-1", "data-key": `${state} ${reason}`, onclick: choose }, stateText(state, reason));
  };
  return h(
    "div",
    { id: MENU, class: "menu card", role: "menu", "data-key": "menu", "aria-label": t("change_state") },
    choice("ready"),
    choice("not_ready"),
    desk.me.not_ready_reasons.map((reason) => choice("not_ready", reason)),
    choice("logged_out"),
  );
}

function keyed(desk, event) {
  const open = desk.panels.has(MENU);
  const here = items().indexOf(document.activeElement);
  const to = { ArrowDown: here + 1, ArrowUp: here < 0 ? -1 : here - 1, ...(open && { Home: 0, End: -1 }) }[event.key];
  if (to !== undefined) focusOn(desk, to);
  else if (event.key === "Escape" && open) leave(desk);
  else return;
  event.preventDefault();
}

const items = () => [...document.querySelectorAll(`#${MENU} [role=menuitem]`)];

/** The choice at that place, after the last the first; the menu is opened for it. */
function focusOn(desk, place) {
  desk.panels.add(MENU);
  desk.redraw();
  const found = items();
  found.at(place % found.length).focus();
}

function shut(desk) {
  if (desk.panels.delete(MENU)) desk.redraw();
}

/** Shut it, and go back to where it was opened. */
function leave(desk) {
  document.querySelector(`#${PICKER} > button`)?.focus();
  shut(desk);
}

/** Whoever goes elsewhere has not chosen. */
export function watchPicker(desk) {
  const elsewhere = (event) => event.target.closest?.(`#${PICKER}`) || shut(desk);
  for (const kind of ["focusin", "pointerdown"]) document.addEventListener(kind, elsewhere);
}
