// What the page knows of Teams: folders, the open conversation, what came in. The views draw it, main.js feeds it.

import { teamsApi } from "./teams_api.js";
import { Conversation } from "./teams_conversation.js";
import { Load } from "./teams_load.js";
import { WebChats } from "./teams_web_chats.js";
import { inShort, keyOf, sorted, troubleOf } from "./teams_model.js";
import { t } from "./texts.js";

const TYPING = 250;
const MOST_SHOWN = 100;
const MOST_POPS = 3;
const KEPT = "tandem.teams";
export const FOLDERS = ["users", "chats", "channels"];

export class Teams {
  /** tell: {redraw(), announce(texts), show(view)} */
  constructor(login, tell) {
    this.login = login;
    this.tell = tell;
    this.picture = null;
    this.last = "";
    this.folder = "users";
    this.opened = false;
    this.query = "";
    this.searching = false;
    this.chooseFirst = false;
    this.people = null;
    this.active = 0;
    this.chosen = "";
    this.chats = null;
    this.channels = null;
    this.loads = Object.fromEntries(FOLDERS.map((name) => [name, new Load(() => this.changed())]));
    this.conversation = null;
    this.webChats = new WebChats(login, { changed: () => this.changed(), announce: (said) => tell.announce(said) });
    this.unread = new Map();
    this.pops = [];
    this.shown = "";
    this.signIn = null;
    this.trouble = null;
    this.waiting = false;
  }

  changed() {
    if (!this.closed) this.tell.redraw();
  }

  close() {
    this.closed = true;
    sessionStorage.removeItem(KEPT);
    clearTimeout(this.typing);
    clearTimeout(this.showing);
    for (const load of Object.values(this.loads)) load.stop();
    this.conversation?.stop();
    this.webChats.stop();
  }

  // ---- the stream ----

  /** The stream's path, asked for at each connection: the gateway sends what came since the last event. */
  path(base) {
    this.shown = "";
    return `${base}?teams=${encodeURIComponent(this.last)}`;
  }

  /** Whether the stream's message was about Teams. */
  take(message) {
    if ("teams" in message) this.pictured(message.teams);
    else if ("teams_event" in message) this.happened(message.teams_event);
    else return false;
    return true;
  }

  pictured(picture) {
    const before = this.picture;
    this.picture = picture;
    if (picture && !before) this.webChats.read();
    if (picture?.enabled && !picture.sign_in_needed) this.signIn = null;
    const usable = this.usable;
    if (usable && !this.opened) this.restore();
    else if (usable && before && !usableOf(before)) this.reload();
    else if (!usable && picture && !picture.enabled) this.forget();
    this.show();
    this.changed();
  }

  /** A page that was loaded anew shows what the one before it showed. */
  restore() {
    const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
    const mine = kept?.login === this.login ? kept : {};
    if (mine.place) this.open(mine.place, false);
    else this.openFolder(FOLDERS.includes(mine.folder) ? mine.folder : this.folder);
  }

  keep() {
    sessionStorage.setItem(KEPT, JSON.stringify({ login: this.login, folder: this.folder, place: this.conversation?.place }));
  }

  get usable() {
    return usableOf(this.picture);
  }

  happened(event) {
    this.last = event.id;
    if (event.kind === "message") this.said(event);
    else if (event.kind === "refresh") this.refresh();
    else if (event.kind === "web_chat") this.customerSaid(event);
    else if (event.kind === "chats" && this.chats) this.readChats();
    else if (event.kind === "channels" && this.channels) this.readChannels();
  }

  refresh() {
    this.webChats.read();
    this.reload();
  }

  customerSaid(event) {
    this.webChats.take(event);
    this.changed();
  }

