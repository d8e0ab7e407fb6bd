/**
 * `lazygraph demo`, also `npm start`: the main job where there is no GPU. A controller here, a
 * simulated engine as a second process, real ZeroMQ between them, real traffic, and the three
 * modes in turn.
 */

import { fileURLToPath } from "node:url";
import Table from "cli-table3";
import { counted } from "../base/counted.ts";
import { rounded } from "../base/units.ts";
import { DEFAULT_PROFILE, loadProfile } from "../profile/load.ts";
import type { Profile } from "../profile/profile.ts";
import { readTrace, type TraceRequest } from "../trace/trace.ts";
import { MODES, type Mode } from "../wire/protocol.ts";
import { type DemoSettings, type ModeFigures, runMode } from "./demo-mode.ts";
import { createDemoProgress } from "./demo-progress.ts";
import { numberOption } from "./number-option.ts";
import { parseOptions } from "./options.ts";
import { millisecondsText, secondsText } from "./table.ts";

const HELP = `Usage: lazygraph demo [options]

The three modes, one after the other, on a simulated engine: a controller and an engine process
over real ZeroMQ, requests from a real trace. Needs no GPU; about half a minute.

Options:
  --requests N       requests for each mode, 1 to 2000 (60)
  --speed X          simulated seconds per real second, 0.1 to 100 (8)
  --trace FILE       another request trace (\`lazygraph trace --help\`)
  --trace-speed X    divides the trace's times; below 1 leaves more idle gaps (0.5)
  --profile NAME     another cost profile, or the path of one (${DEFAULT_PROFILE})
  --json             one JSON document on stdout, progress on stderr
  --help, -h         this text

Exit code: 2 for a usage error, a trace or a profile that can't be used; 1 for a failure.

Examples:
  lazygraph demo
  lazygraph demo --requests 100 --json > demo.json
`;

const TRACE = new URL("../../traces/azure-llm-2023-conversation.json.xz", import.meta.url);
const TRACE_TITLE =
  "Azure Public Dataset, AzureLLMInferenceTrace_conv 2023 (Microsoft), licence CC-BY 4.0";

interface Demo {
  readonly json: boolean;
  readonly profile: Profile;
  readonly traceTitle: string;
  readonly traceSpeed: number;
  readonly requests: readonly TraceRequest[];
  readonly settings: DemoSettings;
}

export async function runDemo(argv: string[]): Promise<number> {
  const demo = await parseDemo(argv);
  if (demo === undefined) {
    process.stdout.write(HELP);
    return 0;
  }
  // With --json stdout belongs to the document.
  const out = demo.json ? process.stderr : process.stdout;
  out.write(`${introduction(demo)}\n\n`);
  const progress = createDemoProgress(demo.requests.length);
  const figures = new Map<Mode, ModeFigures>();
  try {
    for (const mode of MODES) figures.set(mode, await runMode(mode, demo.settings, progress));
  } finally {
    progress.stop();
  }
  if (demo.json) process.stdout.write(`${JSON.stringify(documentOf(demo.profile, figures))}\n`);
  else process.stdout.write(`\n${tableOf(figures, demo.profile)}\n${footnote(demo)}\n`);
  return 0;
}

async function parseDemo(argv: readonly string[]): Promise<Demo | undefined> {
  const options = parseOptions(argv, {
    requests: "string",
    speed: "string",
    trace: "string",
    "trace-speed": "string",
    profile: "string",
    json: "boolean",
  });
  if (options.flags.has("help")) return undefined;
  const requestsMax = numberOption(options, "requests", {
    min: 1,
    max: 2000,
    fallback: 60,
    whole: true,
  });
  const speed = numberOption(options, "speed", { min: 0.1, max: 100, fallback: 8 });
  const traceSpeed = numberOption(options, "trace-speed", { min: 0.001, max: 1000, fallback: 0.5 });
  const given = options.strings.get("trace");
  const file = given ?? fileURLToPath(TRACE);
  const profileName = options.strings.get("profile") ?? DEFAULT_PROFILE;
  const profile = loadProfile(profileName);
  const requests = await readAll(file, traceSpeed, requestsMax);
  return {
    json: options.flags.has("json"),
    profile,
    traceTitle: given ?? TRACE_TITLE,
    traceSpeed,
    requests,
    settings: {
      profile: profileName,
      speed,
      trace: { file, speed: traceSpeed, requests: requestsMax },
      requests: requests.length,
    },
  };
}

