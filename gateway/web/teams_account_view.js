// For administrators: the integration account of Teams, and the warning before its secret ends.

import { h } from "./dom.js";
import { teamsApi } from "./teams_api.js";
import { troubleOf } from "./teams_model.js";
import { day, t } from "./texts.js";

const FIELDS = ["tenant", "client_id", "client_secret", "object_id", "secret_expires"];
const HOUR = 3600000;

export class TeamsAccount {
  /** changed(): draw anew */
  constructor(changed) {
    this.changed = changed;
    this.account = null;
    this.known = false;
    this.there = true;
    this.said = null;
    this.asking = false;
    this.working = false;
    void this.read();
    this.timer = setInterval(() => void this.read(), HOUR);
  }

  close() {
    clearInterval(this.timer);
    this.changed = () => {};
  }

  async read() {
    try {
      this.took(await teamsApi.account());
    } catch (error) {
      if (error.status === undefined) throw error;
      if (error.status !== 404) return this.say(false, troubleOf(error).text);
      this.there = error.reason === "no_account";
      this.took(null);
    }
  }

  took(account) {
    this.account = account;
    this.known = true;
    this.changed();
  }

  say(good, text) {
    this.said = { good, text };
    this.changed();
  }

  /** Does `work` once at a time; its text, or what went wrong, is shown. */
  async work(work) {
    if (this.working) return;
    this.working = true;
    this.said = null;
    this.changed();
    try {
      this.said = await work();
    } catch (error) {
      if (error.status === undefined) throw error;
      this.said = { good: false, text: troubleOf(error).text };
    } finally {
      this.working = false;
      this.changed();
    }
  }

  /** The secret may stay empty: then what is stored is tested. */
  test(entered) {
    const stored = this.account && entered.tenant === this.account.tenant && entered.client_id === this.account.client_id;
    if (!entered.client_secret && !stored) return this.say(false, t("account_needs_secret"));
    return this.work(async () => {
      const { ok, cause } = await (entered.client_secret ? teamsApi.testAccount(entered) : teamsApi.checkAccount());
      return { good: ok, text: ok ? t("account_works") : t("account_fails", { cause }) };
    });
  }

  save(entered) {
    return this.work(async () => {
      this.account = await teamsApi.saveAccount(entered);
      return { good: true, text: t("account_saved") };
    });
  }

  remove() {
    this.asking = false;
    return this.work(async () => {
      await teamsApi.deleteAccount();
      this.account = null;
      return { good: true, text: t("account_deleted") };
    });
  }

  ask(asking) {
    this.asking = asking;
    this.changed();
  }
}

/** Above everything, from fifteen days before the secret ends. */
export function secretWarning({ teamsAccount }) {
  const warning = teamsAccount?.account?.warning;
  return warning ? h("p", { class: "notice", role: "status", "data-key": "secret" }, t("teams_secret", { text: warning })) : null;
}

export function accountView({ teamsAccount: page }) {
  if (!page?.known) return h("p", { class: "empty", "data-key": "account" }, page?.said?.text ?? t("teams_loading"));
  return h(
    "div",
    { class: "narrow", "data-key": "account" },
    h("h2", { id: "account" }, t("account_title")),
    page.there ? form(page) : h("p", { class: "card gate" }, t("teams_absent")),
  );
}

function form(page) {
  const { account, said } = page;
  const stored = account?.client_id ?? "none";
  const entered = () => {
    const { elements } = document.getElementById("account-form");
    const found = Object.fromEntries(FIELDS.map((name) => [name, elements[name].value.trim()]));
    return { ...found, secret_expires: found.secret_expires || null };
  };
  const save = async (event) => {
    event.preventDefault();
    await page.save(entered());
    if (page.said?.good) document.getElementById("client_secret").value = "";
  };
  return h(
    "form",
    { id: "account-form", class: "card account", "data-key": `form ${stored}`, "aria-labelledby": "account", onsubmit: save },
    h("p", { class: "soft" }, account ? t("account_there") : t("account_none")),
    field("tenant", account?.tenant, { required: true }),
    field("client_id", account?.client_id, { required: true }),
    field("client_secret", "", { type: "password", required: true, autocomplete: "off" }),
    field("object_id", account?.object_id),
    field("secret_expires", account?.secret_expires, { type: "date" }),
    account?.secret_expires && h("p", { class: "soft", "data-key": "ends" }, t("account_ends", { day: day(`${account.secret_expires}T12:00:00`), days: account.days_left })),
    said && h("p", { class: said.good ? "banner ring" : "trouble", role: said.good ? "status" : "alert", "data-key": "said" }, said.text),
    h(
      "div",
      { class: "commands" },
      h("button", { type: "submit", class: "primary", "aria-busy": String(page.working) }, t("account_save")),
      h("button", { type: "button", "data-key": "test", "aria-busy": String(page.working), onclick: () => void page.test(entered()) }, t("account_test")),
      account && !page.asking && h("button", { type: "button", class: "danger", "data-key": "delete", onclick: () => page.ask(true) }, t("account_delete")),
    ),
    account && page.asking && sure(page),
  );
}

function sure(page) {
  return h(
    "div",
    { class: "trouble", role: "alertdialog", "aria-label": t("account_delete"), "aria-describedby": "account-sure", "data-key": "sure" },
    h("p", { id: "account-sure" }, t("account_sure")),
    h("button", { type: "button", class: "danger small", onclick: () => void page.remove() }, t("account_really")),
    h("button", { type: "button", class: "small", onclick: () => page.ask(false) }, t("teams_cancel")),
  );
}

function field(name, value, more = {}) {
  const hint = t(`account_${name}_hint`);
  return h("div", { class: "field", "data-key": name }, h("label", { for: name }, t(`account_${name}`)), h("input", { id: name, name, autocomplete: "off", spellcheck: "false", "aria-describedby": `${name}-hint`, value, ...more }), h("small", { id: `${name}-hint` }, hint));
}
