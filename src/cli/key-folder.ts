/**
 * A folder of CURVE keys, one key in one file, as a controller (`--keys`) and an engine
 * (`LAZYGRAPH_ENGINE_KEYS`) read it, and as a mounted Secret can be:
 *
 * | file | of | what is in it |
 * |---|---|---|
 * | `public.key` | both | this side's public key |
 * | `secret.key` | both | its secret key, readable by its owner alone |
 * | `server.key` | the engine | the controller's public key |
 * | `clients.keys` | the controller | public keys of the engines that may connect, one a line; behind it `engine=NAME` for each name that is its alone, and a name for people |
 */

import { statSync } from "node:fs";
import { type FileHandle, open, rename, stat, unlink } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { curveKeyPair } from "zeromq";
import { counted } from "../base/counted.ts";
import { codeOf, messageOf, OptionError } from "../base/errors.ts";
import { makeFolder } from "../base/make-folder.ts";
import { readRegularFile, unreadable } from "../base/read-file.ts";
import { readPublicFile, readSecretFile, SECRET_MODE } from "../base/secret-file.ts";
import type { AllowedEngines, CurveOptions } from "../wire/curve.ts";
import { isPair } from "../wire/key-proof.ts";
import { isCurveKey } from "../wire/z85.ts";
import { quote } from "./errors.ts";

export const PUBLIC_FILE = "public.key";
export const SECRET_FILE = "secret.key";
export const SERVER_FILE = "server.key";
export const CLIENTS_FILE = "clients.keys";

const FOLDER_MODE = 0o700;
const PUBLIC_MODE = 0o644;
export const CLIENTS_MAX = 1024;
const CLIENTS_BYTES_MAX = 4 << 20;
const NAME_CHARS_MAX = 128;
/** Before a name that is given to a key. */
const GIVEN = "engine=";
export const GIVEN_MAX = 64;
/** A change of the list takes milliseconds. */
const LOCK_WAIT_MS = 10_000;
const LOCK_POLL_MS = 10;
const LOCK_MS_MAX = 30_000;
const WITHOUT_KEYS = "a folder without keys that can be written";
/** How long a list of clients is taken as it was read. */
const FRESH_MS = 1000;

export interface AllowedKey extends AllowedEngines {
  /** For people. */
  readonly name: string;
}

export interface KeyPair {
  readonly publicKey: string;
  readonly secretKey: string;
}

export interface EngineKeys extends KeyPair {
  readonly serverKey: string;
}

/** @throws OptionError for files that are missing, too open or hold no keys */
export async function readPair(option: string, folder: string): Promise<KeyPair> {
  await requireKeys(option, folder);
  const secretKey = await readSecretFile(option, join(folder, SECRET_FILE));
  const publicKey = await readPublicFile(option, join(folder, PUBLIC_FILE));
  for (const [name, key] of [
    [PUBLIC_FILE, publicKey],
    [SECRET_FILE, secretKey],
  ] as const) {
    if (isCurveKey(key)) continue;
    throw new OptionError(
      option,
      `Expected ${join(folder, name)} to hold a Z85 key of 40 characters, got ` +
        `${counted(key.length, "character")}: \`lazygraph keys new\` makes the files.`,
    );
  }
  if (!isPair({ publicKey, secretKey })) {
    throw new OptionError(
      option,
      `Expected ${join(folder, SECRET_FILE)} to hold the secret key of ${PUBLIC_FILE} beside it, got ` +
        "another one's: put back the pair that belongs together, or make a new one.",
    );
  }
  return { publicKey, secretKey };
}

