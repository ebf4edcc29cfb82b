// Pictures on a canvas: waveform and spectrogram of samples, and codes.

import { RATE } from "./audio.js";

const SIZE = 1024; // of the Fourier transform, 43 ms
const BANDS = 72; // of the spectrogram, mel, 0 to 12 kHz
const COLUMNS = 640; // at most; the canvas stretches them
const FLOOR_DB = -75; // below the loudest
const MAGMA = [[0, 0, 4], [40, 17, 89], [114, 31, 129], [183, 55, 121], [241, 96, 93], [254, 176, 120], [252, 253, 191]];

const turn = Array.from({ length: SIZE / 2 }, (_, i) => (-2 * Math.PI * i) / SIZE);
const COS = Float32Array.from(turn, Math.cos);
const SIN = Float32Array.from(turn, Math.sin);
const WINDOW = Float32Array.from({ length: SIZE }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / SIZE));
const BITS = Math.log2(SIZE);
const REVERSED = Uint16Array.from({ length: SIZE }, (_, i) => {
  let mirrored = 0;
  for (let bit = 0; bit < BITS; bit++) mirrored |= ((i >> bit) & 1) << (BITS - 1 - bit);
  return mirrored;
});
const EDGES = melEdges();

/** The power spectrum, SIZE / 2 values, of the windowed samples around a place; beyond the ends is silence. */
function spectrum(samples, centre) {
  const real = new Float32Array(SIZE);
  const imaginary = new Float32Array(SIZE);
  for (let i = 0; i < SIZE; i++) real[REVERSED[i]] = (samples[centre - SIZE / 2 + i] ?? 0) * WINDOW[i];
  for (let half = 1; half < SIZE; half *= 2) {
    const step = SIZE / (2 * half);
    for (let block = 0; block < SIZE; block += 2 * half) {
      for (let i = block, k = 0; i < block + half; i++, k += step) {
        const j = i + half;
        const a = real[j] * COS[k] - imaginary[j] * SIN[k];
        const b = real[j] * SIN[k] + imaginary[j] * COS[k];
        real[j] = real[i] - a;
        imaginary[j] = imaginary[i] - b;
        real[i] += a;
        imaginary[i] += b;
      }
    }
  }
  return Float32Array.from({ length: SIZE / 2 }, (_, i) => real[i] ** 2 + imaginary[i] ** 2);
}

function melEdges() {
  const mel = (hz) => 2595 * Math.log10(1 + hz / 700);
  const hz = (value) => 700 * (10 ** (value / 2595) - 1);
  const top = mel(RATE / 2);
  return Array.from({ length: BANDS + 1 }, (_, i) => (hz((top * i) / BANDS) * SIZE) / RATE);
}

/** Decibels of one column of the spectrogram, low bands first. */
function bands(samples, centre) {
  const power = spectrum(samples, centre);
  return Array.from({ length: BANDS }, (_, band) => {
    const first = Math.floor(EDGES[band]);
    const last = Math.max(first + 1, Math.floor(EDGES[band + 1]));
    let sum = 1e-10;
    for (let i = first; i < last && i < power.length; i++) sum += power[i];
    return 10 * Math.log10(sum / (last - first));
  });
}

function colour(share) {
  const place = Math.max(0, Math.min(0.9999, share)) * (MAGMA.length - 1);
  const low = Math.floor(place);
  return MAGMA[low].map((value, i) => value + (MAGMA[low + 1][i] - value) * (place - low));
}

/** Waveform above, log-mel spectrogram below. */
export function drawSound(canvas, samples) {
  const columns = Math.max(1, Math.min(COLUMNS, Math.floor(samples.length / 120)));
  const step = samples.length / columns;
  const table = Array.from({ length: columns }, (_, x) => bands(samples, Math.floor((x + 0.5) * step)));
  const loudest = Math.max(-20, ...table.map((column) => Math.max(...column)));
  const image = new ImageData(columns, BANDS);
  table.forEach((column, x) =>
    column.forEach((db, band) => {
      image.data.set([...colour(1 - (db - loudest) / FLOOR_DB), 255], 4 * ((BANDS - 1 - band) * columns + x));
    }),
  );
  const small = new OffscreenCanvas(columns, BANDS);
  small.getContext("2d").putImageData(image, 0, 0);
  [canvas.width, canvas.height] = [1280, 300];
  const { width, height } = canvas;
  const top = 0.3 * height;
  const context = canvas.getContext("2d");
  context.fillStyle = "#000004";
  context.fillRect(0, 0, width, height);
  context.drawImage(small, 0, top, width, height - top);
  context.fillStyle = "#f08bb4";
  for (let x = 0; x < columns; x++) {
    let [low, high] = [0, 0];
    for (let i = Math.floor(x * step); i < (x + 1) * step; i++) {
      low = Math.min(low, samples[i]);
      high = Math.max(high, samples[i]);
    }
    const tall = Math.max(2, (high - low) * 0.5 * top);
    context.fillRect((x * width) / columns, (1 - high) * 0.5 * top, Math.max(1, width / columns), tall);
  }
}

/** Codes: for each stream a block, in it a row for each codebook; every code has its colour. */
export function drawCodes(canvas, streams, seconds) {
  const [row, gap] = [14, 10];
  const rows = streams.reduce((sum, stream) => sum + stream.codes.length, 0);
  [canvas.width, canvas.height] = [1280, rows * row + (streams.length - 1) * gap];
  const context = canvas.getContext("2d");
  let y = 0;
  for (const stream of streams) {
    const wide = canvas.width / Math.max(1, seconds * stream.frame_rate_hz); // one frame
    for (const book of stream.codes) {
      book.forEach((value, frame) => {
        const code = value / stream.codebook_size;
        context.fillStyle = `hsl(${360 * ((7 * code) % 1)} ${45 + 30 * code}% ${35 + 35 * code}%)`;
        context.fillRect(frame * wide, y, wide + 0.5, row - 1);
      });
      y += row;
    }
    y += gap;
  }
}
