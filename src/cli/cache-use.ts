/** `--caches` of a command that starts an engine: what can't be used costs seconds, not the start. */

import { codeOf, type ErrorCode, messageOf, OptionError } from "../base/errors.ts";
import { type UsedCaches, useCaches } from "../caches/folder.ts";
import { cacheFingerprint } from "./cache-fingerprint.ts";
import { note } from "./errors.ts";
import type { ParsedOptions } from "./options.ts";

export interface CacheUse {
  readonly folder: string;
  readonly readOnly: boolean;
}

export function cacheUse(options: ParsedOptions): CacheUse | undefined {
  const folder = options.strings.get("caches");
  const readOnly = options.flags.has("caches-read-only");
  if (folder === undefined && readOnly) {
    throw new OptionError(
      "--caches-read-only",
      "Expected --caches DIR with --caches-read-only, got none: name the folder.",
    );
  }
  return folder === undefined ? undefined : { folder, readOnly };
}

type Started = Pick<UsedCaches, "variables" | "release">;

const NONE: Started = { variables: {}, release: async () => undefined };

/** What the engine's environment needs, and what is to be done once the engine has ended. */
export async function startCaches(
  use: CacheUse | undefined,
  command: readonly string[],
  environment: NodeJS.ProcessEnv,
  quiet: boolean,
): Promise<Started> {
  if (use === undefined) return NONE;
  try {
    const fingerprint = await cacheFingerprint(command, environment);
    const used = await useCaches(use.folder, fingerprint, use.readOnly);
    const told = sentence(used.how, environment["LAZYGRAPH_MODE"]);
    if (!quiet) note(told.replaceAll("DIR", () => use.folder));
    return { ...used, release: () => used.release().catch(leftBehind) };
  } catch (error) {
    note(
      `Started without these caches: ${messageOf(error)}`,
      codeOf(error) as ErrorCode | undefined,
    );
    return NONE;
  }
}

function sentence(how: UsedCaches["how"], mode: string | undefined): string {
  const all = mode === "lazy" || mode === "idle" ? ` ${LATER_KERNELS}` : "";
  return how === "filled" ? `${SENTENCES.filled}${all}` : SENTENCES[how];
}

/** Eager mode, as stock, runs every size before ready. */
const LATER_KERNELS =
  "Sizes that are captured later compile their kernels later as well, while requests wait: " +
  "if others will use DIR, fill it with --mode eager.";

/** The engine has ended, and how it did is what counts. */
function leftBehind(error: unknown): void {
  note(
    `Expected to remove the private copy of the caches, got ${messageOf(error)}: remove it.`,
    "ERR_LAZYGRAPH_CACHES",
  );
}

const SENTENCES: Readonly<Record<UsedCaches["how"], string>> = {
  filled: "Caches: DIR is empty and will be filled.",
  used: "Caches: those in DIR are used.",
  copied: "Caches: a private copy of those in DIR is used; what is compiled anew is not kept.",
};
