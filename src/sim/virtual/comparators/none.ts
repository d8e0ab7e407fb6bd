import { createModePolicy } from "../../../schedule/modes/base.ts";
import type { Policy } from "../../../schedule/policy.ts";

/** No graph at all: every step ungraphed, as with `cudagraph_mode=NONE`. */
export function createNonePolicy(): Policy {
  return createModePolicy({
    name: "none",
    endsAtReady: true,
    first: () => ({ graphs: [], reason: "no graph at all" }),
    next: () => undefined,
    table: () => ({ uniform: [], mixed: [] }),
  });
}
