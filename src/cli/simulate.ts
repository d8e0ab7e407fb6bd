/**
 * `lazygraph simulate`: one trace against the simulated engine in virtual time, policy by policy,
 * each compared with an engine that has every graph for free.
 */

import { counted } from "../base/counted.ts";
import { LazygraphError } from "../base/errors.ts";
import { fingerprintDifference } from "../plan/fingerprint.ts";
import type { Plan } from "../plan/plan.ts";
import { DEFAULT_PROFILE, loadProfile } from "../profile/load.ts";
import type { Profile } from "../profile/profile.ts";
import { createSetup, POLICY_WORDS, type PolicyName, policyNamed } from "../sim/virtual/setups.ts";
import { SimulatedPlans, simulatedFingerprint } from "../sim/virtual/simulated-plans.ts";
import { type SimulatedRun, simulate } from "../sim/virtual/virtual.ts";
import { SkipCounts } from "../trace/skips.ts";
import { readTrace, type TraceOptions, type TraceRequest } from "../trace/trace.ts";
import { choice, note, usageError } from "./errors.ts";
import { numberOption } from "./number-option.ts";
import { type ParsedOptions, parseOptions } from "./options.ts";
import { loadPlan, savePlan } from "./plan-file.ts";
import { requireWritable } from "./report.ts";
import { documentOf, type Simulation, type TraceSeen, textOf } from "./simulate-report.ts";

const HELP = `Usage: lazygraph simulate --trace FILE --policy NAME[,NAME…] [options]

A request trace against a SIMULATED engine in virtual time, once for each policy. The engine's
process starts at second 0, with the first request. "Added" is the sum over all requests of
(completion - completion under oracle); the oracle run is made whether it is named or not.

Options:
  --trace FILE     a request trace in any format of \`lazygraph trace --help\`, or the name of a
                   shipped one, azure-llm-2023-conversation
  --strict         refuses blank lines and failed requests, which are left out otherwise
  --policy LIST    names with commas between them, of:
                     oracle         every graph free at second 0
                     floor          ready after the tops, every other graph free
                     stock          vLLM's own: all graphs before ready
                     none           no graphs
                     ladder         powers of two before ready
                     pr23184        tops before ready, then one graph in each step
                     largest-first  tops before ready, then largest first while idle
                     eager          all graphs before ready, by a controller of ours
                     lazy, idle     what --mode lazy and --mode idle run where no policy is
                                    named: lazy-costed and idle-costed
                     lazy-costed, idle-costed     these modes by measured costs (--policy costed)
                     lazy-simple, idle-simple     these modes by counting steps (--policy simple)
  --seconds N      only arrivals in the first N seconds, after --speed
  --speed X        divides the trace's times, 0.001 to 1000 (1)
  --profile NAME   another cost profile, or the path of one (${DEFAULT_PROFILE})
  --plan FILE      a learned plan that the costed policies start with: a second start
  --write-plan FILE  what the one policy named learns, added to --plan if that is given
  --json           one JSON document on stdout, progress on stderr
  --help, -h       this text

Exit code: 2 for a usage error, a trace or a profile that can't be used; 1 for a failure.

Examples:
  lazygraph simulate --trace azure-llm-2023-conversation --seconds 300 \\
    --policy stock,lazy,idle
  lazygraph simulate --trace day.csv --speed 3 --policy stock,idle --json > day.json
  lazygraph simulate --trace monday.csv --policy idle --write-plan plan.json
  lazygraph simulate --trace tuesday.csv --policy idle --plan plan.json
`;

const SECONDS_MAX = 1e9;
const PROGRESS_MS = 2000;

interface Job {
  readonly file: string;
  readonly policies: readonly PolicyName[];
  readonly trace: TraceOptions & { readonly speed: number };
  readonly profile: Profile;
  /** What the costed policies start with. */
  readonly plan: Plan | undefined;
  /** Where to write what the one policy learned. */
  readonly writePlan: string | undefined;
  readonly json: boolean;
}

export async function runSimulate(argv: string[]): Promise<number> {
  const options = parseOptions(argv, {
    trace: "string",
    strict: "boolean",
    policy: "string",
    seconds: "string",
    speed: "string",
    profile: "string",
    plan: "string",
    "write-plan": "string",
    json: "boolean",
  });
  if (options.flags.has("help")) {
    process.stdout.write(HELP);
    return 0;
  }
  const job = await jobOf(options);
  const seen: TraceSeen = { requests: 0, seconds: 0 };
  const runs = new Map<PolicyName, SimulatedRun>();
  let learned: Plan | undefined;
  const names = [...new Set<PolicyName>(["oracle", ...job.policies])];
  for (const [index, name] of names.entries()) {
    const place = `${index + 1} of ${names.length}`;
    const { run, plan, skipped } = await runOne(job, name, seen, place);
    // Every run reads the whole trace: what the first left out the others do as well.
    const sentence = skipped.sentence(job.file);
    if (index === 0 && sentence !== undefined) note(sentence);
    runs.set(name, run);
    if (name === job.policies[0]) learned = plan;
  }
  const oracle = runs.get("oracle");
  if (oracle === undefined) throw new Error("The oracle run is missing.");
  noteRefused(job, seen, [...runs.values()]);
  const asked = job.policies.flatMap((name) => runs.get(name) ?? []);
  const { file, profile, trace } = job;
  const simulation: Simulation = { file, profile, speed: trace.speed, seen, runs: asked, oracle };
  process.stdout.write(
    job.json ? `${JSON.stringify(documentOf(simulation))}\n` : `${textOf(simulation)}\n`,
  );
  if (job.writePlan !== undefined && learned !== undefined) {
    await savePlan(job.writePlan, learned, "--write-plan");
  }
  return 0;
}

