// Takes photos however they come, sends some at a time, shows each answer as it arrives.

import { apiKey, keepApiKey, listModels, predict, Problem } from "./api.js";
import { hasViewfinder, takePhoto } from "./camera.js";
import { Result } from "./result.js";

// A browser has six connections to a server, and the live figures need one.
const AT_ONCE = 4;
const MOST_TRIES = 4;
const LONGEST_PAUSE_S = 10;

const page = Object.fromEntries(
  ["drop", "choose", "take", "files", "camera", "model", "top-k", "key", "summary", "clear", "said", "results"].map(
    (id) => [id, document.getElementById(id)],
  ),
);

const waiting = [];
let results = [];
let busy = 0;

function add(files) {
  const images = [...files].filter((file) => file.type.startsWith("image/") || !file.type);
  if (!images.length) {
    say(files.length ? "These are no images." : "");
    return;
  }
  for (const file of images) {
    const result = new Result(file);
    results.push(result);
    page.results.append(result.item);
    waiting.push(result);
  }
  say(images.length === 1 ? `Sending ${images[0].name || "a photo"}.` : `Sending ${images.length} photos.`);
  summarise();
  work();
}

function work() {
  while (busy < AT_ONCE && waiting.length) {
    busy += 1;
    label(waiting.shift()).finally(() => {
      busy -= 1;
      summarise();
      work();
    });
  }
}

async function label(result) {
  for (let tries = 1; ; tries += 1) {
    result.wait("being labelled …");
    try {
      const words = result.show(await predict(page.model.value, result.file, topK()));
      if (result.item.isConnected) say(words);
      return;
    } catch (error) {
      if (!result.item.isConnected) return; // cleared in the meantime
      const problem = error instanceof Problem ? error : new Problem({ detail: String(error) });
      // The server says when it is worth another try: its queue is full, a worker is starting.
      if (problem.retryAfterS === undefined || problem.retryAfterS > LONGEST_PAUSE_S || tries === MOST_TRIES) {
        say(result.fail(problem, () => again(result)));
        return;
      }
      result.wait(`${problem.message}; trying again …`);
      await new Promise((resolve) => setTimeout(resolve, Math.max(0.2, problem.retryAfterS) * 1000));
    }
  }
}

function again(result) {
  result.wait("waiting …");
  result.item.scrollIntoView({ block: "nearest" });
  page.results.focus();
  waiting.push(result);
  work();
}

function topK() {
  return Math.min(20, Math.max(1, Math.round(Number(page["top-k"].value)) || 5));
}

function say(words) {
  page.said.textContent = words;
}

function summarise() {
  const count = (state) => results.filter((result) => result.item.dataset.state === state).length;
  const failed = count("failed");
  page.clear.hidden = !results.length;
  page.summary.textContent = results.length
    ? `${count("done")} of ${results.length} labelled${failed ? `, ${failed} failed` : ""}.`
    : "Nothing yet.";
}

async function showModels() {
  const chosen = page.model.value;
  try {
    const models = await listModels();
    const options = models.map(({ name }) => new Option(name, name, false, name === chosen));
    page.model.replaceChildren(...(options.length ? options : [new Option("none is served yet", "")]));
  } catch (problem) {
    page.model.replaceChildren(new Option(`not known: ${problem.message}`, ""));
  }
}

page.choose.addEventListener("click", () => page.files.click());
page.take.addEventListener("click", async () => {
  if (!hasViewfinder()) {
    page.camera.click();
    return;
  }
  const photo = await takePhoto();
  if (photo) add([photo]);
});
for (const input of [page.files, page.camera]) {
  input.addEventListener("change", () => {
    add(input.files);
    input.value = "";
  });
}

let depth = 0; // Elements inside tell of the same drag once more.
document.addEventListener("dragenter", (event) => {
  event.preventDefault();
  depth += 1;
  page.drop.classList.add("over");
});
document.addEventListener("dragleave", () => {
  depth -= 1;
  if (depth <= 0) page.drop.classList.remove("over");
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  page.drop.classList.remove("over");
  add(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) add(event.clipboardData.files);
});

page.clear.addEventListener("click", () => {
  waiting.length = 0;
  results.forEach((result) => result.remove());
  results = [];
  summarise();
  page.choose.focus();
  say("Cleared.");
});

page.key.value = apiKey();
page.key.addEventListener("change", () => {
  keepApiKey(page.key.value);
  showModels();
  window.dispatchEvent(new Event("despacho-key"));
});
window.addEventListener("despacho-models", (event) => {
  const shown = [...page.model.options].map((option) => option.value).filter(Boolean);
  if (event.detail.some((name) => !shown.includes(name))) showModels();
});

showModels();
