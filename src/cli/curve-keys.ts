import { counted } from "../base/counted.ts";
import { OptionError } from "../base/errors.ts";
import type { CurveOptions } from "../wire/curve.ts";
import { isLoopback } from "../wire/endpoint.ts";
import { isPair } from "../wire/key-proof.ts";
import { isCurveKey } from "../wire/z85.ts";
import { TOKEN_VARIABLE } from "./http-side.ts";
import { followClients } from "./key-clients.ts";
import { readPair } from "./key-folder.ts";
import type { OptionSpec, ParsedOptions } from "./options.ts";

const PUBLIC = "LAZYGRAPH_SERVER_KEY";
const SECRET = "LAZYGRAPH_SERVER_SECRET_KEY";
const CLIENTS = "LAZYGRAPH_CLIENT_KEYS";
const FOLDER = "LAZYGRAPH_CONTROLLER_KEYS";

/** What no child may inherit. */
export const SECRET_VARIABLES: readonly string[] = [SECRET, TOKEN_VARIABLE];

export const KEY_OPTIONS: OptionSpec = { keys: "string" };

export const KEY_HELP = `  --keys FOLDER         CURVE keys of \`lazygraph keys\`, and which engines may connect; beyond loopback
                        there must be some (default: LAZYGRAPH_CONTROLLER_KEYS, else the keys in
                        the environment, else none)`;

/** A folder of keys, and what sentences call it by: the option, or the variable that names it. */
export interface KeyFolder {
  readonly name: string;
  readonly path: string;
}

/** The folder that an option or the environment names. */
export function keyFolder(
  { strings }: ParsedOptions,
  environment: NodeJS.ProcessEnv,
): KeyFolder | undefined {
  const given = strings.get("keys");
  if (given !== undefined) return { name: "--keys", path: given };
  const path = environment[FOLDER]?.trim() ?? "";
  return path === "" ? undefined : { name: FOLDER, path };
}

/**
 * The controller's CURVE keys, from a folder or the environment, and never from arguments, which
 * everybody on the machine can read. `LAZYGRAPH_SERVER_KEY` has the same meaning here and in the
 * plugin.
 *
 * @param onProblem told when the list of clients can't be used any more
 */
export async function curveKeys(
  folder: KeyFolder | undefined,
  environment: NodeJS.ProcessEnv,
  endpoint: string,
  onProblem: (sentence: string) => void,
): Promise<CurveOptions | undefined> {
  if (folder !== undefined) {
    const pair = await readPair(folder.name, folder.path);
    return { ...pair, allowedClients: followClients(folder.name, folder.path, onProblem) };
  }
  const publicKey = environment[PUBLIC]?.trim() ?? "";
  const secretKey = environment[SECRET]?.trim() ?? "";
  const clients = environment[CLIENTS]?.trim() ?? "";
  if (publicKey === "" && secretKey === "" && clients === "") {
    if (isLoopback(endpoint)) return undefined;
    throw new OptionError(
      "--endpoint",
      `Expected CURVE keys for --endpoint ${endpoint}, which other machines may reach, got none: ` +
        `name a folder of \`lazygraph keys new\` with --keys, set ${PUBLIC} and ${SECRET}, or ` +
        "bind to 127.0.0.1.",
    );
  }
  return checkedKeys(publicKey, secretKey, clients);
}

/** Sentences name the variable, and none shows what is in it: a secret may be in the wrong one. */
function checkedKeys(publicKey: string, secretKey: string, clients: string): CurveOptions {
  for (const [name, key] of [
    [PUBLIC, publicKey],
    [SECRET, secretKey],
  ] as const) {
    if (isCurveKey(key)) continue;
    throw new OptionError(
      name,
      `Expected ${name} to be a Z85 key of 40 characters, got ${charactersOf(key)}: set ` +
        `${PUBLIC} and ${SECRET}, or neither.`,
    );
  }
  if (!isPair({ publicKey, secretKey })) {
    throw new OptionError(
      SECRET,
      `Expected ${SECRET} to be the secret key of ${PUBLIC}, got another one's: put back the pair ` +
        "that belongs together, or make a new one.",
    );
  }
  if (clients === "") return { publicKey, secretKey };
  const allowedClients = clients.split(",").map((key) => key.trim());
  const wrong = allowedClients.find((key) => !isCurveKey(key));
  if (wrong === undefined) return { publicKey, secretKey, allowedClients };
  throw new OptionError(
    CLIENTS,
    `Expected ${CLIENTS} to be Z85 keys of 40 characters with commas between them, got one of ` +
      `${charactersOf(wrong)}: \`lazygraph keys show FOLDER\` prints an engine's public key.`,
  );
}

function charactersOf(key: string): string {
  const count = counted(key.length, "character");
  return key.length === 40 ? `${count} that are no key` : count;
}
