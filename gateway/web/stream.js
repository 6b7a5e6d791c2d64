// A WebSocket that comes back by itself. The gateway sends whole pictures, so the first one after a break has all.

const FIRST_WAIT = 500;
const LONGEST_WAIT = 4000;
const WATCH = 1000;
const QUIET = 2000;
const SILENCE = 4000;
const WORD = "{}";

export class Stream {
  /** path(): where to connect, asked anew each time; tell.picture(object), tell.connected(bool) */
  constructor(path, tell) {
    this.path = path;
    this.tell = tell;
    this.wait = FIRST_WAIT;
    this.open();
    this.offline = () => this.drop();
    this.online = () => this.again(0);
    addEventListener("offline", this.offline);
    addEventListener("online", this.online);
    this.watching = setInterval(() => this.watch(), WATCH);
  }

  open() {
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${this.path()}`);
    this.socket = socket;
    this.asked = Date.now();
    socket.onmessage = (event) => {
      if (socket !== this.socket) return;
      this.heard = Date.now();
      this.asked = null;
      this.wait = FIRST_WAIT;
      this.tell.connected(true);
      if (event.data !== WORD) this.tell.picture(JSON.parse(event.data));
    };
    socket.onclose = () => socket === this.socket && this.drop();
  }

  drop() {
    const socket = this.socket;
    this.socket = null;
    socket?.close();
    this.tell.connected(false);
    this.again(this.wait);
    this.wait = Math.min(this.wait * 2, LONGEST_WAIT);
  }

  again(wait) {
    clearTimeout(this.timer);
    if (!this.closed) this.timer = setTimeout(() => this.socket || this.open(), wait);
  }

  /** A dead network closes no socket. The gateway answers a word with a word; without an answer it is not there. */
  watch() {
    const socket = this.socket;
    if (!socket) return;
    const now = Date.now();
    if (this.asked !== null) {
      if (now - this.asked >= SILENCE) this.drop();
    } else if (now - this.heard >= QUIET) {
      this.asked = now;
      socket.send(WORD);
    }
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    clearInterval(this.watching);
    removeEventListener("offline", this.offline);
    removeEventListener("online", this.online);
    const socket = this.socket;
    this.socket = null;
    socket?.close();
  }
}
