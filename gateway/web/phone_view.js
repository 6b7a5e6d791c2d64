// What is seen of the browser's telephone: on or off, microphone, level meters, trouble of the network.

import { h } from "./dom.js";
import { t } from "./texts.js";

export function phoneView(phone) {
  return h(
    "section",
    { class: "card phone", "data-key": "browser-phone", "aria-label": t("browser_phone") },
    h(
      "label",
      { class: "check" },
      h("input", { type: "checkbox", "data-key": "phone-on", checked: phone.on, onchange: (event) => phone.switch(event.target.checked) }),
      " ",
      t("use_browser"),
    ),
    phone.on && [
      h("span", { class: "status", role: "status" }, t(`phone_${phone.state}`)),
      h("label", { for: "microphone" }, t("microphone")),
      h(
        "select",
        { id: "microphone", onchange: (event) => void phone.choose(event.target.value) },
        h("option", { value: "", selected: phone.input === "" }, t("default_microphone")),
        phone.inputs.map((one, index) => h("option", { value: one.deviceId, selected: one.deviceId === phone.input }, one.label || `${t("microphone")} ${index + 1}`)),
      ),
      meter("level-out", "you_speak"),
      meter("level-in", "you_hear"),
      phone.trouble && h("p", { class: "banner hold", role: "alert" }, t("network_trouble")),
    ],
  );
}

// Without a value of its own: morph would set it back, the level belongs to the telephone.
const meter = (id, text) => h("label", { class: "level", "data-key": id }, t(text), " ", h("meter", { id, min: "0", max: "1" }));
