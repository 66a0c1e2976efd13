// What the page asks the gateway for.

/** An answer that is a problem (RFC 9457), or no answer at all. */
export class Problem extends Error {
  /** @param {{detail?: string, title?: string, status?: number, reason?: string, advice?: string, retry_after?: number}} body */
  constructor(body) {
    super(body.detail || body.title || "no answer");
    this.status = body.status ?? 0;
    this.reason = body.reason ?? "";
    this.advice = body.advice ?? "";
    this.retryAfterS = body.retry_after;
  }
}

const KEY = "despacho-api-key";
let key = "";
try {
  key = sessionStorage.getItem(KEY) ?? "";
} catch {
  // Where a page may keep nothing, the key lives as long as the page.
}

/** Return the API key of this tab; empty if there is none. */
export const apiKey = () => key;

/** Keep an API key until the tab is closed; throw a `Problem` if it can be none. */
export function keepApiKey(text) {
  const [odd] = text.trim().match(/[^\x20-\x7e]/u) ?? [];
  if (odd) throw new Problem({ detail: `This is no API key: none has the character “${odd}”.` });
  key = text.trim();
  try {
    sessionStorage.setItem(KEY, key);
  } catch {
    // As above.
  }
}

const headers = () => (key ? { Authorization: `Bearer ${key}` } : {});

const RETRY_S = 1; // if nobody says when to try again
const AWAY = [502, 503]; // a proxy says these of a gateway that is not there

const noAnswer = () =>
  new Problem({ detail: "The server does not answer.", reason: "UNREACHABLE", retry_after: RETRY_S });

/** Wait for what the network brings, the head of a response or the rest of it. */
async function arrival(promise) {
  try {
    return await promise;
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // no word of the network
    throw noAnswer();
  }
}

// A line may die without a word, and then nobody but us ends what waits for it.
const ANSWER_S = 40; // more than the gateway takes, where nobody says otherwise
const SILENCE_S = 15; // three times as long as the gateway is silent in its live figures

/** Wait for `promise` so long; then end the request that it is of. */
async function inTime(limitS, request, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => {
      reject(noAnswer());
      request.abort();
    }, limitS * 1000);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Return what can end a request, and does when `signal` says so. */
function endedBy(signal) {
  const request = new AbortController();
  if (signal.aborted) request.abort();
  signal.addEventListener("abort", () => request.abort(), { once: true });
  return request;
}

/** Make a request; throw a `Problem` unless it went well. */
async function ask(path, options = {}) {
  const response = await arrival(fetch(path, { ...options, headers: { ...headers(), ...options.headers } }));
  if (response.ok) return response;
  const { status, statusText } = response;
  const isProblem = response.headers.get("Content-Type")?.includes("problem+json");
  if (isProblem) throw new Problem(await arrival(response.json()));
  // HTTP/2 has no words for a status.
  throw new Problem({ status, title: statusText || `HTTP ${status}`, retry_after: AWAY.includes(status) ? RETRY_S : undefined });
}

/** Make a request; return what its answer says. */
const content = async (path, options) => arrival((await ask(path, options)).json());

/** Return the models that are served. */
export async function listModels() {
  const request = new AbortController();
  return (await inTime(ANSWER_S, request, content("/v1/models", { signal: request.signal }))).models;
}

// Several photos over a slow line take longer than the gateway waits by default.
const TIMEOUT_S = 300;
const LATE_S = 10; // what the gateway says then arrives a little later

/** Label one photo. */
export async function predict(model, file, topK, signal) {
  const path = `/v1/models/${encodeURIComponent(model)}:predict?topK=${topK}`;
  const type = file.type.startsWith("image/") ? file.type : "application/octet-stream";
  const headers = { "Content-Type": type, "X-Request-Timeout": String(TIMEOUT_S) };
  const request = endedBy(signal);
  const options = { method: "POST", body: file, headers, signal: request.signal };
  try {
    return await inTime(TIMEOUT_S + LATE_S, request, content(path, options));
  } catch (problem) {
    if (problem.reason !== "UNREACHABLE" || (await isReadable(file))) throw problem;
    throw new Problem({ detail: "This file has changed or is gone; choose it again." });
  }
}

const isReadable = (file) => file.slice(0, 1).arrayBuffer().then(() => true, () => false);

/**
 * Yield the live figures as pairs of a name and its data, until the connection ends.
 *
 * The first pair is `open` and the time then, by the clock of the server, in milliseconds.
 *
 * `EventSource` cannot send a key, so the events are read from the response itself.
 */
export async function* watchStats(signal) {
  const request = endedBy(signal);
  const options = { signal: request.signal, headers: { Accept: "text/event-stream" } };
  const response = await inTime(ANSWER_S, request, ask("/v1/stats", options));
  yield ["open", Date.parse(response.headers.get("Date"))];
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await inTime(SILENCE_S, request, reader.read());
    if (done) return;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const fields = Object.fromEntries(
        event.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]),
      );
      if (fields.data) yield [fields.event, JSON.parse(fields.data)];
    }
  }
}

/** Make an element: `properties` are set on it, `children` are elements or text. */
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** Return a bar that fills a share from 0 to 1; what it says is also said in words. */
export function bar(share, className = "") {
  const filled = element("span");
  filled.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  const made = element("span", { className: `bar ${className}` }, filled);
  made.setAttribute("aria-hidden", "true");
  return made;
}

/** Read a duration of the proto3 mapping, such as `0.006s`, in seconds. */
export const seconds = (text) => (text ? parseFloat(text) : 0);

/** Write a duration for a person; its unit stays beside its number. */
export function duration(value) {
  if (value >= 10) return `${Math.round(value)}\u00a0s`;
  if (value >= 1) return `${value.toFixed(1)}\u00a0s`;
  return `${Math.round(value * 1000)}\u00a0ms`;
}
