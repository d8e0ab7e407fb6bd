/** What bench/gpu/loaders.sh found, in one document, and the table of the docs from it. Pure. */

import type { StartResult } from "../../../src/startup/start.ts";
import type { Start } from "./start-result.ts";

/** Of the page cache before a start; the third has its weights on the GPU already. */
export const CACHES = ["cold", "warm", "ipc_cache"] as const;

export interface LoadersResult {
  readonly what: "loaders";
  readonly host: string;
  readonly shape: string;
  readonly starts: readonly (Start & { readonly cache: (typeof CACHES)[number] })[];
}

/** Paths and segments are left out: phases sum these up. */
export function startsOf(
  cache: (typeof CACHES)[number],
  starts: readonly StartResult[],
): LoadersResult["starts"] {
  return starts.map(({ segments: _, ...start }) => ({ ...start, cache }));
}

/** Seconds in the phase `weights` of each start, loaders as they were run. */
export function loadersTable({ starts }: LoadersResult): string {
  const loaders = [...new Set(starts.map(({ variant }) => variant))];
  const caches = CACHES.filter((cache) => starts.some((start) => start.cache === cache));
  const rows = loaders.map((loader) => {
    const cells = caches.map((cache) => {
      const own = starts.filter((start) => start.variant === loader && start.cache === cache);
      const seconds = own.map(({ phases }) => {
        return phases.find(({ name }) => name === "weights")?.seconds ?? Number.NaN;
      });
      return seconds.map((value) => value.toFixed(1)).join(", ") || "not run";
    });
    return `| \`${loader}\` | ${cells.join(" | ")} |`;
  });
  const rule = caches.map(() => "---:").join(" | ");
  return [`| loader | ${caches.join(" | ")} |`, `|---| ${rule} |`, ...rows].join("\n");
}
