/**
 * What failed CURVE hand-shakes mean for whoever runs the controller, told now and then. Pure.
 *
 * libzmq names no peer, so that a sentence can't either; the engine's side says which one it is.
 */

/**
 * `mechanism`: one side has keys and the other none; `key`: the peer has another public key of this
 * side's; `refused`: its own key is not allowed here; `hang-up`: it left without a word, as a peer
 * does that noticed first, or a probe that only connects.
 */
export type HandshakeFailure = "mechanism" | "key" | "refused" | "hang-up";

/** Between two sentences of one kind: whoever reads them learns nothing from the next hundred. */
const QUIET_SECONDS = 60;
/** A probe that only connects comes alone and rarely; an engine tries again at once. */
const HANG_UPS_TOLD = 2;
const HANG_UP_SECONDS = 2;

export class Handshakes {
  readonly #hasKeys: boolean;
  readonly #toldAt = new Map<HandshakeFailure, number>();
  #untold = 0;
  #hangUps: number[] = [];

  constructor(hasKeys: boolean) {
    this.#hasKeys = hasKeys;
  }

  /** A sentence where there is something new to tell. */
  failed(failure: HandshakeFailure, nowSeconds: number): string | undefined {
    if (failure === "hang-up" && !this.#isInARow(nowSeconds)) return undefined;
    this.#untold += 1;
    const toldAt = this.#toldAt.get(failure) ?? Number.NEGATIVE_INFINITY;
    if (nowSeconds - toldAt < QUIET_SECONDS) return undefined;
    // What probes do as well is told once: it would fill the log of whoever has some.
    this.#toldAt.set(failure, failure === "hang-up" ? Number.POSITIVE_INFINITY : nowSeconds);
    const since = this.#untold > 1 ? ` (${this.#untold} connections since the last such line)` : "";
    this.#untold = 0;
    return `${this.#sentence(failure)}${since}.`;
  }

  #isInARow(nowSeconds: number): boolean {
    this.#hangUps = this.#hangUps.filter((at) => nowSeconds - at < HANG_UP_SECONDS);
    if (this.#hangUps.length < HANG_UPS_TOLD) this.#hangUps.push(nowSeconds);
    return this.#hangUps.length >= HANG_UPS_TOLD;
  }

  #sentence(failure: HandshakeFailure): string {
    switch (failure) {
      case "mechanism":
        return this.#hasKeys
          ? "Expected engines with CURVE keys, got one without: set its LAZYGRAPH_ENGINE_KEYS"
          : "Expected engines without CURVE keys, got one with: start the controller with --keys";
      case "key":
        return (
          "Expected engines that have this controller's public key, got one with another: copy " +
          "public.key of `lazygraph keys show` to the engine as server.key"
        );
      case "refused":
        return (
          "Expected engines whose public keys are allowed, got another one: its log says the same; " +
          "`lazygraph keys allow FOLDER KEY` takes its key"
        );
      case "hang-up":
        return (
          "Expected engines to end their hand-shakes, but two left in the middle, as one does whose " +
          `CURVE keys don't fit (here are ${this.#hasKeys ? "some" : "none"}), or a probe`
        );
    }
  }
}
