// One interaction as a card: who takes part, who holds, what can be done. A consultation is shown in its call.

import { commands } from "./api.js";
import { h } from "./dom.js";
import { draft, sentDraft } from "./drafts.js";
import { holders, hostsOrHasNone, isIncoming, legOf, nameOf, others, rings, statusOf, titleOf, whoIs } from "./model.js";
import { t } from "./texts.js";

const KEYS = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "*", "0", "#"];

/** desk: {login, phone, act(promise), once(key, command), panels: Set, redraw()} */
export function callCard(call, desk, consultation) {
  const mine = legOf(call, desk.login);
  const up = mine?.state === "up" && call.state === "up";
  return h(
    "article",
    { class: "card call", "data-key": call.id, tabindex: "-1", "aria-label": headline(call, desk.login) },
    h(
      "header",
      { class: "card-head" },
      h("h3", {}, headline(call, desk.login)),
      h("span", { class: "timer", ...since(mine?.answered_at ?? call.started_at) }),
    ),
    banner(call, desk, Boolean(consultation)),
    h("ul", { class: "people", "aria-label": t("participants") }, call.legs.map((leg) => person(call, leg, mine, desk, up && !consultation))),
    consultation ? consulting(consultation, desk) : commandsOf(call, mine, desk, up),
    !consultation && up && keypad(call, desk),
    !consultation && up ? numberForm(call, mine, desk) : null,
  );
}

export const since = (at) => ({ "data-since": at ?? "" });

/** Answer, where the telephone that rings lets itself be answered from here, and Decline. */
export function answerCommands(call, desk) {
  const mine = legOf(call, desk.login);
  const here = desk.phone?.rings(mine.id);
  // Whoever is called into a call that goes on declines for himself only.
  const refuse = () => (call.state === "up" ? commands.remove(call.id, mine.id) : commands.endForAll(call.id));
  return [
    here && button("answer", () => void desk.phone.answer(mine.id), { class: "primary" }),
    !here && mine.answerable && button("answer", () => desk.act(commands.answer(call.id, mine.id)), { class: "primary" }),
    button("decline", () => (here ? desk.phone.decline(mine.id) : desk.act(refuse())), { class: "danger" }),
  ];
}

/** Where an incoming call is to be answered; null: with the button, or nothing rings yet. */
export function answerHint(call, desk) {
  const mine = legOf(call, desk.login);
  if (desk.phone?.rings(mine.id)) return desk.phone.silent ? t("phone_silent") : null;
  if (mine.state !== "ringing") return null;
  return t(mine.answerable ? "answer_here_or_there" : "answer_on_phone");
}

function headline(call, login) {
  const who = whoIs(call, login);
  if (isIncoming(call, login)) return t("incoming_from", { who });
  const count = call.legs.filter((leg) => !leg.supervision).length;
  if (call.consultation_of) return t("consultation_with", { who });
  return count > 2 ? t("conference", { count }) : t("call_with", { who });
}

function banner(call, desk, consulting) {
  const mine = legOf(call, desk.login);
  if (rings(mine) && mine.role === "caller") {
    return desk.phone?.has(mine.id) ? null : h("p", { class: "banner ring" }, t("lift_to_call", { who: call.to_number }));
  }
  if (isIncoming(call, desk.login)) return null;
  if (consulting) return h("p", { class: "banner hold" }, t("consultation_under_way"));
  const held = holders(call);
  if (!held.length) return null;
  return h("p", { class: "banner hold" }, t("held_by", { who: held.map((leg) => titleOf(leg, desk.login)).join(", ") }));
}

/** In a conference that another agent hosts, an agent may leave and not disconnect others. */
const mayDisconnect = (call, desk) => desk.me.role !== "agent" || hostsOrHasNone(call, desk.login);

/** The agent has left these alone: with others there is talk, alone there is music. */
function waits(call, leg, mine) {
  const present = call.legs.filter((one) => one.state === "up" && !one.away && !one.supervision);
  return mine !== undefined && (mine.holding || mine.away) && leg !== mine && present.filter((one) => one !== mine).length === 1 && present.includes(leg);
}

