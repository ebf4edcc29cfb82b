// Pieces that all sections are made of: elements, a clip with its picture, a field for recordings, jobs, the log.

import { RATE, Recorder, decoded, toWav } from "./audio.js";
import { drawSound } from "./draw.js";
import { label, languageOf, say } from "./words.js";

/** A new element with properties and children. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Words in a line, and small ones in a paragraph. */
export const span = (key, values) => say(make("span"), key, values);
export const note = (key, values) => say(make("p", { className: "note" }), key, values);

/** A button that sends no form. */
export const button = (key, className = "") => say(make("button", { type: "button", className }), key);

/** A function that tells how many seconds have passed, for people. */
export function timer() {
  const began = performance.now();
  return () => ((performance.now() - began) / 1000).toFixed(1);
}

/** How long samples are, for people. */
export const lengthOf = (samples) => (samples.length / RATE).toFixed(1);

/** A link that saves a file. */
export function saveLink(blob, name, key = "download", address = URL.createObjectURL(blob)) {
  return say(make("a", { href: address, download: name, className: "quiet" }), key);
}

/** A clip: its picture, and once `finish` is called a player; until then `grow` shows what there is. */
export class Clip {
  constructor(key) {
    this.canvas = make("canvas", { role: "img" });
    this.cursor = make("i", { hidden: true });
    this.length = make("span");
    const picture = make("div", { className: "picture" }, this.canvas, this.cursor);
    this.element = make("figure", {}, make("figcaption", {}, span(key), this.length), picture);
    this.key = key;
  }

  grow(samples) {
    const length = lengthOf(samples);
    say(this.length, "seconds", { length });
    label(this.canvas, "picture_of", { length });
    drawSound(this.canvas, samples);
    return this;
  }

  finish(source, name) {
    this.audio = make("audio", { controls: true, preload: "auto", src: URL.createObjectURL(source) });
    label(this.audio, this.key);
    this.audio.addEventListener("timeupdate", () => {
      this.cursor.hidden = !this.audio.currentTime;
      this.cursor.style.left = `${(100 * this.audio.currentTime) / (this.audio.duration || 1)}%`;
    });
    this.element.append(this.audio);
    if (name) this.element.append(make("p", { className: "row" }, saveLink(source, name, "download", this.audio.src)));
    return this;
  }
}

/** A clip of samples that are all there. */
export function clip(key, samples, name) {
  return new Clip(key).grow(samples).finish(toWav(samples), name);
}

/** A place to drop or choose a recording, or to record one. `onStart` is given the Recorder. */
export class AudioField {
  onStart = () => {};
  onGiven = () => {};

  constructor(key = "recorded") {
    this.file = null; // what was given, a Blob with a name
    this.samples = null; // of it, where the browser can read it
    this.input = make("input", { type: "file", accept: "audio/*,video/*" });
    this.drop = make("label", { className: "drop" }, this.input, span("drop"));
    this.button = button("record");
    this.preview = make("div");
    this.problem = problemLine();
    const caption = say(make("span", { className: "caption" }), key);
    const row = make("div", { className: "row" }, this.button);
    this.element = make("div", { className: "field" }, make("div", {}, caption, this.drop), row, this.problem, this.preview);
    label(this.input, key);
    this.button.addEventListener("click", () => this.record());
    this.input.addEventListener("change", () => this.input.files.length && this.take(this.input.files[0]));
    for (const kind of ["dragover", "dragleave", "drop"]) {
      this.drop.addEventListener(kind, (event) => {
        event.preventDefault();
        this.drop.classList.toggle("over", kind === "dragover");
        if (kind === "drop" && event.dataTransfer.files.length) this.take(event.dataTransfer.files[0]);
      });
    }
  }

