/** How often something of a trace was left out, and the sentence that says so. */

import type { TraceSkip } from "./entry.ts";

export class SkipCounts {
  readonly #counts = new Map<TraceSkip, number>();

  add(skip: TraceSkip): void {
    this.#counts.set(skip, (this.#counts.get(skip) ?? 0) + 1);
  }

  counts(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#counts);
  }

  /** Undefined when nothing was left out. */
  sentence(file: string): string | undefined {
    if (this.#counts.size === 0) return undefined;
    const parts = [...this.#counts].map(
      ([skip, count]) => `${count} ${skip}${count === 1 ? "" : "s"}`,
    );
    return `${file}: left out ${parts.join(", ")}.`;
  }
}
