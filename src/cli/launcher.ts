/** `lazygraph launcher`: a process with vLLM imported, from which servers are forked. */

import { resolve } from "node:path";
import { MIB } from "../base/units.ts";
import { cacheVariables } from "../caches/kinds.ts";
import { defaultSocket, openLauncher } from "../launcher/launcher.ts";
import { askLauncher, type LauncherStatus } from "../launcher/status.ts";
import { note, reportError } from "./errors.ts";
import { numberOption } from "./number-option.ts";
import { type ParsedOptions, parseOptions } from "./options.ts";
import { requireProgram } from "./start-error.ts";
import { stopSignal } from "./stop-signal.ts";

const HELP = `Usage: lazygraph launcher [options]

Imports vLLM once, without touching the GPU, and forks servers from there, without imports:
\`lazygraph run --launcher SOCKET -- vllm serve MODEL …\`. Only this user may talk to it, and it
starts nothing but \`vllm serve\`. It imports anew when the installation changes. Servers
outlive it.

Options:
  --python PYTHON       vLLM's, with the plugin in it (default python3)
  --socket PATH         where it listens (default: one per user and environment; it is shown)
  --allow-model MODEL   start this model only; several times: these
  --tokenizer DIR       load the tokenizer of this folder's model once, not in each server;
                        several times: these. As commands name it, an absolute path
  --caches DIR          the folder of caches that its servers use, as \`run --caches\` has it: imports
                        read where some of them are
  --children N          servers at once (default 16)
  --preload MODULE      import this instead of vLLM's modules; several times: these
  --main MODULE:FUNC    what a server calls instead of vLLM's main
  --status              ask the one at --socket, start none; without --socket that of this user
                        and --python's environment
  --json                its status as one line of JSON on stdout
  --quiet               nothing on stderr but errors
  --help, -h            this text

Examples:
  lazygraph launcher --python /opt/vllm/bin/python --socket /run/lazygraph/launcher.sock
  lazygraph launcher --status --python /opt/vllm/bin/python
  lazygraph launcher --status --socket /run/lazygraph/launcher.sock
  lazygraph run --launcher /run/lazygraph/launcher.sock -- /opt/vllm/bin/vllm serve MODEL
`;

const SPEC = {
  python: "string",
  socket: "string",
  "allow-model": "list",
  tokenizer: "list",
  caches: "string",
  children: "string",
  preload: "list",
  main: "string",
  status: "boolean",
  json: "boolean",
  quiet: "boolean",
} as const;

export async function runLauncher(argv: readonly string[]): Promise<number> {
  const options = parseOptions(argv, SPEC);
  if (options.flags.has("help")) {
    process.stdout.write(HELP);
    return 0;
  }
  const tell = teller(options);
  const socket = options.strings.get("socket");
  const python = options.strings.get("python");
  if (options.flags.has("status")) {
    if (python !== undefined) await requireProgram("--python", python);
    tell(await askLauncher(socket ?? (await defaultSocket(python))));
    return 0;
  }
  const main = options.strings.get("main");
  const caches = options.strings.get("caches");
  if (python !== undefined) await requireProgram("--python", python);
  const stopping = stopSignal();
  const launcher = openLauncher({
    ...(python === undefined ? {} : { python }),
    ...(socket === undefined ? {} : { socket }),
    ...(main === undefined ? {} : { main }),
    ...(caches === undefined
      ? {}
      : { environment: { ...process.env, ...cacheVariables(resolve(caches)) } }),
    childrenMax: numberOption(options, "children", { min: 1, max: 256, fallback: 16, whole: true }),
    models: options.lists.get("allow-model") ?? [],
    tokenizers: options.lists.get("tokenizer") ?? [],
    preload: options.lists.get("preload") ?? [],
    onStatus: tell,
  });
  try {
    const first = await Promise.race([launcher.start(), stopping]);
    if (typeof first === "string") return 0;
    const end = await Promise.race([launcher.ended, stopping]);
    if (typeof end === "number") {
      const fault = launcher.fault();
      if (fault !== undefined) reportError(fault);
      return end;
    }
    if (!options.flags.has("quiet")) note(`${end}: stopping; servers go on by themselves.`);
    return 0;
  } finally {
    await launcher.close();
  }
}

function teller(options: ParsedOptions): (status: LauncherStatus) => void {
  return (status) => {
    if (options.flags.has("json")) process.stdout.write(`${JSON.stringify(status)}\n`);
    else if (options.flags.has("status") || !options.flags.has("quiet")) note(sentence(status));
  };
}

function sentence(status: LauncherStatus): string {
  const { socket, vllm, importSeconds, residentBytes, children, childrenMax } = status;
  const what = vllm === undefined ? "its modules" : `vLLM ${vllm}`;
  return (
    `launcher at ${socket}: ${what} imported in ${importSeconds.toFixed(1)} s, ` +
    `${Math.round(residentBytes / MIB)} MiB; ${children} of at most ${childrenMax} servers.`
  );
}
