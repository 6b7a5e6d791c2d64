// One thing that is read from the gateway: whether it is under way, what is wrong with it, when it is tried again.

import { troubleOf } from "./teams_model.js";

const WAITS = [3000, 6000, 12000, 30000];
const SLOW = 3000;

export class Load {
  /** changed(): draw anew */
  constructor(changed) {
    this.changed = changed;
    this.loading = false;
    this.slow = false;
    this.trouble = null;
    this.turn = 0;
    this.tries = 0;
  }

  /** `got` takes what `read` found, unless something newer was asked for meanwhile. */
  async run(read, got) {
    const turn = ++this.turn;
    clearTimeout(this.timer);
    this.loading = true;
    this.changed();
    const slow = setTimeout(() => turn === this.turn && this.isSlow(), SLOW);
    try {
      const found = await read();
      if (turn !== this.turn) return;
      this.trouble = null;
      this.tries = 0;
      got(found);
    } catch (error) {
      if (turn !== this.turn) return;
      if (error.status === undefined) throw error;
      this.trouble = troubleOf(error);
      if (this.trouble.again) {
        const wait = WAITS[Math.min(this.tries++, WAITS.length - 1)];
        this.timer = setTimeout(() => void this.run(read, got), wait);
      }
    } finally {
      clearTimeout(slow);
      if (turn === this.turn) {
        this.loading = this.slow = false;
        this.changed();
      }
    }
  }

  isSlow() {
    this.slow = true;
    this.changed();
  }

  /** Nothing that is under way counts any more. */
  stop() {
    this.turn++;
    this.loading = this.slow = false;
    this.trouble = null;
    clearTimeout(this.timer);
  }
}
