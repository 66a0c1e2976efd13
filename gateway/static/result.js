// One photo in the list of results: its picture, its labels, where its time went.

import { bar, duration, element, seconds } from "./api.js";

const PARTS = [
  ["queue", "queue"],
  ["decode", "decode"],
  ["inference", "inference"],
  ["other", "rest"],
];

/** The entry of one photo. */
export class Result {
  #stopper = new AbortController();

  /**
   * @param {File} file
   * @param {{model: string, topK: number}} choice what is wanted of it
   */
  constructor(file, choice) {
    this.file = file;
    this.choice = choice;
    this.name = file.name || "pasted photo";
    // Lazy, and that before it has a source: hundreds of photos are not decoded at once.
    this.picture = element("img", { className: "picture", alt: "", loading: "lazy", src: URL.createObjectURL(file) });
    this.picture.addEventListener("error", () => this.#hidePicture());
    this.outcome = element("div", { className: "outcome" });
    this.item = element(
      "li",
      { className: "result" },
      this.picture,
      element("div", { className: "text" }, element("h3", {}, this.name), this.outcome),
    );
    this.wait("waiting …");
  }

  /** Tells when nobody wants the labels any more. */
  get signal() {
    return this.#stopper.signal;
  }

  /** Say what is going on. */
  wait(words) {
    this.item.dataset.state = "waiting";
    this.item.setAttribute("aria-busy", "true");
    this.outcome.replaceChildren(element("p", { className: "doing" }, words));
  }

  /** Show the labels; return what to say of them. */
  show(answer) {
    this.#ended("done");
    const labels = element("ul", { className: "labels" });
    for (const { label, score } of answer.predictions) {
      labels.append(
        element(
          "li",
          {},
          element("span", { className: "label" }, label),
          element("span", { className: "percent" }, percent(score)),
          bar(score),
        ),
      );
    }
    this.outcome.replaceChildren(labels, timing(answer));
    const best = answer.predictions[0];
    return best ? `${this.name}: ${best.label}, ${percent(best.score)}` : `${this.name}: no labels`;
  }

  /** Show why there are none; return what to say of it. */
  fail(problem, again) {
    this.#ended("failed");
    const button = element("button", { type: "button", className: "quiet" }, "Try again");
    button.addEventListener("click", again);
    const reason = problem.reason ? element("code", {}, problem.reason) : null;
    this.outcome.replaceChildren(
      element("p", { className: "problem" }, problem.message, " ", reason ?? ""),
      ...(problem.advice ? [element("p", { className: "hint" }, problem.advice)] : []),
      button,
    );
    return `${this.name}: failed, ${problem.message}`;
  }

  /** Forget the picture, and all that is under way for it. */
  remove() {
    this.#stopper.abort();
    URL.revokeObjectURL(this.picture.src);
    this.item.remove();
  }

  #hidePicture() {
    const none = element("span", { className: "picture none" }, "no preview");
    none.setAttribute("aria-hidden", "true");
    this.picture.replaceWith(none);
  }

  #ended(state) {
    this.item.dataset.state = state;
    this.item.removeAttribute("aria-busy");
  }
}

const percent = (score) => `${(score * 100).toFixed(1)} %`;

/** Return where the time went: one bar of parts, and the same in words. */
function timing({ timing: spent, worker, model, modelVersion }) {
  const total = seconds(spent.total);
  const known = { queue: seconds(spent.queue), decode: seconds(spent.decode), inference: seconds(spent.inference) };
  known.other = Math.max(0, total - known.queue - known.decode - known.inference);
  const strip = element("span", { className: "strip" });
  strip.setAttribute("aria-hidden", "true");
  const words = element("ul", { className: "parts" });
  for (const [part, word] of PARTS) {
    const share = element("span", { className: `part ${part}` });
    share.style.width = `${total ? (known[part] / total) * 100 : 0}%`;
    strip.append(share);
    const mark = element("span", { className: `mark ${part}` });
    mark.setAttribute("aria-hidden", "true");
    words.append(element("li", {}, mark, `${word} ${duration(known[part])}`));
  }
  const attempt = spent.attempt > 1 ? `, attempt ${spent.attempt}` : "";
  return element(
    "div",
    { className: "timing" },
    element("p", { className: "total" }, `${duration(total)} in all`),
    strip,
    words,
    element("p", { className: "hint" }, `in a batch of ${spent.batchSize}${attempt}, ${model} version ${modelVersion}, by ${worker}`),
  );
}
