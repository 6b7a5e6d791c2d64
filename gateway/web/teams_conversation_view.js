// An open chat, or a channel with its threads. What others wrote is put into the page as text, never as markup.

import { h } from "./dom.js";
import { draftArea, draftOf, sentDraft } from "./drafts.js";
import { COMPOSE, LOG } from "./teams_conversation.js";
import { star } from "./teams_lists_view.js";
import { callWays, presenceOf } from "./teams_people_view.js";
import { loadLine } from "./teams_view.js";
import { moment, t } from "./texts.js";

export function conversationView(desk) {
  const { teams } = desk;
  const { conversation } = teams;
  const { place, load, trouble } = conversation;
  const name = place.team ? place.name : place.peer_name || t("teams_unnamed");
  const whole = place.team && place.team_name ? `${place.team_name}, ${name}` : name;
  return h(
    "section",
    { class: "conversation", "data-key": `conversation ${conversation.key}`, "aria-label": t(place.team ? "teams_channel_of" : "teams_chat_with", { who: whole }) },
    h(
      "header",
      { class: "conversation-head" },
      h("button", { type: "button", class: "small", "data-key": "back", onclick: () => teams.back() }, t("teams_back")),
      h("h3", {}, name, place.team && h("span", { class: "kind" }, place.team_name)),
      !place.team && presenceOf(conversation.person ?? { oid: place.peer }, teams),
      star(place, whole, teams),
      place.team && place.open && h("button", { type: "button", class: "small danger", "data-key": "end", onclick: () => void conversation.end() }, t("teams_end_conversation")),
    ),
    conversation.person && callWays(conversation.person, desk),
    loadLine(load),
    conversation.thread && threadHead(conversation),
    messageLog(conversation, teams),
    trouble && h("p", { class: "trouble", role: "alert", "data-key": "not-sent" }, t("teams_not_sent"), " ", trouble.text),
    (!place.team || place.open) && compose(conversation),
  );
}

function threadHead(conversation) {
  return h(
    "div",
    { class: "thread-head", "data-key": "thread-head" },
    h("button", { type: "button", class: "small", "data-key": "all", onclick: () => conversation.unfold("") }, t("teams_all_threads")),
    loadLine(conversation.threadLoad),
  );
}

function messageLog(conversation, teams) {
  const { messages, thread, replies, load, threadLoad } = conversation;
  const root = thread && messages?.find((one) => one.id === thread);
  const shown = thread ? [root, ...(replies ?? [])].filter(Boolean) : messages;
  const loading = !shown || (thread && !replies) ? (thread ? threadLoad : load).loading : false;
  return h(
    "div",
    { id: LOG, class: "log", role: "log", "data-key": thread ? `log ${thread}` : "log", "aria-label": t("teams_messages"), tabindex: "0" },
    loading && h("p", { class: "empty", "data-key": "loading" }, t("teams_loading")),
    shown?.length === 0 && h("p", { class: "empty", "data-key": "none" }, t("teams_no_messages")),
    h(
      "ul",
      { "data-key": "messages" },
      shown?.map((one) => messageItem(one, conversation, teams)),
    ),
  );
}

function messageItem(message, conversation, teams) {
  const mine = message.author !== "" && message.author === teams.picture.oid;
  const threads = conversation.isChannel && !conversation.thread;
  return h(
    "li",
    { class: mine ? "message mine" : "message", "data-key": message.id },
    h(
      "div",
      { class: "soft" },
      h("strong", {}, mine ? t("you") : message.author_name || t("teams_unnamed")),
      " ",
      message.created && h("time", { datetime: message.created }, moment(message.created)),
      message.edited_at && !message.deleted && [" ", h("span", {}, t("teams_edited"))],
    ),
    message.deleted ? h("p", { class: "gone" }, t("teams_deleted")) : message.text && h("p", { class: "text" }, message.text),
    message.labels.length > 0 &&
      h(
        "ul",
        { class: "labels", "aria-label": t("teams_attached") },
        message.labels.map((label) => h("li", {}, label)),
      ),
    threads && h("button", { type: "button", class: "small", "data-key": "thread", "aria-label": t("teams_thread_of", { who: message.author_name }), onclick: () => conversation.unfold(message.id) }, t("teams_thread"), conversation.fresh.has(message.id) && [" ", h("span", { class: "unread" }, t("teams_fresh"))]),
  );
}

function compose(conversation) {
  const key = `${conversation.key} ${conversation.thread}`;
  const send = async (event) => {
    event.preventDefault();
    const field = document.getElementById(COMPOSE);
    const text = field.value.trim();
    if (!text || conversation.sending) return;
    if ((await conversation.send(text)) && draftOf(key).trim() === text) sentDraft(key);
    field.focus();
  };
  const keyed = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) void send(event);
  };
  const label = conversation.isChannel ? (conversation.thread ? "teams_reply" : "teams_new_thread") : "teams_message";
  return h(
    "form",
    { class: "compose", "data-key": `compose ${conversation.thread}`, onsubmit: send },
    h("label", { for: COMPOSE }, t(label)),
    h("textarea", { id: COMPOSE, rows: "2", maxlength: "28000", "aria-describedby": "teams-compose-hint", onkeydown: keyed, ...draftArea(key) }, draftOf(key)),
    h("button", { type: "submit", class: "primary", "aria-busy": String(conversation.sending) }, t("teams_send")),
    h("small", { id: "teams-compose-hint" }, t("teams_compose_hint")),
  );
}