  async take(file, samples) {
    this.problem.hidden = true;
    this.file = file;
    this.samples = samples ?? (await decoded(file));
    if (this.samples?.length) this.preview.replaceChildren(new Clip("recorded").grow(this.samples).finish(file).element);
    else this.preview.replaceChildren(note("no_picture"));
    this.onGiven();
  }

  async record() {
    if (this.recorder) return this.stop();
    this.problem.hidden = true;
    this.button.disabled = true;
    try {
      this.recorder = await Recorder.open();
    } catch {
      say(this.problem, "no_microphone").hidden = false;
      return;
    } finally {
      this.button.disabled = false;
    }
    say(this.button, "record_stop").classList.add("recording");
    const live = new Clip("recorded");
    this.preview.replaceChildren(live.element);
    const recorder = this.recorder;
    this.timer = setInterval(async () => live.grow(await recorder.samples(Math.max(0, recorder.seconds - 10))), 500);
    this.onStart(recorder);
  }

  async stop() {
    clearInterval(this.timer);
    this.button.disabled = true;
    const samples = await this.recorder.stop();
    this.recorder = null;
    say(this.button, "record").classList.remove("recording");
    this.button.disabled = false;
    if (samples.length) await this.take(new File([toWav(samples)], "recording.wav"), samples);
  }
}

/** A line for `complain`. */
export function problemLine() {
  return make("p", { className: "problem", role: "alert", hidden: true });
}

/** Run `work(signal)` when a form is sent; its button stops it meanwhile, and what goes wrong is said under it.
 *
 * Where there is a `result`, it is the place of what the work gives, elements. */
export function onSend(form, work, result) {
  const main = form.querySelector("button.main");
  const problem = problemLine();
  const name = main.dataset.t;
  let running = null;
  form.append(problem);
  form.addEventListener("input", () => (problem.hidden = true));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (running) return running.abort();
    running = new AbortController();
    problem.hidden = true;
    say(main, "stop");
    form.ariaBusy = "true";
    result?.replaceChildren(note("running"));
    try {
      const made = await work(running.signal);
      result?.replaceChildren(...made);
    } catch (error) {
      result?.replaceChildren();
      complain(problem, error);
    } finally {
      running = null;
      say(main, name);
      form.ariaBusy = null;
    }
  });
}

/** Say what went wrong; that somebody stopped it is no problem. */
export function complain(element, error) {
  if (error.name === "AbortError") return;
  element.hidden = false;
  element.lang = error.words ? document.documentElement.lang : "en"; // which the server speaks
  if (error.words) return say(element, error.words);
  delete element.dataset.t;
  element.textContent = error.message;
  if (!("status" in error)) console.error(error); // a fault of this page
}

/** Add to the log: a kind (key of words), a text, and a file. */
export function record(kind, text, blob, name) {
  const address = URL.createObjectURL(blob);
  const actions = make("span", { className: "row" });
  if (blob.type.startsWith("audio/")) {
    const play = button("play", "quiet");
    const audio = make("audio", { src: address, preload: "none", hidden: true });
    play.addEventListener("click", () => (audio.paused ? audio.play() : audio.pause()));
    actions.append(play, audio);
  }
  actions.append(saveLink(blob, name, "download", address));
  const time = make("time", { dateTime: new Date().toISOString() }, new Date().toTimeString().slice(0, 8));
  const about = make("span", {}, time, " ", say(make("span", { className: "kind" }), kind));
  const what = make("span", { className: "what", lang: languageOf(text) }, text);
  document.getElementById("log").prepend(make("li", {}, about, what, actions));
}

/** A file that holds a text. */
export const textFile = (text) => new Blob([`${text}\n`], { type: "text/plain" });

/** A file name of the words of a text, or of the name of another file. */
export function nameOf(text, ending) {
  const name = text.replace(/\.\w+$/, "").toLowerCase().replace(/[^\p{Letter}\p{Number}]+/gu, "-").slice(0, 40).replace(/^-|-$/g, "");
  return `${name || "audio"}.${ending}`;
}
