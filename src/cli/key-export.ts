/**
 * Keys of folders as variables: for a file that compose, systemd and shells read, and as a Secret
 * of Kubernetes. Z85 has `$`, `{`, `#`, `*` and `@`, which all of them would take for their own.
 */

import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { OptionError } from "../base/errors.ts";
import { readToken, TOKEN_VARIABLE } from "./http-side.ts";
import { readClients } from "./key-clients.ts";
import { readEngineKeys, readPair, SERVER_FILE } from "./key-folder.ts";

export type Variables = Readonly<Record<string, string>>;

const TOKEN_BYTES = 32;

/**
 * What a controller, an engine, or one of each reads from the environment. A controller has a token
 * for its HTTP side as well: the environment's, else a new one.
 *
 * @throws OptionError for folders that can't be read, or that don't belong together
 */
export async function variablesOf(
  folders: readonly string[],
  environment: NodeJS.ProcessEnv,
): Promise<Variables> {
  let all: Variables = {};
  for (const folder of folders) {
    const isEngine = existsSync(join(folder, SERVER_FILE));
    const its = isEngine
      ? await engineVariables(folder)
      : await serverVariables(folder, environment);
    for (const [name, value] of Object.entries(its)) {
      if (all[name] === undefined || all[name] === value) continue;
      throw new OptionError(
        "FOLDER",
        `Expected a controller's folder and one of an engine of it, got another ${name} in ` +
          `${JSON.stringify(folder)}.`,
      );
    }
    all = { ...all, ...its };
  }
  return all;
}

async function serverVariables(folder: string, environment: NodeJS.ProcessEnv): Promise<Variables> {
  const { publicKey, secretKey } = await readPair("FOLDER", folder);
  const clients = readClients("FOLDER", folder);
  if (clients.some(({ engines = [] }) => engines.length > 0)) {
    throw new OptionError(
      "FOLDER",
      "Expected keys without names (`keys allow --engine`), which no variable holds, got some: " +
        "mount the folder instead.",
    );
  }
  // Without the variable a controller lets in whoever knows its public key; a folder lets in nobody.
  if (clients.length === 0) {
    throw new OptionError(
      "FOLDER",
      `Expected engines that are allowed in ${JSON.stringify(folder)}, got none: ` +
        "`lazygraph keys allow FOLDER KEY` first, or the variables would let in every engine.",
    );
  }
  const token = await readToken(undefined, environment);
  return {
    LAZYGRAPH_SERVER_KEY: publicKey,
    LAZYGRAPH_SERVER_SECRET_KEY: secretKey,
    LAZYGRAPH_CLIENT_KEYS: clients.map(({ key }) => key).join(","),
    [TOKEN_VARIABLE]: token ?? randomBytes(TOKEN_BYTES).toString("hex"),
  };
}

async function engineVariables(folder: string): Promise<Variables> {
  const { serverKey, publicKey, secretKey } = await readEngineKeys("FOLDER", folder);
  return {
    LAZYGRAPH_SERVER_KEY: serverKey,
    LAZYGRAPH_PUBLIC_KEY: publicKey,
    LAZYGRAPH_SECRET_KEY: secretKey,
  };
}

/** In single quotes, within which nothing is looked for; Z85 and tokens in hex have none. */
export function environmentText(variables: Variables): string {
  const lines = Object.entries(variables).map(([name, value]) => `${name}='${quotable(value)}'\n`);
  return lines.join("");
}

function quotable(value: string): string {
  if (!value.includes("'") && !value.includes("\\")) return value;
  throw new OptionError(
    TOKEN_VARIABLE,
    `Expected ${TOKEN_VARIABLE} without quotes and backslashes for --as env, got one with some.`,
  );
}

/** As a manifest: in base64 no value needs quotes. */
export function secretText(variables: Variables): string {
  const data = Object.entries(variables).map(
    ([name, value]) => `  ${name}: ${Buffer.from(value).toString("base64")}\n`,
  );
  const head = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: lazygraph-keys\ndata:\n";
  return `${head}${data.join("")}`;
}
