// The folder Teams Users: search as you type, presence, and ways to reach somebody.

import { commands } from "./api.js";
import { h } from "./dom.js";
import { callState, presenceIcon, presenceText, waysTo } from "./teams_model.js";
import { optionId } from "./teams_state.js";
import { joinButtons } from "./teams_web_chats_view.js";
import { t } from "./texts.js";

const LIST = "teams-people";
const FIELD = "teams-search";

export function peopleFolder(desk) {
  const { teams } = desk;
  const { people, loads } = teams;
  const active = people?.[teams.active];
  const chosen = people?.find((one) => one.oid === teams.chosen);
  return [
    h("label", { for: FIELD, "data-key": "label" }, t("teams_search")),
    h("input", {
      id: FIELD,
      "data-key": "search",
      type: "text",
      role: "combobox",
      autocomplete: "off",
      spellcheck: "false",
      maxlength: "100",
      placeholder: t("teams_search_hint"),
      value: teams.query,
      "aria-autocomplete": "list",
      "aria-expanded": String(Boolean(people?.length)),
      "aria-controls": LIST,
      "aria-activedescendant": active ? optionId(active) : null,
      oninput: (event) => teams.search(event.target.value),
      onkeydown: (event) => keyed(event, teams),
    }),
    !people && loads.users.loading && !loads.users.slow && h("p", { class: "empty", "data-key": "loading" }, t("teams_loading")),
    people?.length === 0 && h("p", { class: "empty", "data-key": "nobody" }, t("teams_nobody", { text: teams.query })),
    h(
      "ul",
      { id: LIST, class: "options", role: "listbox", "data-key": "options", "aria-label": t("teams_users"), hidden: !people?.length },
      people?.map((one) => option(one, teams, one === active)),
    ),
    chosen && personCard(chosen, desk),
  ];
}

function keyed(event, teams) {
  if (event.key === "ArrowDown") teams.move(1);
  else if (event.key === "ArrowUp") teams.move(-1);
  else if (event.key === "Enter") teams.chooseActive();
  else if (event.key === "Escape" && event.target.value) {
    event.target.value = "";
    teams.search("", 0);
  } else return;
  event.preventDefault();
}

function option(person, teams, active) {
  return h(
    "li",
    {
      id: optionId(person),
      "data-key": person.oid,
      class: active ? "option active" : "option",
      role: "option",
      "aria-selected": String(person.oid === teams.chosen),
      onclick: () => teams.choose(person.oid),
    },
    h("span", { class: "name" }, person.name),
    h("span", { class: "soft" }, [person.title, person.department].filter(Boolean).join(", ")),
    presenceOf(person, teams),
  );
}

/** Icon and words: neither the colour nor the shape has to be made out. */
export function presenceOf(person, teams) {
  const presence = teams.presenceOf(person.oid, person);
  const [kind, sign] = presenceIcon(presence.availability);
  return h("span", { class: "presence" }, h("span", { class: `sign ${kind}`, "aria-hidden": "true" }, sign), presenceText(presence));
}

function personCard(person, desk) {
  const { teams } = desk;
  return h(
    "section",
    { class: "person-card", "data-key": `person ${person.oid}`, "aria-label": person.name },
    h("div", { class: "card-head" }, h("h3", {}, person.name), presenceOf(person, teams)),
    person.mail && h("p", { class: "soft" }, person.mail),
    h(
      "div",
      { class: "commands" },
      person.oid !== teams.picture.oid && h("button", { type: "button", "data-key": "chat", disabled: teams.waiting, "aria-label": t("teams_chat_with", { who: person.name }), onclick: () => void teams.chatWith(person) }, t("teams_chat")),
      joinButtons(person, desk),
    ),
    callWays(person, desk),
  );
}

/** The numbers with what can be done with them at this moment: call, or consult, add and transfer in a call. */
export function callWays(person, desk) {
  const ways = waysTo(person);
  if (!desk.picture?.agent || person.oid === desk.teams.picture.oid) return null;
  if (ways.length === 0) return h("p", { class: "empty", "data-key": "no-number" }, t("teams_no_number"));
  const state = callState(desk.picture, desk.login);
  return h(
    "ul",
    { class: "ways", "data-key": "ways", "aria-label": t("teams_numbers_of", { who: person.name }) },
    ways.map((way) =>
      h(
        "li",
        { "data-key": way.number + way.digits },
        h("span", { class: "number" }, way.shown || t("teams_attendant")),
        h("span", { class: "row-commands" }, buttons(state, way, person, desk)),
      ),
    ),
    state.kind === "wait" && h("li", { class: "empty", "data-key": "wait" }, t("teams_call_first")),
  );
}

function buttons(state, { number, digits, shown }, person, desk) {
  const { call, leg } = state;
  const what = { who: person.name, number: shown || t("teams_attendant") };
  const button = (name, command, kind = "small") =>
    h("button", { type: "button", class: kind, "data-key": name, "aria-label": t("teams_command", { ...what, command: t(name) }), onclick: () => void desk.once("dial", () => desk.act(command())) }, t(name));
  if (state.kind === "free") return button("dial", () => commands.place(desk.login, number, digits), "small primary");
  if (state.kind === "wait") return null;
  return [
    button("consult", () => commands.consult(call.id, leg.id, number, digits)),
    button("add", () => commands.add(call.id, number, leg.id, digits)),
    button("transfer", () => commands.transfer(call.id, leg.id, number, digits)),
  ];
}
