// The browser as the agent's telephone: WebRTC over GET /api/v1/phone. Off unless the agent switches it on here.

const KEPT_ON = "tandem.phone_on";
const KEPT_INPUT = "tandem.microphone";
const STATS = 5000;
const LEVEL = 150;
const AGAIN = 1000;
const GATHERING = 2000;
const REPLACED = 4001;
const BAD_LOSS = 5;
const BAD_RTT = 500;

export class Phone {
  /** changed() is told whenever there is something else to show; failed(error) when the microphone is refused. */
  constructor(changed, failed) {
    this.changed = changed;
    this.failed = failed;
    this.on = localStorage.getItem(KEPT_ON) === "1";
    this.state = "off";
    this.legs = new Map();
    this.inputs = [];
    this.trouble = false;
    this.timers = [setInterval(() => this.level(), LEVEL), setInterval(() => void this.measure(), STATS)];
    if (this.on) this.open();
  }

  get input() {
    return localStorage.getItem(KEPT_INPUT) ?? "";
  }

  switch(on) {
    this.on = on;
    localStorage.setItem(KEPT_ON, on ? "1" : "0");
    if (on) return this.open();
    this.close();
    this.changed();
  }

  /** For good: somebody has signed out. */
  end() {
    this.timers.forEach(clearInterval);
    this.close();
  }

  close() {
    clearTimeout(this.timer);
    const socket = this.socket;
    this.socket = null;
    socket?.close();
    for (const leg of [...this.legs.keys()]) this.gone(leg);
    this.state = "off";
  }

  // ---- the gateway ----

