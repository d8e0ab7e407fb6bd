/** `lazygraph bench`: TTFT of a live endpoint, of engines it starts, or of simulated ones. */

import { realpath, stat } from "node:fs/promises";
import { join } from "node:path";
import { codeOf, OptionError } from "../base/errors.ts";
import { cautions } from "../bench/cautions.ts";
import { requireServer } from "../bench/endpoint.ts";
import { runMatrix } from "../bench/matrix.ts";
import { mergeFolders } from "../bench/merge.ts";
import { writeReport } from "../bench/report.ts";
import type { BenchSpec, CellName } from "../bench/spec.ts";
import { ServerAddress } from "../measure/server-address.ts";
import { loadProfile } from "../profile/load.ts";
import { type BenchOptions, parseBench } from "./bench-options.ts";
import { counted, createBenchProgress } from "./bench-progress.ts";
import { startExitCode } from "./child.ts";
import { EXIT, note, quote, reportError } from "./errors.ts";
import { parseOptions } from "./options.ts";
import { requirePlugin } from "./require-plugin.ts";
import { requireExecutable } from "./start-error.ts";
import { untilInterrupted } from "./stop-signal.ts";

const HELP = `Usage: lazygraph bench --out DIR [options] [-- COMMAND [arguments]]
       lazygraph bench report DIR [--json]
       lazygraph bench merge DIR... --out DIR

Measures time to first token, open loop: requests go out when they are due, however slow the
answers are. An engine is had in one of four ways:
  --url URL             a live OpenAI-compatible endpoint, neither started nor stopped; with or
                        without /v1, user info and query
  -- COMMAND            started for every run; {port} in it stands for a free port
  --simulated           a SIMULATED engine for every run: no GPU, times from a cost profile, in
                        virtual time: an hour takes seconds, and no request is sent
  --spec FILE           a matrix of modes and loads, as JSON (docs/benchmark-method.md)
Runs that DIR has complete are not run again, so that a long matrix can be run in pieces; several
processes may run cells of their own into DIR at once, and the same cells are refused.

Modes (with a command or --simulated):
  --mode LIST           stock, eager, lazy, idle with commas between them (stock)
  --name NAME           name of the one mode in the report (the mode; live for --url)
  --runs N              runs of each, with a fresh engine each (1)
  --profile NAME        cost profile of simulated engines
  --jitter X            relative standard deviation of simulated times (0)
  --real-time           the simulated engine as a process behind HTTP, to try the client itself

Load:
  --arrivals KIND       constant, poisson, gamma, ramp or trace (poisson; trace with --trace)
  --request-rate X      arrivals a second, above 0 to 10000
  --burstiness X        shape of the gamma distribution of the gaps, as in vllm bench serve:
                        1 is Poisson, below 1 comes in bursts
  --ramp-up-strategy S, --ramp-up-start-rps X, --ramp-up-end-rps X
  --trace FILE          request trace; --speed X divides its times
  --sharegpt FILE       texts and lengths from a ShareGPT-format JSON file
  --input-len N, --output-len N    tokens, or a range such as 100-400 (256, 128)
  --input-len-max N, --output-len-max N    cuts longer ones of a file
  --num-prompts N       at most N requests; --seconds S: no arrivals later than S
  --start WHEN          ready; settled: after the fill; spawn: requests wait for the engine (ready)
  --seed N              of arrivals, lengths and prompts (0)

Requests:
  --endpoint KIND       completions or chat (completions)
  --model NAME          (the first that the server names)
  --num-warmups N       uncounted requests before (0; not with --start spawn)
  --text-prompts        text also where token ids would do: the server's tokenizer counts, too
  --stop-at-eos         let answers end by themselves: no ignore_eos
  --no-stream-options, --no-max-tokens    for servers that refuse stream_options or max_tokens
  --api-key-file FILE   a file with the server's key, which other users can't read (default: the
                        key in OPENAI_API_KEY); --api-key KEY: everybody on this host may read it
  --header NAME:VALUE   of every request, may be repeated; as open as --api-key
  --goodput LIST        limits in ms, as in ttft:200,tpot:50,e2el:5000
  --request-seconds N   a request may take (600); --ready-seconds N: an engine to get ready (900)

Matrix:
  --only MODE/LOAD[/RUN]   only these cells; * stands for any part
  --cells N             at most N cells now, the rest another day
Output:
  --out DIR             raw samples, then report.html, report.json, report.md, timelines and
                        results in the form of vllm bench serve
  --title TEXT          of the report
  --no-report           only the samples
  --json                the report as one JSON document on stdout, progress on stderr
  --quiet               no progress
  --help, -h            this text

Exit code: 2 for a usage error or a file that can't be used; 127 when there is no such command, 126
when it can't be executed; 128 and its number for a signal; 1 when a run ended partial or a request
failed, whose samples are kept and marked so, and for any other failure.

Examples:
  lazygraph bench --url http://127.0.0.1:8000 --request-rate 5 --seconds 60 --out live
  lazygraph bench --mode stock,idle --runs 3 --trace azure-llm-2023-conversation \\
    --seconds 240 --out ttft -- vllm serve MODEL --port {port}
  lazygraph bench --simulated --mode stock,lazy,idle --request-rate 2 --seconds 60 --out sim
  lazygraph bench --spec node_modules/lazygraph/examples/bench-simulated.json --out matrix
`;