/** Read here too: a bad trace is one sentence and not a dead child process. */
async function readAll(file: string, speed: number, requests: number): Promise<TraceRequest[]> {
  const rows: TraceRequest[] = [];
  for await (const row of readTrace(file, { speed, requests })) rows.push(row);
  return rows;
}

function introduction({ profile, traceTitle, traceSpeed, requests, settings }: Demo): string {
  const span = requests.at(-1)?.atSeconds ?? 0;
  return [
    "The engine is SIMULATED: no GPU is used, and every time below comes from a cost profile.",
    `Profile ${profile.name}, measured ${profile.measuredOn}: ${profile.title}.`,
    `Trace: the first ${counted(requests.length, "request")} of ${traceTitle},`,
    `  at ${traceSpeed} times its speed: ${span.toFixed(0)} simulated seconds of arrivals.`,
    `The controller and the engine are two processes and talk over ZeroMQ; the engine's clock runs`,
    `  ${settings.speed} times as fast as a real one.`,
  ].join("\n");
}

function documentOf(profile: Profile, figures: ReadonlyMap<Mode, ModeFigures>): object {
  const modes = [...figures].map(([mode, { ttftSeconds, ...run }]) => [
    mode,
    {
      captureBeforeReadySeconds: rounded(run.captureBeforeReadySeconds),
      ttftSeconds: {
        p50: rounded(ttftSeconds.p50),
        p99: rounded(ttftSeconds.p99),
        max: rounded(ttftSeconds.max),
      },
      graphsCaptured: run.graphsCaptured,
      graphsPlanned: run.graphsPlanned,
      requests: run.requests,
    },
  ]);
  return { simulated: true, profile: profile.name, modes: Object.fromEntries(modes) };
}

const MARK = " *";

function tableOf(figures: ReadonlyMap<Mode, ModeFigures>, profile: Profile): string {
  const table = new Table({
    head: ["simulated", ...figures.keys()],
    style: { head: [], border: [], compact: true },
    colAligns: ["left", "right", "right", "right"],
  });
  const row = (name: string, text: (run: ModeFigures) => string): void => {
    table.push([name, ...[...figures.values()].map(text)]);
  };
  // Who waits for more than half the start-up waits for it: a request by itself takes far less.
  const assumed = profile.provenance["startupSeconds"]?.kind === "assumed";
  const waiting = (name: string, seconds: (run: ModeFigures) => number): void => {
    const longest = Math.max(...[...figures.values()].map(seconds));
    const marked = assumed && longest > profile.startupSeconds / 2;
    row(`${name}${marked ? MARK : ""}`, (run) => secondsText(seconds(run)));
  };
  row("capture before ready", (run) => secondsText(run.captureBeforeReadySeconds));
  waiting("start to ready", (run) => run.readySeconds);
  waiting("TTFT p50", (run) => run.ttftSeconds.p50);
  waiting("TTFT p99", (run) => run.ttftSeconds.p99);
  waiting("TTFT max", (run) => run.ttftSeconds.max);
  row("longest capture after ready", (run) => millisecondsText(run.longestCaptureMs));
  row("graphs captured", (run) => `${run.graphsCaptured} of ${run.graphsPlanned}`);
  row("ready to last capture", (run) => secondsText(run.lastCaptureSeconds));
  row("requests", (run) => String(run.requests));
  row("steps exact", (run) => String(run.stepsExact));
  row("steps padded", (run) => String(run.stepsPadded));
  row("steps ungraphed", (run) => String(run.stepsUngraphed));
  return table.toString();
}

function footnote({ profile, traceTitle }: Demo): string {
  const fields = Object.entries(profile.provenance);
  // Of what is estimated only the steps enter a time; what is assumed is told in full.
  const estimated = fields.filter(
    ([name, { kind }]) => name.startsWith("steps") && kind === "estimated",
  );
  const names = estimated.map(([name]) => name).join(", ");
  const assumed = fields.filter(([, { kind }]) => kind === "assumed").map(([name]) => name);
  const startup = `${profile.startupSeconds} s in every mode; it makes up most of the rows with${MARK}`;
  const told = assumed.map((name) => (name === "startupSeconds" ? `${name} (${startup})` : name));
  return [
    "The last capture comes when trace, speed and policy leave time for it: other loads, other times.",
    "All times are simulated, not measured in this run. TTFT counts from the start of the engine's",
    "process for requests that arrived before it was ready.",
    `Measured: ${profile.setup}.`,
    `Estimated in this profile: ${names === "" ? "nothing" : names}.`,
    `Assumed in this profile: ${told.length === 0 ? "nothing" : told.join(", ")}.`,
    `Trace: ${traceTitle}.`,
  ].join("\n");
}
