// The folders Teams Chats and Teams Channels: lists to open conversations from, favourites first.

import { h } from "./dom.js";
import { keyOf } from "./teams_model.js";
import { presenceOf } from "./teams_people_view.js";
import { unreadBadge } from "./teams_view.js";
import { t } from "./texts.js";

export function chatList({ teams }) {
  const { chats, loads } = teams;
  if (!chats) return waiting(loads.chats);
  if (chats.length === 0) return empty("teams_no_chats");
  return list(
    "teams_chats",
    chats.map((one) => row({ team: "", ...one }, one.peer_name || t("teams_unnamed"), "", teams, presenceOf({ oid: one.peer }, teams))),
  );
}

export function channelList({ teams }) {
  const { channels, loads } = teams;
  if (!channels) return waiting(loads.channels);
  if (channels.length === 0) return empty("teams_no_channels");
  return list(
    "teams_channels",
    channels.map((one) => row(one, one.name, one.team_name, teams, one.open && h("span", { class: "badge" }, t("teams_open_here")))),
  );
}

const waiting = (load) => load.loading && !load.slow && h("p", { class: "empty", "data-key": "loading" }, t("teams_loading"));
const empty = (key) => h("p", { class: "empty", "data-key": "empty" }, t(key));
const list = (name, rows) => h("ul", { class: "places", "data-key": name, "aria-label": t(name) }, rows);

function row(place, name, more, teams, sign) {
  const key = keyOf(place);
  const count = teams.unread.get(key) ?? 0;
  return h(
    "li",
    { class: "place", "data-key": key },
    h(
      "button",
      { type: "button", class: "open", "data-key": "open", "data-place": key, onclick: () => teams.open(place) },
      h("span", { class: "name" }, name),
      more && h("span", { class: "soft" }, more),
      sign,
      count > 0 && unreadBadge(count),
    ),
    star(place, more ? `${more}, ${name}` : name, teams),
  );
}

export function star(place, name, teams) {
  return h(
    "button",
    {
      type: "button",
      class: "star",
      "data-key": "star",
      "aria-pressed": String(place.favourite),
      "aria-label": t("teams_favourite", { name }),
      title: t(place.favourite ? "teams_favourite_off" : "teams_favourite_on"),
      onclick: () => void teams.favour(place),
    },
    h("span", { "aria-hidden": "true" }, place.favourite ? "★" : "☆"),
  );
}
