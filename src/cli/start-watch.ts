/** Watches the start of a command under `run`: which phase it is in, and when it answers. */

import { join } from "node:path";
import { statusOf } from "../base/http-status.ts";
import { removeLeftover, temporaryFolder } from "../base/leftovers.ts";
import type { StartReport, StartSource } from "../http/route.ts";
import { defaultPlanFolder } from "../plan/place.ts";
import { addToHistory, historyKey, readHistory } from "../startup/history.ts";
import {
  hasPassed,
  keyOf,
  type PastStart,
  pastStart,
  progressOf,
  START_PHASES,
} from "../startup/progress.ts";
import {
  type Begun,
  FOLDER_VARIABLE,
  monotonicSeconds,
  readBegun,
  readSpans,
  type Span,
} from "../startup/spans.ts";
import { serverUrlOf } from "./startup-server.ts";

const POLL_MS = 500;
const POLL_TIMEOUT_MS = 2000;

/** Its end takes its folder away. */
export interface StartWatch extends StartSource, AsyncDisposable {
  /** For the command's environment. */
  readonly variables: Readonly<Record<string, string>>;
  /** To be called when it is spawned. */
  begin(): void;
}

export interface StartWatchOptions {
  readonly command: readonly string[];
  /** What else decides how long it takes, such as whether it is forked. */
  readonly how: readonly string[];
  readonly environment: NodeJS.ProcessEnv;
  /** Undefined: past starts are neither read nor kept. */
  readonly planFolder: string | undefined;
}

export async function watchStart(options: StartWatchOptions): Promise<StartWatch> {
  const { command, environment } = options;
  const given = environment[FOLDER_VARIABLE]?.trim() || undefined;
  // Without one nothing is timed, and the command is started all the same.
  const folder = given ?? (await temporaryFolder("lazygraph-startup-").catch(() => undefined));
  // A folder that was given may have been an earlier start's, too.
  const earlier = new Set(given === undefined ? [] : (await timed(given)).flat().map(keyOf));
  const isOwn = (each: Begun): boolean => !earlier.has(keyOf(each));
  const file = historyFile(options);
  const past: readonly PastStart[] = file === undefined ? [] : await readHistory(file);
  const url = new URL("health", serverUrlOf(command, 0)).href;
  // Whoever is there before the command is spawned is another server, until it is gone.
  let others = answers(url);
  let spawned = monotonicSeconds();
  let ready: number | undefined;
  let timer: NodeJS.Timeout | undefined;
  let closed = false;

  async function look(): Promise<void> {
    const isOthers = await others;
    const answered = await answers(url);
    others = Promise.resolve(isOthers !== false && answered);
    if (answered && isOthers === false) {
      ready = monotonicSeconds();
      if (file === undefined || folder === undefined || closed) return;
      const spans = (await readSpans(folder)).filter(isOwn);
      // Kept for the next start alone; that it can't be is no concern of this one.
      if (spans.length > 0) await addToHistory(file, pastStart(spans, spawned, ready));
    } else if (!closed) {
      timer = setTimeout(again, POLL_MS).unref();
    }
  }
  const again = (): void => void look().catch(() => undefined);

  return {
    variables: folder === undefined ? {} : { [FOLDER_VARIABLE]: folder },
    phases: START_PHASES,
    begin() {
      spawned = monotonicSeconds();
      again();
    },
    async report(until): Promise<StartReport> {
      const now = monotonicSeconds();
      if (ready !== undefined) {
        return {
          ready: true,
          passed: true,
          readySeconds: ready - spawned,
          pastStarts: past.length,
        };
      }
      const [allBegun, allEnded] = await timed(folder);
      const [begun, ended] = [allBegun.filter(isOwn), allEnded.filter(isOwn)];
      const passed = until !== undefined && hasPassed(begun, ended, until);
      return { ready: false, passed, ...progressOf(begun, ended, past, { spawned, now }) };
    },
    async [Symbol.asyncDispose]() {
      closed = true;
      clearTimeout(timer);
      if (given !== undefined || folder === undefined) return;
      // How the command has ended is what counts.
      await removeLeftover(folder).catch(() => undefined);
    },
  };
}

async function timed(folder: string | undefined): Promise<[Begun[], Span[]]> {
  if (folder === undefined) return [[], []];
  return Promise.all([readBegun(folder), readSpans(folder)]).catch(() => [[], []]);
}

/** Beside learned plans: they say the same sort of thing, and have a volume where one is mounted. */
function historyFile({ command, how, planFolder }: StartWatchOptions): string | undefined {
  if (planFolder === undefined) return undefined;
  return join(planFolder, "starts", `${historyKey([...withoutPlace(command), ...how])}.json`);
}

const PLACE = /^--(port|host|uds|api[-_]key)$/;

/** Where a server is reached decides nothing, and is another place each time. */
function withoutPlace(command: readonly string[]): string[] {
  return command.filter(
    (word, at) => !PLACE.test(word.split("=")[0] ?? "") && !PLACE.test(command[at - 1] ?? ""),
  );
}

export function planFolderOf(
  planning: {
    readonly plan?: boolean;
    readonly planFolder?: string;
    readonly planReadOnly?: boolean;
  },
  environment: NodeJS.ProcessEnv,
): string | undefined {
  if (planning.plan === false || planning.planReadOnly === true) return undefined;
  try {
    return planning.planFolder ?? defaultPlanFolder(environment);
  } catch {
    return undefined;
  }
}

/** Undefined: not in time, as somebody who is busy. */
async function answers(url: string): Promise<boolean | undefined> {
  const status = await statusOf(url, POLL_TIMEOUT_MS);
  return status === undefined ? undefined : status >= 200 && status < 300;
}
