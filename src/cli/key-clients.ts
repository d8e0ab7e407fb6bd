/**
 * `clients.keys` in a controller's folder of keys: public keys of the engines that may connect, one a
 * line; behind it `engine=NAME` for each name that is its alone, and a name for people.
 */

import { existsSync, statSync } from "node:fs";
import { rename, unlink } from "node:fs/promises";
import { join } from "node:path";
import { counted } from "../base/counted.ts";
import { codeOf, messageOf, OptionError } from "../base/errors.ts";
import { readRegularFile, unreadable } from "../base/read-file.ts";
import { PUBLIC_MODE } from "../base/secret-file.ts";
import { isId } from "../wire/check.ts";
import type { AllowedEngines } from "../wire/curve.ts";
import { isCurveKey } from "../wire/z85.ts";
import { quote } from "./errors.ts";
import { inFolder, SERVER_FILE } from "./key-folder.ts";
import { openAlone } from "./key-lock.ts";

export const CLIENTS_FILE = "clients.keys";
export const CLIENTS_MAX = 1024;
const CLIENTS_BYTES_MAX = 4 << 20;
const NAME_CHARS_MAX = 128;
/** Before a name that is given to a key. */
const GIVEN = "engine=";
export const GIVEN_MAX = 64;
/** How long a list of clients is taken as it was read. */
const FRESH_MS = 1000;

export interface AllowedKey extends AllowedEngines {
  /** For people. */
  readonly name: string;
}

/**
 * Replaces the list as a whole: a controller that reads it meanwhile sees either one. Who changes it
 * at the same time waits, so that no change is lost.
 *
 * @returns what it is now
 */
export async function changeClients(
  folder: string,
  change: (clients: readonly AllowedKey[]) => readonly AllowedKey[],
): Promise<readonly AllowedKey[]> {
  const file = join(folder, CLIENTS_FILE);
  const part = `${file}.new`;
  const why = "a folder whose list of keys can be written";
  return inFolder(folder, why, async () => {
    const handle = await openAlone(folder, part);
    try {
      const clients = change(readClients("FOLDER", folder));
      await handle.writeFile(clients.map(clientLine).join(""));
      await handle.chmod(PUBLIC_MODE);
      await handle.sync();
      await rename(part, file);
      return clients;
    } catch (error) {
      await unlink(part).catch(() => undefined);
      throw error;
    } finally {
      await handle.close();
    }
  });
}

function clientLine({ key, engines = [], name }: AllowedKey): string {
  const given = engines.map((engine) => `${GIVEN}${engine}`);
  return `${[key, ...given, name].filter((word) => word !== "").join(" ")}\n`;
}

/** None where there is no such file. @throws OptionError for a line that is no key */
export function readClients(option: string, folder: string): AllowedKey[] {
  const file = join(folder, CLIENTS_FILE);
  let text: string;
  try {
    text = readRegularFile(file, CLIENTS_BYTES_MAX).toString();
  } catch (error) {
    if (codeOf(error) === "ENOENT") return [];
    throw new OptionError(option, `Expected ${file} to be readable, got ${unreadable(error)}.`);
  }
  const lines = text.split("\n").map((line) => line.trim());
  const clients = lines.flatMap((line, index): AllowedKey[] => {
    // Z85 has the sign `#`, so that a comment is told by the blank behind it.
    if (line === "" || /^#(\s|$)/.test(line)) return [];
    const [key = "", ...words] = line.split(/\s+/);
    const names = namesIn(words);
    if (names.engines?.every(isEngineName) === false) {
      throw new OptionError(
        option,
        `Expected \`${GIVEN}NAME\` in line ${index + 1} of ${file} to name an engine by 1 to 128 ` +
          "characters, got another one.",
      );
    }
    if (isCurveKey(key)) return [{ key, ...names }];
    throw new OptionError(
      option,
      `Expected line ${index + 1} of ${file} to begin with a Z85 key of 40 characters, got ` +
        `${counted(key.length, "character")}.`,
    );
  });
  if (clients.length <= CLIENTS_MAX) return clients;
  throw new OptionError(
    option,
    `Expected at most ${CLIENTS_MAX} keys in ${file}, got ${clients.length}: take out ` +
      "those of engines that are gone.",
  );
}

/** Blanks would end a name in the file. */
export function isEngineName(name: string): boolean {
  return isId(name) && !/\s/.test(name);
}

/** What is behind a key. */
function namesIn(words: readonly string[]): Omit<AllowedKey, "key"> {
  const engines = words
    .filter((word) => word.startsWith(GIVEN))
    .map((word) => word.slice(GIVEN.length));
  const rest = words.filter((word) => !word.startsWith(GIVEN)).join(" ");
  return {
    name: rest.slice(0, NAME_CHARS_MAX),
    ...(engines.length === 0 ? {} : { engines }),
  };
}

/**
 * The list as it is whenever it is asked for.
 *
 * @param onProblem told of a mistake that comes later, which leaves the list as it was
 * @throws OptionError for one that is there now
 */
export function followClients(
  option: string,
  folder: string,
  onProblem: (sentence: string) => void,
): () => readonly AllowedKey[] {
  requireController(option, folder);
  const list = new ClientList(join(folder, CLIENTS_FILE), readClients(option, folder), onProblem);
  return () => list.keys();
}

/** An engine's folder in the place of a controller's: nobody could ever connect. */
export function requireController(option: string, folder: string): void {
  const has = (name: string): boolean => existsSync(join(folder, name));
  if (!has(SERVER_FILE) || has(CLIENTS_FILE)) return;
  throw new OptionError(
    option,
    `Expected ${option} to be a controller's folder, got ${quote(folder)}, which is an engine's: it ` +
      `has ${SERVER_FILE}.`,
  );
}

/** The file of clients as it is now, read again only when it has changed. */
class ClientList {
  readonly #file: string;
  readonly #onProblem: (sentence: string) => void;
  #keys: readonly AllowedKey[];
  #seen = "";
  #problem = "";
  #lookedAtMs = Number.NEGATIVE_INFINITY;

  constructor(file: string, keys: readonly AllowedKey[], onProblem: (sentence: string) => void) {
    this.#file = file;
    this.#keys = keys;
    this.#onProblem = onProblem;
  }

  keys(): readonly AllowedKey[] {
    const now = performance.now();
    if (now - this.#lookedAtMs < FRESH_MS) return this.#keys;
    this.#lookedAtMs = now;
    const seen = this.#look();
    if (seen === this.#seen) return this.#keys;
    try {
      this.#keys = readClients("--keys", join(this.#file, ".."));
      this.#seen = seen;
      this.#problem = "";
    } catch (error) {
      // Read again and told once: whoever mends its owner or mode leaves its time as it is.
      const problem = messageOf(error);
      if (problem !== this.#problem) this.#onProblem(`${problem} The list stays as it was.`);
      this.#problem = problem;
    }
    return this.#keys;
  }
  #look(): string {
    try {
      const { ino, mtimeMs, size } = statSync(this.#file);
      return `${ino} ${mtimeMs} ${size}`;
    } catch (error) {
      return String(codeOf(error));
    }
  }
}