function person(call, leg, mine, desk, commandable) {
  const self = leg.login !== "" && leg.login === desk.login;
  const who = nameOf(leg, desk.login);
  const badges = [
    leg.holding && !leg.away && h("span", { class: "badge hold" }, t("holds")),
    leg.muted && h("span", { class: "badge" }, t("muted")),
    leg.supervision && h("span", { class: "badge" }, t(leg.supervision)),
  ];
  const several = others(call, desk.login).length > 1;
  return h(
    "li",
    { class: "person", "data-key": leg.id },
    h("div", { class: "who" }, h("strong", {}, who), h("span", { class: "kind" }, [self ? null : t(leg.party), leg.host ? t("host") : null].filter(Boolean).join(", "))),
    h("span", { class: `status ${leg.state === "up" ? "up" : "waiting"}` }, waits(call, leg, mine) ? t("waits") : statusOf(leg)),
    badges,
    commandable && !self && several && !leg.supervision
      ? h(
          "span",
          { class: "row-commands" },
          leg.state === "up" &&
            button(leg.on_hold ? "retrieve" : "hold", () => desk.act(commands.change(call.id, leg.id, { on_hold: !leg.on_hold, by: mine.id })), {
              class: "small",
              "aria-label": t(leg.on_hold ? "retrieve_who" : "hold_who", { who }),
            }),
          mayDisconnect(call, desk) && button("remove", () => desk.act(commands.remove(call.id, leg.id)), { class: "small", "aria-label": t("remove_who", { who }) }),
        )
      : null,
  );
}

const keypadOf = (call) => `keypad ${call.id}`;

function keypadButton(call, desk) {
  const panel = keypadOf(call);
  const toggle = () => {
    if (!desk.panels.delete(panel)) desk.panels.add(panel);
    desk.redraw();
  };
  return button("keypad", toggle, { "aria-expanded": String(desk.panels.has(panel)) });
}

function commandsOf(call, mine, desk, up) {
  // An incoming call is answered and declined in its pop, which is there on every view.
  if (!mine || isIncoming(call, desk.login)) return null;
  const change = (what) => () => desk.act(commands.change(call.id, mine.id, what));
  const hangUp = () => desk.act(up ? commands.hangUp(call.id, mine.id) : commands.endForAll(call.id));
  return h(
    "div",
    { class: "commands", role: "group", "data-key": "commands", "aria-label": `${t("commands")}: ${whoIs(call, desk.login)}` },
    rings(mine) && mine.answerable && !desk.phone?.has(mine.id) && button("answer", () => desk.act(commands.answer(call.id, mine.id)), { class: "primary" }),
    button("hang_up", hangUp, { class: "danger" }),
    up && [
      button(mine.holding ? "retrieve" : "hold", change({ holding: !mine.holding }), { "aria-pressed": String(mine.holding) }),
      button(mine.muted ? "unmute" : "mute", change({ muted: !mine.muted }), { "aria-pressed": String(mine.muted) }),
      keypadButton(call, desk),
    ],
    up && others(call, desk.login).length > 1 && mayDisconnect(call, desk) && button("end_for_all", () => desk.act(commands.endForAll(call.id)), { class: "danger" }),
  );
}

function consulting(call, desk) {
  const mine = legOf(call, desk.login);
  const up = others(call, desk.login).some((leg) => leg.state === "up");
  return h(
    "section",
    { class: "consultation", "data-key": call.id, "aria-label": headline(call, desk.login) },
    h("header", { class: "card-head" }, h("h4", {}, headline(call, desk.login)), h("span", { class: "timer", ...since(call.started_at) })),
    banner(call, desk, false),
    h("ul", { class: "people", "aria-label": t("participants") }, call.legs.map((leg) => person(call, leg, mine, desk, false))),
    h(
      "div",
      { class: "commands", role: "group", "data-key": "commands", "aria-label": `${t("commands")}: ${whoIs(call, desk.login)}` },
      up && button("merge", () => desk.act(commands.merge(call.id)), { class: "primary" }),
      (up || others(call, desk.login).some((leg) => leg.state === "ringing")) && button("transfer_now", () => desk.act(commands.completeTransfer(call.id))),
      button("back", () => desk.act(commands.back(call.id))),
      up && keypadButton(call, desk),
    ),
    up && keypad(call, desk),
  );
}

