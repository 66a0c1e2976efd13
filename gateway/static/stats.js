// The live panel: what the system does now, once a second.

import { bar, duration, element, seconds, watchStats } from "./api.js";

const HISTORY = 60; // points of a curve, one per second
const STALE_S = 4; // news are late after this
const GONE_S = 20; // how long a worker that is gone is still shown
const PAUSE_S = 2;
const REFUSED_S = 30; // how long to do without after a key was missing or refused

const state = document.getElementById("live-state");
const said = document.getElementById("live-said");
const models = document.getElementById("live-models");
const failures = document.getElementById("live-failures");

const panels = new Map();
let newsAt = 0;
let seenAt = ""; // when the newest figures were seen, by the clock of the front-end
let liveWords = "";
let isTroubled = false;
const toSay = [];
let stopper = new AbortController();
let wake = () => {}; // ends a pause

/** What is shown of one model. */
class Panel {
  constructor(name) {
    this.history = [];
    this.shownAt = 0;
    this.workers = new Map();
    this.figures = element("dl", { className: "figures" });
    this.curve = element("div", { className: "curve" });
    this.queues = element("div");
    this.list = element("div");
    this.failures = element("div");
    this.whole = element(
      "article",
      { className: "model" },
      element("h3", {}, name),
      this.figures,
      this.curve,
      this.queues,
      element("h4", {}, "Workers"),
      this.list,
      this.failures,
    );
  }

  /** Show the newest figures; return what changed among the workers. */
  show(model, now) {
    const waiting = sum(model.queues, "waiting");
    const claimed = sum(model.queues, "claimed");
    const oldest = Math.max(0, ...model.queues.map((queue) => seconds(queue.oldestAge)));
    const { latency } = model;
    const quantile = (value) => (value === undefined ? "–" : duration(seconds(value)));
    this.figures.replaceChildren(
      ...figure("images per second", model.imagesPerSecond.toFixed(1)),
      ...figure("waiting", waiting, `${claimed} in work`),
      ...figure("oldest", waiting + claimed ? duration(oldest) : "–", `${size(Number(model.queuedBytes))} held`),
      ...figure("latency p50", quantile(latency.p50), `${unbroken(`p90 ${quantile(latency.p90)}`)}, ${unbroken(`p99 ${quantile(latency.p99)}`)}`),
    );
    if (now - this.shownAt > STALE_S * 1000) this.history = []; // a curve has no gaps
    this.shownAt = now;
    this.history = [...this.history, model.imagesPerSecond].slice(-HISTORY);
    this.curve.replaceChildren(curve(this.history));
    this.queues.replaceChildren(...queues(model.queues));
    this.failures.replaceChildren(...failureList(model.failures));
    return this.#showWorkers(model.workers, now);
  }

  #showWorkers(workers, now) {
    const news = [];
    for (const worker of workers) {
      const known = this.workers.get(worker.worker);
      if (!known || known.goneAt) news.push(`worker ${worker.worker} has come`);
      this.workers.set(worker.worker, { ...worker, goneAt: 0 });
    }
    const live = new Set(workers.map(({ worker }) => worker));
    for (const [name, known] of this.workers) {
      if (!live.has(name) && !known.goneAt) {
        this.workers.set(name, { ...known, goneAt: now });
        news.push(`worker ${name} is gone`);
      }
      if (known.goneAt && now - known.goneAt > GONE_S * 1000) this.workers.delete(name);
    }
    this.list.replaceChildren(workerList([...this.workers.values()]));
    return news;
  }
}

const sum = (rows, field) => rows.reduce((total, row) => total + Number(row[field]), 0);

