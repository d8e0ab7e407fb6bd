import type { Clock } from "../base/clock.ts";
import { counted } from "../base/counted.ts";
import { Seldom } from "../base/seldom.ts";
import { publishProblem } from "./events.ts";

/** Problems of a code that are told in a minute; the others are counted. */
const TOLD_MAX = 64;

/** Tells problems that others can cause with every frame. */
export class Problems {
  readonly #clock: Clock;
  readonly #seldom = new Seldom();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  tell(engine: string, code: string, message: string): void {
    const untold = this.#seldom.next(code, this.#clock.now(), TOLD_MAX);
    if (untold === undefined) return;
    const more = untold > 0 ? ` ${counted(untold, "time")} more since the last such line.` : "";
    publishProblem(engine, code, message + more);
  }
}