/** Digits for one party: in a conference the agent says for whom. They are sent one after the other. */
function keypad(call, desk) {
  const panel = keypadOf(call);
  const found = others(call, desk.login).filter((leg) => leg.state === "up");
  if (!desk.panels.has(panel) || !found.length) return null;
  const id = `digits-${call.id}`;
  const target = () => document.getElementById(`${id}-to`)?.value ?? found[0].id;
  const send = (digits) => {
    const leg = target();
    desk.sending = (desk.sending ?? Promise.resolve()).then(() => desk.act(commands.digits(call.id, leg, digits)));
  };
  const shown = (field, text) => {
    field.value = text;
    field.sent = text;
  };
  const press = (digit) => {
    const field = document.getElementById(id);
    shown(field, field.value + digit);
    send(digit);
  };
  const type = ({ target: field, data }) => {
    const [sent, { value }] = [field.sent ?? "", field];
    if (value.length < sent.length) return shown(field, value);
    const typed = (data ?? value.slice(sent.length)).replace(/[^0-9*#]/g, "");
    shown(field, sent + typed);
    if (typed) send(typed);
  };
  return h(
    "div",
    { class: "keypad", role: "group", "data-key": panel, "aria-label": t("keypad_to", { who: found.map((leg) => nameOf(leg)).join(", ") }) },
    found.length > 1 && [
      h("label", { for: `${id}-to`, "data-key": "label" }, t("keypad_for")),
      h("select", { id: `${id}-to`, "data-key": "to" }, found.map((leg) => h("option", { value: leg.id, "data-key": leg.id }, titleOf(leg, desk.login)))),
    ],
    h("input", { id, "data-key": "digits", class: "digits", inputmode: "tel", autocomplete: "off", "aria-label": t("digits_sent"), placeholder: t("digits_hint"), oninput: type }),
    h("div", { class: "keys", "data-key": "keys" }, KEYS.map((digit) => h("button", { type: "button", "aria-label": t("digit", { digit }), onclick: () => press(digit) }, digit))),
  );
}

function numberForm(call, mine, desk) {
  const id = `further-${call.id}`;
  const go = (command) => () => {
    const field = document.getElementById(id);
    const number = field.value.replace(/[\s()/-]/g, "");
    if (!number) return field.focus();
    return desk.once(id, async () => {
      if (await desk.act(command(number))) sentDraft(id);
    });
  };
  const consult = go((number) => commands.consult(call.id, mine.id, number));
  return h(
    "form",
    {
      class: "further",
      "data-key": id,
      onsubmit: (event) => {
        event.preventDefault();
        void consult();
      },
    },
    h("label", { for: id }, t("further_number")),
    h("div", { class: "field" }, h("input", { id, type: "tel", autocomplete: "off", placeholder: t("number_hint"), ...draft(id) })),
    h(
      "div",
      { class: "commands" },
      h("button", { type: "submit", title: t("consult_hint") }, t("consult")),
      button("add", go((number) => commands.add(call.id, number, mine.id)), { title: t("add_hint") }),
      button("transfer", go((number) => commands.transfer(call.id, mine.id, number)), { title: t("transfer_hint") }),
    ),
  );
}

// The second click of a double click meets whatever has come into the place of the button: it counts for nothing.
const single = (act) => (event) => (event.detail > 1 ? undefined : act());

function button(text, act, more = {}) {
  return h("button", { type: "button", "data-key": `button ${text === "retrieve" ? "hold" : text === "unmute" ? "mute" : text}`, onclick: single(act), ...more }, t(text));
}
