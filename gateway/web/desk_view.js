// The agent's own desk: new call, active interactions, history.

import { commands } from "./api.js";
import { answerCommands, answerHint, callCard, since } from "./call_card.js";
import { h } from "./dom.js";
import { draft, sentDraft } from "./drafts.js";
import { isIncoming, legOf, otherOf, whoIs } from "./model.js";
import { phoneView, soundTrouble } from "./phone_view.js";
import { teamsView } from "./teams_view.js";
import { webChatCards } from "./teams_web_chats_view.js";
import { moment, span, t } from "./texts.js";

export function deskView(desk) {
  const { picture, login } = desk;
  const mine = picture.calls.filter((call) => legOf(call, login));
  const byId = new Map(picture.calls.map((call) => [call.id, call]));
  // A consultation is shown in the card of the call that waits for it, wherever that one is visible.
  const shown = mine.filter((call) => !(call.consultation_of && byId.has(call.consultation_of)));
  return h(
    "div",
    { class: "columns", "data-key": "desk" },
    h(
      "section",
      { class: "interactions", "aria-labelledby": "interactions" },
      dialForm(desk),
      desk.phone && soundTrouble(desk.phone),
      h("h2", { id: "interactions" }, t("interactions")),
      shown.length === 0 && h("p", { class: "empty" }, t("no_interactions")),
      shown.map((call) => callCard(call, desk, byId.get(call.consultation))),
      webChatCards(desk),
      desk.phone && phoneView(desk.phone),
    ),
    h("div", { class: "beside", "data-key": "beside" }, teamsView(desk), history(desk)),
  );
}

/** What is seen of incoming calls on every view: who calls, and what to do about it. */
export function incomingPop(desk) {
  const calls = desk.picture?.calls.filter((one) => isIncoming(one, desk.login)) ?? [];
  return calls.map((call) => {
    const hint = answerHint(call, desk);
    return h(
      "section",
      { class: "pop", "data-key": `pop ${call.id}`, "aria-label": t("incoming_from", { who: whoIs(call, desk.login) }) },
      h("div", { class: "who", role: "alert" }, h("strong", {}, t("incoming")), " ", whoIs(call, desk.login)),
      h("span", { class: "timer", ...since(call.started_at) }),
      h("div", { class: "commands", "data-key": "commands" }, answerCommands(call, desk)),
      hint && h("p", { class: "hint" }, hint),
    );
  });
}

function dialForm(desk) {
  if (!desk.picture.agent) return h("p", { class: "empty" }, t("no_agent"));
  const call = (event) => {
    event.preventDefault();
    const number = document.getElementById("dial").value.replace(/[\s()/-]/g, "");
    if (!number) return;
    void desk.once("dial", async () => {
      if (await desk.act(commands.place(desk.login, number))) sentDraft("dial");
    });
  };
  return h(
    "form",
    { class: "card dial", "data-key": "dial", onsubmit: call },
    h("label", { for: "dial" }, t("dial_title")),
    h("input", { id: "dial", type: "tel", autocomplete: "off", placeholder: t("number_hint"), required: true, ...draft("dial") }),
    h("button", { type: "submit", class: "primary" }, t("dial")),
  );
}

function history(desk) {
  const rows = desk.history;
  return h(
    "section",
    { class: "history", "aria-labelledby": "history" },
    h("h2", { id: "history" }, t("history")),
    rows.length === 0
      ? h("p", { class: "empty" }, t("history_empty"))
      : h(
          "ul",
          { class: "rows" },
          rows.map((row) =>
            h(
              "li",
              { class: "card row", "data-key": row.id },
              h("div", { class: "head" }, h("span", {}, h("strong", {}, otherOf(row, desk.login) || t("withheld")), h("span", { class: "kind" }, t(row.type))), callAgain(desk, otherOf(row, desk.login))),
              h("div", { class: "detail" }, h("span", {}, moment(row.start_time)), h("span", {}, t(row.disposition)), h("span", {}, `${t("talk")} ${span(row.talk_time)}`), row.hold_time > 0 && h("span", {}, `${t("held_for")} ${span(row.hold_time)}`)),
            ),
          ),
        ),
  );
}

function callAgain(desk, number) {
  if (!desk.picture?.agent || !/^[+\d]/.test(number)) return null;
  const call = () => desk.once("dial", () => desk.act(commands.place(desk.login, number)));
  return h("button", { type: "button", class: "small", "data-key": "again", "aria-label": t("call_who", { who: number }), onclick: call }, t("dial"));
}
