// The way in: local accounts, Microsoft Entra ID, or both.

import { ask } from "./api.js";
import { h } from "./dom.js";
import { t } from "./texts.js";

/** page: {ways, notice, hangUp() where a call goes on, once(key, command), signedIn(), fail(error)} */
export function signInView(page) {
  const submit = (event) => {
    event.preventDefault();
    void page.once("sign-in", () => signIn(event.target));
  };
  const signIn = async (form) => {
    try {
      await ask("POST", "/sign-in", { login: form.elements.login.value.trim(), password: form.elements.password.value });
    } catch (error) {
      form.elements.password.value = "";
      form.elements.password.focus();
      return page.fail(error);
    }
    form.reset();
    await page.signedIn();
  };
  const { local, entra } = page.ways;
  return h(
    "main",
    { class: "sign-in", "data-key": "sign-in" },
    h("h1", {}, h("span", { class: "brand" }, t("product")), " ", t("desktop")),
    page.notice && h("p", { class: "notice", role: "alert" }, page.notice),
    page.hangUp &&
      h("p", { class: "card", "data-key": "still-in-call" }, t("still_in_call"), " ", h("button", { type: "button", class: "danger", onclick: page.hangUp }, t("hang_up"))),
    local &&
      h(
        "form",
        { class: "card", "data-key": "local", onsubmit: submit },
        h("label", { for: "login" }, t("login")),
        h("input", { id: "login", name: "login", autocomplete: "username", autocapitalize: "none", spellcheck: "false", required: true }),
        h("label", { for: "password" }, t("password")),
        h("input", { id: "password", name: "password", type: "password", autocomplete: "current-password", required: true }),
        h("button", { type: "submit", class: "primary" }, t("sign_in")),
      ),
    entra && h("a", { class: "button", href: "/sign-in/entra" }, t("sign_in_entra")),
    !local && !entra && h("p", {}, t("no_way_in")),
  );
}
