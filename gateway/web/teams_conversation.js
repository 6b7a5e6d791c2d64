// One open conversation: a 1:1 chat, or a channel with at most one thread unfolded.

import { teamsApi } from "./teams_api.js";
import { Load } from "./teams_load.js";
import { keyOf, merged, troubleOf } from "./teams_model.js";

export const LOG = "teams-log";
export const COMPOSE = "teams-compose";

export class Conversation {
  constructor(teams, place) {
    this.teams = teams;
    this.place = place;
    this.key = keyOf(place);
    this.messages = null;
    this.thread = "";
    this.replies = null;
    this.fresh = new Set();
    this.person = null;
    this.sending = false;
    this.trouble = null;
    const changed = () => teams.conversation === this && teams.changed();
    this.load = new Load(changed);
    this.threadLoad = new Load(changed);
  }

  get isChannel() {
    return this.place.team !== "";
  }

  read() {
    const { teams, place } = this;
    void this.load.run(() => (this.isChannel ? this.readChannel() : teamsApi.messages(teams.login, place)), (messages) => {
      this.messages = messages;
      this.toEnd();
    });
    if (this.thread) this.readThread();
    if (!this.isChannel && place.peer && !this.person) void this.readPerson();
  }

  /** Opens the conversation in the channel, or goes on with the one that is open already. */
  async readChannel() {
    const { login, picture } = this.teams;
    const { team, id } = this.place;
    if (!picture.channels_open.some((one) => one.team === team && one.channel === id)) {
      try {
        const messages = await teamsApi.openChannel(login, this.place);
        this.place = { ...this.place, open: true };
        return messages;
      } catch (error) {
        if (error.reason !== "conversation_open") throw error;
      }
    }
    this.place = { ...this.place, open: true };
    return teamsApi.channelMessages(login, this.place);
  }

  async readPerson() {
    try {
      this.person = await teamsApi.person(this.place.peer);
      this.teams.changed();
    } catch {
      // Without it there is nobody to call, and the chat goes on.
    }
  }

  unfold(thread) {
    this.threadLoad.stop();
    Object.assign(this, { thread, replies: null, trouble: null });
    this.fresh.delete(thread);
    if (thread) this.readThread();
    this.teams.changed();
    this.focus();
  }

  readThread() {
    const { thread } = this;
    void this.threadLoad.run(() => teamsApi.channelMessages(this.teams.login, this.place, thread), (replies) => {
      this.replies = replies;
      this.toEnd();
    });
  }

  take(message) {
    const end = this.isAtEnd;
    if (message.deleted) {
      this.messages &&= merged(this.messages, message);
      this.replies &&= merged(this.replies, message);
    } else if (!message.thread) this.messages = merged(this.messages ?? [], message);
    else if (message.thread === this.thread) this.replies = merged(this.replies ?? [], message);
    else this.fresh.add(message.thread);
    if (end) this.toEnd();
  }

  /** True when it went. */
  async send(text) {
    const { login } = this.teams;
    this.sending = true;
    this.teams.changed();
    try {
      const sent = await (this.isChannel ? teamsApi.post(login, this.place, text, this.thread) : teamsApi.send(login, this.place, text));
      this.trouble = null;
      this.take(sent);
      this.toEnd();
      return true;
    } catch (error) {
      if (error.status === undefined) throw error;
      this.trouble = troubleOf(error);
      return false;
    } finally {
      this.sending = false;
      this.teams.changed();
    }
  }

  /** Ends the conversation in a channel, so that another can begin. */
  async end() {
    if (!(await this.teams.act(teamsApi.closeChannel(this.teams.login, this.place)))) return;
    this.teams.back();
  }

  get isAtEnd() {
    const log = document.getElementById(LOG);
    return !log || log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  }

  toEnd() {
    requestAnimationFrame(() => {
      const log = document.getElementById(LOG);
      if (log) log.scrollTop = log.scrollHeight;
    });
  }

  focus() {
    document.getElementById(COMPOSE)?.focus();
  }

  stop() {
    this.load.stop();
    this.threadLoad.stop();
  }
}
