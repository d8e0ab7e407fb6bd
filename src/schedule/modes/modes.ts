import type { Policy } from "../policy.ts";
import { createEagerPolicy } from "./eager.ts";
import { createIdlePolicy } from "./idle.ts";
import { createLazyPolicy } from "./lazy.ts";

/** How an engine captures, as the protocol has it. */
export type Mode = "eager" | "lazy" | "idle";

const POLICIES: Readonly<Record<Mode, () => Policy>> = {
  eager: createEagerPolicy,
  lazy: createLazyPolicy,
  idle: createIdlePolicy,
};

export function createPolicy(mode: Mode): Policy {
  return POLICIES[mode]();
}