  open() {
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/v1/phone`);
    this.socket = socket;
    this.state = "connecting";
    void this.devices();
    socket.onmessage = (event) => socket === this.socket && void this.told(JSON.parse(event.data));
    socket.onclose = (event) => {
      if (socket !== this.socket) return;
      this.socket = null;
      this.state = event.code === REPLACED ? "replaced" : "connecting";
      if (this.on && event.code !== REPLACED) this.timer = setTimeout(() => this.open(), AGAIN);
      this.changed();
    };
    this.changed();
  }

  say(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  async told(message) {
    const { type, leg } = message;
    if (type === "welcome") this.welcomed(message.calls);
    else if (type === "ring") this.legs.set(leg, { ...this.legs.get(leg), state: "ringing", auto: message.auto_answer });
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
      const known = this.legs.get(leg);
      this.legs.set(leg, { ...known, state });
      // After a reload there is no connection, after a break the old one may be dead: both want a new one.
      if (state === "up" && known?.peer?.connectionState !== "connected") this.say({ type: "again", leg });
    }
  }

  async offered(leg, sdp) {
    const call = this.legs.get(leg) ?? { state: "ringing" };
    this.legs.set(leg, call);
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

  async answer(leg) {
    const call = this.legs.get(leg);
    if (!call?.offer) return;
    const offer = call.offer;
    call.offer = "";
    try {
      const microphone = await navigator.mediaDevices.getUserMedia({ audio: this.input ? { deviceId: { ideal: this.input } } : true });
      this.hush(call);
      call.microphone = microphone;
      call.peer = new RTCPeerConnection({ iceServers: [] });
      call.peer.ontrack = (event) => this.hear(call, event.streams[0] ?? new MediaStream([event.track]));
      call.peer.onconnectionstatechange = () => call.peer?.connectionState === "failed" && this.say({ type: "again", leg });
      await call.peer.setRemoteDescription({ type: "offer", sdp: offer });
      for (const track of microphone.getAudioTracks()) call.peer.addTrack(track, microphone);
      call.ear = this.analyser(microphone);
      await call.peer.setLocalDescription(await call.peer.createAnswer());
      await gathered(call.peer);
      this.say({ type: "accept", leg, sdp: call.peer.localDescription.sdp });
    } catch (error) {
      call.offer = offer;
      this.failed(error);
    }
    void this.devices();
  }

  decline(leg) {
    this.say({ type: "reject", leg, code: 486 });
  }

  async choose(device) {
    localStorage.setItem(KEPT_INPUT, device);
    for (const call of this.legs.values()) {
      if (!call.peer) continue;
      try {
        const microphone = await navigator.mediaDevices.getUserMedia({ audio: { deviceId: { ideal: device } } });
        await call.peer.getSenders()[0].replaceTrack(microphone.getAudioTracks()[0]);
        for (const track of call.microphone.getTracks()) track.stop();
        Object.assign(call, { microphone, ear: this.analyser(microphone) });
      } catch (error) {
        this.failed(error);
      }
    }
  }

  // ---- sound ----

  async devices() {
    const all = await navigator.mediaDevices?.enumerateDevices();
    this.inputs = (all ?? []).filter((one) => one.kind === "audioinput" && one.deviceId);
    this.changed();
  }

  context() {
    this.audio ??= new AudioContext();
    void this.audio.resume();
    return this.audio;
  }

  analyser(stream) {
    const analyser = this.context().createAnalyser();
    this.context().createMediaStreamSource(stream).connect(analyser);
    return analyser;
  }

  hear(call, stream) {
    call.player ??= document.body.appendChild(document.createElement("audio"));
    call.player.autoplay = true;
    call.player.srcObject = stream;
    call.mouth = this.analyser(stream);
  }

  hush(call) {
    const { peer, microphone, player } = call;
    call.peer = null;
    peer?.close();
    for (const track of microphone?.getTracks() ?? []) track.stop();
    player?.remove();
    Object.assign(call, { microphone: null, player: undefined, ear: null, mouth: null });
  }

  gone(leg) {
    const call = this.legs.get(leg);
    if (call) this.hush(call);
    this.legs.delete(leg);
    this.trouble = false;
    this.ring();
  }

  ring() {
    const wanted = [...this.legs.values()].some((call) => call.state === "ringing" && !call.auto);
    if (wanted === Boolean(this.bell)) return;
    if (!wanted) {
      this.bell.stop();
      this.bell = null;
      return;
    }
    const context = this.context();
    const volume = context.createGain();
    volume.gain.value = 0.1;
    this.bell = context.createOscillator();
    this.bell.frequency.value = 425;
    this.bell.connect(volume).connect(context.destination);
    this.bell.start();
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

  async measure() {
    let trouble = false;
    for (const [leg, call] of this.legs) {
      if (!call.peer || call.state !== "up") continue;
      const now = { received: 0, lost: 0, jitter: 0, rtt: 0 };
      for (const one of (await call.peer.getStats()).values()) {
        if (one.type === "inbound-rtp") Object.assign(now, { received: one.packetsReceived, lost: one.packetsLost, jitter: one.jitter * 1000 });
        if (one.type === "candidate-pair" && one.nominated) now.rtt = (one.currentRoundTripTime ?? 0) * 1000;
      }
      const before = call.before ?? now;
      call.before = now;
      const [received, lost] = [now.received - before.received, Math.max(0, now.lost - before.lost)];
      const loss = received + lost > 0 ? (100 * lost) / (received + lost) : 0;
      const level = call.ear ? loudness(call.ear) : 0;
      this.say({ type: "stats", leg, loss, jitter_ms: now.jitter, rtt_ms: now.rtt, level });
      trouble ||= loss >= BAD_LOSS || now.rtt >= BAD_RTT || call.peer?.connectionState !== "connected";
    }
    if (trouble !== this.trouble) {
      this.trouble = trouble;
      this.changed();
    }
  }
}

/** 0..1 */
function loudness(analyser) {
  const samples = new Float32Array(analyser.fftSize);
  analyser.getFloatTimeDomainData(samples);
  return Math.min(1, 3 * Math.sqrt(samples.reduce((sum, one) => sum + one * one, 0) / samples.length));
}

function gathered(peer) {
  return new Promise((done) => {
    const look = () => peer.iceGatheringState === "complete" && done();
    peer.addEventListener("icegatheringstatechange", look);
    setTimeout(done, GATHERING);
    look();
  });
}
