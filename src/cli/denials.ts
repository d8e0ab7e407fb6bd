import type { HttpDenied } from "../http/server.ts";
import type { Log } from "./log.ts";

const QUIET_MS = 10_000;

/** Requests without the right token, told at most every ten seconds: guessing must not fill a log. */
export class Denials {
  readonly #log: Log;
  readonly #now: () => number;
  #toldAtMs = Number.NEGATIVE_INFINITY;
  #untold = 0;

  constructor(log: Log, now: () => number = () => performance.now()) {
    this.#log = log;
    this.#now = now;
  }

  tell({ reason, remote }: HttpDenied): void {
    this.#untold += 1;
    if (this.#now() - this.#toldAtMs < QUIET_MS) return;
    const what = reason === "token-wrong" ? "a wrong token" : "no token";
    const code = "ERR_LAZYGRAPH_TOKEN";
    const fields = { remote, requests: this.#untold };
    this.#log.line("warn", `refused over HTTP: ${what}`, fields, { code });
    this.#toldAtMs = this.#now();
    this.#untold = 0;
  }
}
