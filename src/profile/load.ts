/** Loads cost profiles: where they lie is known here, what a sound one looks like in `check.ts`. */

import { readdirSync, readFileSync, statSync } from "node:fs";
import { checkArgument, textRule } from "../base/check-options.ts";
import { codeOf, LazygraphError } from "../base/errors.ts";
import { parseJsonFile } from "../base/parse-json.ts";
import { checkProfile } from "./check.ts";
import type { Profile } from "./profile.ts";

const PROFILES = new URL("../../profiles/", import.meta.url);
export const DEFAULT_PROFILE = "llama-3.1-8b-h200";
const FILE_BYTES_MAX = 8 << 20;
const FILE_CHARS_MAX = FILE_BYTES_MAX;

function shippedNames(): string {
  const files = readdirSync(PROFILES).filter((name) => name.endsWith(".json"));
  return files
    .map((name) => name.slice(0, -".json".length))
    .sort()
    .join(", ");
}

/**
 * Loads a profile by its name among those shipped, or by the path of a `.json` file.
 *
 * @throws LazygraphError `ERR_LAZYGRAPH_PROFILE` with file, field and expectation.
 */
export function loadProfile(nameOrPath: string = DEFAULT_PROFILE): Profile {
  checkArgument("profile", nameOrPath, textRule("the name of a shipped profile or a path"));
  const shipped = /^[A-Za-z0-9._-]+$/.test(nameOrPath) && !nameOrPath.endsWith(".json");
  const file = shipped ? new URL(`${nameOrPath}.json`, PROFILES) : nameOrPath;
  let text: string;
  try {
    const about = statSync(file);
    // A pipe would never end, a device never be one, and neither is worth waiting for.
    if (!about.isFile() && !about.isDirectory()) {
      throw profileError(
        nameOrPath,
        "the file",
        "a regular one",
        "a pipe or a device of that name",
      );
    }
    if (about.size > FILE_BYTES_MAX) {
      const most = `at most ${FILE_BYTES_MAX} bytes`;
      throw profileError(nameOrPath, "the file", most, `${about.size}`);
    }
    text = readFileSync(file, "utf8");
  } catch (error) {
    if (error instanceof LazygraphError) throw error;
    const wanted = shipped
      ? `the name of a shipped profile (${shippedNames()}) or the path of a .json file`
      : "readable";
    throw profileError(nameOrPath, "the file", wanted, codeOf(error) ?? String(error));
  }
  return parseProfile(text, nameOrPath);
}

/**
 * The same engine with only some of its capture sizes, as vLLM's `cudagraph_capture_sizes` sets
 * them; none at all is an engine without graphs.
 */
export function withSizes(profile: Profile, sizes: readonly number[]): Profile {
  const costs = profile.captures.costs.filter(({ graph }) => sizes.includes(graph.tokens));
  return { ...profile, captures: { ...profile.captures, costs } };
}

/** Checks the text of a profile; `file` is what its errors name. */
export function parseProfile(text: string, file: string): Profile {
  checkArgument("text", text, (given) => (typeof given === "string" ? undefined : "a text"));
  checkArgument("file", file, textRule("the name of a file"));
  if (text.length > FILE_CHARS_MAX) {
    throw profileError(file, "the file", `at most ${FILE_CHARS_MAX} characters`, `${text.length}`);
  }
  let value: unknown;
  try {
    value = parseJsonFile(text);
  } catch (error) {
    // The parser quotes the text around the place, line ends and all.
    const why = error instanceof Error ? error.message.replaceAll(/\s+/g, " ") : "none";
    throw profileError(file, "the file", "JSON", why);
  }
  return checkProfile(value, (field, expected, got) => profileError(file, field, expected, got));
}

function profileError(file: string, field: string, expected: string, got: string): LazygraphError {
  return new LazygraphError(
    "ERR_LAZYGRAPH_PROFILE",
    `Profile ${file}: expected ${field} to be ${expected}, got ${got}.`,
  );
}
