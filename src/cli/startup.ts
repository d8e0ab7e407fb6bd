/** `lazygraph startup -- COMMAND`: where a start spends its seconds, variants side by side. */

import { stat } from "node:fs/promises";
import { join } from "node:path";
import { counted } from "../base/counted.ts";
import { codeOf, type ErrorCode, LazygraphError, messageOf, OptionError } from "../base/errors.ts";
import { makeFolder } from "../base/make-folder.ts";
import { replaceFile } from "../base/replace-file.ts";
import { reserve } from "../bench/reserve.ts";
import { FOLDER_VARIABLE } from "../startup/spans.ts";
import type { StartResult } from "../startup/start.ts";
import { comparison, waterfall } from "../startup/text.ts";
import { type TraceEvent, traceEvents } from "../startup/trace-events.ts";
import { startExitCode } from "./child.ts";
import { EXIT, note, quote, reportError, usageError } from "./errors.ts";
import { numberOption } from "./number-option.ts";
import { type ParsedOptions, parseOptions, secondsOption } from "./options.ts";
import { refuseVariables } from "./own-variables.ts";
import { requirePlugin } from "./require-plugin.ts";
import { requireExecutable } from "./start-error.ts";
import { type StartupDocument, startupDocument } from "./startup-document.ts";
import { startupPage } from "./startup-page.ts";
import type { Variant } from "./startup-run.ts";
import { namesPort, requireAnswerable } from "./startup-server.ts";
import { type Outcome, type Turns, takeTurns } from "./startup-turns.ts";
import { untilInterrupted } from "./stop-signal.ts";

const HELP = `Usage: lazygraph startup [options] -- COMMAND [arguments]

Starts COMMAND, a vLLM server, asks it for one token and ends it. Prints where the time between its
spawn and ready went, as the plugin timed it in every process; stock is timed as well, since COMMAND
is started as it is. Several variants take turns.

Options:
  --runs N              starts of each variant (default 1)
  --compare NAME=COMMAND   another variant, by the shell; several times
  --name NAME           what COMMAND is called (default base)
  --prepare NAME=COMMAND   run before each start of that variant, by the shell and not timed: empty
                        or fill a cache, say; once for each variant
  --out FOLDER          startup.html, startup.json, startup-trace.json for ui.perfetto.dev, and logs
                        (default lazygraph-startup)
  --ready-within S      longest wait for a server (default 900)
  --within S            no start is begun that would end later than S seconds from now
  --json                the result as one document on stdout
  --quiet               no waterfalls on stderr
  --help, -h            this text

A server's port is the one that its command or the file of its --config names, a simulated engine's
that of --http, else 8000; {port} is replaced by a free one. Where somebody listens already no start
is begun. A start that fails is told and the others go on; a variant that fails twice is left out,
and the exit code is 1; 127 when there is no such COMMAND, 126 when it can't be executed; 128 and
the signal's number where one ends this.

Examples:
  lazygraph startup -- vllm serve MODEL
  lazygraph startup --runs 5 --compare 'lazy=lazygraph run --mode lazy -- vllm serve MODEL' \\
    -- vllm serve MODEL
  lazygraph startup --compare 'launcher=lazygraph run --launcher SOCKET -- vllm serve MODEL' \\
    -- vllm serve MODEL
`;

const SPEC = {
  runs: "string",
  compare: "list",
  prepare: "list",
  name: "string",
  out: "string",
  "ready-within": "string",
  within: "string",
  json: "boolean",
  quiet: "boolean",
} as const;

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$/;
const QUOTED = /"(?:\\.|[^"\\])*"|'[^']*'|\\./gs;
const SEVERAL_COMMANDS = /[;&|\n]\s*\S/;
const VARIANTS_MAX = 16;
/** Rows of one start in the trace file. */
const ROWS = 1000;

