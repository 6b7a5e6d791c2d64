// Everybody's states and calls, for supervisors; listen, whisper and barge in over the supervisor's telephone.

import { commands } from "./api.js";
import { since } from "./call_card.js";
import { h } from "./dom.js";
import { nameOf, stateText, statusOf } from "./model.js";
import { t } from "./texts.js";

const MODES = ["listen", "whisper", "barge"];
const PHONE = "tandem.my_phone";

export function supervisorView(desk) {
  const { agents, calls } = desk.everybody;
  const names = Object.fromEntries(agents.map((agent) => [agent.login, agent.name || agent.login]));
  return h(
    "div",
    { class: "columns supervisor", "data-key": "supervisor" },
    h(
      "section",
      { "aria-labelledby": "all-calls" },
      phoneField(),
      h("h2", { id: "all-calls" }, t("all_calls")),
      calls.length === 0 && h("p", { class: "empty" }, t("no_calls")),
      calls.map((call) => callRow(call, desk, names)),
    ),
    h("section", { "aria-labelledby": "agents" }, h("h2", { id: "agents" }, t("agents")), agentTable(agents)),
  );
}

function agentTable(agents) {
  if (agents.length === 0) return h("p", { class: "empty" }, t("no_agents"));
  return h(
    "table",
    { class: "card" },
    h("thead", {}, h("tr", {}, ["name", "team", "state", "calls"].map((name) => h("th", { scope: "col" }, t(name))))),
    h(
      "tbody",
      {},
      agents.map((agent) =>
        h(
          "tr",
          { "data-key": agent.login },
          h("th", { scope: "row" }, agent.name || agent.login),
          h("td", {}, agent.team),
          h("td", {}, h("span", { class: `badge state-${agent.state}` }, stateText(agent.state, agent.reason), " ", h("span", { class: "timer", ...since(agent.since) }))),
          h("td", {}, String(agent.calls.length)),
        ),
      ),
    ),
  );
}

function phoneField() {
  const keep = (event) => localStorage.setItem(PHONE, event.target.value.trim());
  return h(
    "div",
    { class: "card dial", "data-key": "phone" },
    h("label", { for: "my-phone" }, t("my_phone")),
    h("input", { id: "my-phone", type: "tel", autocomplete: "tel", "aria-describedby": "my-phone-hint", value: localStorage.getItem(PHONE) ?? "", oninput: keep }),
    h("small", { id: "my-phone-hint" }, t("my_phone_hint")),
  );
}

function callRow(call, desk, names) {
  const present = call.legs.filter((leg) => !leg.supervision);
  const label = present.map((leg) => nameOf(leg, "", names)).join(" – ");
  return h(
    "article",
    { class: "card call", "data-key": call.id, "aria-label": label },
    h("header", { class: "card-head" }, h("h3", {}, label), h("span", { class: "timer", ...since(call.started_at) })),
    h("ul", { class: "people", "aria-label": t("participants") }, call.legs.map((leg) => partyRow(call, leg, desk, names))),
  );
}

function partyRow(call, leg, desk, names) {
  const who = nameOf(leg, "", names);
  return h(
    "li",
    { class: "person", "data-key": leg.id },
    h("div", { class: "who" }, h("strong", {}, who), h("span", { class: "kind" }, t(leg.party))),
    h("span", { class: `status ${leg.state === "up" ? "up" : "waiting"}` }, statusOf(leg)),
    leg.holding && !leg.away && h("span", { class: "badge hold" }, t("holds")),
    leg.muted && h("span", { class: "badge" }, t("muted")),
    leg.supervision ? changeMode(call, leg, desk, who) : leg.login && leg.state === "up" && !leg.away ? begin(call, leg, desk, who) : null,
  );
}

function begin(call, leg, desk, who) {
  const supervise = (mode) => () => {
    const number = (localStorage.getItem(PHONE) ?? "").replace(/[\s()/-]/g, "");
    if (number) return void desk.act(commands.supervise(call.id, leg.id, number, mode));
    desk.say(t("my_phone_missing"));
    document.getElementById("my-phone").focus();
  };
  return h(
    "span",
    { class: "row-commands" },
    MODES.map((mode) => h("button", { type: "button", class: "small", "data-key": mode, "aria-label": t("mode_of", { mode: t(mode), who }), onclick: supervise(mode) }, t(mode))),
  );
}

function changeMode(call, leg, desk, who) {
  return h(
    "span",
    { class: "row-commands" },
    MODES.map((mode) =>
      h(
        "button",
        {
          type: "button",
          class: "small",
          "data-key": mode,
          "aria-pressed": String(leg.supervision === mode),
          "aria-label": t("mode_of", { mode: t(mode), who }),
          onclick: () => desk.act(commands.change(call.id, leg.id, { supervision: mode })),
        },
        t(mode),
      ),
    ),
    h("button", { type: "button", class: "small danger", "data-key": "stop", "aria-label": t("mode_of", { mode: t("stop"), who }), onclick: () => desk.act(commands.hangUp(call.id, leg.id)) }, t("stop")),
  );
}
