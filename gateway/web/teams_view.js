// The Teams part of the desk: three folders, an open conversation in the place of its folder, and what pops up.

import { h } from "./dom.js";
import { channelList, chatList } from "./teams_lists_view.js";
import { conversationView } from "./teams_conversation_view.js";
import { peopleFolder } from "./teams_people_view.js";
import { FOLDERS } from "./teams_state.js";
import { t } from "./texts.js";

const PANEL = "teams-panel";

/** null where there is nothing of Teams: no agent, or a gateway without [graph]. */
export function teamsView(desk) {
  const { teams } = desk;
  if (!teams?.picture) return null;
  return h(
    "section",
    { class: "teams", "data-key": "teams", "aria-labelledby": "teams" },
    h("h2", { id: "teams" }, t("teams")),
    notices(teams),
    teams.usable ? folders(desk) : gate(teams),
  );
}

function folders(desk) {
  const { teams } = desk;
  return h(
    "div",
    { class: "card", "data-key": "folders" },
    h("div", { class: "tabs", role: "tablist", "aria-label": t("teams_folders"), onkeydown: (event) => step(event, teams) }, FOLDERS.map((name) => tab(name, teams))),
    h(
      "div",
      { id: PANEL, class: "panel", role: "tabpanel", "data-key": "panel", "aria-labelledby": `teams-tab-${teams.folder}` },
      teams.trouble && troubleLine(teams.trouble, () => teams.act(Promise.resolve())),
      teams.conversation ? conversationView(desk) : folder(desk),
    ),
  );
}

function folder(desk) {
  const { folder: name, loads } = desk.teams;
  const load = loads[name];
  return [
    loadLine(load),
    name === "users" ? peopleFolder(desk) : name === "chats" ? chatList(desk) : channelList(desk),
  ];
}

function tab(name, teams) {
  const here = teams.folder === name;
  const count = unreadIn(teams, name);
  return h(
    "button",
    {
      type: "button",
      role: "tab",
      id: `teams-tab-${name}`,
      "data-key": name,
      "aria-selected": String(here),
      "aria-controls": here ? PANEL : null,
      tabindex: here ? "0" : "-1",
      onclick: () => teams.openFolder(name),
    },
    t(`teams_${name}`),
    count > 0 && [" ", unreadBadge(count)],
  );
}

function unreadIn(teams, name) {
  if (name === "users") return 0;
  const inChannel = (key) => key.includes(" ");
  return [...teams.unread].filter(([key]) => inChannel(key) === (name === "channels")).reduce((sum, [, count]) => sum + count, 0);
}

export const unreadBadge = (count) => h("span", { class: "unread", "data-key": "unread" }, String(count), h("span", { class: "unseen" }, ` ${t("teams_unread")}`));

function step(event, teams) {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const at = event.key === "Home" ? 0 : event.key === "End" ? FOLDERS.length - 1 : by && (FOLDERS.indexOf(teams.folder) + by + FOLDERS.length) % FOLDERS.length;
  if (at === undefined) return;
  event.preventDefault();
  teams.openFolder(FOLDERS[at]);
  document.getElementById(`teams-tab-${FOLDERS[at]}`).focus();
}

/** A trouble of the folder's or the conversation's; with a way out where there is one. */
export function troubleLine(trouble, dismiss) {
  return h(
    "p",
    { class: "trouble", role: "alert", "data-key": "trouble" },
    h("span", {}, trouble.text, trouble.again && !dismiss && [" ", t("teams_trying_again")]),
    dismiss && h("button", { type: "button", class: "small", onclick: dismiss }, t("dismiss")),
  );
}

/** How reading goes, when that is worth a line. */
export function loadLine(load) {
  if (load.trouble) return troubleLine(load.trouble);
  return load.slow ? h("p", { class: "empty", role: "status", "data-key": "slow" }, t("teams_slow")) : null;
}

/** What the gateway says of Teams as a whole. */
function notices(teams) {
  const said = new Set((teams.picture.notices ?? []).map(noticeText));
  return [...said].map((text) => h("p", { class: "trouble", role: "status", "data-key": `notice ${text}` }, text));
}

const noticeText = (one) => (one.kind === "graph" ? t("teams_down") : one.kind === "notifications" ? t("teams_not_live") : t("teams_secret", { text: one.text }));

/** What stands in the folders' place while Teams cannot be used. */
export function gate(teams) {
  const { account, connected, mapped, enabled } = teams.picture;
  if (!account) return say("off", t("teams_off"));
  if (!connected) return say("connecting", t("teams_connecting"));
  if (!enabled && mapped === false) return say("unmapped", t("teams_unmapped"));
  return h(
    "div",
    { class: "card gate", "data-key": "gate" },
    h("p", { class: enabled ? "trouble" : "", role: enabled ? "alert" : null }, t(enabled ? "teams_sign_in_again" : "teams_not_enabled")),
    teams.trouble && troubleLine(teams.trouble, () => teams.act(Promise.resolve())),
    signInButton(teams),
  );
}

const say = (key, text) => h("p", { class: "card gate", role: "status", "data-key": key }, text);

export function signInButton(teams) {
  if (teams.signIn === null) {
    return h("button", { type: "button", class: "primary", "data-key": "enable", onclick: () => void teams.enable() }, t(teams.picture.enabled ? "teams_sign_in" : "teams_enable"));
  }
  return h(
    "div",
    { class: "waiting", role: "status", "data-key": "waiting" },
    h("p", {}, t("teams_waiting")),
    h("a", { class: "button", href: teams.signIn, target: "_blank", rel: "noopener noreferrer" }, t("teams_open_sign_in")),
    h("button", { type: "button", class: "small", onclick: () => teams.cancelSignIn() }, t("teams_cancel")),
  );
}

/** Messages that came while their conversation was not on the screen. */
export function teamsPops(desk) {
  const { teams } = desk;
  const pops = teams?.popping ?? [];
  if (pops.length === 0) return null;
  return h(
    "section",
    { class: "message-pops", "data-key": "teams-pops", "aria-label": t("teams_new_messages") },
    pops.map((pop) =>
      h(
        "div",
        { class: "message-pop", "data-key": pop.key },
        h("strong", {}, pop.who),
        h("span", { class: "text" }, pop.text),
        h("button", { type: "button", class: "small", "data-key": "open", "aria-label": t("teams_open_from", { who: pop.who }), onclick: () => void teams.openKey(pop) }, t("teams_open")),
        h("button", { type: "button", class: "small", "data-key": "dismiss", "aria-label": t("teams_dismiss_from", { who: pop.who }), onclick: () => teams.dismiss(pop) }, t("dismiss")),
      ),
    ),
  );
}