export async function runStartup(argv: readonly string[]): Promise<number> {
  const terminator = argv.indexOf("--");
  const own = terminator === -1 ? argv : argv.slice(0, terminator);
  const options = parseOptions(own, SPEC);
  if (options.flags.has("help")) {
    process.stdout.write(HELP);
    return 0;
  }
  const variants = variantsOf(options, terminator === -1 ? [] : argv.slice(terminator + 1));
  const rule = { min: 1, max: 1000, whole: true } as const;
  const runs = numberOption(options, "runs", { ...rule, fallback: 1 });
  const readyWithinSeconds = numberOption(options, "ready-within", {
    ...rule,
    max: 86_400,
    fallback: 900,
  });
  const withinSeconds = secondsOption(options, "within") ?? Number.POSITIVE_INFINITY;
  const folder = options.strings.get("out") ?? "lazygraph-startup";
  for (const { name, command } of variants) {
    requireAnswerable(name, command);
    refuseVariables("startup", command, [FOLDER_VARIABLE]);
  }
  // Variants are the shell's, which tells in their logs what it doesn't find.
  try {
    await requireExecutable(variants[0]?.command[0] ?? "", process.env);
  } catch (error) {
    reportError(error);
    return startExitCode(error);
  }
  for (const { command } of variants) await requirePlugin(command, process.env);
  await makeFolder(folder).catch((error: unknown) => {
    throw usageError("--out", `a folder that can be made (${codeOf(error)})`, folder);
  });
  if (!(await stat(folder)).isDirectory()) throw usageError("--out", "a folder", folder);
  const release = await reserve(folder, ["startup"], (_, { pid, host }) => {
    return new LazygraphError(
      "ERR_LAZYGRAPH_BENCH",
      `Expected nobody else to measure starts into ${quote(folder)}, got process ${pid} on ${host}, ` +
        "which does: wait for it, or give another --out.",
    );
  });
  try {
    return await measure(options, { variants, runs, folder, readyWithinSeconds, withinSeconds });
  } finally {
    await release();
  }
}

async function measure(options: ParsedOptions, turns: Omit<Turns, "signal">): Promise<number> {
  const { variants, runs, folder, readyWithinSeconds } = turns;
  const { signal, stopped } = untilInterrupted((name) =>
    note(`${name}: the start under way is ended; once more ends at once.`),
  );
  const events: TraceEvent[] = [];
  const keep = (outcome: Outcome): Promise<void> =>
    write(folder, startupDocument(variants, outcome), events).catch((error: unknown) => {
      throw new LazygraphError(
        "ERR_LAZYGRAPH_BENCH",
        `Expected to write the result into ${folder}, got ${messageOf(error)}: give another --out.`,
        { cause: error },
      );
    });
  const outcome = await takeTurns(
    { ...turns, signal },
    {
      spawned({ name, command }, run, url, log) {
        // Where a command serves is as it was in its first start.
        if (run > 1 || options.flags.has("quiet")) return;
        const own = namesPort(command) ? "" : " (vLLM's own port: the command names none)";
        note(
          `${name}, start 1: waiting for ${url.href}${own}, ${readyWithinSeconds} s at most; ` +
            `its output is in ${log}.`,
        );
      },
      async started({ result, spans, spawned }, all) {
        const label = `${result.variant} ${result.run}`;
        events.push(...traceEvents(label, spans, spawned, (all.results.length - 1) * ROWS));
        if (!options.flags.has("quiet")) process.stderr.write(`${waterfall(result)}\n`);
        if (spans.length === 0) {
          note("Nothing was timed: the command has no plugin, or an older one.");
        }
        await keep(all);
      },
      async failed({ variant, run, error, code }, all) {
        note(`${variant}, start ${run}: ${error}`, code as ErrorCode | undefined);
        await keep(all);
      },
    },
  );
  if (outcome.stopped) return stopped();
  if (outcome.left > 0) {
    note(
      `${outcome.left} of ${counted(runs * variants.length, "start")} left out: there was no time.`,
    );
  }
  report(options, variants, outcome);
  return outcome.failures.length > 0 ? EXIT.failure : EXIT.ok;
}

