// The agent's own profile: Teams on or off for him.

import { h } from "./dom.js";
import { gate, signInButton, troubleLine } from "./teams_view.js";
import { t } from "./texts.js";

export function profileView(desk) {
  const { teams, me } = desk;
  return h(
    "div",
    { class: "narrow", "data-key": "profile" },
    h("h2", {}, t("profile")),
    h("section", { class: "card", "aria-label": t("profile") }, h("dl", {}, h("dt", {}, t("name")), h("dd", {}, me.name || me.login), h("dt", {}, t("login")), h("dd", {}, me.login), h("dt", {}, t("teams_role")), h("dd", {}, t(me.role)))),
    h("h2", { id: "profile-teams" }, t("teams")),
    h("section", { "aria-labelledby": "profile-teams", "data-key": "profile-teams" }, teamsPart(teams)),
  );
}

function teamsPart(teams) {
  const picture = teams?.picture;
  if (!picture) return h("p", { class: "card gate" }, t("teams_absent"));
  if (!picture.account || !picture.enabled) return gate(teams);
  return h(
    "div",
    { class: "card gate", "data-key": "enabled" },
    h("p", {}, t("teams_enabled_as", { name: picture.name || picture.oid })),
    picture.sign_in_needed && [h("p", { class: "trouble", role: "alert" }, t("teams_sign_in_again")), signInButton(teams)],
    teams.trouble && troubleLine(teams.trouble, () => teams.act(Promise.resolve())),
    h("p", { class: "soft" }, t("teams_busy_sync")),
    h("button", { type: "button", class: "danger", "data-key": "disable", onclick: () => void teams.disable() }, t("teams_disable")),
  );
}
