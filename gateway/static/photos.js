// Takes photos however they come, sends some at a time, shows each answer as it arrives.

import { apiKey, keepApiKey, listModels, predict, Problem } from "./api.js";
import { hasViewfinder, takePhoto } from "./camera.js";
import { Result } from "./result.js";

// A browser has six connections to a server, and the live figures need one.
const AT_ONCE = 4;
const MODELS_S = 3; // between two looks while there is no model with a worker
const DRAG_MS = 600; // what is dragged over the page tells so at least every 350 ms
const PATIENCE_S = 60; // how long to try one photo again

const page = Object.fromEntries(
  [
    ...["drop", "choose", "take", "files", "camera", "left-out", "model", "top-k", "key", "key-problem"],
    ...["summary", "all-again", "clear", "said", "results"],
  ].map((id) => [id, document.getElementById(id)]),
);

const waiting = [];
let results = [];
let busy = 0;
let chosen = ""; // The model that is kept: a person took it, or it has a worker.
let isRefused = false; // Asking for the models again does not help without another key.
let resumeAt = 0; // Nothing is sent before, since the server said when to come again.

/** Take what was dropped or pasted. */
function addFrom({ items }) {
  const files = [...items].filter(({ kind }) => kind === "file");
  // As a file it would only be one without a type.
  const isFolder = (item) => item.webkitGetAsEntry()?.isDirectory;
  const folders = files.filter(isFolder).map((item) => `${item.getAsFile().name} (a folder)`);
  add(files.filter((item) => !isFolder(item)).map((item) => item.getAsFile()), folders);
}

function add(files, folders = []) {
  const isImage = (file) => file.type.startsWith("image/") || !file.type;
  const images = [...files].filter(isImage);
  const others = [...folders, ...[...files].filter((file) => !isImage(file)).map(({ name }) => name)];
  const more = others.length > 3 ? ` and ${others.length - 3} more` : "";
  tell(page["left-out"], others.length ? `Left out, for these are no images: ${others.slice(0, 3).join(", ")}${more}.` : "");
  if (!images.length) return;
  for (const file of images) {
    const result = new Result(file, choiceNow());
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
  let failedAt = 0;
  for (;;) {
    await lull(result.signal);
    if (result.signal.aborted) return; // cleared in the meantime
    result.wait("being labelled …");
    try {
      const { choice, file, signal } = result;
      if (!choice.model && !page.model.value) await showModels();
      choice.model ||= page.model.value;
      say(result.show(await predict(choice.model, file, choice.topK, signal)));
      return;
    } catch (error) {
      if (result.signal.aborted) return;
      const problem = error instanceof Problem ? error : new Problem({ detail: String(error) });
      // The server says when it is worth another try: its queue is full, a worker is starting.
      const pauseS = problem.retryAfterS;
      failedAt ||= Date.now();
      if (pauseS === undefined || Date.now() - failedAt > (PATIENCE_S - pauseS) * 1000) {
        say(result.fail(problem, () => again([result])));
        return;
      }
      // Each page a random time later than the hint, or all come at the same moment.
      resumeAt = Math.max(resumeAt, Date.now() + Math.max(0.2, pauseS) * 1000 * (1 + Math.random()));
      result.wait(`${problem.message.replace(/\.$/, "")}; trying again …`);
    }
  }
}

/** Wait until photos may be sent, or nobody wants this one any more. */
async function lull(signal) {
  // Another photo may get a hint in the meantime.
  while (Date.now() < resumeAt && !signal.aborted) {
    await new Promise((resolve) => {
      signal.addEventListener("abort", resolve, { once: true });
      setTimeout(resolve, resumeAt - Date.now());
    });
  }
}

function again(failed) {
  for (const result of failed) {
    result.choice = choiceNow();
    result.wait("waiting …");
    waiting.push(result);
  }
  failed[0].item.scrollIntoView({ block: "nearest" });
  page.results.focus();
  resumeAt = 0; // Who asks for it does not want to wait.
  summarise();
  work();
}

/** Return what is chosen now: for photos that come now, however long they wait. */
function choiceNow() {
  const topK = Math.min(20, Math.max(1, Math.round(Number(page["top-k"].value)) || 5));
  return { model: page.model.value, topK };
}

/** Show why something does not go; empty: it does. */
function tell(place, words) {
  place.textContent = words;
  place.hidden = !words;
}

function say(words) {
  page.said.textContent = words;
}

const among = (state) => results.filter((result) => result.item.dataset.state === state);

function summarise() {
  const failed = among("failed").length;
  page.clear.hidden = !results.length;
  page["all-again"].hidden = failed < 2; // one has a button of its own
  page.summary.textContent = results.length
    ? `${among("done").length} of ${results.length} labelled${failed ? `, ${failed} failed` : ""}.`
    : "Nothing yet.";
}

/** Show the models to choose from; throw why there are none. */
async function showModels() {
  try {
    const models = await listModels();
    if (!models.length) throw new Problem({ detail: "No model is served yet.", retry_after: MODELS_S });
    // All are listed that were ever served, and most people do not choose.
    const first = (wanted) => models.find(({ state }) => state === `MODEL_STATE_${wanted}`);
    const taken = models.find(({ name }) => name === chosen) ?? first("READY") ?? first("LOADING") ?? models[0];
    if (taken.state === "MODEL_STATE_READY") chosen = taken.name;
    page.model.replaceChildren(...models.map(({ name }) => new Option(name, name, false, name === taken.name)));
    isRefused = false;
  } catch (problem) {
    page.model.replaceChildren(new Option(problem.message, ""));
    isRefused = [401, 403].includes(problem.status);
    throw problem;
  }
}

const tryToShowModels = () => showModels().catch(() => {}); // the list itself says why

// The live figures tell of new models, but only those who may see them.
async function lookForModels() {
  if (!(page.model.value && chosen) && !isRefused) await tryToShowModels();
  setTimeout(lookForModels, MODELS_S * 1000);
}

page.model.addEventListener("change", () => {
  chosen = page.model.value;
});
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

// Not by counting who is entered and left: the live figures are replaced under a drag.
let dragged;
document.addEventListener("dragenter", (event) => event.preventDefault());
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  page.drop.classList.add("over");
  clearTimeout(dragged);
  dragged = setTimeout(endDrag, DRAG_MS);
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  endDrag();
  addFrom(event.dataTransfer);
});
function endDrag() {
  clearTimeout(dragged);
  page.drop.classList.remove("over");
}
document.addEventListener("paste", (event) => {
  // A key may be copied together with a picture of it.
  if (event.target !== page.key && event.clipboardData.files.length) addFrom(event.clipboardData);
});

page["all-again"].addEventListener("click", () => again(among("failed")));
page.clear.addEventListener("click", () => {
  waiting.length = 0;
  results.forEach((result) => result.remove());
  results = [];
  tell(page["left-out"], "");
  summarise();
  page.choose.focus();
  say("Cleared.");
});

page.key.value = apiKey();
page.key.addEventListener("change", () => {
  try {
    keepApiKey(page.key.value);
    tell(page["key-problem"], "");
  } catch (problem) {
    tell(page["key-problem"], problem.message);
    return;
  }
  tryToShowModels();
  window.dispatchEvent(new Event("despacho-key"));
});
window.addEventListener("despacho-models", (event) => {
  const shown = [...page.model.options].map((option) => option.value).filter(Boolean);
  if (event.detail.some((name) => !shown.includes(name))) tryToShowModels();
});

lookForModels();
