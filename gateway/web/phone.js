// The browser as the agent's telephone: WebRTC over GET /api/v1/phone. Off unless the agent switches it on here.

import { Sound, loudness, routed } from "./sound.js";
import { t } from "./texts.js";

const KEPT_ON = "tandem.phone_on";
const KEPT_INPUT = "tandem.microphone";
const KEPT_OUTPUT = "tandem.speaker";
const STATS = 5000;
const LEVEL = 150;
const ATTEND = 300;
const SOME_PACKETS = 8;
const RESTING = 2000;
const AGAIN = 1000;
const LOST = 3000;
const GATHERING = 2000;
const REPLACED = 4001;
const BAD_LOSS = 5;
const BAD_RTT = 500;

export class Phone {
  /** changed() is told whenever there is something else to show; failed(error) when the microphone is refused, note(text) what else he should know. */
  constructor(changed, failed, note) {
    Object.assign(this, { changed, failed, note });
    this.on = localStorage.getItem(KEPT_ON) === "1";
    this.state = "off";
    this.legs = new Map();
    this.inputs = [];
    this.outputs = [];
    this.trouble = null;
    this.sound = new Sound(() => this.changed());
    this.timers = [setInterval(() => this.level(), LEVEL), setInterval(() => void this.attend(), ATTEND), setInterval(() => void this.measure(), STATS)];
    this.plugged = () => {
      void this.devices();
      void this.replug();
      void this.reroute();
    };
    navigator.mediaDevices?.addEventListener("devicechange", this.plugged);
    if (this.on) this.open();
  }

  get input() {
    return localStorage.getItem(KEPT_INPUT) ?? "";
  }

  get output() {
    return localStorage.getItem(KEPT_OUTPUT) ?? "";
  }

  /** A call is up here, even if its sound is interrupted for the moment. */
  get talking() {
    return [...this.legs.values()].some(({ state, peer }) => state === "up" && peer && !["failed", "closed"].includes(peer.connectionState));
  }

  /** The bell would not be heard. */
  get silent() {
    return this.state === "ready" && this.sound.silent;
  }

  switch(on) {
    this.on = on;
    localStorage.setItem(KEPT_ON, on ? "1" : "0");
    if (on) {
      void this.permit();
      return this.open();
    }
    this.close();
    this.changed();
  }

  /** Ask for the microphone before a call rings; the devices have names only once it is granted. */
  async permit() {
    try {
      for (const track of (await microphoneOf(this.input)).getTracks()) track.stop();
    } catch (error) {
      this.failed(error);
    }
    void this.devices();
  }

  /** For good: somebody has signed out. */
  end() {
    this.timers.forEach(clearInterval);
    navigator.mediaDevices?.removeEventListener("devicechange", this.plugged);
    this.close();
    this.sound.close();
  }

  close() {
    clearTimeout(this.timer);
    const socket = this.socket;
    this.socket = null;
    socket?.close();
    this.drop();
    this.state = "off";
  }

  drop() {
    for (const leg of [...this.legs.keys()]) this.gone(leg);
  }

  // ---- the gateway ----