/** A folder is what was asked for, and not the file in it that is looked for first. */
async function requireKeys(option: string, folder: string): Promise<void> {
  const isMissing = (error: unknown): boolean => codeOf(error) === "ENOENT";
  const fault = await stat(folder).then(
    (about) => (about.isDirectory() ? undefined : "which is no folder"),
    (error: unknown) => (isMissing(error) ? "which isn't there" : undefined),
  );
  const none = await stat(join(folder, SECRET_FILE)).then(() => false, isMissing);
  if (fault === undefined && !none) return;
  throw new OptionError(
    option,
    `Expected ${option} to be a folder with ${SECRET_FILE} and ${PUBLIC_FILE}, got ` +
      `${quote(folder)}, ${fault ?? "which has none"}: name another one, or make them with \`lazygraph keys new FOLDER\`.`,
  );
}

/** The controller's keys; the list of clients is looked at again while it runs. */
export async function readControllerKeys(
  option: string,
  folder: string,
  onProblem: (sentence: string) => void,
): Promise<CurveOptions> {
  const pair = await readPair(option, folder);
  const list = new ClientList(join(folder, CLIENTS_FILE), onProblem);
  // A mistake that is there at the start ends it; later ones leave the list as it was.
  readClients(option, folder);
  return { ...pair, allowedClients: () => list.keys() };
}

/** An engine's keys, as the plugin reads them. @throws OptionError as `readPair` */
export async function readEngineKeys(option: string, folder: string): Promise<EngineKeys> {
  const pair = await readPair(option, folder);
  const serverKey = await readPublicFile(option, join(folder, SERVER_FILE));
  if (isCurveKey(serverKey)) return { ...pair, serverKey };
  throw new OptionError(
    option,
    `Expected ${join(folder, SERVER_FILE)} to hold the controller's public key of 40 characters, ` +
      `got ${counted(serverKey.length, "character")}.`,
  );
}

/**
 * Keys come by the environment or a folder that it names: arguments can be read by everybody.
 * Undefined where there are none.
 */
export async function engineKeys(environment: NodeJS.ProcessEnv): Promise<EngineKeys | undefined> {
  const folder = environment["LAZYGRAPH_ENGINE_KEYS"] ?? "";
  if (folder !== "") return readEngineKeys("LAZYGRAPH_ENGINE_KEYS", folder);
  const serverKey = environment["LAZYGRAPH_SERVER_KEY"];
  const publicKey = environment["LAZYGRAPH_PUBLIC_KEY"];
  const secretKey = environment["LAZYGRAPH_SECRET_KEY"];
  if (!serverKey || !publicKey || !secretKey) return undefined;
  return { serverKey, publicKey, secretKey };
}

/**
 * One whose public key doesn't begin with a dash, as one in 85 does: on a command line that would be
 * an option.
 */
export function keyPair(make: typeof curveKeyPair = curveKeyPair): ReturnType<typeof curveKeyPair> {
  for (;;) {
    const pair = make();
    if (!pair.publicKey.startsWith("-")) return pair;
  }
}

/**
 * Makes a pair. @throws OptionError where there is one already: keys are never overwritten
 * @param serverKey of the controller, for an engine's folder
 */
export async function makePair(folder: string, serverKey?: string): Promise<string> {
  await inFolder(folder, WITHOUT_KEYS, () => makeFolder(folder, FOLDER_MODE));
  const { publicKey, secretKey } = keyPair();
  const files = [
    [SECRET_FILE, secretKey, SECRET_MODE],
    [PUBLIC_FILE, publicKey, PUBLIC_MODE],
    ...(serverKey === undefined ? [] : [[SERVER_FILE, serverKey, PUBLIC_MODE] as const]),
  ] as const;
  await inFolder(folder, WITHOUT_KEYS, () => writeAllNew(folder, files));
  return publicKey;
}

