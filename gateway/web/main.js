// The page as a whole: who has signed in, the streams of pictures, and what is drawn when something changes.

import { ask, commands, onSignedOut, useCsrf } from "./api.js";
import { now } from "./clock.js";
import { deskView, incomingPop } from "./desk_view.js";
import { h, morph } from "./dom.js";
import { forgetDrafts } from "./drafts.js";
import { Missed } from "./missed.js";
import { changes, isIncoming, legOf, reasonText } from "./model.js";
import { Phone } from "./phone.js";
import { signInView } from "./sign_in_view.js";
import { statePicker, watchPicker } from "./state_view.js";
import { Stream } from "./stream.js";
import { supervisorView } from "./supervisor_view.js";
import { TeamsAccount, accountView, secretWarning } from "./teams_account_view.js";
import { profileView } from "./teams_profile_view.js";
import { Teams } from "./teams_state.js";
import { teamsPops } from "./teams_view.js";
import { language, span, t, timeOf } from "./texts.js";

const KEPT = "tandem.last_picture";
const HISTORY_ROWS = 20;
const AGAIN = 1500;
const HISTORY_EVERY = 30000;
const WARNING = 15 * 60 * 1000;

const desk = {
  me: null,
  login: "",
  ways: null,
  picture: null,
  everybody: null,
  history: [],
  connected: false,
  lost: false,
  missed: null,
  notice: "",
  view: "desk",
  panels: new Set(),
  under_way: new Set(),
  streams: [],
  phone: null,
  teams: null,
  teamsAccount: null,
  act,
  once,
  say,
  redraw,
};

document.documentElement.lang = language;

// ---- drawing ----

function redraw() {
  const app = document.getElementById("app");
  const focus = whereFocusIs();
  const wanted = document.createElement("div");
  wanted.append(...(desk.me ? [head(), body()] : desk.ways ? [signInView(signInPage())] : []));
  morph(app, wanted);
  keepFocus(focus);
  const ringing = desk.picture?.calls.some((call) => isIncoming(call, desk.login));
  document.title = `${ringing ? `☎ ${t("incoming")} · ` : ""}${t("product")} ${t("desktop")}`;
  tick();
}

/** The keys of what holds the focus, from inside to outside. */
function whereFocusIs() {
  const keys = [];
  for (let node = document.activeElement; node && node !== document.body; node = node.parentElement) if (node.dataset.key) keys.push(node.dataset.key);
  return keys;
}

/** When the button that was pressed is gone, the focus goes to the next that is still there around it. */
function keepFocus(keys) {
  if (!keys.length || document.activeElement !== document.body) return;
  const cards = keys.map((key) => key.replace(/^pop /, "")).filter((key) => key !== "main");
  for (const key of [...cards, "main"]) {
    const near = document.querySelector(`[data-key="${CSS.escape(key)}"][tabindex]`);
    if (near) return near.focus({ preventScroll: true });
  }
}

function head() {
  const supervises = desk.me.role !== "agent";
  const tabs = [
    [desk.me.agent || supervises, "desk", "my_desk"],
    [supervises, "supervisor", "supervisor"],
    [desk.me.agent, "profile", "profile"],
    [desk.teamsAccount, "administration", "administration"],
  ].filter(([there]) => there);
  const tab = (name, text) =>
    h("button", { type: "button", "data-key": name, "aria-current": desk.view === name ? "page" : null, onclick: () => show(name) }, text);
  return h(
    "header",
    { class: "top", "data-key": "top" },
    h("h1", {}, h("span", { class: "brand" }, t("product")), " ", h("span", { class: "wide" }, t("desktop"))),
    h("span", { class: `link ${desk.connected ? "up" : "down"}`, role: "status" }, desk.connected ? t("connected") : t(desk.lost ? "lost" : "connecting")),
    tabs.length > 1 && h("nav", { "aria-label": t("views") }, tabs.map(([, name, text]) => tab(name, t(text)))),
    statePicker(desk),
    !desk.me.agent && h("span", { class: "me" }, desk.me.name || desk.me.login),
    h("button", { type: "button", "data-key": "log-out", onclick: logOut }, t("log_out")),
  );
}

