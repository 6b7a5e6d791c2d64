// What Teams' words mean to the page. Pure: no page, no network.

import { legOf, reasonText } from "./model.js";
import { t } from "./texts.js";

const ICONS = {
  Available: ["available", "✓"],
  AvailableIdle: ["available", "✓"],
  Busy: ["busy", ""],
  BusyIdle: ["busy", ""],
  DoNotDisturb: ["busy", "–"],
  Away: ["away", "◔"],
  BeRightBack: ["away", "◔"],
  Offline: ["offline", "×"],
};
const UNTOLD = ["offline", "?"];

/** The icon's kind and sign: signs differ, so colour alone says nothing. */
export const presenceIcon = (availability) => ICONS[availability] ?? UNTOLD;

export function presenceText({ availability, activity }) {
  if (!availability || availability === "PresenceUnknown") return t("teams_presence_unknown");
  const first = word("teams_presence", availability);
  if (!activity || activity === availability || activity === "None" || activity === `${availability}Inactive`) return first;
  return t("teams_presence_with", { availability: first, activity: word("teams_activity", activity) });
}

/** A word that the table lacks is taken apart at its capitals: Graph adds some now and then. */
const word = (table, name) => t(`${table}_${name}`, {}, name.replace(/(?<=[a-z])(?=[A-Z])/g, " ").toLowerCase());

export const dialled = (number) => number.replace(/[^+\d]/g, "");

/** Ways to call somebody: {number, digits, shown}; shown "" is the attendant. The one to dial first comes first. */
export function waysTo(person) {
  const ways = person.numbers.map((shown) => ({ number: dialled(shown), digits: "", shown })).filter((way) => way.number);
  if (person.number && !ways.some((way) => way.number === person.number && !person.digits)) {
    ways.unshift({ number: person.number, digits: person.digits, shown: "" });
  }
  return ways;
}

/** What the agent can do with a number now: {kind: "free"}, {kind: "call", call, leg}, or {kind: "wait"}. */
export function callState(picture, login) {
  const mine = (picture?.calls ?? []).filter((call) => legOf(call, login));
  if (mine.length === 0) return { kind: "free" };
  const able = mine.filter((call) => call.state === "up" && legOf(call, login).state === "up" && !call.consultation && !call.consultation_of);
  const call = able.find((one) => !legOf(one, login).holding) ?? able[0];
  return call ? { kind: "call", call, leg: legOf(call, login) } : { kind: "wait" };
}

/** `messages` with `found` in its place: by id, in the order they were written. Of a deletion only the id counts. */
export function merged(messages, found) {
  if (found.deleted) return messages.map((one) => (one.id === found.id ? { ...one, text: "", labels: [], deleted: true } : one));
  return [...messages.filter((one) => one.id !== found.id), found].sort((one, other) => (one.created < other.created ? -1 : one.created > other.created ? 1 : 0));
}

export const keyOf = (place) => (place.team ? `${place.team} ${place.id}` : place.id);

/** Favourites first, then by name, as the gateway sorts them. */
export function sorted(list, nameOf) {
  return [...list].sort((one, other) => Number(other.favourite) - Number(one.favourite) || nameOf(one).localeCompare(nameOf(other)));
}

/** A message in a line: its text, else what it carries. */
export const inShort = (message) => message.text || message.labels.join(", ");

/** What is wrong, for people: {kind, text, again}; again: trying again may help. */
export function troubleOf(error) {
  const { status, reason } = error;
  if (status === 0) return { kind: "gateway", text: t("not_reached"), again: true };
  if (reason === "no_account") return { kind: "off", text: t("teams_off"), again: false };
  if (reason === "sign_in_needed") return { kind: "sign_in", text: t("teams_sign_in_again"), again: false };
  if (reason === "throttled") return { kind: "throttled", text: t("teams_throttled"), again: true };
  if (reason === "permission_missing") return { kind: "permission", text: t("teams_permission"), again: false };
  if (reason === "not_there") return { kind: "gone", text: t("teams_gone"), again: false };
  if (status >= 500) return { kind: "down", text: t("teams_down"), again: true };
  return { kind: "other", text: t("failed", { text: reasonText(error) }), again: false };
}
