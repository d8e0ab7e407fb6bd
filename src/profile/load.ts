/** Loads cost profiles: where they lie is known here, what a sound one looks like in `check.ts`. */

import { readdirSync } from "node:fs";
import * as v from "valibot";
import { checkOption, textRule } from "../base/check-options.ts";
import { LazygraphError } from "../base/errors.ts";
import { parseJsonFile } from "../base/parse-json.ts";
import { readRegularFile, unreadable } from "../base/read-file.ts";
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
  checkOption("profile", nameOrPath, textRule("the name of a shipped profile or a path"));
  const shipped = /^[A-Za-z0-9._-]+$/.test(nameOrPath) && !nameOrPath.endsWith(".json");
  const file = shipped ? new URL(`${nameOrPath}.json`, PROFILES) : nameOrPath;
  let text: string;
  try {
    text = readRegularFile(file, FILE_BYTES_MAX).toString();
  } catch (error) {
    const wanted = shipped
      ? `the name of a shipped profile (${shippedNames()}) or the path of a .json file`
      : "readable";
    throw profileError(nameOrPath, "the file", wanted, unreadable(error));
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
  checkOption("text", text, v.string("a text"));
  checkOption("file", file, textRule("the name of a file"));
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