  said({ team, conversation, change, mine, peer, message }) {
    const place = { team, id: conversation };
    const key = keyOf(place);
    const here = this.conversation?.key === key;
    if (here) this.conversation.take(message);
    const pop = this.pops.find((one) => one.key === key && one.id === message.id);
    if (pop) {
      if (message.deleted) this.dismiss(pop);
      else pop.text = inShort(message);
    } else if (change === "new" && !mine && !(here && this.seen) && !this.webChats.with(peer)) {
      if (!here) this.unread.set(key, (this.unread.get(key) ?? 0) + 1);
      this.pops = [...this.pops.filter((one) => one.key !== key), { ...place, key, id: message.id, who: message.author_name, text: inShort(message) }].slice(-MOST_POPS);
    }
    if (change === "new" && !mine && !here) this.tell.announce([t("teams_said", { who: message.author_name, text: inShort(message) })]);
    this.changed();
  }

  /** Whether the agent has the page before his eyes. */
  get seen() {
    return document.visibilityState === "visible" && this.tell.visible();
  }

  /** Without what is on the screen now: that has been read. */
  get popping() {
    if (this.seen) this.pops = this.pops.filter((one) => one.key !== this.conversation?.key);
    return this.pops;
  }

  dismiss(pop) {
    this.pops = this.pops.filter((one) => one !== pop);
    this.changed();
  }

  forget() {
    for (const load of Object.values(this.loads)) load.stop();
    this.conversation?.stop();
    Object.assign(this, { opened: false, conversation: null, people: null, chats: null, channels: null, chosen: "", pops: [] });
    this.unread.clear();
  }

  // ---- folders ----

  /** Also when it is open already: opening it again reads it again. */
  openFolder(name) {
    this.opened = true;
    this.folder = name;
    this.leave();
    this.keep();
    this.reload();
  }

  reload() {
    if (!this.usable) return;
    if (this.folder === "users") this.search(this.query, 0);
    if (this.folder === "chats" || this.chats) this.readChats();
    if (this.folder === "channels" || this.channels) this.readChannels();
    this.conversation?.read();
  }

  search(text, pause = TYPING) {
    this.query = text;
    this.searching = true;
    this.chooseFirst = false;
    clearTimeout(this.typing);
    const read = () => {
      if (this.usable) void this.loads.users.run(() => teamsApi.people(text), (people) => this.found(people));
    };
    if (pause) this.typing = setTimeout(read, pause);
    else read();
  }

  found(people) {
    this.people = people;
    this.active = 0;
    this.searching = false;
    if (this.chooseFirst && people.length) this.chosen = people[0].oid;
    if (!people.some((one) => one.oid === this.chosen)) this.chosen = "";
    this.tell.announce([t("teams_found", { count: people.length })]);
    this.show();
  }

  move(by) {
    if (!this.people?.length) return;
    this.active = (this.active + by + this.people.length) % this.people.length;
    this.changed();
    document.getElementById(optionId(this.people[this.active]))?.scrollIntoView({ block: "nearest" });
  }

  /** Enter: whoever is marked, or the first one once what was typed has been looked up. */
  chooseActive() {
    if (this.searching) this.chooseFirst = true;
    else if (this.people?.length) this.choose(this.people[this.active].oid);
  }

  choose(oid) {
    this.chosen = oid;
    this.active = Math.max(0, this.people.findIndex((one) => one.oid === oid));
    this.changed();
  }

  readChats() {
    void this.loads.chats.run(
      () => teamsApi.chats(this.login),
      (chats) => {
        this.chats = chats;
        this.show();
      },
    );
  }

  readChannels() {
    void this.loads.channels.run(
      () => teamsApi.channels(this.login),
      (channels) => (this.channels = channels),
    );
  }

  async favour(place) {
    const favourite = !place.favourite;
    const done = await this.act(place.team ? teamsApi.favourChannel(this.login, place, favourite) : teamsApi.favourChat(this.login, place, favourite));
    if (!done) return;
    const change = (list, name) => list && sorted(list.map((one) => (keyOf(one) === keyOf(place) ? { ...one, favourite } : one)), name);
    this.chats = change(this.chats, (one) => one.peer_name);
    this.channels = change(this.channels, (one) => `${one.team_name} ${one.name}`);
    if (this.conversation?.key === keyOf(place)) this.conversation.place = { ...this.conversation.place, favourite };
    this.changed();
  }

