// The codec's playground: codes as a picture, what they cost, and the recording beside what the codes give back.

import { ServerError, ask, form as fields } from "./api.js";
import { RATE, fromPCM, toWav } from "./audio.js";
import { drawCodes } from "./draw.js";
import { AudioField, Clip, make, nameOf, note, onSend, record, saveLink, span } from "./ui.js";
import { label, say } from "./words.js";

const section = document.getElementById("codec");
const result = section.querySelector(".result");
const field = new AudioField("recorded");

/** Make the section ready. */
export function prepare() {
  const form = section.querySelector("form");
  form.querySelector("[data-audio]").replaceWith(field.element);
  onSend(form, there, result);
}

async function there(signal) {
  if (!field.file) throw new ServerError("", { words: "need_audio" });
  const [file, original] = [field.file, field.samples];
  const answer = await ask("v1/codec/encode", { post: fields({ file, response_format: "json" }), signal });
  const written = await answer.text();
  const codes = JSON.parse(written);
  const stored = new File([written], nameOf(file.name, "codes.json"), { type: "application/json" });
  result.replaceChildren(...facts(codes), picture(codes, stored), note("running"));
  const back = await ask("v1/codec/decode", { post: fields({ file: stored, response_format: "pcm" }), signal });
  const samples = fromPCM(new Uint8Array(await back.arrayBuffer()));
  return [...result.children].slice(0, -1).concat(comparison(original, samples, file));
}

function facts({ streams, sample_rate }) {
  const rate = streams.reduce((sum, stream) => sum + stream.bit_rate, 0);
  const cost = { rate: Math.round(rate).toLocaleString("en"), times: Math.round((16 * sample_rate) / rate) };
  const lines = streams.map((one) => `${one.name}: ${one.codes.length} × ${one.codebook_size} @ ${one.frame_rate_hz} Hz`);
  return [say(make("p", { className: "said" }), "bit_rate", cost), make("p", { className: "note", lang: "en" }, lines.join("; "))];
}

function picture({ streams, num_samples, sample_rate }, file) {
  const canvas = label(make("canvas", { className: "codes", role: "img" }), "codes_picture");
  drawCodes(canvas, streams, num_samples / sample_rate);
  const caption = make("figcaption", {}, span("codes"), span("seconds", { length: (num_samples / sample_rate).toFixed(1) }));
  return make("figure", {}, caption, canvas, make("p", { className: "row" }, saveLink(file, file.name, "codes_file")));
}

/** One player for both: what is heard changes, the place in it does not. */
function comparison(original, samples, file) {
  const [made, name] = [toWav(samples), nameOf(file.name, "decoded.wav")];
  record("codes", file.name, made, name);
  const shown = new Clip("compare").grow(samples).finish(made, name);
  const sides = [
    { key: "original", samples: original, address: URL.createObjectURL(file) },
    { key: "decoded", samples, address: shown.audio.src },
  ];
  const choices = make("fieldset");
  label(choices, "compare");
  for (const side of sides) {
    const radio = make("input", { type: "radio", name: "side", checked: side.key === "decoded", disabled: !side.samples });
    radio.addEventListener("change", () => {
      const [time, playing] = [shown.audio.currentTime, !shown.audio.paused];
      shown.grow(side.samples);
      shown.audio.src = side.address;
      shown.audio.currentTime = time;
      if (playing) shown.audio.play();
    });
    choices.append(make("label", {}, radio, span(side.key)));
  }
  shown.element.prepend(choices);
  return shown.element;
}
