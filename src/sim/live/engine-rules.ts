/** Rules of the options that a simulated engine has, in this process or in one of its own. */

import { callback, type OptionRules, rule, textRule } from "../../base/check-options.ts";
import { number, oneOf, whole } from "../../base/schema.ts";
import { isId } from "../../wire/check.ts";
import { endpointsRule } from "../../wire/endpoint.ts";
import { MODES } from "../../wire/protocol.ts";
import { isCurveKey } from "../../wire/z85.ts";

type Shared = "endpoint" | "engine" | "mode" | "model" | "curve" | "onEvent" | Amounts;
type Amounts = "speed" | "handshakeMs" | "jitter" | "seed";

export const ENGINE_RULES: OptionRules<Record<Shared, unknown>> = {
  endpoint: endpointsRule,
  engine: rule("1 to 128 characters without control characters", isId),
  mode: oneOf(MODES),
  speed: number(0.001, 1000),
  handshakeMs: number(0, 60_000),
  jitter: number(0, 1),
  seed: whole(0, 2 ** 32 - 1),
  model: textRule("a name"),
  curve: rule(
    "an object with serverKey, publicKey and secretKey, each 40 characters of Z85",
    (value) => {
      const { serverKey, publicKey, secretKey } = Object(value);
      return [serverKey, publicKey, secretKey].every(isCurveKey);
    },
  ),
  onEvent: callback,
};