  // ---- conversations ----

  async chatWith(person) {
    this.waiting = true;
    this.changed();
    try {
      const chat = await teamsApi.openChat(this.login, person.oid);
      this.trouble = null;
      this.open({ team: "", ...chat, peer: person.oid, peer_name: chat.peer_name || person.name });
    } catch (error) {
      this.failed(error);
    } finally {
      this.waiting = false;
      this.changed();
    }
  }

  /** place: a Chat or a Channel. */
  open(place, focused = true) {
    this.leave();
    const key = keyOf(place);
    this.unread.delete(key);
    this.pops = this.pops.filter((one) => one.key !== key);
    this.opened = true;
    this.folder = place.team ? "channels" : "chats";
    this.conversation = new Conversation(this, place);
    this.conversation.read();
    this.keep();
    this.show();
    this.changed();
    if (focused) this.conversation.focus();
  }

  /** Where a pop or an event points to; the lists know its names. */
  async openKey(pop) {
    this.tell.show("desk");
    const known = () => (pop.team ? this.channels : this.chats)?.find((one) => keyOf(one) === pop.key);
    if (!known()) await this.act(pop.team ? this.readNow("channels") : this.readNow("chats"));
    const place = known() ?? (pop.team ? { team: pop.team, id: pop.id, name: "", team_name: "", favourite: false, open: true } : { team: "", id: pop.key, peer: "", peer_name: pop.who, favourite: false });
    this.open({ team: "", ...place });
  }

  async readNow(name) {
    this[name] = await teamsApi[name](this.login);
  }

  leave() {
    this.conversation?.stop();
    this.conversation = null;
  }

  /** Back to the folder, which is read again. */
  back() {
    const { key } = this.conversation;
    this.openFolder(this.folder);
    document.querySelector(`[data-place="${CSS.escape(key)}"]`)?.focus();
  }

  // ---- presences ----

  presenceOf(oid, known = {}) {
    return this.picture?.presences?.[oid] ?? known;
  }

  /** Tells the gateway whose presence is looked at, a moment later: lists come one after the other. */
  show() {
    clearTimeout(this.showing);
    this.showing = setTimeout(() => void this.showNow(), 100);
  }

  async showNow() {
    if (!this.usable || this.closed) return;
    const users = new Set([this.conversation?.place.peer, ...(this.chats ?? []).map((one) => one.peer), ...(this.people ?? []).map((one) => one.oid)].filter(Boolean));
    const wanted = [...users].slice(0, MOST_SHOWN);
    if (this.shown === wanted.join()) return;
    this.shown = wanted.join();
    try {
      const { presences } = await teamsApi.shown(this.login, wanted);
      if (this.picture) this.picture = { ...this.picture, presences: { ...this.picture.presences, ...presences } };
      this.changed();
    } catch {
      this.shown = "";
    }
  }

  // ---- signing in ----

  async enable() {
    // Opened at the click itself: browsers let no page open windows later.
    const tab = window.open("", "_blank");
    try {
      const { sign_in: address } = await teamsApi.enable(this.login);
      this.trouble = null;
      // Who signed in to the desk with Microsoft need not do so again.
      this.signIn = address || null;
      if (!address) tab?.close();
      else if (tab) tab.location.replace(address);
    } catch (error) {
      tab?.close();
      this.failed(error);
    }
    this.changed();
  }

  cancelSignIn() {
    this.signIn = null;
    this.changed();
  }

  async disable() {
    if (await this.act(teamsApi.disable(this.login))) this.forget();
    this.changed();
  }

  /** True when it worked; what did not is shown in the folder. */
  async act(command) {
    try {
      await command;
      this.trouble = null;
      return true;
    } catch (error) {
      this.failed(error);
      return false;
    } finally {
      this.changed();
    }
  }

  failed(error) {
    if (error.status === undefined) throw error;
    this.trouble = troubleOf(error);
  }
}

const usableOf = (picture) => Boolean(picture?.account && picture.connected && picture.enabled && !picture.sign_in_needed);
export const optionId = (person) => `person-${person.oid}`;