function body() {
  return h(
    "main",
    { "data-key": "main", tabindex: "-1" },
    incomingPop(desk),
    desk.notice && h("div", { class: "notice", role: "alert", "data-key": "notice" }, h("span", {}, desk.notice), h("button", { type: "button", class: "small", onclick: () => say("") }, t("dismiss"))),
    desk.missed?.view(),
    secretWarning(desk),
    teamsPops(desk),
    view(),
  );
}

function view() {
  if (desk.view === "supervisor") return desk.everybody && supervisorView(desk);
  if (desk.view === "profile") return profileView(desk);
  if (desk.view === "administration") return accountView(desk);
  return desk.picture && deskView(desk);
}

/** Timers run in the page; what they count from is the gateway's. */
function tick() {
  for (const node of document.querySelectorAll("[data-since]")) {
    const at = Number(node.dataset.since);
    const text = at ? span((now() - at) / 1000) : "";
    if (node.textContent !== text) node.textContent = text;
  }
}

function show(view) {
  desk.view = view;
  redraw();
}

function say(text) {
  desk.notice = text;
  redraw();
}

function announce(said) {
  if (said.length) document.getElementById("announce").textContent = said.join(". ");
}

// ---- commands ----

/** True when it worked; what did not is shown. */
async function act(command) {
  try {
    await command;
    if (desk.notice) say("");
    return true;
  } catch (error) {
    say(explain(error));
    return false;
  }
}

/** A command under a key is not given a second time while the first is under way. */
async function once(key, command) {
  if (desk.under_way.has(key)) return;
  desk.under_way.add(key);
  try {
    await command();
  } finally {
    desk.under_way.delete(key);
  }
}

const explain = (error) => (error.status === 0 ? t("not_reached") : t("failed", { text: reasonText(error) }));

async function logOut() {
  if (desk.picture?.calls.some((call) => legOf(call, desk.login)?.state === "up")) return say(t("log_out_in_call"));
  if (desk.picture?.agent && desk.picture.agent.state !== "logged_out") {
    // Whoever stays ready without a page gets calls that nobody takes.
    if (!(await act(commands.chooseState(desk.login, "logged_out")))) return;
  }
  try {
    await ask("DELETE", "/api/v1/me/session");
  } catch (error) {
    if (error.status !== 401) return say(explain(error));
  }
  leave("");
}

// ---- signing in and out ----

function signInPage() {
  return {
    ways: desk.ways,
    notice: desk.notice,
    hangUp: desk.waiting && hangUpWaiting,
    once,
    signedIn: enter,
    fail: (error) => say(explain(error)),
  };
}

/** Of several tries that are under way the last one counts, and one is enough. */
async function enter() {
  clearTimeout(desk.trying);
  const attempt = (desk.entering = Symbol("attempt"));
  const stale = () => attempt !== desk.entering || desk.me;
  let me;
  try {
    me = await ask("GET", "/api/v1/me");
  } catch (error) {
    if (stale()) return;
    if (error.status === 401) return askForSignIn(desk.notice);
    return later(error, enter);
  }
  if (stale()) return;
  desk.me = me;
  useCsrf(desk.me.csrf);
  desk.login = desk.me.login;
  desk.notice = "";
  desk.warned = false;
  desk.view = desk.me.agent || desk.me.role === "agent" ? "desk" : "supervisor";
  desk.missed = new Missed(desk, { read: readHistory, announce });
  restoreKept();
  const teams = (desk.teams = new Teams(desk.login, { redraw, announce, show, visible: () => desk.view === "desk" }));
  desk.streams = [new Stream(() => teams.path("/api/v1/me/events"), { picture: (told) => teams.take(told) || mine(told), connected: linked })];
  if (desk.me.role !== "agent") desk.streams.push(new Stream(() => "/api/v1/desk/events", { picture: everybody, connected: () => {} }));
  if (desk.me.role === "administrator") desk.teamsAccount = new TeamsAccount(redraw);
  desk.phone = telephone();
  redraw();
  void readHistory();
}

/** The one that waited for him to sign in again, with his call, or a new one. */
function telephone() {
  const { waiting } = desk;
  desk.waiting = null;
  if (waiting && waiting.login === desk.login && desk.me.agent) return waiting.phone;
  waiting?.phone.end();
  return desk.me.agent ? new Phone(rung, (error) => say(t("microphone_refused", { text: error.message })), say) : null;
}

