// What a test adds to the desktop's page before it loads: it hears what the agent hears, and nothing else differs.
"use strict";

// A steady tone is what noise suppression takes away, and what echo cancellation may take for an echo.
const asked = navigator.mediaDevices?.getUserMedia.bind(navigator.mediaDevices);
if (asked) {
  const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  navigator.mediaDevices.getUserMedia = ({ audio, ...more }) =>
    asked({ ...more, audio: { ...plain, ...(audio === true ? {} : audio) } });
}

// Every connection that the page makes, newest last.
window.connections = [];
const Connection = window.RTCPeerConnection;
window.RTCPeerConnection = class extends Connection {
  constructor(...how) {
    super(...how);
    window.connections.push(this);
  }

  /** Where the test carries the packets itself, the gateway's port becomes one of the test's. */
  async setRemoteDescription(description) {
    if (!window.via) return super.setRemoteDescription(description);
    const port = /^m=audio (\d+)/m.exec(description.sdp)[1];
    const here = await window.via(Number(port));
    return super.setRemoteDescription({ ...description, sdp: description.sdp.replaceAll(` ${port} `, ` ${here} `) });
  }
};

// Every context that plays something, and an ear at its loudspeaker.
window.contexts = new Map();
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (there, ...how) {
  if (there instanceof AudioDestinationNode) {
    if (!contexts.has(there.context)) contexts.set(there.context, new AnalyserNode(there.context, { fftSize: 2048 }));
    connect.call(this, contexts.get(there.context));
  }
  return connect.call(this, there, ...how);
};

/** dBFS of the bell's tone in what the page plays besides the call; it is silent while no time passes. */
window.bell = async () => {
  const places = () => [...contexts.keys()].map((one) => one.currentTime);
  const before = places();
  await new Promise((done) => setTimeout(done, 120));
  const heard = [...contexts].map(([context, analyser], one) => (context.currentTime > before[one] ? taken(analyser, [425])[0] : -180));
  return Math.max(-180, ...heard);
};

function taken(analyser, tones) {
  const samples = new Float32Array(analyser.fftSize);
  analyser.getFloatTimeDomainData(samples);
  return tones.map((hz) => level(samples, hz, analyser.context.sampleRate));
}

/** Levels in dBFS of these tones in what the page plays just now (Goertzel over a Hann window); null: it plays nothing. */
window.levels = async (tones) => {
  const player = [...document.querySelectorAll("audio")].find((one) => one.srcObject && !one.paused && !one.muted && one.volume > 0);
  // While the page tunes in anew its stream has no track for a moment.
  if (!player?.srcObject.getAudioTracks().length) return null;
  const context = (window.measuring ??= new AudioContext());
  await context.resume();
  const source = context.createMediaStreamSource(player.srcObject);
  const analyser = context.createAnalyser();
  analyser.fftSize = 16384;
  source.connect(analyser);
  await new Promise((done) => setTimeout(done, (1000 * analyser.fftSize) / context.sampleRate + 60));
  const found = taken(analyser, tones);
  source.disconnect();
  return found;
};

function level(samples, hz, rate) {
  let [real, imaginary, weight] = [0, 0, 0];
  for (let place = 0; place < samples.length; place += 1) {
    const window = 0.5 - 0.5 * Math.cos((2 * Math.PI * place) / (samples.length - 1));
    const phase = (2 * Math.PI * hz * place) / rate;
    real += samples[place] * window * Math.cos(phase);
    imaginary += samples[place] * window * Math.sin(phase);
    weight += window;
  }
  return 20 * Math.log10((2 * Math.hypot(real, imaginary)) / weight + 1e-9);
}
