// What a picture means to one agent. Pure: no page, no network.

import { t } from "./texts.js";

export const legOf = (call, login) => call.legs.find((leg) => leg.login === login && !leg.supervision);
export const supervisionOf = (call, login) => call.legs.find((leg) => leg.login === login && leg.supervision);
export const others = (call, login) => call.legs.filter((leg) => leg.login !== login && !leg.supervision);

export function nameOf(leg, login = "", names = {}) {
  if (leg.login && leg.login === login) return t("you");
  return names[leg.login] || leg.login || leg.number || t("withheld");
}

/** The name with what the party is: "Teams expert +1555…". */
export function titleOf(leg, login) {
  if (leg.login && leg.login === login) return t("you");
  return `${t(leg.party)} ${nameOf(leg)}`;
}

export function whoIs(call, login) {
  const found = others(call, login);
  if (found.length) return found.map((leg) => nameOf(leg)).join(", ");
  const mine = legOf(call, login);
  return (mine?.role === "caller" ? call.to_number : call.from_number) || t("withheld");
}

export function hostsOrHasNone(call, login) {
  const host = call.legs.find((leg) => leg.host && leg.state === "up" && leg.party === "agent");
  return !host || host.login === login;
}

export const rings = (leg) => leg !== undefined && leg.state !== "up";
export const isIncoming = (call, login) => {
  const mine = legOf(call, login);
  return rings(mine) && mine.role !== "caller";
};
export const holders = (call) => call.legs.filter((leg) => leg.holding && !leg.away);

export function statusOf(leg) {
  if (leg.away) return t("away");
  if (leg.state === "dialling" || leg.state === "incoming") return t("calling");
  if (leg.state === "ringing") return t("ringing");
  return leg.on_hold ? t("on_hold") : t("talking");
}

/** What happened between two pictures, as sentences in no particular language. */
export function changes(before, after, login) {
  const said = [];
  const old = new Map(before.calls.map((call) => [call.id, call]));
  for (const call of after.calls) {
    const was = old.get(call.id);
    old.delete(call.id);
    const who = whoIs(call, login);
    if (!was) said.push(t(isIncoming(call, login) ? "said_incoming" : "said_began", { who }));
    else said.push(...legChanges(was, call, login));
  }
  for (const call of old.values()) said.push(t("said_ended", { who: whoIs(call, login) }));
  const [then, now] = [before.agent, after.agent];
  if (then && now && (then.state !== now.state || then.reason !== now.reason)) {
    said.push(t("said_state", { state: stateText(now.state, now.reason) }));
  }
  return said;
}

function legChanges(before, after, login) {
  const said = [];
  const old = new Map(before.legs.map((leg) => [leg.id, leg]));
  for (const leg of after.legs) {
    const was = old.get(leg.id);
    old.delete(leg.id);
    const who = titleOf(leg, login);
    if (!was) said.push(t("said_joined", { who }));
    else if (was.state !== "up" && leg.state === "up") said.push(t("said_answered", { who }));
    if (leg.holding && !was?.holding && !leg.away) said.push(t("said_holds", { who }));
    if (was?.holding && !leg.holding) said.push(t("said_resumes", { who }));
  }
  for (const leg of old.values()) said.push(t("said_left", { who: titleOf(leg, login) }));
  return said;
}

/** The other side's number in a row of call detail, "" when withheld. */
export const otherOf = (row, login) => (row.caller_login_id === login ? row.connected_to_phone || row.original_destination_phone : row.from_phone) ?? "";

/** Why the gateway refused, in the page's language where the page knows the reason. */
export const reasonText = (error) => t(`reason_${error.reason}`, {}, error.message);

export const stateText = (state, reason) =>
  state === "not_ready" && reason ? t("not_ready_because", { reason }) : t(state);