function rung() {
  if (desk.waiting && !desk.waiting.phone.talking) stopWaiting();
  redraw();
}

function stopWaiting() {
  const { phone } = desk.waiting;
  desk.waiting = null;
  phone.end();
}

function hangUpWaiting() {
  desk.waiting.phone.hangUp();
  stopWaiting();
  redraw();
}

async function askForSignIn(notice = "") {
  try {
    desk.ways = await ask("GET", "/sign-in");
  } catch (error) {
    return later(error, askForSignIn);
  }
  if (!desk.me) say(notice);
}

function later(error, again) {
  desk.notice = explain(error);
  desk.ways ??= { local: true, entra: false };
  redraw();
  desk.trying = setTimeout(again, AGAIN);
}

function leave(notice) {
  for (const stream of desk.streams) stream.close();
  // A call outlives the session: he may talk on, and sign in meanwhile.
  if (notice && desk.phone?.talking) desk.waiting = { login: desk.login, phone: desk.phone };
  else desk.phone?.end();
  desk.teams?.close();
  desk.teamsAccount?.close();
  desk.missed?.close();
  Object.assign(desk, { teams: null, teamsAccount: null, me: null, login: "", picture: null, everybody: null, history: [], streams: [], phone: null, connected: false, lost: false, missed: null });
  desk.panels.clear();
  forgetDrafts();
  sessionStorage.removeItem(KEPT);
  void askForSignIn(notice);
}

/** A session ends after a time, whatever is done with it: he is told while there is time between calls. */
function warnOfEnd() {
  if (!desk.me || desk.warned || desk.me.expires_at - now() > WARNING) return;
  desk.warned = true;
  say(t("session_ends", { time: timeOf(desk.me.expires_at) }));
}

onSignedOut(() => desk.me && leave(t("session_over")));

// ---- pictures ----

function linked(connected) {
  if (connected === desk.connected) return;
  desk.connected = connected;
  if (!connected) desk.missed.begin(now());
  else if (desk.lost) desk.phone?.refresh();
  desk.lost = !connected;
  redraw();
  if (!connected) void stillSignedIn();
}

/** The stream also ends when the session does; then there is nothing to come back to. */
async function stillSignedIn() {
  try {
    await ask("GET", "/api/v1/me");
  } catch {
    // 401 was told to onSignedOut; anything else the stream tries again.
  }
}

function mine(picture) {
  const before = desk.picture;
  desk.picture = picture;
  const said = before ? changes(before, picture, desk.login) : [];
  desk.missed.take(picture, said);
  announce(said);
  keepPicture();
  if (before?.calls.some((call) => !picture.calls.some((one) => one.id === call.id))) {
    void readHistory();
    setTimeout(readHistory, AGAIN);
  }
  redraw();
}

function everybody(picture) {
  desk.everybody = picture;
  redraw();
}

/** A page that was loaded anew says what happened since the one before it. */
function restoreKept() {
  const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
  if (kept?.login !== desk.login) return;
  desk.picture = kept.picture;
  desk.missed.restore(kept);
}

function keepPicture() {
  if (desk.picture) sessionStorage.setItem(KEPT, JSON.stringify({ login: desk.login, picture: desk.picture, ...desk.missed.kept() }));
}

async function readHistory() {
  if (!desk.me) return;
  try {
    const page = await ask("GET", `/api/v1/call-detail?agent=${encodeURIComponent(desk.login)}&limit=${HISTORY_ROWS}`);
    desk.history = page.rows;
    desk.missed?.know(page.rows);
  } catch (error) {
    if (error.status !== 0 && error.status !== 401) desk.notice = explain(error);
  }
  redraw();
}

// ---- begin ----

const refused = new URLSearchParams(location.search).get("refused");
if (refused) {
  desk.notice = t(`refused_${refused}`, {}, t("refused", { reason: refused }));
  history.replaceState(null, "", location.pathname);
}
watchPicker(desk);
addEventListener("pagehide", () => desk.me && keepPicture());
setInterval(tick, 1000);
setInterval(warnOfEnd, 1000);
setInterval(readHistory, HISTORY_EVERY);
void enter();