async function jobOf(options: ParsedOptions): Promise<Job> {
  const file = options.strings.get("trace");
  if (file === undefined) throw usageError("--trace", "given with a trace file", undefined);
  const seconds = numberOption(options, "seconds", {
    min: 0.001,
    max: SECONDS_MAX,
    fallback: Number.POSITIVE_INFINITY,
  });
  const speed = numberOption(options, "speed", { min: 0.001, max: 1000, fallback: 1 });
  const policies = policiesOption(options);
  const profile = loadProfile(options.strings.get("profile") ?? DEFAULT_PROFILE);
  const writePlan = options.strings.get("write-plan");
  if (writePlan !== undefined && policies.length > 1) {
    const got = policies.join(",");
    throw usageError("--policy", "one name only with --write-plan, whose plan it is", got);
  }
  return {
    file,
    policies,
    trace: { seconds, speed, strict: options.flags.has("strict") },
    profile,
    plan: await planOption(options.strings.get("plan"), profile),
    writePlan:
      writePlan === undefined ? undefined : await requireWritable(writePlan, "--write-plan"),
    json: options.flags.has("json"),
  };
}

/** A plan of other graphs would only mislead; where the rest differs, that is for the user to know. */
async function planOption(file: string | undefined, profile: Profile): Promise<Plan | undefined> {
  if (file === undefined) return undefined;
  const plan = await loadPlan(file);
  const simulated = simulatedFingerprint(profile);
  const { captureSizes } = plan.fingerprint;
  const difference = fingerprintDifference(plan.fingerprint, simulated);
  if (difference === undefined) return plan;
  if (fingerprintDifference({ ...simulated, captureSizes }, simulated) === undefined) {
    note(`the plan is of another engine than the simulated one: ${difference}.`);
    return plan;
  }
  throw new LazygraphError(
    "ERR_LAZYGRAPH_PLAN",
    `Plan ${file}: expected the capture sizes of the profile ${profile.name}, got others: ` +
      "give the --profile that it was learned with.",
  );
}

function policiesOption(options: ParsedOptions): PolicyName[] {
  const value = options.strings.get("policy");
  if (value === undefined) {
    throw usageError("--policy", `given with names of ${POLICY_WORDS.join(", ")}`, undefined);
  }
  const words = value.split(",").map((text) => choice("--policy", POLICY_WORDS, text));
  const names = words.map((word) => policyNamed(word) as PolicyName);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) {
    throw usageError("--policy", `a list that names each once, and not ${twice} twice`, value);
  }
  return names;
}

/** Every run reads the trace anew, so that memory doesn't grow with its length. */
async function runOne(
  { file, trace, profile, plan }: Job,
  name: PolicyName,
  seen: TraceSeen,
  place: string,
): Promise<{ run: SimulatedRun; plan: Plan; skipped: SkipCounts }> {
  const plans = new SimulatedPlans(profile, plan);
  const started = performance.now();
  let told = started;
  let completed = 0;
  const skipped = new SkipCounts();
  const requests = readTrace(file, { ...trace, onSkip: (skip) => skipped.add(skip) });
  const run = await simulate({
    profile,
    ...createSetup(name, profile),
    plans: plans.engines,
    requests: watched(requests, seen),
    onRequest() {
      completed++;
      // The clock is asked rarely: a whole trace completes some 10,000 requests a second.
      if (completed % 256 !== 0 || performance.now() - told < PROGRESS_MS) return;
      told = performance.now();
      process.stderr.write(`simulating ${name} (${place}): ${counted(completed, "request")}\n`);
    },
  });
  const seconds = (performance.now() - started) / 1000;
  process.stderr.write(
    `simulated ${name} (${place}): ${counted(run.requests, "request")} in ${seconds.toFixed(1)} s\n`,
  );
  return { run, plan: plans.plan(), skipped };
}

async function* watched(
  requests: AsyncIterable<TraceRequest>,
  seen: TraceSeen,
): AsyncGenerator<TraceRequest, void, void> {
  let count = 0;
  for await (const request of requests) {
    count++;
    seen.requests = Math.max(seen.requests, count);
    seen.seconds = Math.max(seen.seconds, request.atSeconds);
    yield request;
  }
}

/** What was refused is in no figure: that must be told, and figures of nothing at all be none. */
function noteRefused({ file, profile }: Job, seen: TraceSeen, runs: readonly SimulatedRun[]): void {
  const { kvCacheTokens } = profile.limits;
  for (const { policy, requests, requestsRefused } of runs) {
    if (requests === 0) {
      throw new LazygraphError(
        "ERR_LAZYGRAPH_TRACE",
        `${file}: expected requests that fit into the KV cache of the profile ${profile.name}, ` +
          `${kvCacheTokens} tokens, got none that does: give another --profile, or requests that are shorter.`,
      );
    }
    if (requestsRefused === 0) continue;
    note(
      `${policy} leaves out ${requestsRefused} of ${counted(seen.requests, "request")}, too long for a KV ` +
        `cache of ${kvCacheTokens} tokens or beyond the longest queue: they count in no figure.`,
    );
  }
}
