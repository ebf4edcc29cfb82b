// Sound in the browser: samples to and from files, playback while they still come, and the microphone.

export const RATE = 24000; // Hz, of all samples here: mono, Float32Array in [-1, 1]
const PIECE = 2048; // samples that recorder.js sends at once

/** Samples of 16-bit little-endian bytes. */
export function fromPCM(bytes) {
  return Float32Array.from(new Int16Array(bytes.buffer, 0, bytes.length >> 1), (value) => value / 32768);
}

/** The same the other way. */
export const toPCM = (samples) => Int16Array.from(samples, (value) => Math.round(32767 * Math.max(-1, Math.min(1, value))));

/** A WAV file. */
export function toWav(samples) {
  const values = toPCM(samples);
  const size = 2 * values.length; // RIFF, WAVE, "fmt ": PCM, one channel, rate, bytes a second, 2 bytes, 16 bits; data
  const format = [0x20746d66, 16, 0x10001, RATE, 2 * RATE, 0x100002];
  const header = Uint32Array.of(0x46464952, 36 + size, 0x45564157, ...format, 0x61746164, size);
  return new Blob([header, values], { type: "audio/wav" });
}

/** The bytes of base64 text. */
export const fromBase64 = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));

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

/** The microphone. `Recorder.open()`, then `samples()` at any time, and `stop()`, which gives all; `onPiece` hears it. */
export class Recorder {
  pieces = [];
  onPiece = () => {};

  static async open() {
    const made = new Recorder();
    made.stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false } });
    // At the microphone's own rate where the browser does not convert it.
    await made.connect(new AudioContext({ sampleRate: RATE })).catch(() => made.connect(new AudioContext()));
    return made;
  }

  async connect(context) {
    const source = context.createMediaStreamSource(this.stream);
    await context.audioWorklet.addModule(new URL("recorder.js", import.meta.url));
    this.context = context;
    this.node = new AudioWorkletNode(context, "recorder");
    this.node.port.onmessage = ({ data }) => {
      this.pieces.push(data);
      this.onPiece(data);
    };
    source.connect(this.node).connect(context.destination); // which is silent
  }

  get seconds() {
    return (this.pieces.length * PIECE) / this.context.sampleRate;
  }

  async samples(from = 0) {
    const rate = this.context.sampleRate;
    const first = Math.floor((from * rate) / PIECE);
    const given = joined(this.pieces.slice(first)).subarray(Math.round(from * rate) - first * PIECE);
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
    this.node.port.onmessage = null;
    const samples = await this.samples();
    await this.context.close();
    return samples;
  }
}
