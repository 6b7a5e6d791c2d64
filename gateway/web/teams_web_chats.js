// The web chats of customers that this agent handles, each perhaps with a Teams expert who has joined.

import { teamsApi } from "./teams_api.js";
import { Load } from "./teams_load.js";
import { t } from "./texts.js";

export class WebChats {
  /** tell: {changed(), announce(texts)} */
  constructor(login, tell) {
    this.login = login;
    this.tell = tell;
    this.chats = [];
    this.messages = new Map();
    this.load = new Load(() => tell.changed());
  }

  read() {
    void this.load.run(
      () => this.readAll(),
      ([chats, messages]) => {
        this.chats = chats;
        this.messages = new Map(messages);
      },
    );
  }

  async readAll() {
    try {
      const chats = (await teamsApi.webChats(this.login)).filter((one) => one.state === "open");
      return [chats, await Promise.all(chats.map(async (one) => [one.id, await teamsApi.webChatMessages(one.id)]))];
    } catch (error) {
      if (error.status === 404) return [[], []];
      throw error;
    }
  }

  /** An event of the stream; message is null when it was the chat itself that changed. */
  take({ web_chat: chat, message }) {
    const known = this.chats.some((one) => one.id === chat.id);
    if (chat.state !== "open") {
      this.chats = this.chats.filter((one) => one.id !== chat.id);
      if (known) this.tell.announce([t("web_chat_ended", { who: nameOf(chat) })]);
      return;
    }
    this.chats = known ? this.chats.map((one) => (one.id === chat.id ? chat : one)) : [...this.chats, chat];
    if (!known) this.tell.announce([t("web_chat_began", { who: nameOf(chat) })]);
    if (message) this.put(chat, message);
  }

  put(chat, message) {
    const others = this.of(chat).filter((one) => one.number !== message.number);
    this.messages.set(
      chat.id,
      [...others, message].sort((one, other) => one.number - other.number),
    );
    requestAnimationFrame(() => document.getElementById(logId(chat))?.scrollTo(0, Number.MAX_SAFE_INTEGER));
  }

  of(chat) {
    return this.messages.get(chat.id) ?? [];
  }

  /** Those whom an expert could join now. */
  get alone() {
    return this.chats.filter((one) => !one.expert);
  }

  /** Whether this expert has joined one: what he writes is shown there. */
  with(expert) {
    return this.chats.some((one) => one.expert && one.expert === expert);
  }

  stop() {
    this.load.stop();
  }
}

export const logId = (chat) => `web-chat-log-${chat.id}`;
export const nameOf = (chat) => chat.customer_name || t("web_chat_customer");
