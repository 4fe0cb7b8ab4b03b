// Asks while one draws: after a short pause, or at least every LONGEST_MS; the newest question wins.

const QUIET_MS = 60;
const LONGEST_MS = 250;

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
