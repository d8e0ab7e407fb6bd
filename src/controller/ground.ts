/** What a controller stands on: time, sockets and files. A simulation brings its own. */

import { type Clock, systemClock } from "../base/clock.ts";
import { type PlanFiles, planFiles } from "../plan/files.ts";
import { openRouter, type RouterLink, type RouterOptions } from "../wire/router.ts";
import { eventLoopShare } from "./pace.ts";

export interface Ground {
  readonly clock: Clock;
  readonly openRouter: (options: RouterOptions) => Promise<RouterLink>;
  readonly files: PlanFiles;
  /** Starts to watch the event loop: what it answers is the share that was busy since it was asked. */
  readonly watchLoad: () => () => number;
}

export const systemGround: Ground = {
  clock: systemClock,
  openRouter,
  files: planFiles,
  watchLoad: eventLoopShare,
};
