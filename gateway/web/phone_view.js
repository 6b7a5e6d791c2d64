// What is seen of the browser's telephone: on or off, its devices, level meters, trouble of the network.

import { h } from "./dom.js";
import { t } from "./texts.js";

/** Said where the calls are, not among the settings. */
export function soundTrouble({ trouble }) {
  return trouble && h("p", { class: "banner hold", role: "alert", "data-key": "trouble" }, trouble.cut ? t("sound_lost") : t("network_trouble", trouble));
}

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
      phone.silent && h("strong", { role: "status", "data-key": "silent" }, t("phone_silent")),
      phone.state === "replaced" && h("button", { type: "button", class: "small", "data-key": "ring-here", onclick: () => phone.switch(true) }, t("ring_here")),
      device("microphone", phone.inputs, phone.input, (chosen) => void phone.choose(chosen)),
      phone.outputs.length > 0 && device("speaker", phone.outputs, phone.output, (chosen) => void phone.listen(chosen)),
      meter("level-out", "you_speak"),
      meter("level-in", "you_hear"),
    ],
  );
}

function device(id, found, chosen, choose) {
  return h(
    "span",
    { class: "device", "data-key": id },
    h("label", { for: id }, t(id)),
    h(
      "select",
      { id, onchange: (event) => choose(event.target.value) },
      h("option", { value: "", "data-key": "default", selected: chosen === "" }, t("default_device")),
      found.map((one, index) => h("option", { value: one.deviceId, "data-key": one.deviceId, selected: one.deviceId === chosen }, one.label || `${t(id)} ${index + 1}`)),
    ),
  );
}

// Without a value of its own: morph would set it back, the level belongs to the telephone.
const meter = (id, text) => h("label", { class: "level", "data-key": id }, t(text), " ", h("meter", { id, min: "0", max: "1" }));
