// The page: its language, the key, and the sections once the model is there.

import { ask, useKey } from "./api.js";
import * as codec from "./codec.js";
import * as listen from "./listen.js";
import * as speak from "./speak.js";
import * as tasks from "./tasks.js";
import { complain, make } from "./ui.js";
import { say, translate } from "./words.js";

const state = document.getElementById("state");
const key = document.getElementById("key");
const other = document.getElementById("other-language");

function show(language) {
  translate(language);
  [other.lang, other.textContent] = language === "zh" ? ["en", "English"] : ["zh", "中文"];
}

/** Ask until the model is loaded. */
async function ready() {
  for (;;) {
    try {
      return await (await ask("ready")).json();
    } catch (error) {
      if (error.status !== 503 || !/being loaded/.test(error.message)) throw error;
      say(state, "loading");
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
}

async function start() {
  say(state, "loading");
  state.classList.remove("problem");
  try {
    const { model } = await ready();
    const { version } = await (await ask("health")).json();
    const { data } = await (await ask("v1/tasks")).json();
    document.body.dataset.model = model;
    const rows = new Map(data.map((row) => [row.id, row]));
    await speak.prepare((id) => rows.has(id) && rows.get(id).trained !== false);
    listen.prepare();
    codec.prepare();
    tasks.prepare(data);
    say(state, "serves", { model, version });
    document.body.dataset.ready = "";
  } catch (error) {
    state.classList.add("problem");
    complain(state, error);
    key.hidden = error.status !== 401;
    if (!key.hidden) key.elements.key.focus();
  }
}

other.addEventListener("click", () => show(other.lang));
key.addEventListener("submit", (event) => {
  event.preventDefault();
  key.hidden = true;
  useKey(key.elements.key.value);
  start();
});
addEventListener(
  "play", // one player at a time
  ({ target }) => document.querySelectorAll("audio").forEach((each) => each !== target && each.pause()),
  true,
);
for (const { id } of document.querySelectorAll("section")) {
  document.querySelector("nav").append(say(make("a", { href: `#${id}` }), id));
}
show(navigator.language.startsWith("zh") ? "zh" : "en");
start();
