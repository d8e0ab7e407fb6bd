/**
 * Writes bench/results/claims.json: what README and docs claim, each judged from its raw result.
 *
 *   npm run claims              writes the list, and tells what does not hold
 *   npm run claims -- --check   writes nothing; exit code 1 when the list is not up to date
 *
 * Values come from bench/results, limits from the rules of bench/lib, and `holds` from the two. Only
 * `unmet`, the reason of a missed limit, is written into the list by hand, and stays there; exit code
 * 1 where one is missing.
 */

import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import type { CellSummary } from "./gpu/lib/family-result.ts";
import type { ManyResult } from "./gpu/lib/many-result.ts";
import type { LauncherResult } from "./gpu/lib/start-result.ts";
import type { Summary } from "./gpu/main-job-summary.ts";
import { type Finding, judge, latest, listOf, readList, reasonsOf } from "./lib/claims.ts";
import { type Check, checkFindings, type FirstSet, firstSetFindings } from "./lib/claims-checks.ts";
import {
  type Chaos,
  chaosFindings,
  type Faults,
  type Fuzz,
  faultFindings,
  fuzzFindings,
} from "./lib/claims-faults.ts";
import {
  type House,
  hourFindings,
  houseFindings,
  type SimulatedHour,
  type TestTime,
  testTimeFindings,
} from "./lib/claims-house.ts";
import { manyFindings, stallsOf } from "./lib/claims-many.ts";
import {
  type Compared,
  type SimulatedLoads,
  simulatedFindings,
  worstFindings,
} from "./lib/claims-simulated.ts";
import { startupFindings } from "./lib/claims-startup.ts";
import {
  type Fleet,
  fleetFindings,
  type TrustHttp,
  type TrustSocket,
  trustHttpFindings,
  trustSocketFindings,
} from "./lib/claims-trust.ts";
import {
  type ClientCosts,
  type ClientMemory,
  clientFindings,
  type Deployment,
  type Drain,
  deploymentFindings,
  drainFindings,
  memoryFindings,
  type ReportPage,
  reportFindings,
  type StreamShapes,
  shapeFindings,
  type Takeover,
  type TraceFormats,
  takeoverFindings,
  traceFindings,
} from "./lib/claims-uses.ts";
import {
  type ExactTokens,
  type MainJobCounts,
  mainJobFindings,
  type TtftResult,
  tokenFindings,
  ttftFindings,
  type VerifyReport,
  verifyFinding,
} from "./lib/claims-v026.ts";
import { familyFindings } from "./lib/claims-v033.ts";
import { readResult, rounded } from "./lib/result-file.ts";

const results = new URL("results/", import.meta.url);
const { values } = parseArgs({ options: { check: { type: "boolean", default: false } } });

function read<T>(file: string): T {
  return readResult<T>(new URL(file, results));
}

function has(file: string): boolean {
  return existsSync(new URL(file, results));
}

const MAIN_JOB = "bench/gpu/main-job.sh OUT_DIR";
const VERIFY = "python3 bench/gpu/verify_report.py LOG";
const FAMILIES = "bench/gpu/families.sh OUT_DIR";
const TWO_GPUS = "v033-two-gpus-families.json.br";
const MANY = "bench/gpu/many.sh GPUS OUT_DIR";
const CHECKS = "python3 bench/gpu/checks.py OUT_DIR CHECK ...";
const TEST_TIME = "test-time.json.gz";
const FIRST_SET = "npm run bench:first-set";
const MEASURED_AGAIN =
  /^v033\.((moe-30b|fp8-8b|marlin-8b|(dense|fp8)-8b-again|moe-30b-again|lora\.8b-\d+)\..*|(mla-moe|hybrid-24l)\..*\.forecast-error|dense-8b\..*-256)$/;

function findings(): Finding[] {
  const mainJob = (file: string, id: string, counts?: MainJobCounts): Finding[] =>
    mainJobFindings(read<Summary>(file), file, { id, command: MAIN_JOB, counts });
  const ttft = "ttft-h200-8b.json.gz";
  const exact = "tokens-exact-8b-h200.json";
  const verified = (model: string): Finding => {
    const file = `verify-${model}-h200.json`;
    return verifyFinding(read<VerifyReport>(file), `verify.${model}.not-bit-for-bit`, file, VERIFY);
  };
  return [
    ...mainJob("main-job-h200-8b.json.br", "main-job"),
    // Its first round had cold caches.
    ...mainJob("main-job-decode-stream8-h200-8b.json.br", "main-job-stream8", "decoding"),
    // One start of a later state, beside one of stock that compiled.
    ...mainJob("main-job-one-start-h200-8b.json.br", "main-job-one-start", "captures"),
    ...ttftFindings(read<TtftResult>(ttft), ttft, "npm run bench:ttft -- FOLDER"),
    ...tokenFindings(
      read<ExactTokens>(exact),
      exact,
      "python3 bench/gpu/compare_tokens.py --exact",
    ),
    verified("8b"),
    verified("70b-tp2"),
    ...v033(),
    ...startup(),
    ...many(),
    ...trustHttpFindings(read<TrustHttp>("trust-http.json"), {
      source: "trust-http.json",
      command: "BEFORE=MAIN npm run bench:trust-http",
    }),
    ...fleetFindings(read<Fleet>("fleet.json.gz"), {
      source: "fleet.json.gz",
      command: "npm run bench:fleet",
    }),
    ...trustSocketFindings(read<TrustSocket>("trust-socket.json"), {
      source: "trust-socket.json",
      command: "BEFORE=MAIN npm run bench:trust-socket",
    }),
    ...faultFindings(read<Faults>("faults.json.gz"), {
      source: "faults.json.gz",
      command:
        "npm run faults -- --seeds 10000 --output FILE; … --hours 24 …; … --seeds 200 --plant DEFECT …",
    }),
    ...chaosFindings(read<Chaos>("chaos.json.gz"), {
      source: "chaos.json.gz",
      command: "npm run bench:chaos",
    }),
    ...fuzzFindings(read<Fuzz>("fuzz.json"), {
      source: "fuzz.json",
      command: "npm run fuzz -- --frames 1000000 --output FILE",
    }),
    ...houseFindings(read<House>("house.json"), {
      source: "house.json",
      command: "BEFORE=CHECKOUT npm run bench:house",
    }),
    ...hourFindings(read<SimulatedHour>("simulated-hour.json"), {
      source: "simulated-hour.json",
      command: "BEFORE=CHECKOUT npm run bench:simulated-hour",
    }),
    ...(has(TEST_TIME)
      ? testTimeFindings(read<TestTime>(TEST_TIME), {
          source: TEST_TIME,
          command: "BEFORE=CHECKOUT npm run bench:test-time",
        })
      : []),
    ...uses(),
  ];
}

