// The section that speaks: voices, and speech that is heard while it is made.

import { ServerError, ask, events, form as fields } from "./api.js";
import { Playback, decoded, fromBase64, fromPCM, joined, toWav } from "./audio.js";
import { AudioField, Clip, button, complain, lengthOf, make, nameOf, note, onSend, problemLine, record, span, timer } from "./ui.js";
import { say } from "./words.js";

const OWN = "\u0000own"; // the voice of a recording that is given here
const section = document.getElementById("speak");
const form = section.querySelector("form");
const result = section.querySelector(".result");
const own = document.getElementById("own-voice");
const sample = new AudioField("voice_sample");
let playing = null;

/** Make the section ready for a model: `trained(row)` says whether it was trained for a row of the task table. */
export async function prepare(trained) {
  document.getElementById("instruction").hidden = !trained("instruct_tts");
  form.elements.speed.addEventListener("input", ({ target }) => {
    document.getElementById("times").textContent = Number(target.value).toFixed(1);
  });
  form.elements.input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  addEventListener("play", () => playing?.stop(), true); // what is being made is silent when something else is heard
  prepareOwnVoice();
  await listVoices();
  onSend(form, (signal) => speak(signal, trained));
}

async function listVoices(chosen = "default") {
  const { data } = await (await ask("v1/audio/voices")).json();
  const options = data.map((one) => {
    const about = [one.name, one.language, one.gender].filter(Boolean).join(", ");
    const option = make("option", { value: one.name }, about);
    if (one.type !== "built_in") option.dataset.stored = "";
    return one.name === "default" ? say(option, "voice_default") : option;
  });
  const select = form.elements.voice;
  select.replaceChildren(...options, say(make("option", { value: OWN }), "voice_own"));
  select.value = chosen;
  select.dispatchEvent(new Event("change"));
}

function prepareOwnVoice() {
  const name = make("input", { maxLength: 64 });
  const keep = button("voice_keep");
  const remove = button("voice_delete", "quiet");
  const problem = problemLine();
  const naming = make("div", { className: "row" }, make("label", { className: "grow" }, span("voice_name"), name), keep);
  own.className = "field";
  own.append(sample.element, naming, problem);
  form.elements.voice.closest(".row").after(remove);
  form.elements.voice.addEventListener("change", ({ target }) => {
    own.hidden = target.value !== OWN;
    remove.hidden = !("stored" in target.selectedOptions[0].dataset);
  });
  const change = async (step) => {
    problem.hidden = true;
    try {
      await listVoices(await step());
    } catch (error) {
      complain(problem, error);
      own.hidden = false;
    }
  };
  keep.addEventListener("click", () =>
    change(async () => {
      await ask("v1/audio/voices", { post: fields({ name: name.value, audio_sample: sample.file }) });
      return name.value;
    }),
  );
  remove.addEventListener("click", () =>
    change(async () => {
      await ask(`v1/audio/voices/${encodeURIComponent(form.elements.voice.value)}`, { method: "DELETE" });
      return "default";
    }),
  );
}

async function speak(signal, trained) {
  const value = Object.fromEntries(new FormData(form));
  if (value.voice === OWN && !sample.file) throw new ServerError("", { words: "need_audio" });
  playing?.stop();
  playing = new Playback();
  result.replaceChildren();
  if (trained("instruct_tts") && value.instructions) await byInstruction(value, signal, trained);
  else await streamed(value, signal);
}

/** Speech as it is made: heard at once, and whole at the end. */
async function streamed(value, signal) {
  const mine = playing;
  signal.addEventListener("abort", () => mine.stop());
  const post = {
    model: document.body.dataset.model,
    input: value.input,
    voice: value.voice === OWN ? "default" : value.voice,
    speed: Number(value.speed),
    seed: Number(value.seed),
    response_format: "pcm",
    stream_format: "sse",
  };
  if (value.language) post.language = value.language;
  if (value.voice === OWN) post.ref_audio = await base64(sample.file);
  const shown = new Clip("spoken");
  const pieces = [];
  const passed = timer();
  let [first, drawn] = [0, -1e9];
  try {
    for await (const event of events(await ask("v1/audio/speech", { post, signal }))) {
      if (!event.audio) continue;
      pieces.push(fromPCM(fromBase64(event.audio)));
      mine.push(pieces.at(-1));
      if (pieces.length === 1) [first] = [passed(), result.append(shown.element)];
      if (performance.now() - drawn < 400) continue;
      shown.grow(joined(pieces));
      drawn = performance.now();
    }
  } finally {
    const samples = joined(pieces); // of speech that was stopped or broke off, what there is
    const about = { first, length: lengthOf(samples), whole: passed() };
    if (pieces.length) finish(shown.grow(samples), samples, value.input, note("speech_note", about));
  }
}

/** Speech by description: a row of the task table, whose answer comes whole. */
async function byInstruction(value, signal, trained) {
  const posted = { caption: value.instructions, transcription: value.input, language: value.language, seed: value.seed };
  const voice = value.voice === OWN ? sample.file : value.voice === "default" ? null : value.voice;
  const row = voice && trained("prompt_instruct_tts") ? "prompt_instruct_tts" : "instruct_tts";
  if (row === "prompt_instruct_tts") posted.voice = voice;
  const passed = timer();
  const samples = await decoded(await (await ask(`v1/tasks/${row}`, { post: fields(posted), signal })).blob());
  playing.push(samples);
  const shown = new Clip("spoken").grow(samples);
  result.append(shown.element);
  finish(shown, samples, value.input, note("work_note", { whole: passed() }));
}

function finish(shown, samples, text, about) {
  const [file, name] = [toWav(samples), nameOf(text, "wav")];
  shown.finish(file, name);
  shown.element.append(about);
  record("spoken", text, file, name);
}

async function base64(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}
