// The section that listens: words while somebody speaks, then those of the whole recording, with subtitles.

import { ServerError, ask, events, form as fields, listening } from "./api.js";
import { toPCM } from "./audio.js";
import { AudioField, complain, lengthOf, make, nameOf, onSend, record, saveLink, textFile, timer } from "./ui.js";
import { languageOf, say } from "./words.js";

const section = document.getElementById("listen");
const form = section.querySelector("form");
const said = document.getElementById("said");
const state = section.querySelector(".result .note");
const subtitles = document.getElementById("subtitles");
const field = new AudioField("recorded");
let heard = null; // the file that the words on the page are of
let live = null; // what listens while the microphone is open

/** Make the section ready. */
export function prepare() {
  form.querySelector("[data-audio]").replaceWith(field.element);
  field.onStart = follow;
  field.onGiven = () => form.ariaBusy || form.requestSubmit();
  form.elements.language.innerHTML = document.querySelector("#speak [name=language]").innerHTML;
  onSend(form, write);
  for (const button of subtitles.querySelectorAll("button")) {
    button.addEventListener("click", () => save(button.value).catch((error) => complain(field.problem, error)));
  }
}

/** Words that stay, and a guess at those that follow. */
function show(text, guess = "") {
  delete said.dataset.t;
  said.replaceChildren(text, make("span", { className: "partial" }, guess));
  said.lang = languageOf(text + guess);
}

/** All words of a file. */
async function transcribe(file, signal) {
  const language = form.elements.language.value;
  const post = fields({ file, model: document.body.dataset.model, language, stream: "true" });
  let text = "";
  for await (const event of events(await ask("v1/audio/transcriptions", { post, signal }))) {
    text = event.type.endsWith(".done") ? event.text : text + event.delta;
    show(text);
  }
  return text;
}

/** Words while the microphone is open. */
function follow(recorder) {
  live?.close();
  subtitles.hidden = true;
  show("");
  say(state, "listening");
  live = listening({ rate: recorder.context.sampleRate, language: form.elements.language.value }, show);
  recorder.onPiece = (samples) => live.send(toPCM(samples));
}

async function write(signal) {
  if (field.recorder) await field.stop();
  if (!field.file) throw new ServerError("", { words: "need_audio" });
  const file = field.file;
  const [passed, followed] = [timer(), live];
  live = null;
  signal.addEventListener("abort", () => followed?.close());
  subtitles.hidden = true;
  say(state, "running");
  try {
    followed?.end();
    const text = (await followed?.text) ?? (await transcribe(file, signal));
    show(text);
    if (!text) say(said, "nothing_said");
    heard = file;
    say(state, "written_note", { length: field.samples ? lengthOf(field.samples) : "?", whole: passed() });
    subtitles.hidden = false;
    record("written", text, textFile(text), nameOf(file.name, "txt"));
  } catch (error) {
    say(state, "");
    throw error;
  }
}

/** Save the words as a file; the server knows their times. */
async function save(ending) {
  const post = fields({ file: heard, model: document.body.dataset.model, response_format: ending });
  post.set("language", form.elements.language.value);
  const text = await (await ask("v1/audio/transcriptions", { post })).text();
  saveLink(textFile(text), nameOf(heard.name, ending)).click();
}
