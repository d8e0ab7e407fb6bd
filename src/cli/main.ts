#!/usr/bin/env node
/** The `lazygraph` command: finds the subcommand, loads its file, reports its errors. */

import { readFileSync } from "node:fs";
import { LazygraphError, OptionError } from "../base/errors.ts";
import { nearMiss } from "../base/near-miss.ts";
import { EXIT, errorLine, quote, reportError } from "./errors.ts";
import { isHangupIgnored } from "./hangup.ts";

interface Command {
  readonly summary: string;
  /** Loaded when asked for: `lazygraph --help` must not open a socket library. */
  readonly load: () => Promise<(argv: string[]) => Promise<number>>;
}

const COMMANDS: Readonly<Record<string, Command>> = {
  run: {
    summary: "start a controller and a vLLM command under it",
    load: async () => (await import("./run.ts")).runRun,
  },
  serve: {
    summary: "the controller alone, for engines started elsewhere",
    load: async () => (await import("./serve.ts")).runServe,
  },
  startup: {
    summary: "where a start spends its seconds, phase by phase, variants side by side",
    load: async () => (await import("./startup.ts")).runStartup,
  },
  launcher: {
    summary: "a process with vLLM imported, from which servers are forked",
    load: async () => (await import("./launcher.ts")).runLauncher,
  },
  caches: {
    summary: "what engines compiled, as one file: list, pack, unpack, check",
    load: async () => (await import("./caches.ts")).runCaches,
  },
  status: {
    summary: "what a running controller knows of its engines",
    load: async () => (await import("./status.ts")).runStatus,
  },
  keys: {
    summary: "keys for connections over the network: make, show, allow, rotate, export",
    load: async () => (await import("./keys.ts")).runKeys,
  },
  demo: {
    summary: "the three modes on a simulated engine, where there is no GPU",
    load: async () => (await import("./demo.ts")).runDemo,
  },
  "simulated-engine": {
    summary: "an engine without a GPU, behind the real protocol",
    load: async () => (await import("./simulated-engine.ts")).runSimulatedEngine,
  },
  simulate: {
    summary: "a trace against a simulated engine in virtual time, by policy",
    load: async () => (await import("./simulate.ts")).runSimulate,
  },
  plan: {
    summary: "learned plans: show, merge, suggest vLLM's flags",
    load: async () => (await import("./plan.ts")).runPlan,
  },
  calibrate: {
    summary: "a cost profile from a live engine",
    load: async () => (await import("./calibrate.ts")).runCalibrate,
  },
  record: {
    summary: "own traffic, without its content, into a trace file",
    load: async () => (await import("./record.ts")).runRecord,
  },
  trace: {
    summary: "other people's request traces: inspect, convert, cut",
    load: async () => (await import("./trace.ts")).runTrace,
  },
  bench: {
    summary: "time to first token around captures, live or simulated, as a report",
    load: async () => (await import("./bench.ts")).runBench,
  },
  doctor: {
    summary: "what this host has, and what is missing",
    load: async () => (await import("./doctor.ts")).runDoctor,
  },
};

function help(): string {
  const names = Object.keys(COMMANDS);
  const width = Math.max(...names.map((name) => name.length));
  const rows = names.map((name) => `  ${name.padEnd(width)}  ${COMMANDS[name]?.summary}`);
  return `Usage: lazygraph COMMAND [options]

Decides which CUDA graphs a vLLM engine captures, and when.

Commands:
${rows.join("\n")}

Options:
  --help, -h     this text; after a command: that command's own
  --version      the version of this package

Examples:
  lazygraph run --mode idle -- vllm serve meta-llama/Llama-3.1-8B
  lazygraph demo
`;
}

/** The version of this package, wherever it is installed. */
function version(): string {
  const file = new URL("../../package.json", import.meta.url);
  const { version: text } = JSON.parse(readFileSync(file, "utf8")) as { version: string };
  return text;
}

async function main(argv: readonly string[]): Promise<number> {
  const [name, ...rest] = argv;
  if (name === undefined || name === "--help" || name === "-h" || name === "help") {
    // Called with nothing it is a usage error, but the answer is the same text.
    (name === undefined ? process.stderr : process.stdout).write(help());
    return name === undefined ? 2 : 0;
  }
  if (name === "--version") {
    process.stdout.write(`${version()}\n`);
    return 0;
  }
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command === undefined) {
    const names = Object.keys(COMMANDS);
    const meant = nearMiss(name, names);
    const expected = meant === undefined ? `one of ${names.join(", ")}` : `\`${meant}\``;
    const sentence = `Expected the command to be ${expected}, got ${quote(name)}; see --help.`;
    throw new OptionError("COMMAND", sentence);
  }
  const run = await command.load();
  return run(rest);
}

// Node has undone what `nohup` asked for: an empty listener does it again, from the start on.
if (isHangupIgnored()) process.on("SIGHUP", () => undefined);

let lost: NodeJS.ErrnoException | undefined;
// A reader that goes away (`lazygraph status | head`) is no failure of ours; a full disk is.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") lost ??= error;
});
// There is nowhere left to say it, and a controller must not end because its log can't be written.
process.stderr.on("error", () => undefined);
process.once("exit", () => {
  if (lost === undefined) return;
  const sentence =
    `Expected stdout to take all that was written, got ${lost.code ?? lost.message}: the output is ` +
    "cut. Make room, or write it elsewhere.";
  process.stderr.write(`${errorLine(new LazygraphError("ERR_LAZYGRAPH_FILE", sentence))}\n`);
  process.exitCode ||= EXIT.failure;
});

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  process.exitCode = reportError(error);
}
