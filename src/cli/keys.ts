/** `lazygraph keys`: CURVE keys as files, and who may connect with them. */

import { existsSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { counted } from "../base/counted.ts";
import { OptionError } from "../base/errors.ts";
import { readPublicFile } from "../base/secret-file.ts";
import { isCurveKey } from "../wire/z85.ts";
import { choice, note, quote } from "./errors.ts";
import {
  type AllowedKey,
  CLIENTS_MAX,
  changeClients,
  GIVEN_MAX,
  isEngineName,
  readClients,
  requireController,
} from "./key-clients.ts";
import { environmentText, secretText, variablesOf } from "./key-export.ts";
import {
  makePair,
  PUBLIC_FILE,
  readEngineKeys,
  readPair,
  rotatePair,
  SECRET_FILE,
  SERVER_FILE,
  undoRotation,
} from "./key-folder.ts";
import { type OptionSpec, type ParsedOptions, parseOptions } from "./options.ts";

const ACTIONS = ["new", "show", "allow", "rotate", "export"] as const;

const HELP = `Usage: lazygraph keys new FOLDER [--server KEY]
       lazygraph keys show FOLDER
       lazygraph keys allow FOLDER KEY [--engine NAME]... [--name NAME] [--remove]
       lazygraph keys rotate FOLDER
       lazygraph keys export FOLDER [FOLDER] --as env|secret

CURVE keys for connections over the network: a folder with public.key, secret.key (mode 0600) and,
of a controller, clients.keys, of an engine server.key. A KEY is 40 characters, or a file with it;
one that begins with a dash, as some made elsewhere do, is given to --server as --server=KEY.

  new      makes a pair in FOLDER, and prints its public key; an engine's with --server, the
           controller's public key
  show     prints the public key, an engine's server.key, and the keys that are allowed
  allow    lets the engine with this public key connect; a running controller knows within a second.
           With --engine under these names alone, which no other key may take then
  rotate   a new pair in the place of the old one, which stays as secret.key.old and public.key.old;
           older public keys as public.key.old.1 and so on
  export   prints the secret keys of a controller's folder, an engine's, or one of each, as the
           variables that stand for them: --as env for the .env file of compose, an EnvironmentFile
           of systemd or a shell; --as secret, a Secret for \`kubectl apply -f -\`. With a
           controller's, whose keys have no names, comes the token of LAZYGRAPH_HTTP_TOKEN, or a
           new one

Options:
  --server KEY   the controller's public key, for an engine's folder
  --engine NAME  that is this key's alone, as LAZYGRAPH_ENGINE has it; NAME* for all that begin so.
                 Once a key has one, every engine must prove its key. In the place of those before
  --name NAME    of the engine, for people
  --remove       no longer allow it; who is connected stays until it connects again
  --json         one document on stdout
  --help, -h     this text

Examples:
  lazygraph keys new /etc/lazygraph/controller
  lazygraph keys new engine-0 --server /etc/lazygraph/controller/public.key
  lazygraph keys allow /etc/lazygraph/controller engine-0/public.key --engine engine-0
  lazygraph serve --endpoint tcp://0.0.0.0:5757 --keys /etc/lazygraph/controller
  LAZYGRAPH_ENGINE_KEYS=engine-0 LAZYGRAPH_ENDPOINT=tcp://HOST:5757 vllm serve MODEL
  (umask 077; lazygraph keys export compose/controller compose/engine --as env > deploy/.env)
`;

const OPTIONS: OptionSpec = {
  server: "string",
  name: "string",
  engine: "list",
  remove: "boolean",
  as: "string",
  json: "boolean",
};

/** What each action takes beside a folder. */
const TAKES: Readonly<Record<(typeof ACTIONS)[number], readonly string[]>> = {
  new: ["server"],
  show: [],
  allow: ["name", "engine", "remove"],
  rotate: [],
  export: ["as"],
};

export async function runKeys(argv: readonly string[]): Promise<number> {
  const dashed = argv.filter(isDashedKey);
  const others = argv.filter((given) => !dashed.includes(given));
  const options = parseOptions(others, OPTIONS, {
    ...{ name: "ACTION FOLDER [KEY]", min: 2, max: 3, first: ACTIONS },
  });
  if (options.flags.has("help")) {
    process.stdout.write(HELP);
    return 0;
  }
  const [word = "", folder = "", ...rest] = [...options.positionals, ...dashed];
  const action = choice("ACTION", ACTIONS, word);
  checkOptionsOf(action, options);
  const keys = action === "allow" ? 1 : 0;
  if (rest.length !== keys && action !== "export") {
    throw new OptionError(
      "KEY",
      `Expected ${keys === 1 ? "a KEY" : "no KEY"} after FOLDER for keys ${action}, got ` +
        `${rest.length === 0 ? "none" : quote(rest[0] ?? "")}.`,
    );
  }
  for (const each of action === "export" ? [folder, ...rest] : [folder]) {
    if (!(await undoRotation(each))) continue;
    note(`a rotation of ${quote(each)} was cut short: the pair before it is in its place again.`);
  }
  const { text, document } = await ACT[action](folder, rest[0] ?? "", options);
  process.stdout.write(options.flags.has("json") ? `${JSON.stringify(document)}\n` : text);
  return 0;
}

/** Of other programs' keys one in 85 begins with a dash, and is no option for that. */
function isDashedKey(word: string): boolean {
  const isOption = Object.keys(OPTIONS).some((name) => word.startsWith(`--${name}=`));
  return word.startsWith("-") && isCurveKey(word) && !isOption;
}

function checkOptionsOf(
  action: (typeof ACTIONS)[number],
  { strings, lists, flags }: ParsedOptions,
): void {
  const given = [...strings.keys(), ...lists.keys(), ...flags].filter((name) => name !== "json");
  const wrong = given.find((name) => !TAKES[action].includes(name));
  if (wrong === undefined) return;
  throw new OptionError(`--${wrong}`, `Expected no --${wrong} with keys ${action}.`);
}

interface Said {
  readonly text: string;
  readonly document: object;
}

const ACT: Readonly<
  Record<
    (typeof ACTIONS)[number],
    (folder: string, key: string, options: ParsedOptions) => Promise<Said>
  >
> = {
  async new(folder, _key, { strings }) {
    const server = strings.get("server");
    const serverKey = server === undefined ? undefined : await keyOf("--server", server);
    const publicKey = await makePair(folder, serverKey);
    return { text: `${publicKey}\n`, document: { folder, publicKey } };
  },

  async show(folder) {
    const { publicKey } = await readPair("FOLDER", folder);
    const clients = readClients("FOLDER", folder);
    const lines = clients.map(({ key, name, engines = [] }) =>
      [`allowed  ${key}  ${name}`.trimEnd(), ...engines.map((engine) => `  as     ${engine}`)].join(
        "\n",
      ),
    );
    const isEngine = existsSync(join(folder, SERVER_FILE));
    const server = isEngine ? await readEngineKeys("FOLDER", folder) : undefined;
    if (server) lines.unshift(`server   ${server.serverKey}`);
    const text = [`public   ${publicKey}`, ...lines].join("\n");
    const serverKey = server?.serverKey;
    return { text: `${text}\n`, document: { folder, publicKey, serverKey, clients } };
  },

  async allow(folder, given, { strings, lists, flags }) {
    const { publicKey, secretKey } = await readPair("FOLDER", folder);
    requireController("FOLDER", folder);
    const key = await keyOf("KEY", given);
    if (key === publicKey || key === secretKey) {
      throw new OptionError("KEY", "Expected an engine's public key, got the controller's own.");
    }
    const change = flags.has("remove") ? without(key) : allowing(key, strings, lists);
    let wasKnown = false;
    const clients = await changeClients(folder, (known) => {
      wasKnown = known.some((client) => client.key === key);
      return change(known);
    });
    const removed = flags.has("remove") ? { removed: wasKnown } : {};
    const count = `${clients.length} ${clients.length === 1 ? "key is" : "keys are"} allowed`;
    // Whoever mistakes one key for another believes that nobody connects with it any more.
    const text = removed.removed === false ? `${count}; this one wasn't before.\n` : `${count}.\n`;
    return { text, document: { folder, clients, ...removed } };
  },

  async export(folder, other, { strings }) {
    const as = choice("--as", ["env", "secret"], strings.get("as"));
    const folders = [folder, other].filter((each) => each !== "");
    const variables = await variablesOf(folders, process.env);
    const text = as === "env" ? environmentText(variables) : secretText(variables);
    return { text, document: { variables } };
  },

  async rotate(folder) {
    const { before, after } = await rotatePair(folder);
    const next =
      "What knew the old one needs the new one now: every engine's server.key if this is a " +
      "controller's folder,\nthe controller's list (`lazygraph keys allow`) if it is an engine's. " +
      "Then restart whoever reads this folder.\n";
    return { text: `${after}\n${next}`, document: { folder, before, publicKey: after } };
  },
};

type Change = (known: readonly AllowedKey[]) => readonly AllowedKey[];

function without(key: string): Change {
  return (known) => known.filter((client) => client.key !== key);
}

/** What isn't said stays: a name for people that is mended must not free the others. */
function allowing(
  key: string,
  strings: ParsedOptions["strings"],
  lists: ParsedOptions["lists"],
): Change {
  return (known) => {
    const before = known.find((client) => client.key === key);
    const name = nameOf(strings.get("name") ?? before?.name);
    const engines = enginesOf(lists.get("engine") ?? before?.engines);
    const client = { key, name, ...(engines.length === 0 ? {} : { engines }) };
    const clients = [...without(key)(known), client];
    if (clients.length <= CLIENTS_MAX) return clients;
    throw new OptionError("KEY", `Expected at most ${CLIENTS_MAX} keys, got one more.`);
  };
}

/** A key, or that of a file; a path of 40 characters may look like a key, so that files come first. */
async function keyOf(option: string, text: string): Promise<string> {
  // It looks like a public one, and would be written where everybody may read it.
  if (basename(text).startsWith(SECRET_FILE)) {
    const instead = join(dirname(text), PUBLIC_FILE);
    throw new OptionError(
      option,
      `Expected ${option} to be a public key, got a file of a secret one: give ${quote(instead)}.`,
    );
  }
  const isFile = existsSync(text);
  const key = isFile ? await readPublicFile(option, text) : text;
  if (isCurveKey(key)) return key;
  const got = counted(key.length, "character");
  // Without what came: it may be a secret in the wrong place.
  throw new OptionError(
    option,
    `Expected ${option} to be a Z85 key of 40 characters or a file with one, got ` +
      `${isFile ? `a file with ${got}` : `${got}, and no file of that name`}: \`lazygraph keys show ` +
      "FOLDER` shows the public key of an engine or a controller.",
  );
}

function enginesOf(names: readonly string[] = []): readonly string[] {
  // Elsewhere it would stand for itself, and the key be let in under no name that was meant.
  const isGiven = (name: string) => isEngineName(name) && !name.slice(0, -1).includes("*");
  if (names.every(isGiven) && names.length <= GIVEN_MAX) return [...new Set(names)];
  throw new OptionError(
    "--engine",
    `Expected --engine to name an engine by 1 to 128 characters without blanks, a * only at ` +
      `the end, ${GIVEN_MAX} times at most, got others.`,
  );
}

function nameOf(name = ""): string {
  if (/^[^\p{Cc}]{0,128}$/u.test(name)) return name;
  throw new OptionError(
    "--name",
    "Expected --name to have at most 128 characters and no control characters, got others.",
  );
}