export async function runBench(argv: readonly string[]): Promise<number> {
  const [word, ...rest] = argv;
  if (word === "report") return runReport(rest);
  if (word === "merge") return runMerge(rest);
  const options = await parseBench(argv);
  if (options === undefined) {
    process.stdout.write(HELP);
    return EXIT.ok;
  }
  const { folder } = options;
  const progress = createBenchProgress(options.quiet);
  const { signal, release, stopped } = untilInterrupted((name) =>
    note(`${name}: the run under way ends as partial; once more ends at once.`),
  );
  try {
    requireCells(options);
    const check = (cells: readonly CellName[]): Promise<void> =>
      requireEngines(options.spec, cells, signal);
    // However quiet: a load that is not what was asked for must be known.
    const onNote = (sentence: string): void => note(sentence);
    const result = await runMatrix({ ...options, progress, signal, check, onNote });
    progress.stop();
    // No engine is left, and a report of many requests takes long: it ends by the signal's own effect.
    release();
    if (result.skipped > 0) {
      progress.line(`${counted(result.skipped, "cell was", "cells were")} complete before.`);
    }
    if (result.left > 0) {
      const left = counted(result.left, "cell is", "cells are");
      progress.line(`${left} left: call again to run ${result.left === 1 ? "it" : "them"}.`);
    }
    // Stopped before its first run there is nothing to report on.
    const none = signal.aborted && result.ran.length + result.skipped === 0;
    if (options.report && !none) await report(folder, options.json, progress.line);
    const whole = result.ran.every(
      ({ status, requestsFailed }) => status === "complete" && !requestsFailed,
    );
    return stopped() || (whole && !result.failedBefore ? EXIT.ok : EXIT.failure);
  } catch (error) {
    if (!START_CODES.has(codeOf(error) ?? "")) throw error;
    reportError(error);
    return startExitCode(error);
  } finally {
    progress.stop();
    release();
  }
}

const CELLS_NAMED_MAX = 12;
const START_CODES: ReadonlySet<string> = new Set([
  "ERR_LAZYGRAPH_COMMAND_NOT_FOUND",
  "ERR_LAZYGRAPH_COMMAND_NOT_EXECUTABLE",
]);

function requireCells({ spec, only }: BenchOptions): void {
  if (spec.cells.some(only)) return;
  const names = [...new Set(spec.cells.map(({ mode, load }) => `${mode}/${load}`))];
  const some = names.slice(0, CELLS_NAMED_MAX).join(", ");
  const more = names.length > CELLS_NAMED_MAX ? ", …" : "";
  throw new OptionError("--only", `Expected --only to match a cell, got none of ${some}${more}.`);
}

