/** What can be asked about an engine: its own HTTP side, and what the controller knows of it. */

import type { EngineSnapshot } from "lazygraph";
import type { ServerAddress } from "lazygraph/measure";
import type { Pool } from "undici";

const PROBE_TIMEOUT_MS = 2_000;
/** In a sentence. */
const NAMES_MAX = 5;
const ASLEEP = "asleep";

interface Probed {
  readonly pool: Pool;
  readonly server: ServerAddress;
}

/** Why it isn't ready: it doesn't answer its health check with 200 in time. Undefined: it does. */
export async function ailmentOf({ pool, server }: Probed): Promise<string | undefined> {
  try {
    const signal = AbortSignal.timeout(PROBE_TIMEOUT_MS);
    const { statusCode, body } = await pool.request({
      method: "GET",
      path: server.path("/health"),
      headers: server.headers,
      signal,
    });
    await body.dump();
    return statusCode === 200 ? undefined : `status ${statusCode}`;
  } catch (error) {
    const { name, code, message } = error as NodeJS.ErrnoException;
    if (name === "TimeoutError") return `no answer within ${PROBE_TIMEOUT_MS / 1000} s`;
    return server.hide(code ?? message);
  }
}

/** Asleep it answers its health check, and keeps every request until somebody wakes it. */
export function sleepOf(its: EngineSnapshot | undefined): string | undefined {
  return its?.connected === true && its.asleep?.length ? ASLEEP : undefined;
}

export function notReadyText(engine: Probed & { readonly name: string }, ailment: string): string {
  const why = ailment === ASLEEP ? "it sleeps" : `${engine.server.shown}/health gave ${ailment}`;
  return `engine ${engine.name} is not ready: ${why}`;
}

/** `unknown`: no connection to the controller; `stock`: the plugin stepped aside. */
export function phaseOf(its: EngineSnapshot | undefined): object {
  if (its === undefined || !its.connected) return { phase: "unknown" };
  const { phase, mode, settled, graphsCaptured, graphsPlanned } = its;
  return { phase, mode, settled, graphsCaptured, graphsPlanned };
}

/** Mostly an engine of another name, of which every word of the controller is lost. */
export function unknownText(engine: string, known: readonly string[]): string {
  const names = known.length === 0 ? "none" : known.slice(0, NAMES_MAX).join(", ");
  return (
    `engine ${engine} serves, but the controller knows ${names} and not ${engine}: it is chosen by ` +
    "load and health alone until ENGINES has the engine's LAZYGRAPH_ENGINE for its name, and its " +
    "LAZYGRAPH_ENDPOINT is this controller's"
  );
}