function variantsOf(options: ParsedOptions, command: readonly string[]): Variant[] {
  if (command.length === 0 || command[0] === "") {
    throw new OptionError("--", "Expected a command after `--`, such as `vllm serve MODEL`.");
  }
  const others = namedCommands(options, "compare").map(([name, words]) => ({
    name,
    command: ["/bin/sh", "-c", becoming(words)],
  }));
  const variants = [{ name: options.strings.get("name") ?? "base", command }, ...others];
  const names = variants.map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined || variants.length > VARIANTS_MAX || !NAME.test(names[0] ?? "")) {
    throw new OptionError(
      "--compare",
      `Expected up to ${VARIANTS_MAX} variants with names of their own, each up to 32 letters, ` +
        `digits, \`.\`, \`_\` or \`-\`, got ${quote(names.join(", "))}: give others with --name or ` +
        "--compare.",
    );
  }
  const prepared = new Map(namedCommands(options, "prepare"));
  const unknown = [...prepared.keys()].find((name) => !names.includes(name));
  if (unknown !== undefined || prepared.size !== (options.lists.get("prepare")?.length ?? 0)) {
    throw new OptionError(
      "--prepare",
      `Expected --prepare once for one of ${quote(names.join(", "))}, got ` +
        `${unknown === undefined ? "one twice" : quote(unknown)}.`,
    );
  }
  return variants.map((variant) => {
    const prepare = prepared.get(variant.name);
    return prepare === undefined ? variant : { ...variant, prepare };
  });
}

/** A shell that waits for the server would get its signals, and the server be killed at its end. */
function becoming(words: string): string {
  const bare = words.replace(QUOTED, "").replace(/[<>]&|&>/g, "");
  if (!SEVERAL_COMMANDS.test(bare)) {
    // By itself exec takes a variable for the program.
    return `exec ${/^\s*[A-Za-z_]\w*=/.test(words) ? "env " : ""}${words}`;
  }
  if (/[;&\n]\s*exec\s/.test(bare)) return words;
  throw new OptionError(
    "--compare",
    "Expected --compare to name one command, or several of which the last becomes the server, such as " +
      `\`cd FOLDER && exec vllm serve MODEL\`, got ${quote(words)}: put \`exec\` before the server's.`,
  );
}

/** Values of NAME=COMMAND. */
function namedCommands(
  options: ParsedOptions,
  option: "compare" | "prepare",
): [name: string, words: string][] {
  return (options.lists.get(option) ?? []).map((text) => {
    const at = text.indexOf("=");
    const [name, words] = [text.slice(0, Math.max(at, 0)), text.slice(at + 1)];
    if (!NAME.test(name) || words.trim() === "") {
      throw new OptionError(
        `--${option}`,
        `Expected --${option} to be NAME=COMMAND, such as ` +
          (option === "compare"
            ? "'lazy=lazygraph run --mode lazy -- vllm serve MODEL'"
            : "'base=sync'") +
          `, got ${quote(text)}: put a name and = before it.`,
      );
    }
    return [name, words];
  });
}

/** Each as a whole: what was measured is not lost with a disk that fills up. */
async function write(
  folder: string,
  result: StartupDocument,
  events: readonly TraceEvent[],
): Promise<void> {
  await replaceFile(join(folder, "startup.json"), `${JSON.stringify(result, undefined, 1)}\n`);
  await replaceFile(
    join(folder, "startup.html"),
    startupPage(result, new Date().toISOString().slice(0, 16).replace("T", " at ")),
  );
  await replaceFile(
    join(folder, "startup-trace.json"),
    `${JSON.stringify({ traceEvents: events })}\n`,
  );
}

function report(options: ParsedOptions, variants: readonly Variant[], outcome: Outcome): void {
  const of = (name: string): StartResult[] =>
    outcome.results.filter(({ variant }) => variant === name);
  const [base, ...others] = variants.map(({ name }) => of(name));
  if (options.flags.has("json")) {
    process.stdout.write(`${JSON.stringify(startupDocument(variants, outcome))}\n`);
  } else if (base !== undefined && base.length > 0) {
    for (const other of others.filter(({ length }) => length > 0)) {
      process.stdout.write(`${comparison(base, other)}\n`);
    }
  }
}
