// Asks while one draws: after a short pause, or at least every LONGEST_MS; the newest question wins.

import { Offline } from "./api.js";

const QUIET_MS = 60;
const LONGEST_MS = 250;

// Wait, unless a newer question comes.
export const pause = (wait_s, signal) =>
  new Promise((resolve, reject) => {
    signal.throwIfAborted();
    setTimeout(resolve, 1000 * wait_s);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });

// Ask until there is an answer; `fail(text)` hears why there is none, or none yet.
export async function persist(ask, fail, signal) {
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      fail(error.message);
      if (!(error instanceof Offline || error.status === 429)) return;
      await pause(error.retryAfter_s || 1, signal);
    }
  }
}

export class Live {
  #timer = null;
  #firstTouch = null;
  #controller = null;

  // `ask(signal)` is aborted when a newer question comes.
  constructor(ask) {
    this.ask = ask;
  }

  touch() {
    const now = performance.now();
    this.#firstTouch ??= now;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.now(), Math.max(0, Math.min(QUIET_MS, this.#firstTouch + LONGEST_MS - now)));
  }

  // Nothing that was asked, or was about to be, is wanted any more.
  cancel() {
    clearTimeout(this.#timer);
    this.#firstTouch = null;
    this.#controller?.abort();
  }

  async now() {
    this.cancel();
    const controller = (this.#controller = new AbortController());
    try {
      await this.ask(controller.signal);
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    }
  }
}
