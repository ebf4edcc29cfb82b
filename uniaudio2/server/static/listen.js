// The section that listens: words while somebody speaks, then those of the whole recording, with subtitles.

import { ServerError, ask, events, form as fields } from "./api.js";
import { RATE, toWav } from "./audio.js";
import { AudioField, complain, lengthOf, nameOf, onSend, record, saveLink, textFile, timer } from "./ui.js";
import { languageOf, say } from "./words.js";

const EVERY_S = 1; // how often words of what has been said so far are asked for, if the last answer is there
const QUICK = { beams: "1", shifts: "1" }; // without a search
const LONG_S = 12; // a stretch that is longer is closed at its quietest place, and not heard again
const section = document.getElementById("listen");
const form = section.querySelector("form");
const said = document.getElementById("said");
const state = section.querySelector(".result .note");
const subtitles = document.getElementById("subtitles");
const field = new AudioField("recorded");
let heard = null; // the file that the words on the page are of
let live = null; // the requests while the microphone is open

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

function show(text, partial = false) {
  delete said.dataset.t;
  said.textContent = text;
  said.lang = languageOf(text);
  said.classList.toggle("partial", partial);
}

/** All words of a file; `tell` hears of them as they grow. */
async function transcribe(file, signal, tell, options = {}) {
  const language = form.elements.language.value;
  const post = fields({ file, model: document.body.dataset.model, language, stream: "true", ...options });
  let text = "";
  for await (const event of events(await ask("v1/audio/transcriptions", { post, signal }))) {
    text = event.type.endsWith(".done") ? event.text : text + event.delta;
    tell(text);
  }
  return text;
}

/** Words while the microphone is open. They are a guess: the whole recording is heard again at its end. */
async function follow(recorder) {
  live = new AbortController();
  let [closed, from] = ["", 0];
  subtitles.hidden = true;
  show("", true);
  say(state, "listening");
  const { signal } = live;
  while (field.recorder === recorder) {
    await new Promise((resolve) => setTimeout(resolve, 1000 * EVERY_S));
    if (signal.aborted || recorder.seconds - from < EVERY_S) continue;
    const samples = await recorder.samples(from);
    const end = samples.length > LONG_S * RATE ? quietest(samples) : samples.length;
    const join = (text) => [closed, text].filter(Boolean).join(languageOf(text) === "zh" ? "" : " ");
    const tell = (text) => signal.aborted || show(join(text), true);
    const text = await transcribe(toWav(samples.subarray(0, end)), signal, tell, QUICK).catch(() => null);
    if (text === null) continue; // the server is busy: the next answer has these words too
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
  const passed = timer();
  live?.abort();
  subtitles.hidden = true;
  said.classList.add("partial");
  say(state, "running");
  try {
    const text = await transcribe(file, signal, (part) => show(part, true));
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
