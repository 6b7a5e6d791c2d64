// What happened while the page had no connection, or was being loaded anew.

import { now } from "./clock.js";
import { h } from "./dom.js";
import { otherOf } from "./model.js";
import { span, t } from "./texts.js";

const NOTHING = 6000;
const LATE = 1500;
const UNNOTICED = 10000;
const MOST_SEEN = 200;

export class Missed {
  /** desk: {login, history, redraw()}; tell.read(): reads the history anew; tell.announce(sentences) */
  constructor(desk, tell) {
    Object.assign(this, { desk, tell, since: null, told: null, telling: null, seen: new Set() });
  }

  /** Nothing is known from that moment on. quiet: nothing is said if nothing happened. */
  begin(at, quiet = false) {
    if (this.since === null) Object.assign(this, { since: at, quiet });
  }

  /** A picture and what changed with it. The first one after a break does not show what came and went within. */
  take(picture, said) {
    for (const call of picture.calls) this.seen.add(call.id);
    if (this.since === null) return;
    const { since } = this;
    const telling = { since, seconds: (now() - since) / 1000, said: [...said], settled: false };
    Object.assign(this, { telling, since: null, told: said.length || !this.quiet ? telling : null });
    void this.lookBack(telling);
  }

  /** Calls that no picture has shown are in the call detail, a moment after they ended. */
  async lookBack(telling) {
    for (const wait of [0, LATE]) {
      await new Promise((done) => setTimeout(done, wait));
      if (this.telling === telling) await this.tell.read();
      if (this.telling !== telling) return;
      // A dead network is noticed late: what is not known yet and ended shortly before was missed too.
      const found = this.desk.history.filter((row) => !this.seen.has(row.id) && Date.parse(row.end_time) >= telling.since - UNNOTICED);
      for (const row of found) this.seen.add(row.id);
      if (!found.length) continue;
      const said = found.reverse().map((row) => t("said_missed", { who: otherOf(row, this.desk.login) || t("withheld"), how: t(row.disposition) }));
      telling.said.push(...said);
      this.told = telling;
      this.tell.announce(said);
      this.desk.redraw();
    }
    this.telling = null;
    telling.settled = true;
    if (!telling.said.length) setTimeout(() => this.told === telling && this.dismiss(), NOTHING);
    this.desk.redraw();
  }

  /** Rows of the history while there is a connection: they are no news. */
  know(rows) {
    if (this.since === null && this.telling === null) for (const { id } of rows) this.seen.add(id);
  }

  /** What the page that is loaded next has to know, as JSON. */
  kept() {
    return { at: this.since ?? now(), seen: [...this.seen].slice(-MOST_SEEN) };
  }

  restore({ at, seen = [] }) {
    for (const id of seen) this.seen.add(id);
    this.begin(at, true);
  }

  close() {
    Object.assign(this, { telling: null, told: null });
  }

  dismiss() {
    this.told = null;
    this.desk.redraw();
  }

  view() {
    if (!this.told) return null;
    const { seconds, said, settled } = this.told;
    return h(
      "section",
      { class: "missed", role: "status", "data-key": "missed" },
      h("strong", {}, t("missed_title", { time: span(seconds) })),
      said.length ? h("ul", {}, said.map((text) => h("li", {}, text))) : settled && h("p", {}, t("missed_nothing")),
      h("button", { type: "button", class: "small", onclick: () => this.dismiss() }, t("dismiss")),
    );
  }
}
