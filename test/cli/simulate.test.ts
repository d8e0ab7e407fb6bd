import { execFileSync, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { formatPlan, parsePlan } from "../../src/plan/check.ts";
import { loadProfile } from "../../src/profile/load.ts";
import { POLICY_NAMES } from "../../src/sim/virtual/setups.ts";
import { simulatedFingerprint } from "../../src/sim/virtual/simulated-plans.ts";
import { MAIN } from "../helpers/built.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { planOf } from "../plan/helpers.ts";
import { tinyDocument } from "../sim/helpers.ts";
import { finish } from "./helpers/command.ts";

const conversation = "azure-llm-2023-conversation";
const HEADER = "seconds,prompt_tokens,output_tokens\n";

async function traceFile(text: string | Buffer): Promise<string> {
  const file = join(await temporaryFolder(), "trace.csv");
  await writeFile(file, text);
  return file;
}

const spread = Object.fromEntries(
  ["p50", "p90", "p99", "p999", "max", "cv"].map((name) => [name, expect.any(Number)]),
);

describe("lazygraph simulate", () => {
  test("--json is one document of exactly the documented shape, in the order asked", async () => {
    const { code, stdout, stderr } = await finish([
      "simulate",
      "--trace",
      conversation,
      "--seconds",
      "30",
      "--speed",
      "2",
      "--policy",
      "stock,oracle,idle",
      "--json",
    ]);
    expect(code).toBe(0);
    expect(stdout.trimEnd().split("\n")).toHaveLength(1);
    const policy = (name: string) => ({
      name,
      addedRequestSeconds: expect.any(Number),
      ttftSeconds: spread,
      tpotSeconds: spread,
      captureBeforeReadySeconds: expect.any(Number),
      settledSeconds: expect.any(Number),
      stallSecondsMax: expect.any(Number),
      graphsCaptured: 102,
      graphsPlanned: 102,
      graphBytes: expect.any(Number),
    });
    const document = JSON.parse(stdout);
    expect(document).toEqual({
      simulated: true,
      trace: { requests: expect.any(Number), seconds: expect.any(Number) },
      captureBeforeReadyEstimated: false,
      profile: "llama-3.1-8b-h200",
      policies: [policy("stock"), policy("oracle"), policy("idle-costed")],
    });
    const [stock, oracle, idle] = document.policies;
    expect(oracle.addedRequestSeconds).toBe(0);
    expect(idle.addedRequestSeconds).toBeLessThan(stock.addedRequestSeconds / 4);
    expect(document.trace.seconds).toBeLessThanOrEqual(30);
    expect(document.trace.requests).toBeGreaterThan(100);
    expect(stderr).toContain("simulated idle-costed (3 of 3)");
  });

  test("a table that says it is simulated; the oracle runs unasked and is not shown", async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, "tiny.json"), JSON.stringify(tinyDocument()));
    const trace = await traceFile(`${HEADER}0,1,3\n100,1,1\n`);
    const { code, stdout, stderr } = await finish([
      "simulate",
      "--trace",
      trace,
      "--policy",
      "none,lazy-costed",
      "--profile",
      join(folder, "tiny.json"),
    ]);
    expect(code).toBe(0);
    // Steps of 10 s instead of 1: 13 and 101 became 40 and 110.
    expect(stdout).toMatch(/│ none +│ +36\.00 │/);
    expect(stdout).toContain("SIMULATED in virtual time");
    expect(stdout).toContain("2 requests over 100.0 s");
    expect(stdout).not.toContain("oracle");
    expect(stderr).toContain("simulated oracle (1 of 3)");
  });

  test.for([
    [["--policy", "stock"], "Expected --trace to be given with a trace file"],
    [["--trace", "x.csv"], "Expected --policy to be given with names of oracle, floor"],
    [["--trace", "x.csv", "--policy", "stok"], 'got "stok": did you mean stock?'],
    [
      ["--trace", "x.csv", "--policy", "stock,"],
      `Expected --policy to be ${POLICY_NAMES.join(", ")}, lazy or idle, got ""`,
    ],
    [["--trace", "x.csv", "--policy", "stock,stock"], "a list that names each once"],
    [
      ["--trace", "x.csv", "--policy", "idle,idle-costed"],
      'each once, and not idle-costed twice, got "idle,idle-costed"',
    ],
    [["--trace", "x.csv", "--policy", "idle", "--speed", "0"], "Expected --speed to be a number"],
    [["--trace", "x.csv", "--policy", "idle", "--seconds", "-1"], "Expected --seconds to be"],
  ] as const)("usage error: %j", async ([args, sentence]) => {
    const { code, stdout, stderr } = await finish(["simulate", ...args]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain(sentence);
    expect(stderr).toMatch(/^lazygraph: [^\n]* \[ERR_LAZYGRAPH_OPTION\]\n$/);
  });

  test.for([
    ["a hole", `${HEADER}0,1,3\n1,,3\n`, /line 3: expected 3 values and no hole/],
    ["unsorted times", `${HEADER}5,1,3\n1,1,3\n`, /line 3: expected times that never fall/],
    ["a negative time", `${HEADER}-1,1,3\n`, /line 2: expected a number of seconds from 0 up/],
    ["a wrong header", "time,in,out\n0,1,3\n", /line 1: expected the header seconds/],
    ["no request with an answer", `${HEADER}0,1,0\n`, /line 3: expected at least one request/],
    ["gzip cut short", gzipSync(`${HEADER}0,1,3\n`).subarray(0, 30), /gzip that is cut short/],
  ] as const)("a trace with %s is one sentence with file and line", async ([, text, sentence]) => {
    const file = await traceFile(text);
    const { code, stdout, stderr } = await finish([
      "simulate",
      "--trace",
      file,
      "--policy",
      "idle",
    ]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(sentence);
    expect(stderr).toContain(file);
    expect(stderr).toMatch(/^lazygraph: [^\n]* \[ERR_LAZYGRAPH_TRACE\]\n$/);
  });

  test("requests that can never fit are told, and a trace of nothing else is refused", async () => {
    const huge = "1,1048576,3\n";
    const args = ["--policy=stock", "--json"];
    const some = await traceFile(`${HEADER}0,1,3\n${huge}`);
    const told = await finish(["simulate", `--trace=${some}`, ...args]);
    expect(told.code).toBe(0);
    expect(told.stderr).toMatch(/lazygraph: stock leaves out 1 of 2 requests, too long for a KV/);
    const none = await traceFile(`${HEADER}${huge}`);
    const { code, stdout, stderr } = await finish(["simulate", `--trace=${none}`, ...args]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(/expected requests that fit into .+ \[ERR_LAZYGRAPH_TRACE\]\n$/);
  });

  test.for([
    ["simulate", "--trace", conversation, "--policy=stock", "--profile"],
    ["bench", "--simulated", "--request-rate=1", "--seconds=1", "--sharegpt"],
    ["bench", "--spec"],
    ["serve", "--config"],
  ])("nobody waits for a pipe: %j", async (args) => {
    const pipe = join(await temporaryFolder(), "pipe.json");
    execFileSync("mkfifo", [pipe]);
    const out = args[0] === "bench" ? [`--out=${pipe}.out`] : [];
    const { code, stderr } = await finish([...args, pipe, ...out]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/a pipe or a device of that name.* \[ERR_LAZYGRAPH_/);
  });

  test.for([
    [{ full: [] }, /steps\.full/],
    [{ full: [[1, -1]] }, /steps\.full/],
    [{ full: [[1, 1e300]] }, /steps\.full\[0\]\[1\] to be a number from 0 to 86400/],
  ] as const)("a profile with %j is one sentence that names the field", async ([steps, field]) => {
    const document = tinyDocument();
    Object.assign(document["steps"] as object, steps);
    const folder = await temporaryFolder();
    const profile = join(folder, "bad.json");
    await writeFile(profile, JSON.stringify(document));
    const { code, stdout, stderr } = await finish([
      "simulate",
      "--trace",
      conversation,
      "--policy",
      "idle",
      "--profile",
      profile,
    ]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(field);
    expect(stderr).toMatch(/^lazygraph: [^\n]* \[ERR_LAZYGRAPH_PROFILE\]\n$/);
  });
});

describe("learned plans", () => {
  const args = ["simulate", "--trace", conversation, "--seconds", "60", "--json"];
  const added = (stdout: string): number => JSON.parse(stdout).policies[0].addedRequestSeconds;

  test("what one start learned is what the next one starts with", async () => {
    const file = join(await temporaryFolder(), "plan.json");
    const first = await finish([...args, "--policy", "idle-costed", "--write-plan", file]);
    expect(first.code).toBe(0);
    const plan = parsePlan(await readFile(file, "utf8"));
    expect(plan).toMatchObject({ starts: 1, simulated: "llama-3.1-8b-h200" });
    expect(plan.traffic.length).toBeGreaterThan(5);
    expect(plan.first.length).toBeGreaterThan(5);

    const second = await finish([
      ...args,
      "--policy=idle-costed",
      `--plan=${file}`,
      `--write-plan=${file}`,
    ]);
    expect(second).toMatchObject({ code: 0 });
    expect(added(second.stdout)).toBeLessThan(added(first.stdout));
    expect(parsePlan(await readFile(file, "utf8"))).toMatchObject({ starts: 2 });
    // The comparators take no plan: the same run, to the last digit.
    const without = await finish([...args, "--policy", "ladder"]);
    const having = await finish([...args, "--policy", "ladder", "--plan", file]);
    expect(added(having.stdout)).toBe(added(without.stdout));
  });

  test("a full disk costs the plan, and not what was simulated", async () => {
    const file = join(await temporaryFolder(), "plan.json");
    const words = [MAIN, ...args, "--policy=idle-costed", `--write-plan=${file}`];
    const limited = ["-c", 'ulimit -f 1; exec "$0" "$@"', process.execPath, ...words];
    const { status, stdout, stderr } = spawnSync("sh", limited, { encoding: "utf8" });
    expect(status).toBe(1);
    expect(added(stdout)).toBeGreaterThan(0);
    expect(stderr).toMatch(/make room, or give another path. \[ERR_LAZYGRAPH_FILE\]\n$/);
    expect(existsSync(file)).toBe(false);
  });

  test("a plan of another model with the same graphs is taken with a word, of others refused", async () => {
    const folder = await temporaryFolder();
    const fingerprint = simulatedFingerprint(loadProfile());
    const other = join(folder, "other.json");
    await writeFile(other, formatPlan(planOf({ fingerprint: { ...fingerprint, model: "b" } })));
    const taken = await finish([...args, "--policy=idle-costed", `--plan=${other}`]);
    expect(taken.code).toBe(0);
    expect(taken.stderr).toContain(
      "the plan is of another engine than the simulated one: model is",
    );
    await writeFile(other, formatPlan(planOf()));
    const { code, stdout, stderr } = await finish([
      ...args,
      "--policy=idle-costed",
      `--plan=${other}`,
    ]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(
      /expected the capture sizes of the profile llama.+ \[ERR_LAZYGRAPH_PLAN\]\n$/,
    );
  });

  test.for([
    [["--policy=idle,lazy", "--write-plan=x.json"], "one name only with --write-plan", "OPTION"],
    [["--policy=idle", "--plan=/nowhere.json"], "got ENOENT", "PLAN"],
    [["--policy=idle", "--write-plan=no-such-folder/p.json"], "can be written (ENOENT)", "OPTION"],
  ] as const)("%j is one sentence", async ([more, sentence, code]) => {
    const failed = await finish([...args, ...more]);
    expect({ code: failed.code, stdout: failed.stdout }).toEqual({ code: 2, stdout: "" });
    expect(failed.stderr).toContain(sentence);
    // One sentence, before any run.
    expect(failed.stderr).toMatch(new RegExp(`^lazygraph: .* \\[ERR_LAZYGRAPH_${code}\\]\n$`));
    expect(existsSync("no-such-folder")).toBe(false);
  });
});