/**
 * Before anything starts: a command, profile or endpoint that isn't there would cost a run each, and
 * without the plugin an engine would be stock under another name.
 */
async function requireEngines(
  { modes, model, access, readySecondsMax }: BenchSpec,
  cells: readonly CellName[],
  signal: AbortSignal,
): Promise<void> {
  for (const name of new Set(cells.map((cell) => cell.mode))) {
    const { command, mode, env, simulated, url } = modes[name] ?? {};
    if (simulated !== undefined) loadProfile(simulated.profile);
    if (url !== undefined) {
      await requireServer(new ServerAddress(new URL(url), access), model, readySecondsMax, signal);
    }
    if (command === undefined) continue;
    const environment = { ...process.env, ...env };
    await requireExecutable(command[0] ?? "", environment);
    if (mode !== undefined) await requirePlugin(command, environment);
  }
}

async function report(folder: string, json: boolean, line: (text: string) => void): Promise<void> {
  const { files, summary, markdown } = await writeReport(folder);
  for (const file of files) line(`wrote ${file}`);
  // The tables on stdout carry them already.
  if (json) for (const caution of cautions(summary)) note(caution);
  process.stdout.write(json ? `${JSON.stringify(summary)}\n` : markdown);
}

async function runReport(argv: readonly string[]): Promise<number> {
  const [folders, flags] = split(argv);
  const options = parseOptions(flags, { json: "boolean" });
  if (options.flags.has("help")) {
    process.stdout.write(HELP);
    return EXIT.ok;
  }
  const [folder] = folders;
  if (folder === undefined || folders.length > 1) {
    throw new OptionError("report", `Expected one folder after report, got ${folders.length}.`);
  }
  await requireBenchFolder("report", folder);
  await report(folder, options.flags.has("json"), (text) => note(text));
  return EXIT.ok;
}

async function runMerge(argv: readonly string[]): Promise<number> {
  const [folders, flags] = split(argv);
  const options = parseOptions(flags, { out: "string" });
  if (options.flags.has("help")) {
    process.stdout.write(HELP);
    return EXIT.ok;
  }
  const out = options.strings.get("out");
  if (folders.length === 0) {
    throw new OptionError("merge", "Expected folders after merge, got none.");
  }
  if (out === undefined) throw new OptionError("--out", "Expected --out with a folder, got none.");
  for (const folder of folders) await requireBenchFolder("merge", folder);
  const places = await Promise.all(folders.map((folder) => realpath(folder)));
  const again = folders.find((_, at) => places.indexOf(places[at] ?? "") < at);
  if (again !== undefined) {
    const sentence = `Expected each folder once after merge, got ${quote(again)} again: leave it out.`;
    throw new OptionError("merge", sentence);
  }
  const taken = await mergeFolders(folders, out);
  note(
    `${counted(taken, "run", "runs")} merged into ${quote(out)}; \`lazygraph bench report\` sums them up.`,
  );
  return EXIT.ok;
}

async function requireBenchFolder(word: string, folder: string): Promise<void> {
  const why = await stat(join(folder, "runs")).then(
    (entry) => (entry.isDirectory() ? undefined : "ENOTDIR"),
    (error: unknown) => codeOf(error) ?? String(error),
  );
  if (why === undefined) return;
  throw new OptionError(
    word,
    `Expected a folder that \`lazygraph bench --out\` wrote after ${word}, got ${quote(folder)} (${why}).`,
  );
}

/** Folders come first, options after them. */
function split(argv: readonly string[]): [folders: string[], flags: string[]] {
  const at = argv.findIndex((word) => word.startsWith("-"));
  return at === -1 ? [[...argv], []] : [argv.slice(0, at), argv.slice(at)];
}
