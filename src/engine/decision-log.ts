/**
 * The last decisions on one engine, for whoever asks why. Kept in columns: an object for each would
 * be a fifth of what an engine is to the garbage collector, and hardly one of them is ever read.
 */

export interface DecisionRecord {
  readonly atUnixMs: number;
  readonly decision: string;
  readonly graph?: string;
  readonly reason: string;
}

/** Decisions remembered. */
const DECISIONS_MAX = 64;

export class DecisionLog {
  readonly #atUnixMs = new Float64Array(DECISIONS_MAX);
  readonly #decisions: string[] = [];
  readonly #graphs: (string | undefined)[] = [];
  readonly #reasons: string[] = [];
  /** All there were: the next one takes the place of the oldest. */
  #count = 0;

  add({ atUnixMs, decision, graph, reason }: DecisionRecord): void {
    const place = this.#count % DECISIONS_MAX;
    this.#atUnixMs[place] = atUnixMs;
    this.#decisions[place] = decision;
    this.#graphs[place] = graph;
    this.#reasons[place] = inOnePiece(reason);
    this.#count += 1;
  }

  /** The oldest one first. */
  list(): DecisionRecord[] {
    const length = Math.min(this.#count, DECISIONS_MAX);
    return Array.from({ length }, (_, index) => {
      const place = (this.#count - length + index) % DECISIONS_MAX;
      const graph = this.#graphs[place];
      return {
        atUnixMs: this.#atUnixMs[place] ?? 0,
        decision: this.#decisions[place] ?? "",
        ...(graph === undefined ? {} : { graph }),
        reason: this.#reasons[place] ?? "",
      };
    });
  }
}

/**
 * A sentence that is kept. V8 leaves one put together from parts as a tree of these until it is
 * read, and what is kept is rarely read: of an engine's 166 sentences the parts were a third of all
 * that the garbage collector had to go through.
 */
export function inOnePiece(sentence: string): string {
  sentence.charCodeAt(0);
  return sentence;
}
