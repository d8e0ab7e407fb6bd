/** What an engine's processes tell of the kernels that they compile, while it is measured. */

import { removeLeftover, temporaryFolder } from "../base/leftovers.ts";
import { FOLDER_VARIABLE, monotonicSeconds, readSpans } from "../startup/spans.ts";
import type { CompilationRecord } from "./samples.ts";

/** Compilation by the name that the plugin gives it. */
const JIT = "JIT";
/** A head is read as a whole; an engine that compiles more often has other worries. */
const COMPILATIONS_MAX = 1000;

export class Timeline {
  readonly #folder: string;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  static async open(): Promise<Timeline> {
    return new Timeline(await temporaryFolder("lazygraph-bench-"));
  }

  /** For the engine's environment. */
  get variables(): Readonly<Record<string, string>> {
    return { [FOLDER_VARIABLE]: this.#folder };
  }

  /**
   * @param originMs on the clock of `performance.now()`, from which seconds count
   * @returns in order of time; undefined where no process has the plugin, which times them
   */
  async compilations(
    originMs: number,
    fromSeconds: number,
  ): Promise<CompilationRecord[] | undefined> {
    const spans = await readSpans(this.#folder);
    // A simulated engine writes phases, and compiles nothing that it could tell.
    if (spans.every(({ detail }) => detail["simulated"] === true)) return undefined;
    const origin = monotonicSeconds() - (performance.now() - originMs) / 1000;
    return spans
      .filter(({ name, end }) => name === JIT && end - origin >= fromSeconds)
      .slice(0, COMPILATIONS_MAX)
      .map(({ begin, end }) => ({ startSeconds: begin - origin, endSeconds: end - origin }));
  }

  async close(): Promise<void> {
    await removeLeftover(this.#folder);
  }
}
