// A WebSocket that comes back by itself. The gateway sends whole pictures, so the first one after a break has all.

const FIRST_WAIT = 500;
const LONGEST_WAIT = 8000;
const SILENCE = 15000;
const PROBE = 5000;

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
    this.watching = setInterval(() => this.watch(), PROBE);
  }

  open() {
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${this.path()}`);
    this.socket = socket;
    this.heard = Date.now();
    socket.onmessage = (event) => {
      if (socket !== this.socket) return;
      this.heard = Date.now();
      this.wait = FIRST_WAIT;
      this.tell.connected(true);
      this.tell.picture(JSON.parse(event.data));
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

  /** A dead network closes no socket: when nothing was heard for long, ask whether the gateway is there. */
  async watch() {
    const socket = this.socket;
    if (!socket || Date.now() - this.heard < SILENCE) return;
    try {
      await fetch("/healthz", { signal: AbortSignal.timeout(PROBE), cache: "no-store" });
      if (socket === this.socket) this.heard = Date.now();
    } catch {
      if (socket === this.socket) this.drop();
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
