/** `lazygraph startup -- COMMAND`: where a start spends its seconds, variants side by side. */

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { OptionError } from "../base/errors.ts";
import { packageVersion } from "../base/version.ts";
import { estimate } from "../bench/bootstrap.ts";
import type { StartResult } from "../startup/start.ts";
import { comparison, waterfall } from "../startup/text.ts";
import { type TraceEvent, traceEvents } from "../startup/trace-events.ts";
import { note, quote } from "./errors.ts";
import { numberOption } from "./number-option.ts";
import { type ParsedOptions, parseOptions } from "./options.ts";
import { requirePlugin } from "./require-plugin.ts";
import { measureStart, type Variant } from "./startup-run.ts";
import { stopSignal } from "./stop-signal.ts";

const HELP = `Usage: lazygraph startup [options] -- COMMAND [arguments]

Starts COMMAND, a vLLM server, asks it for one token and ends it. Prints where the time between its
spawn and ready went, as the plugin timed it in every process; stock is timed as well, since COMMAND
is started as it is. Several variants take turns.

Options:
  --runs N              starts of each variant (default 1)
  --compare NAME=COMMAND   another variant, by the shell; several times
  --name NAME           what COMMAND is called (default base)
  --out FOLDER          startup.json, startup-trace.json for ui.perfetto.dev, and logs
                        (default lazygraph-startup)
  --ready-within S      longest wait for a server (default 900)
  --json                the result as one document on stdout
  --quiet               no waterfalls on stderr
  --help, -h            this text

A server's port is the one that its command names by --port, else 8000; {port} is replaced by a free
one.

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
  name: "string",
  out: "string",
  "ready-within": "string",
  json: "boolean",
  quiet: "boolean",
} as const;

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$/;
/** As a shell reports a command that was interrupted. */
const STOPPED = 130;
const VARIANTS_MAX = 16;
/** Rows of one start in the trace file. */
const ROWS = 1000;
/** Intervals of fewer starts would say nothing. */
const INTERVAL_STARTS_MIN = 3;

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
  const folder = options.strings.get("out") ?? "lazygraph-startup";
  for (const { command } of variants) await requirePlugin(command, process.env);
  await mkdir(folder, { recursive: true });
  const stopping = new AbortController();
  void stopSignal().then((name) => stopping.abort(new Error(`stopped by ${name}`)));
  const results: StartResult[] = [];
  const events: TraceEvent[] = [];
  const turns = Array.from({ length: runs }, (_, index) => index + 1);
  for (const run of turns) {
    for (const variant of variants) {
      const start = { variant, run, folder, readyWithinSeconds, signal: stopping.signal };
      const measured = await measureStart(start).catch((error: unknown) => {
        if (!stopping.signal.aborted) throw error;
      });
      if (measured === undefined) return STOPPED;
      const { result, spans, spawned } = measured;
      events.push(...traceEvents(`${variant.name} ${run}`, spans, spawned, results.length * ROWS));
      results.push(result);
      if (!options.flags.has("quiet")) process.stderr.write(`${waterfall(result)}\n`);
      if (spans.length === 0)
        note("Nothing was timed: the command has no plugin, or an older one.");
      // After each: what was measured is not lost with what comes.
      await write(folder, document(variants, results), events);
    }
  }
  report(options, variants, results);
  return 0;
}

function variantsOf(options: ParsedOptions, command: readonly string[]): Variant[] {
  if (command.length === 0 || command[0] === "") {
    throw new OptionError("--", "Expected a command after `--`, such as `vllm serve MODEL`.");
  }
  const others = (options.lists.get("compare") ?? []).map((text) => {
    const at = text.indexOf("=");
    const [name, words] = [text.slice(0, Math.max(at, 0)), text.slice(at + 1)];
    if (!NAME.test(name) || words.trim() === "") {
      throw new OptionError(
        "--compare",
        `Expected --compare to be NAME=COMMAND, got ${quote(text)}.`,
      );
    }
    return { name, command: ["/bin/sh", "-c", `exec ${words}`] };
  });
  const variants = [{ name: options.strings.get("name") ?? "base", command }, ...others];
  const names = variants.map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined || variants.length > VARIANTS_MAX || !NAME.test(names[0] ?? "")) {
    throw new OptionError(
      "--compare",
      `Expected up to ${VARIANTS_MAX} variants with names of their own, got ${quote(names.join(", "))}.`,
    );
  }
  return variants;
}

function document(variants: readonly Variant[], results: readonly StartResult[]): object {
  const summary = variants.flatMap(({ name }) => {
    const own = results.filter(({ variant }) => variant === name);
    if (own.length === 0) return [];
    const interval = (pick: (result: StartResult) => number): object | undefined =>
      own.length < INTERVAL_STARTS_MIN ? undefined : estimate(own.map((r) => [pick(r)]))?.mean;
    return [
      {
        name,
        starts: own.length,
        readySeconds: interval(({ readySeconds }) => readySeconds),
        firstTokenSeconds: interval(({ firstTokenSeconds }) => firstTokenSeconds),
      },
    ];
  });
  return {
    format: "lazygraph-startup",
    formatVersion: 1,
    lazygraph: packageVersion(),
    simulated: results.some(({ simulated }) => simulated),
    variants,
    summary,
    starts: results,
  };
}

async function write(folder: string, result: object, events: readonly TraceEvent[]): Promise<void> {
  await writeFile(join(folder, "startup.json"), `${JSON.stringify(result, undefined, 1)}\n`);
  await writeFile(
    join(folder, "startup-trace.json"),
    `${JSON.stringify({ traceEvents: events })}\n`,
  );
}

function report(
  options: ParsedOptions,
  variants: readonly Variant[],
  results: readonly StartResult[],
): void {
  const of = (name: string): StartResult[] => results.filter(({ variant }) => variant === name);
  const [base, ...others] = variants.map(({ name }) => of(name));
  if (options.flags.has("json")) {
    process.stdout.write(`${JSON.stringify(document(variants, results))}\n`);
  } else if (base !== undefined) {
    for (const other of others) process.stdout.write(`${comparison(base, other)}\n`);
  }
}