const size = (bytes) => unbroken(bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.round(bytes / 1e3)} kB`);

const unbroken = (words) => words.replaceAll(" ", "\u00a0");

function figure(term, value, more = "") {
  return [element("div", {}, element("dt", {}, term), element("dd", {}, String(value)), element("dd", { className: "more" }, more))];
}

/** Draw the last minute. */
function curve(points) {
  const top = Math.max(1, ...points);
  const line = points.map((point, i) => `${HISTORY - points.length + i},${(30 - (point / top) * 28).toFixed(1)}`).join(" ");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${HISTORY - 1} 31`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Images per second over the last minute, at most ${Math.max(...points).toFixed(1)}`);
  const polyline = document.createElementNS(svg.namespaceURI, "polyline");
  polyline.setAttribute("points", line);
  polyline.setAttribute("vector-effect", "non-scaling-stroke");
  svg.append(polyline);
  return svg;
}

function queues(rows) {
  const most = Math.max(1, ...rows.map((row) => Number(row.waiting) + Number(row.claimed)));
  const list = element("ul", { className: "queues" });
  for (const row of rows) {
    const count = Number(row.waiting) + Number(row.claimed);
    list.append(
      element("li", {}, element("span", { className: "label" }, row.name), element("span", { className: "percent" }, `${row.waiting} + ${row.claimed}`), bar(count / most)),
    );
  }
  return [element("h4", {}, "Queues: waiting + in work"), list];
}

function failureList(rows) {
  if (!rows.length) return [];
  const list = element("ul", { className: "failures" });
  for (const { reason, count } of rows) list.append(element("li", {}, element("code", {}, reason), ` ${count}`));
  return [element("h4", {}, "Failures in the last 10 s"), list];
}

function workerList(rows) {
  if (!rows.length) return element("p", { className: "hint" }, "There is no worker.");
  const list = element("ul", { className: "workers" });
  for (const row of rows.sort((a, b) => a.worker.localeCompare(b.worker))) {
    const word = row.goneAt ? "gone" : row.ready ? "ready" : "loading";
    const figures = [
      `version ${row.modelVersion}`,
      `batches of ${row.meanBatchSize.toFixed(1)}`,
      `${row.imagesPerSecond.toFixed(1)} images/s`,
      `${row.inHand} in hand`,
      `${Math.round(row.busy * 100)} % busy`,
    ];
    const item = element(
      "li",
      {},
      element("span", { className: "name" }, row.worker),
      element("span", { className: `badge ${word}` }, word),
      row.goneAt ? null : element("span", { className: "hint" }, figures.map(unbroken).join(" · ")),
    );
    item.dataset.worker = row.worker;
    item.dataset.state = word;
    list.append(item);
  }
  return list;
}

/** Show figures; those that come first may be `ageMs` old. */
function show(figures, ageMs) {
  // A front-end without Redis repeats what it saw last.
  if (figures.time !== seenAt) {
    const isFirst = !seenAt;
    seenAt = figures.time;
    newsAt = Date.now() - ageMs;
    const news = draw(figures);
    if (!isFirst) say(...news); // then everything is new
  }
  tellAge();
}

/** Draw figures; return what changed among the workers. */
function draw(figures) {
  const news = [];
  for (const model of figures.models) {
    if (!panels.has(model.model)) {
      panels.set(model.model, new Panel(model.model));
      models.append(panels.get(model.model).whole);
    }
    news.push(...panels.get(model.model).show(model, Date.now()));
  }
  for (const [name, panel] of panels) {
    if (!figures.models.some((model) => model.model === name)) {
      panel.whole.remove();
      panels.delete(name);
    }
  }
  failures.replaceChildren(...failureList(figures.failures));
  const servers = figures.servers === 1 ? "one front-end" : `${figures.servers} front-ends`;
  liveWords = `live, ${servers}`;
  window.dispatchEvent(new CustomEvent("despacho-models", { detail: figures.models.map(({ model }) => model) }));
  return news;
}

function tellAge() {
  const lateS = (Date.now() - newsAt) / 1000;
  if (lateS > STALE_S) setState("stale", `no news for ${Math.round(lateS)} s`);
  else setState("live", liveWords);
}

function setState(name, words) {
  state.dataset.state = name;
  if (state.textContent !== words) state.textContent = words;
  if (name === "waiting") return; // that is neither
  const isTrouble = name !== "live";
  if (isTrouble !== isTroubled) say(isTrouble ? `no live figures: ${words}` : "the figures are live again");
  isTroubled = isTrouble;
}

/** Say to those who do not see it; what comes together is said together. */
function say(...words) {
  if (words.length && !toSay.length) queueMicrotask(() => (said.textContent = toSay.splice(0).join(", ")));
  toSay.push(...words);
}

const isRefused = ({ status }) => status === 401 || status === 403;

function explain(problem) {
  if (isRefused(problem)) {
    return "The live figures need an API key with the scope admin.";
  }
  return problem.detail ?? problem.message;
}

async function watch() {
  for (;;) {
    // A browser has six connections to a server, and those who see nothing need none.
    while (document.hidden) await pause(Infinity);
    stopper = new AbortController();
    let pauseS = PAUSE_S;
    try {
      let openedAt = NaN;
      for await (const [name, data] of watchStats(stopper.signal)) {
        if (name === "open") openedAt = data;
        else if (name === "problem") setState("broken", explain(data));
        else {
          // Both clocks are those of servers; that of this machine may be wrong.
          show(data, Math.max(0, openedAt - Date.parse(data.time)) || 0);
          openedAt = NaN;
        }
      }
      setState("broken", "the connection ended; connecting again …");
    } catch (error) {
      if (error.name === "AbortError") {
        setState("waiting", "connecting …");
        continue;
      }
      setState("broken", explain(error));
      pauseS = isRefused(error) ? REFUSED_S : Math.max(PAUSE_S, error.retryAfterS ?? 0);
    }
    await pause(pauseS);
  }
}

function pause(forS) {
  return new Promise((resolve) => {
    wake = resolve;
    if (forS < Infinity) setTimeout(resolve, forS * 1000);
  });
}

function connectAnew() {
  stopper.abort();
  wake();
}

window.addEventListener("despacho-key", connectAnew); // Another key may show more.
document.addEventListener("visibilitychange", connectAnew);

setInterval(() => {
  if (["live", "stale"].includes(state.dataset.state)) tellAge();
}, 1000);

watch();
