/** What a gateway asks of a controller, whether its own process runs it or another one. */

import type { Announcement } from "../controller/call-options.ts";
import type { WaitOptions } from "../controller/waiters.ts";
import type { EngineSnapshot } from "../engine/snapshot.ts";

export interface ControllerView {
  /** A picture of each engine that joined, lost ones included. */
  engines(): readonly EngineSnapshot[];
  /**
   * Tells an engine's policy of requests to come.
   * @throws LazygraphError ERR_LAZYGRAPH_ENGINE_UNKNOWN, …_LOST or …_CLOSED; OptionError
   */
  announce(engine: string, announcement: Announcement): void;
  /**
   * Resolves with the first connected engine that is what was asked for.
   * @throws LazygraphError ERR_LAZYGRAPH_CLOSED, or …_ENGINE_TIMEOUT where the signal's reason is a
   *   time-out; OptionError; else the signal's reason
   */
  waitForEngine(options?: WaitOptions): Promise<EngineSnapshot>;
  /** Idempotent. Engines go on serving. */
  close(): Promise<void>;
}
