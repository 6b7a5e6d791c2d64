// A customer's web chat as a card among the calls; whoever writes there, it is shown as text.

import { since } from "./call_card.js";
import { h } from "./dom.js";
import { draftArea, draftOf, sentDraft } from "./drafts.js";
import { teamsApi } from "./teams_api.js";
import { logId, nameOf } from "./teams_web_chats.js";
import { moment, t } from "./texts.js";

export const webChatCards = (desk) => (desk.teams?.webChats.chats ?? []).map((chat) => card(chat, desk));

function card(chat, desk) {
  const messages = desk.teams.webChats.of(chat);
  const who = t("web_chat_with", { who: nameOf(chat) });
  return h(
    "article",
    { class: "card web-chat", "data-key": `web-chat ${chat.id}`, "aria-label": who },
    h("header", { class: "card-head" }, h("h3", {}, who, chat.reference && h("span", { class: "kind" }, chat.reference)), h("span", { class: "timer", ...since(Date.parse(chat.started)) })),
    expertLine(chat, desk),
    h(
      "div",
      { id: logId(chat), class: "log", role: "log", "data-key": "log", "aria-label": t("web_chat_messages", { who: nameOf(chat) }), tabindex: "0" },
      messages.length === 0 && h("p", { class: "empty" }, t("teams_no_messages")),
      h("ul", { "data-key": "messages" }, messages.map((one) => item(one, chat))),
    ),
    compose(chat, desk),
  );
}

function expertLine(chat, desk) {
  if (!chat.expert) return h("p", { class: "soft", "data-key": "expert" }, t("web_chat_alone"));
  return h(
    "p",
    { class: "expert", "data-key": "expert" },
    h("span", { class: "badge" }, t("web_chat_expert", { who: chat.expert_name })),
    h("button", { type: "button", class: "small", "data-key": "remove", "aria-label": t("remove_who", { who: chat.expert_name }), onclick: () => void desk.act(teamsApi.leaveWebChat(chat.id)) }, t("remove")),
  );
}

function item(message, chat) {
  const mine = message.from === "agent";
  const attached = [...message.files, ...message.types];
  if (message.from === "system") return h("li", { class: "soft", "data-key": String(message.number) }, message.text);
  return h(
    "li",
    { class: mine ? "message mine" : "message", "data-key": String(message.number) },
    h(
      "div",
      { class: "soft" },
      h("strong", {}, mine ? t("you") : message.name || nameOf(chat)),
      message.from === "expert" && h("span", { class: "kind" }, t("teams_expert")),
      " ",
      h("time", { datetime: message.at }, moment(message.at)),
      message.edited && !message.deleted && [" ", h("span", {}, t("teams_edited"))],
    ),
    message.deleted ? h("p", { class: "gone" }, t("teams_deleted")) : message.text && h("p", { class: "text" }, message.text),
    attached.length > 0 && h("ul", { class: "labels", "aria-label": t("teams_attached") }, attached.map((label) => h("li", {}, label))),
  );
}

function compose(chat, desk) {
  const id = `web-chat-${chat.id}`;
  const send = (event) => {
    event.preventDefault();
    return desk.once(id, say);
  };
  const say = async () => {
    const text = document.getElementById(id).value.trim();
    if (!text) return;
    const sent = teamsApi.sayInWebChat(chat.id, text).then((message) => desk.teams.webChats.put(chat, message));
    if ((await desk.act(sent)) && draftOf(id).trim() === text) sentDraft(id);
    desk.redraw();
  };
  const keyed = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) void send(event);
  };
  return h(
    "form",
    { class: "compose", "data-key": "compose", onsubmit: send },
    h("label", { for: id }, t("web_chat_message", { who: nameOf(chat) })),
    h("textarea", { id, rows: "2", maxlength: "8000", onkeydown: keyed, ...draftArea(id) }, draftOf(id)),
    h("div", { class: "commands" }, h("button", { type: "submit", class: "primary" }, t("teams_send")), h("button", { type: "button", class: "danger", "data-key": "end", onclick: () => void desk.act(teamsApi.endWebChat(chat.id)) }, t("web_chat_end"))),
  );
}

/** In an expert's card: the web chats that he could join. */
export function joinButtons(person, desk) {
  const { webChats, picture } = desk.teams;
  if (person.oid === picture.oid) return null;
  return webChats.alone.map((chat) =>
    h("button", { type: "button", "data-key": `join ${chat.id}`, onclick: () => void desk.act(teamsApi.joinWebChat(chat.id, person.oid)) }, t("web_chat_join", { who: nameOf(chat) })),
  );
}