  open() {
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/v1/phone`);
    this.socket = socket;
    this.state = "connecting";
    this.sound.open(this.output);
    void this.devices();
    socket.onmessage = (event) => socket === this.socket && void this.told(JSON.parse(event.data));
    socket.onclose = (event) => {
      if (socket !== this.socket) return;
      this.socket = null;
      this.state = event.code === REPLACED ? "replaced" : "connecting";
      // Its calls are the other page's now; nothing will be said of them here any more.
      if (this.state === "replaced") this.drop();
      else if (this.on) this.timer = setTimeout(() => this.open(), AGAIN);
      this.changed();
    };
    this.changed();
  }

  /** The network was gone: a connection from before may be dead without anybody having said so. */
  refresh() {
    if (!this.on || this.state === "replaced") return;
    clearTimeout(this.timer);
    const socket = this.socket;
    this.open();
    socket?.close();
  }

  say(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  async told(message) {
    const { type, leg } = message;
    if (type === "welcome") this.welcomed(message.calls);
    else if (type === "ring") Object.assign(this.leg(leg), { state: "ringing", auto: message.auto_answer });
    else if (type === "offer") await this.offered(leg, message.sdp);
    else if (type === "answer") await this.answer(leg);
    else if (type === "answered" && this.legs.has(leg)) this.legs.get(leg).state = "up";
    else if (type === "ended") this.gone(leg);
    this.ring();
    this.changed();
  }

  welcomed(calls) {
    this.state = "ready";
    const there = new Set(calls.map((call) => call.leg));
    for (const leg of [...this.legs.keys()]) if (!there.has(leg)) this.gone(leg);
    for (const { leg, state } of calls) {
      const call = Object.assign(this.leg(leg), { state });
      // After a reload there is no connection, after a break the old one may be dead: both want a new one.
      if (state === "up" && call.peer?.connectionState !== "connected") this.again(leg);
    }
  }

  /** What is known of a leg; the same object as long as it is there. */
  leg(leg) {
    if (!this.legs.has(leg)) this.legs.set(leg, { state: "ringing" });
    return this.legs.get(leg);
  }

  again(leg) {
    this.say({ type: "again", leg });
  }

  async offered(leg, sdp) {
    const call = this.leg(leg);
    // The same once more: what was answered may not have arrived, and a second answer would not fit the first.
    if (call.taken === sdp && call.answering) return;
    if (call.taken === sdp && alive(call.peer)) return this.accept(leg, call);
    call.offer = sdp;
    if (call.state === "up" || call.auto) await this.answer(leg);
  }

  // ---- what the agent does ----

  rings(leg) {
    return this.legs.get(leg)?.state === "ringing";
  }

  has(leg) {
    return this.legs.has(leg);
  }

  /** Take the last offer with a new connection; a further offer that comes meanwhile takes the place of this one. */
  async answer(leg) {
    const call = this.legs.get(leg);
    if (!call?.offer) return;
    const offer = call.offer;
    const attempt = Symbol("attempt");
    Object.assign(call, { offer: "", taken: offer, answering: attempt });
    const stale = () => this.legs.get(leg) !== call || call.answering !== attempt;
    try {
      const microphone = await microphoneOf(this.input);
      if (stale()) return microphone.getTracks().forEach((track) => track.stop());
      this.hush(call);
      const peer = new RTCPeerConnection({ iceServers: [] });
      Object.assign(call, { peer, ...this.tapped(microphone) });
      peer.offer = offer;
      peer.ontrack = (event) => call.peer === peer && this.hear(call, event.streams[0] ?? new MediaStream([event.track]));
      this.watch(leg, call, peer);
      await peer.setRemoteDescription({ type: "offer", sdp: offer });
      for (const track of microphone.getAudioTracks()) peer.addTrack(track, microphone);
      await peer.setLocalDescription(await peer.createAnswer());
      await gathered(peer);
      if (stale()) return;
      Object.assign(call, { complete: true, answering: null });
      this.accept(leg, call);
    } catch (error) {
      // What has ended or was replaced meanwhile may fail: there is nothing to answer any more.
      if (stale()) return;
      Object.assign(call, { offer, taken: "", answering: null });
      this.failed(error);
    }
    void this.devices();
  }

  accept(leg, { peer, complete }) {
    if (complete && peer) this.say({ type: "accept", leg, sdp: peer.localDescription.sdp });
  }

  /** A connection that is lost and does not come back by itself is made anew. */
  watch(leg, call, peer) {
    peer.onconnectionstatechange = () => {
      if (call.peer !== peer) return;
      if (peer.connectionState === "failed") this.again(leg);
      if (peer.connectionState === "disconnected") setTimeout(() => call.peer === peer && peer.connectionState === "disconnected" && this.again(leg), LOST);
      void this.measure();
    };
  }

  decline(leg) {
    this.say({ type: "reject", leg, code: 486 });
  }

  hangUp() {
    for (const leg of this.legs.keys()) this.say({ type: "hangup", leg });
  }

  async choose(device) {
    localStorage.setItem(KEPT_INPUT, device);
    for (const call of this.legs.values()) if (call.peer) await this.speakThrough(call, device);
  }

  /** The label of the microphone that is taken for the call, "" when none can be. */
  async speakThrough(call, device) {
    try {
      const microphone = await microphoneOf(device);
      const [track] = microphone.getAudioTracks();
      await call.peer?.getSenders()[0].replaceTrack(track);
      for (const old of call.microphone?.getTracks() ?? []) old.stop();
      if (call.peer) Object.assign(call, this.tapped(microphone));
      else track.stop();
      return track.label;
    } catch (error) {
      this.failed(error);
      return "";
    }
  }

  tapped(microphone) {
    // Only what is pulled out, or taken away by the browser, ends by itself.
    for (const track of microphone.getTracks()) track.onended = () => void this.replug();
    return { microphone, ear: this.sound.analyser(microphone) };
  }

  /** Calls whose microphone was pulled out get the one that is there now. */
  async replug() {
    for (const call of this.legs.values()) {
      if (!call.peer || call.replugging || !call.microphone?.getTracks().some((track) => track.readyState === "ended")) continue;
      call.replugging = true;
      const name = await this.speakThrough(call, this.input);
      call.replugging = false;
      if (name) this.note(t("microphone_replaced", { name }));
    }
  }

  /** Where the others are heard. */
  async listen(device) {
    localStorage.setItem(KEPT_OUTPUT, device);
    await this.reroute();
  }

  async reroute() {
    const players = [...this.legs.values()].map(({ player }) => routed(player, this.output));
    await Promise.all([this.sound.route(this.output), ...players]);
  }

  // ---- sound ----

  async devices() {
    const all = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
    const of = (kind) => all.filter((one) => one.kind === kind && one.deviceId && one.deviceId !== "default");
    this.inputs = of("audioinput");
    this.outputs = of("audiooutput");
    this.changed();
  }

  hear(call, stream) {
    call.player ??= document.body.appendChild(document.createElement("audio"));
    call.player.autoplay = true;
    call.player.srcObject = stream;
    if (this.output) void routed(call.player, this.output);
    call.mouth = this.sound.analyser(stream);
  }

  hush(call) {
    const { peer, microphone, player } = call;
    Object.assign(call, { peer: null, complete: false });
    peer?.close();
    for (const track of microphone?.getTracks() ?? []) track.stop();
    player?.remove();
    Object.assign(call, { microphone: null, player: undefined, ear: null, mouth: null });
  }

  gone(leg) {
    const call = this.legs.get(leg);
    if (call) this.hush(call);
    this.legs.delete(leg);
    this.trouble = null;
    this.ring();
  }

  ring() {
    const wanted = [...this.legs.values()].some((call) => call.state === "ringing" && !call.auto);
    this.sound.ring(wanted);
  }

  level() {
    const call = [...this.legs.values()].find((one) => one.peer);
    const show = (id, analyser) => {
      const meter = document.getElementById(id);
      if (meter) meter.value = analyser ? loudness(analyser) : 0;
    };
    show("level-out", call?.ear);
    show("level-in", call?.mouth);
  }

  /**
   * The gateway passes on the stream of whoever talks. When somebody comes back who talked before, browsers made of
   * libwebrtc receive his packets and do not give them to the track, which follows the newest stream only.
   */
  async attend() {
    for (const call of this.legs.values()) {
      const { peer } = call;
      if (peer?.connectionState !== "connected" || call.tuning) continue;
      const now = { peer, arrived: 0, played: 0 };
      for (const one of (await peer.getStats()).values()) {
        if (one.type === "transport") now.arrived = one.packetsReceived ?? 0;
        if (one.type === "inbound-rtp") now.played += one.packetsReceived;
      }
      const before = call.attended;
      call.attended = now;
      const deaf = before?.peer === peer && now.arrived - before.arrived >= SOME_PACKETS && now.played === before.played;
      call.deaf = deaf ? (call.deaf ?? 0) + 1 : 0;
      if (call.deaf >= 2) await this.tuneIn(call, peer);
    }
  }

  /** Describe the connection anew, to this browser only: for a moment the gateway does not send, then it does. */
  async tuneIn(call, peer) {
    call.tuning = true;
    try {
      for (const direction of ["recvonly", "sendrecv"]) {
        call.version = (call.version ?? 1) + 1;
        const sdp = peer.offer.replace(/^(o=\S+ \S+) \d+/m, `$1 ${call.version}`).replace(/^a=sendrecv\r$/m, `a=${direction}\r`);
        await peer.setRemoteDescription({ type: "offer", sdp });
        await peer.setLocalDescription(await peer.createAnswer());
      }
    } catch (error) {
      if (call.peer === peer && peer.connectionState !== "closed") console.warn("tuning in failed", error);
    }
    Object.assign(call, { deaf: 0, attended: null });
    setTimeout(() => (call.tuning = false), RESTING);
  }

  async measure() {
    let trouble = null;
    for (const [leg, call] of this.legs) {
      const { peer } = call;
      if (!peer || call.state !== "up") continue;
      const now = { received: 0, lost: 0, jitter: 0, rtt: 0 };
      for (const one of (await peer.getStats()).values()) {
        if (one.type === "inbound-rtp") Object.assign(now, { received: one.packetsReceived, lost: one.packetsLost, jitter: one.jitter * 1000 });
        if (one.type === "candidate-pair" && one.nominated) now.rtt = (one.currentRoundTripTime ?? 0) * 1000;
      }
      const before = call.before?.peer === peer ? call.before : { received: 0, lost: 0 };
      call.before = { ...now, peer };
      const [received, lost] = [now.received - before.received, Math.max(0, now.lost - before.lost)];
      const loss = received + lost > 0 ? (100 * lost) / (received + lost) : 0;
      const level = call.ear ? loudness(call.ear) : 0;
      this.say({ type: "stats", leg, loss, jitter_ms: now.jitter, rtt_ms: now.rtt, level });
      const cut = ["disconnected", "failed"].includes(peer.connectionState);
      if (cut || loss >= BAD_LOSS || now.rtt >= BAD_RTT) trouble = { cut, loss: coarse(loss, 5), delay: coarse(now.rtt, 50) };
    }
    if (JSON.stringify(trouble) === JSON.stringify(this.trouble)) return;
    this.trouble = trouble;
    this.changed();
  }
}

/** The chosen microphone; the system's choice when it has been pulled out. */
async function microphoneOf(device) {
  if (!navigator.mediaDevices) throw new Error(t("needs_https"));
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: device ? { deviceId: { exact: device } } : true });
  } catch (error) {
    if (!device || !["OverconstrainedError", "NotFoundError"].includes(error.name)) throw error;
    return navigator.mediaDevices.getUserMedia({ audio: true });
  }
}

// Not every change of a figure is worth an alert.
const coarse = (figure, step) => step * Math.round(figure / step);

const alive = (peer) => peer && !["failed", "disconnected", "closed"].includes(peer.connectionState);

function gathered(peer) {
  return new Promise((done) => {
    const look = () => peer.iceGatheringState === "complete" && done();
    peer.addEventListener("icegatheringstatechange", look);
    setTimeout(done, GATHERING);
    look();
  });
}
