/** What can be asked about an engine: its own HTTP side, and what the controller knows of it. */

import type { EngineSnapshot } from "lazygraph";
import type { ServerAddress } from "lazygraph/measure";
import type { Pool } from "undici";

const PROBE_TIMEOUT_MS = 2_000;

interface Probed {
  readonly pool: Pool;
  readonly server: ServerAddress;
}

/** Whether it answers its health check with 200 in time. */
export async function isHealthy({ pool, server }: Probed): Promise<boolean> {
  try {
    const signal = AbortSignal.timeout(PROBE_TIMEOUT_MS);
    const { statusCode, body } = await pool.request({
      method: "GET",
      path: server.path("/health"),
      headers: server.headers,
      signal,
    });
    await body.dump();
    return statusCode === 200;
  } catch {
    return false;
  }
}

/** `unknown`: no connection to the controller; `stock`: the plugin stepped aside. */
export function phaseOf(its: EngineSnapshot | undefined): object {
  if (its === undefined || !its.connected) return { phase: "unknown" };
  const { phase, mode, settled, graphsCaptured, graphsPlanned } = its;
  return { phase, mode, settled, graphsCaptured, graphsPlanned };
}
