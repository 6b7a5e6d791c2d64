// One interaction as a card: who takes part, who holds, what can be done. A consultation is shown in its call.

import { commands } from "./api.js";
import { h } from "./dom.js";
import { holders, isIncoming, legOf, nameOf, others, rings, statusOf, titleOf, whoIs } from "./model.js";
import { t } from "./texts.js";

const KEYS = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "*", "0", "#"];

/** desk: {login, act(promise), panels: Set, redraw()} */
export function callCard(call, desk, consultation) {
  const mine = legOf(call, desk.login);
  const who = whoIs(call, desk.login);
  const up = mine?.state === "up" && call.state === "up";
  return h(
    "article",
    { class: "card call", "data-key": call.id, "aria-label": headline(call, desk.login) },
    h(
      "header",
      { class: "card-head" },
      h("h3", {}, headline(call, desk.login)),
      h("span", { class: "timer", ...since(mine?.answered_at ?? call.started_at) }),
    ),
    banner(call, desk.login, Boolean(consultation), desk.phone?.rings(mine?.id)),
    h("ul", { class: "people", "aria-label": t("participants") }, call.legs.map((leg) => person(call, leg, mine, desk, up && !consultation))),
    consultation ? consulting(consultation, desk) : commandsOf(call, mine, desk, up, who),
    !consultation && up && desk.panels.has(`keypad ${call.id}`) ? keypad(call, desk, who) : null,
    !consultation && up ? numberForm(call, mine, desk) : null,
  );
}

export const since = (at) => ({ "data-since": at ?? "" });

function headline(call, login) {
  const who = whoIs(call, login);
  if (isIncoming(call, login)) return t("incoming_from", { who });
  const count = call.legs.filter((leg) => !leg.supervision).length;
  if (call.consultation_of) return t("consultation_with", { who });
  return count > 2 ? t("conference", { count }) : t("call_with", { who });
}

function banner(call, login, consulting, here = false) {
  const mine = legOf(call, login);
  if (here) return null;
  if (rings(mine) && mine.role === "caller") {
    return h("p", { class: "banner ring" }, t("lift_to_call", { who: call.to_number }));
  }
  if (isIncoming(call, login)) return h("p", { class: "banner ring" }, t("answer_on_phone"));
  if (consulting) return h("p", { class: "banner hold" }, t("consultation_under_way"));
  const held = holders(call);
  if (!held.length) return null;
  return h("p", { class: "banner hold" }, t("held_by", { who: held.map((leg) => titleOf(leg, login)).join(", ") }));
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
    h("span", { class: `status ${leg.state === "up" ? "up" : "waiting"}` }, statusOf(leg)),
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
          button("remove", () => desk.act(commands.remove(call.id, leg.id)), { class: "small", "aria-label": t("remove_who", { who }) }),
        )
      : null,
  );
}

function commandsOf(call, mine, desk, up, who) {
  if (!mine) return null;
  const change = (what) => () => desk.act(commands.change(call.id, mine.id, what));
  const panel = `keypad ${call.id}`;
  const toggle = () => {
    if (!desk.panels.delete(panel)) desk.panels.add(panel);
    desk.redraw();
  };
  const hangUp = () => (desk.phone?.rings(mine.id) ? desk.phone.decline(mine.id) : desk.act(up ? commands.hangUp(call.id, mine.id) : commands.endForAll(call.id)));
  return h(
    "div",
    { class: "commands", role: "group", "aria-label": `${t("commands")}: ${who}` },
    desk.phone?.rings(mine.id) && button("answer", () => void desk.phone.answer(mine.id), { class: "primary" }),
    mine.answerable && !desk.phone?.rings(mine.id) && button("answer", () => desk.act(commands.answer(call.id, mine.id)), { class: "primary" }),
    button(isIncoming(call, desk.login) ? "decline" : "hang_up", hangUp, { class: "danger" }),
    up && [
      button(mine.holding ? "retrieve" : "hold", change({ holding: !mine.holding }), { "aria-pressed": String(mine.holding) }),
      button(mine.muted ? "unmute" : "mute", change({ muted: !mine.muted }), { "aria-pressed": String(mine.muted) }),
      button("keypad", toggle, { "aria-expanded": String(desk.panels.has(panel)) }),
    ],
    up && others(call, desk.login).length > 1 && button("end_for_all", () => desk.act(commands.endForAll(call.id)), { class: "danger" }),
  );
}

function consulting(call, desk) {
  const mine = legOf(call, desk.login);
  const up = others(call, desk.login).some((leg) => leg.state === "up");
  return h(
    "section",
    { class: "consultation", "data-key": call.id, "aria-label": headline(call, desk.login) },
    h("header", { class: "card-head" }, h("h4", {}, headline(call, desk.login)), h("span", { class: "timer", ...since(call.started_at) })),
    banner(call, desk.login, false),
    h("ul", { class: "people", "aria-label": t("participants") }, call.legs.map((leg) => person(call, leg, mine, desk, false))),
    h(
      "div",
      { class: "commands", role: "group", "aria-label": `${t("commands")}: ${whoIs(call, desk.login)}` },
      up && button("merge", () => desk.act(commands.merge(call.id)), { class: "primary" }),
      (up || others(call, desk.login).some((leg) => leg.state === "ringing")) && button("transfer_now", () => desk.act(commands.completeTransfer(call.id))),
      button("back", () => desk.act(commands.back(call.id))),
    ),
  );
}

function keypad(call, desk, who) {
  const leg = others(call, desk.login)[0];
  if (!leg) return null;
  return h(
    "div",
    { class: "keypad", role: "group", "data-key": `keypad ${call.id}`, "aria-label": t("keypad_to", { who }) },
    KEYS.map((digit) => h("button", { type: "button", "aria-label": t("digit", { digit }), onclick: () => desk.act(commands.digits(call.id, leg.id, digit)) }, digit)),
  );
}

function numberForm(call, mine, desk) {
  const id = `further-${call.id}`;
  const go = (command) => async () => {
    const field = document.getElementById(id);
    const number = field.value.replace(/[\s()/-]/g, "");
    if (!number) return field.focus();
    if (await desk.act(command(number))) field.value = "";
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
    h("div", { class: "field" }, h("input", { id, type: "tel", autocomplete: "off", placeholder: t("number_hint") })),
    h(
      "div",
      { class: "commands" },
      h("button", { type: "submit" }, t("consult")),
      button("add", go((number) => commands.add(call.id, number, mine.id))),
      button("transfer", go((number) => commands.transfer(call.id, mine.id, number))),
    ),
  );
}

function button(text, onclick, more = {}) {
  return h("button", { type: "button", "data-key": `button ${text === "retrieve" ? "hold" : text === "unmute" ? "mute" : text}`, onclick, ...more }, t(text));
}
