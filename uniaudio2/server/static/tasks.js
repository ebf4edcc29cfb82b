// Sections made from the task table: a form for each row that the model was trained for, and one line on the others.

import { ServerError, ask, form as fields } from "./api.js";
import { decoded, fromBase64 } from "./audio.js";
import { AudioField, button, clip, make, nameOf, note, onSend, record, span, textFile, timer } from "./ui.js";
import { languageOf, say } from "./words.js";

const SOUNDS = ["tta", "ttm"];
const CAPTIONS = ["audio_caption", "music_caption"];
const CHANGES = ["voice_conversion", "speech_denoise", "speech_edit"]; // named even where there are none
const ELSEWHERE = // in a section of their own, or of no use to somebody who listens
  `${[SOUNDS, CAPTIONS, CHANGES]} asr yue_asr tts yue_tts instruct_tts prompt_instruct_tts audio_only text_only
  reason_to_semantic semantic_to_reason semantic_copy reason_copy`.split(/[\s,]+/);

/** Fill the sections from the rows of `GET /v1/tasks`. */
export function prepare(rows) {
  const table = new Map(rows.map((row) => [row.id, row]));
  const rest = rows.map((row) => row.id).filter((id) => !ELSEWHERE.includes(id));
  fill("sounds", SOUNDS, table);
  fill("captions", CAPTIONS, table);
  fill("changes", [...CHANGES, ...rest], table);
  const hears = (row) => row.inputs.some(({ kind }) => kind !== "text") && !/semantic|reason/.test(row.id);
  const shown = rows.filter((row) => row.trained !== false && hears(row));
  if (shown.length) document.querySelector("#changes .grid").prepend(fewShot(shown));
}

function fill(section, ids, table) {
  const grid = document.querySelector(`#${section} .grid`);
  const has = (id) => table.has(id) && table.get(id).trained !== false;
  grid.replaceChildren(...ids.filter(has).map((id) => card(table.get(id))));
  if (grid.children.length === 1) grid.firstChild.classList.add("two");
  const others = ids.filter((id) => !has(id));
  if (!others.length) return;
  grid.append(make("p", { className: "honest" }, span("untrained"), ...others.map((id) => span(`task_${id}`))));
}

/** A field for each value on one side of a row. */
function inputsOf(row, side) {
  return [...new Map(row[side].map((part) => [part.name, part])).values()].map((part) => input(row, part, side));
}

/** What the fields hold by name. */
function valuesOf(inputs) {
  if (inputs.some((one) => !one.optional && !one.value())) throw new ServerError("", { words: "need_audio" });
  return Object.fromEntries(inputs.map((one) => [one.name, one.value()]).filter(([, value]) => value));
}

/** Examples and a question: two at first, for two kinds that have names; one where sound is made of sound. */
function fewShot(rows) {
  const choice = make("select", {}, ...rows.map((row) => say(make("option", { value: row.id }), `task_${row.id}`)));
  const examples = make("div", { className: "field shots" });
  const question = make("div", { className: "field" });
  const more = button("more_examples", "quiet");
  const main = say(make("button", { className: "main" }), "run");
  const form = make("form", {}, make("label", {}, span("task"), choice), examples, more, question, main);
  const result = make("div", { className: "result", ariaLive: "polite" });
  let [row, shots, query] = [null, [], []];
  const block = (title, inputs) => [title, ...inputs.map((one) => one.element)];
  const add = () => {
    const shot = { input: inputsOf(row, "inputs"), output: inputsOf(row, "outputs") };
    const title = say(make("h4"), "example", { number: shots.push(shot) });
    examples.append(make("div", { className: "field" }, ...block(title, [...shot.input, ...shot.output])));
  };
  const choose = () => {
    row = rows.find(({ id }) => id === choice.value);
    [shots, query] = [[], inputsOf(row, "inputs")];
    question.replaceChildren(...block(say(make("h4"), "question"), query));
    examples.replaceChildren();
    add();
    if (row.outputs.some(({ kind }) => kind === "text")) add();
  };
  const work = async (signal) => {
    const post = { ...valuesOf(query), response_format: "json" };
    const side = (inputs, at) => {
      const values = valuesOf(inputs);
      for (const [name, value] of Object.entries(values).filter(([, value]) => value instanceof Blob)) {
        values[name] = `${at}_${name}`; // the part of the form that holds it
        post[values[name]] = value;
      }
      return values;
    };
    const pair = ({ input, output }, i) => ({ input: side(input, `in${i}`), output: side(output, `out${i}`) });
    post.shots = JSON.stringify(shots.map(pair));
    const passed = timer();
    const answer = await ask(`v1/tasks/${row.id}`, { post: fields(post), signal });
    return [...(await outputs(row, answer, "few-shot")), note("work_note", { whole: passed() })];
  };
  choice.addEventListener("change", choose);
  more.addEventListener("click", add);
  choose();
  onSend(form, work, result);
  return make("article", { className: "card wide", id: "few-shot" }, say(make("h3"), "task_few_shot"), form, result);
}

/** A form with a field for each input of a row, and what comes of it below. */
function card(row) {
  const inputs = inputsOf(row, "inputs");
  const button = say(make("button", { className: "main" }), "run");
  const form = make("form", {}, ...inputs.map((one) => one.element), button);
  const result = make("div", { className: "result", ariaLive: "polite" });
  const work = async (signal) => {
    const given = valuesOf(inputs);
    const passed = timer();
    const answer = await ask(`v1/tasks/${row.id}`, { post: fields(given), signal });
    const made = await outputs(row, answer, inputs.map((one) => one.about()).filter(Boolean).join(", "));
    return [...made, note("work_note", { whole: passed() })];
  };
  onSend(form, work, result);
  const card = make("article", { className: "card" }, say(make("h3"), `task_${row.id}`), form, result);
  card.dataset.row = row.id;
  return card;
}

function input(row, part, side) {
  const key = `input_${part.name}`;
  if (part.kind === "text") {
    const box = make("textarea", { rows: 2, required: !part.optional, value: row.id === "tta" ? "a dog barking" : "" });
    const element = make("label", {}, span(key), box);
    return { ...part, element, value: () => box.value, about: () => box.value };
  }
  const field = new AudioField(part.kind === "voice" || side === "outputs" ? key : "recorded");
  return { ...part, element: field.element, value: () => field.file, about: () => field.file?.name };
}

/** What a row has made, as elements; it is also put in the log. */
async function outputs(row, answer, about) {
  if (!answer.headers.get("Content-Type").startsWith("application/json")) return [await sound(row, "answer", await answer.blob(), about)];
  const made = [];
  for (const [name, one] of Object.entries((await answer.json()).outputs)) {
    if (one.type === "text") made.push(text(row, one.text, about));
    if (one.type === "audio") {
      made.push(await sound(row, name, new Blob([fromBase64(one.audio)], { type: "audio/wav" }), about));
    }
  }
  return made;
}

async function sound(row, name, file, about) {
  const samples = await decoded(file);
  const saved = nameOf(name === "answer" ? about : `${about} ${name}`, "wav");
  record(`task_${row.id}`, about, file, saved);
  const shown = clip(name, samples, saved);
  shown.audio.play().catch(() => {}); // a browser may want another click
  return shown.element;
}

function text(row, said, about) {
  record(`task_${row.id}`, said, textFile(said), nameOf(about, "txt"));
  return make("p", { className: "said", lang: languageOf(said) }, said);
}
