// The section that listens: words while somebody speaks, then those of the whole recording, with subtitles.

import { ServerError, ask, events, form as fields } from "./api.js";
import { RATE, toWav } from "./audio.js";
import { AudioField, make, nameOf, onSend, record, saveLink, short } from "./ui.js";
import { languageOf, say } from "./words.js";

const EVERY_S = 1; // how often words of what has been said so far are asked for, if the last answer is there
const LONG_S = 12; // a stretch that is longer is closed at its quietest place, and not heard again
const section = document.getElementById("listen");
const form = section.querySelector("form");
const said = document.getElementById("said");
const note = section.querySelector(".result .note");
const subtitles = document.getElementById("subtitles");
const field = new AudioField("recorded");
let heard = null; // the file that the words on the page are of
let request = 0;

/** Make the section ready. */
export function prepare() {
  form.querySelector("[data-audio]").replaceWith(field.element);
  field.addEventListener("start", ({ detail }) => follow(detail));
  for (const kind of ["recorded", "given"]) field.addEventListener(kind, () => form.ariaBusy || form.requestSubmit());
  form.elements.language.innerHTML = document.querySelector("#speak [name=language]").innerHTML;
  onSend(form, write);
  for (const button of subtitles.querySelectorAll("button")) {
    button.addEventListener("click", () => save(button.value).catch((error) => show(error.message)));
  }
}

function show(text, partial = false) {
  said.textContent = text;
  said.lang = languageOf(text);
  said.classList.toggle("partial", partial);
}

/** All words of a file; `onText` hears of them as they grow. */
async function transcribe(file, signal, onText) {
  const post = fields({ file, model: document.body.dataset.model, language: form.elements.language.value, stream: "true" });
  let text = "";
  for await (const event of events(await ask("v1/audio/transcriptions", { post, signal }))) {
    text = event.type.endsWith(".done") ? event.text : text + event.delta;
    onText(text);
  }
  return text;
}

/** Words while the microphone is open. They are a guess: the whole recording is heard again at its end. */
async function follow(recorder) {
  const mine = ++request;
  let [closed, from] = ["", 0];
  subtitles.hidden = true;
  show("", true);
  say(note, "listening");
  while (field.recorder === recorder && mine === request) {
    await new Promise((resolve) => setTimeout(resolve, 1000 * EVERY_S));
    if (field.recorder !== recorder || recorder.seconds - from < EVERY_S) continue;
    const samples = await recorder.samples(from);
    const end = samples.length > LONG_S * RATE ? quietest(samples) : samples.length;
    const join = (text) => [closed, text].filter(Boolean).join(languageOf(text) === "zh" ? "" : " ");
    const tell = (text) => field.recorder === recorder && show(join(text), true);
    const text = await transcribe(toWav(samples.subarray(0, end)), undefined, tell).catch(() => null);
    if (text === null) continue; // busy: the next answer has these words too
    if (end < samples.length) [closed, from] = [join(text), from + end / RATE];
  }
}

/** Where the second half of some samples is quietest, over .2 s. */
function quietest(samples) {
  const size = RATE / 5;
  let [place, least] = [samples.length, Infinity];
  for (let start = samples.length >> 1; start + size <= samples.length; start += size) {
    const loudness = samples.subarray(start, start + size).reduce((sum, value) => sum + value * value, 0);
    if (loudness < least) [place, least] = [start + size / 2, loudness];
  }
  return place;
}

async function write(signal) {
  if (field.recorder) await field.stop();
  if (!field.file) throw new ServerError("", { words: "need_audio" });
  const file = field.file;
  const began = performance.now();
  request++; // words of a recording that goes on are not wanted any more
  subtitles.hidden = true;
  said.classList.add("partial");
  say(note, "writing");
  try {
    const text = await transcribe(file, signal, (part) => show(part, true));
    show(text);
    if (!text) say(said, "nothing_said");
    heard = file;
    const whole = short((performance.now() - began) / 1000);
    say(note, "written_note", { length: field.samples ? short(field.samples.length / RATE) : "?", whole });
    subtitles.hidden = false;
    record("written", text, new Blob([`${text}\n`], { type: "text/plain" }), nameOf(file.name.replace(/\.\w+$/, ""), "txt"));
  } catch (error) {
    say(note, "");
    throw error;
  }
}

/** Save the words as a file; the server knows their times. */
async function save(ending) {
  const post = fields({ file: heard, model: document.body.dataset.model, response_format: ending === "txt" ? "text" : ending });
  post.set("language", form.elements.language.value);
  const text = await (await ask("v1/audio/transcriptions", { post })).text();
  const type = ending === "vtt" ? "text/vtt" : "text/plain";
  const link = saveLink(new Blob([text], { type }), nameOf(heard.name.replace(/\.\w+$/, ""), ending));
  document.body.append(make("div", { hidden: true }, link));
  link.click();
  link.parentElement.remove();
}
