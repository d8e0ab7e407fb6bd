/**
 * What holds for an engine when it joins: what was ordered for it, and its controller's options.
 *
 * Orders are known to the engine too, so they outlive its process here and this controller there.
 * Of options about captures, a controller goes by those that it names itself; where it names none,
 * by what the controller before it told the engine.
 */

import type { PlanRules } from "../schedule/rules.ts";
import { LIMITS, type Mode, type Orders } from "../wire/protocol.ts";
import type { ResolvedOptions } from "./options.ts";

type Captures = Pick<ResolvedOptions, "mode" | "settleWithinSeconds" | "rules">;

/**
 * @param known what this controller ordered for an engine of that name; undefined: it knows none
 * @param told what the engine says it was told
 */
export function ordersFor(
  { settleWithinSeconds, rules }: Captures,
  known: Orders | undefined,
  told: Orders | undefined,
): Orders {
  // The engine may have missed what was ordered last, so this controller's own word counts.
  const { serial, mode, frozen } = isOrdered(known) ? known : (told ?? {});
  const earlier = { ...told, ...known };
  const within = settleWithinSeconds ?? earlier.settleWithinSeconds;
  const pin = rules.pin ?? earlier.pin;
  const exclude = rules.exclude ?? earlier.exclude;
  const graphsMax = rules.graphsMax ?? earlier.graphsMax;
  return {
    ...(serial === undefined ? {} : { serial }),
    ...(mode === undefined ? {} : { mode }),
    ...(frozen === undefined ? {} : { frozen }),
    ...(within === undefined ? {} : { settleWithinSeconds: within }),
    ...(pin === undefined ? {} : { pin: pin.slice(0, LIMITS.rules) }),
    ...(exclude === undefined ? {} : { exclude: exclude.slice(0, LIMITS.rules) }),
    ...(graphsMax === undefined ? {} : { graphsMax }),
  };
}

function isOrdered(orders: Orders | undefined): orders is Orders {
  return orders?.mode !== undefined || orders?.frozen !== undefined;
}

export function modeOf({ mode }: Pick<Captures, "mode">, orders: Orders): Mode {
  return orders.mode ?? mode;
}

export function rulesOf({ pin, exclude, graphsMax }: Orders): PlanRules {
  return {
    ...(pin === undefined ? {} : { pin }),
    ...(exclude === undefined ? {} : { exclude }),
    ...(graphsMax === undefined ? {} : { graphsMax }),
  };
}
