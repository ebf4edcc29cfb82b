// The routes of the server. What goes wrong is a ServerError in the server's own words.

let key = "";

/** Something that the page shows to whoever asked: a message of the server, or a key of the page's own words. */
export class ServerError extends Error {
  constructor(message, { status = 0, words = null } = {}) {
    super(message);
    this.status = status;
    this.words = words;
  }
}

/** Send this key with every request from now on. */
export function useKey(given) {
  key = given;
}

/** The answer of a route; `post` is an object for JSON, or a FormData. */
export async function ask(path, { post, method, signal } = {}) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const plain = post !== undefined && !(post instanceof FormData);
  if (plain) headers["Content-Type"] = "application/json";
  const body = plain ? JSON.stringify(post) : post;
  const answer = await reached(() => fetch(path, { method: method ?? (post ? "POST" : "GET"), headers, body, signal }));
  if (answer.ok) return answer;
  const text = await reached(() => answer.text());
  let message;
  try {
    message = JSON.parse(text).error.message;
  } catch {
    message = `${answer.status} ${answer.statusText}`;
  }
  throw new ServerError(message, { status: answer.status });
}

/** Words of samples that are still coming: `tell(said, guess)` hears of them, and `text` is all of them in the end, or
 * null if that fails. */
export function listening(query, tell) {
  const address = new URL(`v1/audio/transcriptions?${new URLSearchParams(query)}`, location.href);
  address.protocol = address.protocol.replace("http", "ws");
  const socket = new WebSocket(address, key ? ["realtime", `openai-insecure-api-key.${key}`] : []);
  const waiting = [];
  let said = "";
  const text = new Promise((found) => {
    socket.onclose = () => found(null);
    socket.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      if (event.type.endsWith(".done")) found(event.text);
      if (event.delta) said += event.delta;
      if (event.type.endsWith(".guess")) tell(said, event.agreed + event.guess);
    };
  });
  socket.onopen = () => waiting.forEach((data) => socket.send(data));
  const send = (data) => (socket.readyState ? socket.send(data) : waiting.push(data));
  return { text, send, end: () => send('{"type":"end"}'), close: () => socket.close() };
}

/** A form of fields; those that are empty are left out. */
export function form(fields) {
  const made = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (value instanceof Blob) made.append(name, value, value.name ?? "recording.wav");
    else if (value !== "" && value !== null && value !== undefined) made.append(name, value);
  }
  return made;
}

/** The server-sent events of an answer, up to and with the one whose type ends in ".done". */
export async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { done, value } = await reached(() => reader.read());
    if (done) throw new ServerError("", { words: "cut_off" });
    const blocks = (waiting + value).split("\n\n");
    waiting = blocks.pop();
    for (const block of blocks.filter((each) => each.startsWith("data: {"))) {
      const event = JSON.parse(block.slice(6));
      if (event.error) throw new ServerError(event.error.message);
      yield event;
      if (event.type.endsWith(".done")) return;
    }
  }
}

async function reached(step) {
  try {
    return await step();
  } catch (error) {
    throw error.name === "AbortError" ? error : new ServerError(error.message, { words: "unreachable" });
  }
}
