// The codec's playground: codes as a picture, what they cost, and the recording beside what the codes give back.

import { ServerError, ask, form as fields } from "./api.js";
import { RATE, fromPCM, toWav } from "./audio.js";
import { drawCodes } from "./draw.js";
import { AudioField, Clip, make, nameOf, onSend, record, saveLink, short } from "./ui.js";
import { label, say } from "./words.js";

const section = document.getElementById("codec");
const result = section.querySelector(".result");
const field = new AudioField("recorded");

/** Make the section ready. */
export function prepare() {
  const form = section.querySelector("form");
  form.querySelector("[data-audio]").replaceWith(field.element);
  onSend(form, there);
}

async function there(signal) {
  if (!field.file) throw new ServerError("", { words: "need_audio" });
  const [file, original] = [field.file, field.samples];
  result.replaceChildren(say(make("p", { className: "note" }), "running"));
  try {
    const answer = await ask("v1/codec/encode", { post: fields({ file, response_format: "json" }), signal });
    const written = await answer.text();
    const codes = JSON.parse(written);
    const stored = new File([written], nameOf(file.name.replace(/\.\w+$/, ""), "codes.json"), { type: "application/json" });
    result.replaceChildren(...facts(codes), picture(codes, stored), say(make("p", { className: "note" }), "running"));
    const back = await ask("v1/codec/decode", { post: fields({ file: stored, response_format: "pcm" }), signal });
    const samples = fromPCM(new Uint8Array(await back.arrayBuffer()));
    result.lastChild.replaceWith(comparison(original, samples, file));
  } catch (error) {
    result.replaceChildren();
    throw error;
  }
}

function facts({ streams, sample_rate }) {
  const rate = streams.reduce((sum, stream) => sum + stream.bit_rate, 0);
  const pair = (value, key) => make("li", {}, make("b", {}, value), say(make("span"), key));
  const number = (value) => Math.round(value).toLocaleString("en");
  const list = [pair(number(rate), "bit_rate"), pair(number((16 * sample_rate) / rate), "smaller")];
  const lines = streams.map((one) => `${one.name}: ${one.codes.length} × ${one.codebook_size} @ ${one.frame_rate_hz} Hz`);
  return [make("ul", { className: "facts" }, ...list), make("p", { className: "note", lang: "en" }, lines.join("; "))];
}

function picture({ streams, num_samples, sample_rate }, file) {
  const canvas = label(make("canvas", { className: "codes" }), "codes_picture");
  canvas.setAttribute("role", "img");
  drawCodes(canvas, streams, num_samples / sample_rate);
  const caption = make("figcaption", {}, say(make("span"), "codes"), say(make("span"), "seconds", { length: short(num_samples / sample_rate) }));
  return make("figure", {}, caption, canvas, make("p", { className: "row" }, saveLink(file, file.name, "codes_file")));
}

/** One player for both: what is heard changes, the place in it does not. */
function comparison(original, samples, file) {
  const [made, name] = [toWav(samples), nameOf(`${file.name.replace(/\.\w+$/, "")} decoded`, "wav")];
  record("decoded", file.name, made, name);
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
    choices.append(make("label", {}, radio, say(make("span"), side.key)));
  }
  shown.element.prepend(choices);
  return shown.element;
}
