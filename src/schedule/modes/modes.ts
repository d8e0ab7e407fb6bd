/** The policy behind each mode. */

import { createEagerPolicy } from "./eager.ts";
import { createIdlePolicy } from "./idle.ts";
import { createLazyPolicy } from "./lazy.ts";
import type { Policy } from "./policy.ts";

const POLICIES: Readonly<Record<"eager" | "lazy" | "idle", () => Policy>> = {
  eager: createEagerPolicy,
  lazy: createLazyPolicy,
  idle: createIdlePolicy,
};

export function createPolicy(mode: "eager" | "lazy" | "idle"): Policy {
  return POLICIES[mode]();
}