/** Of families that were started from a launcher; a family's files are named in their order. */
function startup(): Finding[] {
  const files = readdirSync(results).filter((file) => /^startup-.*\.json(\.(gz|br))?$/.test(file));
  const findings = files.sort().flatMap((source) => {
    const command = "bench/gpu/launcher.sh OUT_DIR";
    return startupFindings(read<LauncherResult>(source), { source, command });
  });
  return latest(findings);
}

/** One file for each host, in their order; of a family in two of them the last counts. */
function many(): Finding[] {
  const files = readdirSync(results).filter((file) => /^many-.*\.json(\.(gz|br))?$/.test(file));
  const fewer = stallsOf(read<{ cells: readonly CellSummary[] }>(TWO_GPUS).cells);
  const findings = files.sort().flatMap((source) => {
    const result = read<ManyResult>(source);
    const found = manyFindings(result, { source, command: MANY }, fewer);
    fewer.push(...stallsOf(result.cells));
    return found;
  });
  return latest(findings);
}

/** Each made by `npm run bench:NAME`, which writes NAME.json or NAME.json.gz. */
function uses(): Finding[] {
  const of = <T>(
    name: string,
    findings: (result: T, told: Pick<Finding, "source" | "command">) => Finding[],
  ): Finding[] => {
    const packed = `${name}.json.gz`;
    const source = has(packed) ? packed : `${name}.json`;
    return findings(read<T>(source), { source, command: `npm run bench:${name}` });
  };
  return [
    ...of<StreamShapes>("stream-shapes", shapeFindings),
    ...of<TraceFormats>("trace-formats", traceFindings),
    ...of<ClientCosts>("client", clientFindings),
    ...of<ClientMemory>("client-memory", memoryFindings),
    ...of<Takeover>("takeover", takeoverFindings),
    ...of<Drain>("drain", drainFindings),
    ...of<ReportPage>("report-page", reportFindings),
    ...of<Deployment>("deploy", deploymentFindings),
  ];
}

function v033(): Finding[] {
  // The second campaign is a later one: other families, and the 8B by measured costs.
  const families = [
    "v033-families.json.br",
    "v033-more-families.json.br",
    "v033-again-families.json.br",
    "v033-feature-families.json.br",
    TWO_GPUS,
  ];
  const checks = ["v033-checks.json", "v033-more-checks.json.br"];
  const firstSet = "first-set.json.gz";
  const simulated = "simulate-8b.json.br";
  const ofFamilies = (source: string): Finding[] => {
    const { cells } = read<{ cells: readonly CellSummary[] }>(source);
    return familyFindings(cells, { source, command: FAMILIES });
  };
  return [
    ...latest([
      ...families.flatMap(ofFamilies),
      // One start each, some beside one of stock that compiled: for these figures, in a later state.
      ...ofFamilies("v033-late-families.json.br").filter(({ id }) => MEASURED_AGAIN.test(id)),
    ]),
    ...checks.flatMap((source) => {
      const found = read<{ checks: readonly Check[] }>(source);
      return checkFindings(found.checks, { source, command: CHECKS });
    }),
    ...firstSetFindings(read<FirstSet>(firstSet), { source: firstSet, command: FIRST_SET }),
    ...worstFindings(read<Compared>(firstSet), { source: firstSet, command: FIRST_SET }),
    ...simulatedFindings(read<SimulatedLoads>(simulated), {
      source: simulated,
      command: "npm run bench:simulate",
    }),
  ];
}

const list = new URL("claims.json", results);
const current = existsSync(list) ? readFileSync(list, "utf8") : "[]";
const before = readList(current);
const claims = judge(findings(), before);
const text = listOf(claims, rounded);
if (!values.check) {
  writeFileSync(list, text);
  for (const { id, value, sense, limit } of claims.filter(({ holds }) => !holds)) {
    console.log(
      `does not hold: ${id}: ${value}, ${sense === "atMost" ? "at most" : "at least"} ${limit}`,
    );
  }
  console.log(`${claims.length} claims, ${claims.filter(({ holds }) => holds).length} hold`);
} else if (current !== text) {
  console.error("Expected bench/results/claims.json up to date, it is not: run `npm run claims`.");
  process.exitCode = 1;
}
const { missing, dropped } = reasonsOf(claims, before);
for (const { id, unmet } of dropped) {
  const why = claims.some((claim) => claim.id === id) ? "holds now" : "is no claim any more";
  console.log(`${id} ${why}, so its reason goes: ${unmet}`);
}
if (missing.length > 0) {
  const ids = missing.map(({ id }) => id).join(", ");
  console.error(
    `Expected a reason for what does not hold, got none for ${ids}: fill in its "unmet" in bench/results/claims.json.`,
  );
  process.exitCode = 1;
}
