/**
 * A folder of CURVE keys, one key in one file, as a controller (`--keys`) and an engine
 * (`LAZYGRAPH_ENGINE_KEYS`) read it, and as a mounted Secret can be:
 *
 * | file | of | what is in it |
 * |---|---|---|
 * | `public.key` | both | this side's public key |
 * | `secret.key` | both | its secret key, readable by its owner alone |
 * | `server.key` | the engine | the controller's public key |
 * | `clients.keys` | the controller | the engines that may connect (`key-clients.ts`) |
 */

import { existsSync } from "node:fs";
import { open, rename, stat, unlink } from "node:fs/promises";
import { join } from "node:path";
import { curveKeyPair } from "zeromq";
import { counted } from "../base/counted.ts";
import { codeOf, messageOf, OptionError } from "../base/errors.ts";
import { makeFolder } from "../base/make-folder.ts";
import { PUBLIC_MODE, readPublicFile, readSecretFile, SECRET_MODE } from "../base/secret-file.ts";
import { isPair } from "../wire/key-proof.ts";
import { isCurveKey } from "../wire/z85.ts";
import { quote } from "./errors.ts";
import { openAlone } from "./key-lock.ts";

export const PUBLIC_FILE = "public.key";
export const SECRET_FILE = "secret.key";
export const SERVER_FILE = "server.key";

const FOLDER_MODE = 0o700;
const OLD_MAX = 100;
const WITHOUT_KEYS = "a folder without keys that can be written";

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

/** An engine's keys, as the plugin reads them. @throws OptionError as `readPair` */
export async function readEngineKeys(option: string, folder: string): Promise<EngineKeys> {
  const pair = await readPair(option, folder);
  if (!existsSync(join(folder, SERVER_FILE))) {
    throw new OptionError(
      option,
      `Expected ${option} to be an engine's folder, got ${quote(folder)} without ${SERVER_FILE}: copy ` +
        `the controller's ${PUBLIC_FILE} there as ${SERVER_FILE}.`,
    );
  }
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

/**
 * Puts a new pair in the place of the old one, which stays beside it as `….old`. Who rotates at the
 * same time waits: together they would leave no pair.
 */
export async function rotatePair(folder: string): Promise<{ before: string; after: string }> {
  await readPair("FOLDER", folder);
  return alone(folder, () => replacePair(folder));
}

function alone<T>(folder: string, act: () => Promise<T>): Promise<T> {
  const lock = join(folder, "rotate.lock");
  return inFolder(folder, WITHOUT_KEYS, async () => {
    const handle = await openAlone(folder, lock);
    try {
      return await act();
    } finally {
      await handle.close();
      await unlink(lock).catch(() => undefined);
    }
  });
}

/** Puts the old pair back where a rotation was killed between its renames: its new key nobody knows. */
export async function undoRotation(folder: string): Promise<boolean> {
  if (!(await isHalfRotated(folder))) return false;
  return alone(folder, async () => {
    // Another process may have been in the middle of it.
    if (!(await isHalfRotated(folder))) return false;
    const [publicFile, secretFile] = [join(folder, PUBLIC_FILE), join(folder, SECRET_FILE)];
    if (!existsSync(publicFile)) await rename(`${publicFile}.old`, publicFile);
    await rename(`${secretFile}.old`, secretFile);
    return true;
  });
}

/** Whether the old secret key, and no other one, is that of the public key before the rotation. */
async function isHalfRotated(folder: string): Promise<boolean> {
  const publicFile = join(folder, PUBLIC_FILE);
  if (!existsSync(`${publicFile}.new`)) return false;
  const before = existsSync(publicFile) ? publicFile : `${publicFile}.old`;
  const fits = async (secretFile: string): Promise<boolean> => {
    try {
      const publicKey = await readPublicFile("FOLDER", before);
      return isPair({ publicKey, secretKey: await readSecretFile("FOLDER", secretFile) });
    } catch {
      return false;
    }
  };
  const secretFile = join(folder, SECRET_FILE);
  return !(await fits(secretFile)) && fits(`${secretFile}.old`);
}

async function replacePair(folder: string): Promise<{ before: string; after: string }> {
  const { publicKey: before } = await readPair("FOLDER", folder);
  await numberOld(join(folder, `${PUBLIC_FILE}.old`));
  const { publicKey, secretKey } = keyPair();
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
  return { before, after: publicKey };
}

/** Earlier public keys stay: they may have to be removed. */
async function numberOld(file: string): Promise<void> {
  if (!existsSync(file)) return;
  let number = 1;
  while (existsSync(`${file}.${number}`)) number++;
  if (number < OLD_MAX) return rename(file, `${file}.${number}`);
  const expected = `Expected fewer than ${OLD_MAX} old keys, got ${file}.${number - 1}`;
  throw new OptionError("FOLDER", `${expected}: delete them.`);
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

export async function inFolder<T>(
  folder: string,
  expected: string,
  act: () => Promise<T>,
): Promise<T> {
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
