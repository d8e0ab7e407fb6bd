import { OptionError } from "../base/errors.ts";
import type { CurveOptions } from "../wire/curve.ts";
import { isLoopback } from "../wire/endpoint.ts";

const PUBLIC = "LAZYGRAPH_SERVER_KEY";
const SECRET = "LAZYGRAPH_SERVER_SECRET_KEY";
const CLIENTS = "LAZYGRAPH_CLIENT_KEYS";

/** What no child may inherit. */
export const SECRET_VARIABLE: string = SECRET;

/**
 * The controller's CURVE keys, from the environment alone: arguments can be read by everybody on
 * the machine. `LAZYGRAPH_SERVER_KEY` has the same meaning here and in the plugin.
 */
export function curveKeys(
  environment: NodeJS.ProcessEnv,
  endpoint: string,
): CurveOptions | undefined {
  const publicKey = environment[PUBLIC]?.trim() ?? "";
  const secretKey = environment[SECRET]?.trim() ?? "";
  const clients = environment[CLIENTS]?.trim() ?? "";
  if (publicKey === "" && secretKey === "" && clients === "") {
    if (isLoopback(endpoint)) return undefined;
    throw new OptionError(
      "--endpoint",
      `Expected CURVE keys for --endpoint ${endpoint}, which other machines may reach, got none: ` +
        `set ${PUBLIC} and ${SECRET}, or bind to 127.0.0.1.`,
    );
  }
  for (const [name, key] of [
    [PUBLIC, publicKey],
    [SECRET, secretKey],
  ] as const) {
    if (key.length !== 40) {
      throw new OptionError(
        name,
        `Expected ${name} to be a Z85 key of 40 characters, got ${key.length} characters: set ` +
          `${PUBLIC} and ${SECRET}, or neither.`,
      );
    }
  }
  if (clients === "") return { publicKey, secretKey };
  return { publicKey, secretKey, allowedClients: clients.split(",").map((key) => key.trim()) };
}
