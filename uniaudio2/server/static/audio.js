// Sound in the browser: samples to and from files, playback while they still come, and the microphone.

export const RATE = 24000; // Hz, of all samples here: mono, Float32Array in [-1, 1]

/** Samples of 16-bit little-endian bytes, an even number of them. */
export function fromPCM(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Float32Array.from({ length: bytes.byteLength >> 1 }, (_, i) => view.getInt16(2 * i, true) / 32768);
}

/** A WAV file. */
export function toWav(samples) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, word) => [...word].forEach((char, i) => view.setUint8(at + i, char.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, RATE, true);
  view.setUint32(28, 2 * RATE, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, i) => view.setInt16(44 + 2 * i, Math.round(32767 * Math.max(-1, Math.min(1, value))), true));
  return new Blob([view.buffer], { type: "audio/wav" });
}

/** The samples of a file, its channels mixed; null if this browser cannot read it. */
export async function decoded(file) {
  try {
    const buffer = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await file.arrayBuffer());
    const samples = new Float32Array(buffer.length);
    for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
      buffer.getChannelData(channel).forEach((value, i) => (samples[i] += value / buffer.numberOfChannels));
    }
    return samples;
  } catch {
    return null;
  }
}

/** Pieces of samples as one. */
export function joined(pieces) {
  const whole = new Float32Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

let speakers = null;

/** Plays pieces one after another as they come. To be made when somebody has clicked: browsers are silent before. */
export class Playback {
  constructor() {
    speakers ??= new AudioContext({ sampleRate: RATE });
    speakers.resume();
    this.until = 0;
    this.sources = new Set();
  }

  push(samples) {
    if (this.stopped) return;
    const buffer = speakers.createBuffer(1, samples.length, RATE);
    buffer.copyToChannel(samples, 0);
    const source = new AudioBufferSourceNode(speakers, { buffer });
    source.connect(speakers.destination);
    source.onended = () => this.sources.delete(source);
    this.sources.add(source);
    if (this.until < speakers.currentTime) this.until = speakers.currentTime + 0.1; // the first, or a piece that is late
    source.start(this.until);
    this.until += buffer.duration;
  }

  stop() {
    this.stopped = true;
    for (const source of this.sources) source.stop();
  }
}

/** The microphone. `Recorder.open()`, then `samples()` at any time, and `stop()`, which gives all. */
export class Recorder {
  static async open() {
    const made = new Recorder();
    const wanted = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: true };
    made.stream = await navigator.mediaDevices.getUserMedia({ audio: wanted });
    made.context = new AudioContext(); // at the microphone's own rate, which not every browser converts
    await made.context.audioWorklet.addModule(new URL("recorder.js", import.meta.url));
    const node = new AudioWorkletNode(made.context, "recorder");
    made.pieces = [];
    node.port.onmessage = ({ data }) => made.pieces.push(data);
    made.context.createMediaStreamSource(made.stream).connect(node).connect(made.context.destination); // which is silent
    return made;
  }

  get seconds() {
    return this.pieces.reduce((sum, piece) => sum + piece.length, 0) / this.context.sampleRate;
  }

  async samples(from = 0, to = this.seconds) {
    const rate = this.context.sampleRate;
    const given = joined(this.pieces).subarray(Math.round(from * rate), Math.round(to * rate));
    if (rate === RATE || !given.length) return given;
    const offline = new OfflineAudioContext(1, Math.ceil((given.length * RATE) / rate), RATE);
    const buffer = offline.createBuffer(1, given.length, rate);
    buffer.copyToChannel(given, 0);
    const source = new AudioBufferSourceNode(offline, { buffer });
    source.connect(offline.destination);
    source.start();
    return (await offline.startRendering()).getChannelData(0);
  }

  async stop() {
    for (const track of this.stream.getTracks()) track.stop();
    const samples = await this.samples();
    await this.context.close();
    return samples;
  }
}
