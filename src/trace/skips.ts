/** How often something of a trace was left out, and the sentence that says so. */

import { counted } from "../base/counted.ts";
import type { TraceSkip } from "./entry.ts";

export class SkipCounts {
  readonly #counts = new Map<TraceSkip, number>();

  add(skip: TraceSkip): void {
    this.#counts.set(skip, (this.#counts.get(skip) ?? 0) + 1);
  }

  counts(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#counts);
  }

  /** Such as `2 failed requests, 1 blank line`; empty when nothing was left out. */
  text(): string {
    return [...this.#counts].map(([skip, count]) => counted(count, skip)).join(", ");
  }

  /** Undefined when nothing was left out. */
  sentence(file: string): string | undefined {
    return this.#counts.size === 0 ? undefined : `${file}: left out ${this.text()}.`;
  }
}