/** Puts a new pair in the place of the old one, which stays beside it as `….old`. */
export async function rotatePair(folder: string): Promise<{ before: string; after: string }> {
  const { publicKey: before } = await readPair("FOLDER", folder);
  const { publicKey, secretKey } = keyPair();
  await inFolder(folder, WITHOUT_KEYS, async () => {
    for (const [name, key, mode] of [
      [SECRET_FILE, secretKey, SECRET_MODE],
      [PUBLIC_FILE, publicKey, PUBLIC_MODE],
    ] as const) {
      const file = join(folder, name);
      await unlink(`${file}.new`).catch(() => undefined);
      await writeNew(`${file}.new`, key, mode);
    }
    for (const name of [SECRET_FILE, PUBLIC_FILE]) {
      const file = join(folder, name);
      await rename(file, `${file}.old`);
      await rename(`${file}.new`, file);
    }
  });
  return { before, after: publicKey };
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

/** A new file that is a lock as well. One that a killed process left behind is void after a while. */
async function openAlone(folder: string, part: string): Promise<FileHandle> {
  const deadline = performance.now() + LOCK_WAIT_MS;
  for (;;) {
    try {
      return await open(part, "wx", PUBLIC_MODE);
    } catch (error) {
      if (codeOf(error) !== "EEXIST") throw error;
    }
    const about = await stat(part).catch(() => undefined);
    if (about !== undefined && Date.now() - about.mtimeMs > LOCK_MS_MAX) {
      await unlink(part).catch(() => undefined);
    } else if (performance.now() > deadline) {
      throw new OptionError(
        "FOLDER",
        `Expected nobody else to change the keys of ${folder}, got ${part}, which another process ` +
          "holds: try again.",
      );
    } else {
      await sleep(LOCK_POLL_MS);
    }
  }
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
  return /^[^\s\p{Cc}]{1,128}$/u.test(name);
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

/** The file of clients as it is now, read again only when it has changed. */
class ClientList {
  readonly #file: string;
  readonly #onProblem: (sentence: string) => void;
  #keys: readonly AllowedKey[] = [];
  #seen = "";
  #lookedAtMs = Number.NEGATIVE_INFINITY;

  constructor(file: string, onProblem: (sentence: string) => void) {
    this.#file = file;
    this.#onProblem = onProblem;
  }

  keys(): readonly AllowedKey[] {
    const now = performance.now();
    if (now - this.#lookedAtMs < FRESH_MS) return this.#keys;
    this.#lookedAtMs = now;
    const entry = statSync(this.#file, { throwIfNoEntry: false });
    const seen = entry === undefined ? "none" : `${entry.ino} ${entry.mtimeMs} ${entry.size}`;
    if (seen === this.#seen) return this.#keys;
    this.#seen = seen;
    try {
      this.#keys = readClients("--keys", join(this.#file, ".."));
    } catch (error) {
      this.#onProblem(`${messageOf(error)} The list stays as it was.`);
    }
    return this.#keys;
  }
}

/** All or none: a part of a pair would be in the way of the next try, and is no pair. */
async function writeAllNew(
  folder: string,
  files: readonly (readonly [name: string, text: string, mode: number])[],
): Promise<void> {
  const written: string[] = [];
  try {
    for (const [name, text, mode] of files) {
      const file = join(folder, name);
      await writeNew(file, text, mode);
      written.push(file);
    }
  } catch (error) {
    for (const file of written) await unlink(file).catch(() => undefined);
    throw error;
  }
}

async function writeNew(file: string, text: string, mode: number): Promise<void> {
  const handle = await open(file, "wx", mode);
  try {
    await handle.writeFile(`${text}\n`);
    // Whatever the mask left of it: a public key is for all, a secret one for its owner.
    await handle.chmod(mode);
    await handle.sync();
  } catch (error) {
    await unlink(file).catch(() => undefined);
    throw error;
  } finally {
    await handle.close();
  }
}

async function inFolder<T>(folder: string, expected: string, act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    if (error instanceof OptionError) throw error;
    const code = codeOf(error);
    const why = code === "EEXIST" ? "keys that are there already" : (code ?? messageOf(error));
    const remedy = code === "EEXIST" ? ": `lazygraph keys rotate` replaces them" : "";
    throw new OptionError("FOLDER", `Expected ${folder} to be ${expected}, got ${why}${remedy}.`);
  }
}
