import type { Clock } from "../base/clock.ts";
import { counted } from "../base/counted.ts";
import { Seldom } from "../base/seldom.ts";
import { publishProblem } from "./events.ts";

/** Problems of a kind that are told in a minute; the others are counted. */
const TOLD_MAX = 64;

/** Tells problems that others can cause with every frame. */
export class BoundedProblems {
  readonly #clock: Clock;
  readonly #timesMax: number;
  readonly #seldom = new Seldom();

  constructor(clock: Clock, timesMax: number = TOLD_MAX) {
    this.#clock = clock;
    this.#timesMax = timesMax;
  }

  tell(engine: string, code: string, message: string, kind: string = code): void {
    const untold = this.#seldom.next(kind, this.#clock.now(), this.#timesMax);
    if (untold === undefined) return;
    const more = untold > 0 ? ` ${counted(untold, "time")} more since the last such line.` : "";
    publishProblem(engine, code, message + more);
  }
}
