// What is asked of the server that this page is from. The token is in the address behind the #, which no server gets to
// see, or is typed, and goes into a header. This page keeps it in memory alone; browsers remember the address itself.

let token = "";

// The token of the address, which is taken out of it.
export function adopt() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (found === null) return;
  token = found;
  history.replaceState(null, "", location.pathname);
}

// The token as it is typed.
export function use(typed) {
  token = typed.trim();
}

// Why there is no answer. `wait`: seconds until it is worth while to ask again, where that is known.
export class Refused extends Error {
  constructor(status, message, wait = null) {
    super(message);
    Object.assign(this, { status, wait });
  }
}

const WHY = {
  401: "The token is missing or wrong: it stands in the address that the server has printed, behind #token=, or in the file of its --token-file.",
  413: "The conversation is too long to be sent. Begin a new one.",
  421: "The server does not know itself by this address. Open the one that it has printed.",
};

async function call(path, options = {}) {
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  if (!token) throw new Refused(401, WHY[401]);
  let reply;
  try {
    reply = await fetch(path, { headers, cache: "no-store", credentials: "omit", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server cannot be reached. Is it still running?");
  }
  if (!reply.ok) throw await refusal(reply);
  return reply;
}

async function refusal(reply) {
  const wait = Number(reply.headers.get("Retry-After")) || null;
  let said = "";
  try {
    said = (await reply.json()).error.message;
  } catch {
    said = `The server said ${reply.status} ${reply.statusText}`;
  }
  if (reply.status === 429)
    return new Refused(429, `Too much is asked at a time${wait ? `: ask again in ${wait} s` : ""}. ${said}`, wait);
  return new Refused(reply.status, WHY[reply.status] ?? said);
}

const post = (path, body, signal) => call(path, { method: "POST", body: JSON.stringify(body), signal });

export const models = async () => (await (await call("/v1/models")).json()).data;

export const votes = async () => (await call("/votes")).json();

export const vote = (found) => post("/votes", found);

// What comes of an answer, each an object of some of: text, tokens, queued, begun, ended, reason. Ends when the answer
// does; an error of the server on the way is thrown.
export async function* answer(body, signal) {
  const path = "prompt" in body ? "/v1/completions" : "/v1/chat/completions";
  const reply = await post(path, { ...body, stream: true }, signal);
  let complete = false;
  for await (const data of lines(reply.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Refused(chunk.error.code, chunk.error.message);
    const choice = chunk.choices?.[0];
    if (choice?.finish_reason) complete = true;
    yield { ...chunk.tradeoffs, text: choice?.delta?.content ?? choice?.text ?? "", reason: choice?.finish_reason ?? null };
  }
  if (!complete) throw new Refused(0, "The connection broke off.");
}

// The data of server-sent events, one at a time.
async function* lines(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const found = (rest + value).split(/\r?\n/);
      rest = found.pop();
      for (const line of found) if (line.startsWith("data:")) yield line.slice(5).trim();
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The connection broke off.");
  } finally {
    reader.cancel().catch(() => {});
  }
}
