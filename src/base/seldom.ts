import { dropOldest } from "./drop-oldest.ts";

/** Whoever reads a line learns nothing from the next hundred of its kind. */
const QUIET_SECONDS = 60;
const KINDS_MAX = 256;

interface Told {
  readonly atSeconds: number;
  times: number;
  untold: number;
}

/** What happens again and again is told once a minute for each kind, or a few times, and counted between. */
export class Seldom {
  readonly #told = new Map<string, Told>();

  /** @returns how many of the kind were not told since the last one; undefined: not now */
  next(kind: string, nowSeconds: number, timesMax = 1): number | undefined {
    const last = this.#told.get(kind);
    if (last !== undefined && nowSeconds - last.atSeconds < QUIET_SECONDS) {
      if (++last.times <= timesMax) return 0;
      last.untold += 1;
      return undefined;
    }
    this.#told.delete(kind);
    this.#told.set(kind, { atSeconds: nowSeconds, times: 1, untold: 0 });
    dropOldest(this.#told, KINDS_MAX);
    return last?.untold ?? 0;
  }
}
