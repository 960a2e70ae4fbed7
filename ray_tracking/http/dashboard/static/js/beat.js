// How many events arrived in each of the last seconds, from counters that only grow.

const FEWEST_SHOWN = 30;

/** Keeps the last so many seconds; readers are functions from counters to a number. */
export class Beat {
  #readers;
  #kept;
  #before = null;
  #first = null;
  #seconds = new Map();

  constructor(readers, kept) {
    this.#readers = readers;
    this.#kept = kept;
  }

  take(counters, nowMs) {
    const now = this.#readers.map((read) => read(counters));
    const second = Math.floor(nowMs / 1000);
    this.#first ??= second;
    if (this.#before) {
      const sums = this.#seconds.get(second) ?? now.map(() => 0);
      for (const [index, value] of now.entries()) sums[index] += Math.max(0, value - this.#before[index]);
      this.#seconds.set(second, sums);
    }
    this.#before = now;
  }

  /** The whole seconds before now, since the first or the fewest: times, and values for each reader. */
  read(nowMs) {
    const end = Math.floor(nowMs / 1000);
    for (const second of this.#seconds.keys()) if (second < end - this.#kept) this.#seconds.delete(second);
    const first = Math.min(this.#first ?? end, end - FEWEST_SHOWN);
    const start = Math.max(first, end - this.#kept);
    const times = Array.from({ length: end - start }, (_, index) => start + index);
    const values = this.#readers.map((_, index) => times.map((second) => this.#seconds.get(second)?.[index] ?? 0));
    return { times, values };
  }
}
