// What the browser's telephone rings and measures with. A browser plays nothing before somebody has used the page.

const BELL_HZ = 425;
const BELL_VOLUME = 0.1;
const STARTING = 1000;
const USES = ["pointerdown", "keydown"];

export class Sound {
  /** changed() is told when `silent` is another: true while the bell would not be heard. */
  constructor(changed) {
    this.changed = changed;
    this.silent = false;
    this.output = "";
    this.bell = null;
    this.used = () => this.audio && void this.audio.resume();
    for (const use of USES) document.addEventListener(use, this.used, true);
  }

  /** output: the loudspeaker's id, "" for the system's choice. */
  open(output) {
    if (!this.audio) {
      this.audio = new AudioContext();
      this.audio.onstatechange = () => this.look();
      // A loudspeaker that is pulled out takes the context with it.
      this.audio.onerror = () => void this.route("");
      setTimeout(() => this.look(), STARTING);
      void this.route(output);
    }
    void this.audio.resume();
  }

  look() {
    const silent = this.audio?.state === "suspended" || this.audio?.state === "interrupted";
    if (silent === this.silent) return;
    this.silent = silent;
    this.changed();
  }

  async route(output) {
    this.output = output;
    await routed(this.audio, output);
    if (this.audio?.state === "suspended") void this.audio.resume();
  }

  analyser(stream) {
    this.open(this.output);
    const analyser = this.audio.createAnalyser();
    this.audio.createMediaStreamSource(stream).connect(analyser);
    return analyser;
  }

  ring(wanted) {
    if (wanted === Boolean(this.bell)) return;
    if (!wanted) {
      this.bell.stop();
      this.bell = null;
      return;
    }
    this.open(this.output);
    const volume = this.audio.createGain();
    volume.gain.value = BELL_VOLUME;
    this.bell = this.audio.createOscillator();
    this.bell.frequency.value = BELL_HZ;
    this.bell.connect(volume).connect(this.audio.destination);
    this.bell.start();
  }

  close() {
    for (const use of USES) document.removeEventListener(use, this.used, true);
    const { audio } = this;
    this.audio = null;
    void audio?.close();
  }
}

/** Let the player or context play there, where the browser lets one choose. */
export async function routed(player, output) {
  try {
    if (player?.setSinkId && player.sinkId !== output) await player.setSinkId(output);
  } catch {
    // The loudspeaker was pulled out: the system's choice plays.
  }
}

/** 0..1 */
export function loudness(analyser) {
  const samples = new Float32Array(analyser.fftSize);
  analyser.getFloatTimeDomainData(samples);
  return Math.min(1, 3 * Math.sqrt(samples.reduce((sum, one) => sum + one * one, 0) / samples.length));
}
