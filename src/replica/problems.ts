/** Problems with a controller elsewhere: each kind told once, until it is well again. */

import { callListener } from "../base/call-listener.ts";
import { codeOf } from "../base/errors.ts";

/** What a client does unawaited: nobody else hears of its failures. */
export type Unwatched = "look" | "announcement";

export class Problems {
  readonly #tell: (error: unknown) => void;
  readonly #told = new Map<Unwatched, string | undefined>();

  /** @param tell by default warns, but not of what can't be reached yet */
  constructor(tell: (error: unknown) => void = warn) {
    this.#tell = tell;
  }

  failed(what: Unwatched, error: unknown): void {
    const code = codeOf(error);
    if (this.#told.has(what) && this.#told.get(what) === code) return;
    this.#told.set(what, code);
    callListener("onProblem", this.#tell, error);
  }

  went(what: Unwatched): void {
    this.#told.delete(what);
  }
}

function warn(error: unknown): void {
  if (codeOf(error) === "ERR_LAZYGRAPH_CONTROLLER_UNREACHABLE") return;
  process.emitWarning(error instanceof Error ? error : String(error));
}
