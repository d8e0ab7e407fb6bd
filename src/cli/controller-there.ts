/** Tells where no controller answers at the place that `lazygraph run --controller` names. */

import { setTimeout as sleep } from "node:timers/promises";
import { EngineLink } from "../sim/live/link.ts";
import { note } from "./errors.ts";
import { engineKeys } from "./key-folder.ts";

/** One that is being started meanwhile is found as well. */
const ANSWER_MS_MAX = 5000;

/**
 * One line on stderr where none ends a hand-shake in time, as an engine would; a bare connection
 * would look to the controller like an engine whose keys don't fit. Never rejects.
 *
 * @param endpoints with commas between them
 * @param ended when it is of no interest any more
 */
export async function noteMissingController(
  endpoints: string,
  environment: NodeJS.ProcessEnv,
  ended: Promise<unknown>,
  tell: typeof note = note,
): Promise<void> {
  try {
    const how = await firstOf(endpoints, environment, ended);
    if (how !== "silent") return;
    tell(
      `No controller answers at ${endpoints} from here, so the engine goes by its mode's own ` +
        "defaults and joins once one does: start one there, or check the address and its keys.",
      "ERR_LAZYGRAPH_CONTROLLER_UNREACHABLE",
    );
  } catch {
    // An address or keys that can't be used: the engine says so itself.
  }
}

async function firstOf(
  endpoints: string,
  environment: NodeJS.ProcessEnv,
  ended: Promise<unknown>,
): Promise<"there" | "silent" | "ended"> {
  const curve = await engineKeys(environment);
  const links: EngineLink[] = [];
  const waiting = new AbortController();
  try {
    const answered = new Promise<"there">((resolve) => {
      const nothing = (): void => undefined;
      for (const endpoint of endpoints.split(",")) {
        const link = new EngineLink({
          ...{ endpoint, onUp: () => resolve("there"), onMessage: nothing, onDown: nothing },
          ...(curve === undefined ? {} : { curve }),
        });
        links.push(link);
        link.open();
      }
    });
    const { signal } = waiting;
    const late = sleep(ANSWER_MS_MAX, "silent" as const, { signal }).catch(() => "ended" as const);
    return await Promise.race([answered, late, ended.then(() => "ended" as const)]);
  } finally {
    waiting.abort();
    await Promise.all(links.map((link) => link.close()));
  }
}
