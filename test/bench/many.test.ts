/** bench/gpu/many.sh against stand-ins, and what its result claims. */

import { execFile } from "node:child_process";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { parseFamilies } from "../../bench/gpu/lib/family-plan.ts";
import { isStart, type StartResult } from "../../bench/gpu/lib/family-result.ts";
import type { ManyFamily, ManyResult } from "../../bench/gpu/lib/many-result.ts";
import { manyFindings, type Stall, stallsOf } from "../../bench/lib/claims-many.ts";
import { pluginSite } from "../cli/helpers/plugin-site.ts";
import { temporaryFolder } from "../helpers/folder.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const TESTS = join(ROOT, "worker/tests");
const PYTHON = join(ROOT, "worker/.venv/bin/python");
const SLOW = { timeout: 180_000 };
const told = { source: "many-a.json", command: "many.sh" };

interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function many(words: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Ran> {
  return new Promise((resolve) => {
    const script = join(ROOT, "bench/gpu/many.sh");
    const options = { cwd: ROOT, env: { ...process.env, ...env } };
    execFile(script, words, options, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code ?? -1), stdout, stderr });
    });
  });
}

describe("many.sh", () => {
  test("LIST tells what is open on so many GPUs, and runs nothing", SLOW, async () => {
    const out = join(await temporaryFolder(), "out");
    const four = await many(["4", out], { LIST: "1" });
    expect(four).toMatchObject({ code: 0 });
    for (const line of [
      /^dense-70b-tp4\.start\.0\.stock\t/m,
      /^moe-30b-tp4-ep\.ranks$/m,
      /^dense-70b-tp4: killed$/m,
      /^moe-30b-tp4-ep$/m,
    ]) {
      expect(four.stdout).toMatch(line);
    }
    expect(four.stdout).not.toContain("tp8");
    const eight = await many(["8", out], { LIST: "1", PARTS: "checks", CHECKS: "ranks" });
    expect(eight.stdout.split("\n")).toEqual([
      ...["dense-70b-tp8.ranks", "dense-70b-tp4.ranks", "moe-30b-tp4-ep.ranks", ""],
    ]);
  });

  test.for([
    [["3", "out"], {}, "Expected GPUS of 4, 8, or at least four numbers with commas, got 3."],
    [["0,1,2", "out"], {}, "got 0,1,2."],
    [["0,1,2,x", "out"], {}, "got 0,1,2,x."],
    [
      ["4", "out"],
      { PARTS: "starts all" },
      "Expected PARTS of starts, checks, faults, launcher and tokens, got all.",
    ],
    [
      ["4", "/tmp"],
      { LIST: "1", FAMILIES: "moe" },
      "Expected FAMILIES to be of dense-70b-tp8, dense",
    ],
  ] as const)("%j with %j is told in one sentence", async ([words, env, sentence]) => {
    const { code, stderr } = await many(words, env);
    expect(code).toBe(2);
    expect(stderr).toContain(sentence);
    expect(stderr.trim().split("\n")).toHaveLength(1);
  });

  test("each part keeps what it has, one that fails costs none of the others", SLOW, async () => {
    const folder = await temporaryFolder();
    const [out, spec, python] = ["out", "spec.json", "python"].map((name) => join(folder, name));
    const family = { name: "small-tp4", shape: "small", gpus: 4, args: ["-tp", "4"] };
    const starts = { stock: 1, idle: 1 };
    await writeFile(
      spec as string,
      JSON.stringify({ families: [{ ...family, starts, warm: [], startSeconds: 1 }] }),
    );
    await mkdir(join(folder, "models/small"), { recursive: true });
    await writeFile(join(folder, "models/small/tokenizer.json"), "{}");
    // Stands for checks.py alone: it says what it was asked, and fails at one of them.
    const check =
      '{"check": "\'"$name"\'", "fine": true, "sequences": 2, "same": 2, "planned": 1, "exact": [1]}';
    await writeFile(
      python as string,
      `#!/bin/bash
case $1 in
  *checks.py) ;;
  *) exec ${PYTHON} "$@" ;;
esac
echo "$*" >> ${folder}/asked
mkdir -p "$2"
for name in "$@"; do
  [[ $name = *.control ]] && code=1
  [[ $name = small-tp4.* && $name != *.control ]] && echo '${check}' > "$2/$name.json"
done
exit \${code:-0}
`,
    );
    const serve = join(folder, "vllm");
    const main = "import fake_stream_serve\nfake_stream_serve.main()\n";
    await writeFile(serve, `#!${PYTHON}\n${main}`);
    for (const file of [python as string, serve]) await chmod(file, 0o755);
    const env = {
      ...{ SPEC: spec, MODELS: join(folder, "models"), PYTHON: python, HOST: "a host" },
      ...{ LEVELS: "1", REPETITIONS: "1", PARTS: "starts checks tokens" },
      ...{ VLLM_SERVE: `${serve} serve`, NCCL_NVLS_ENABLE: "0" },
      PYTHONPATH: [join(ROOT, "worker/src"), TESTS, await pluginSite(folder)].join(":"),
      LAUNCHER_ARGS: "--preload fake_stream_serve --main fake_stream_serve:main",
      LAZYGRAPH: `python3 ${join(TESTS, "fake_stream_serve.py")}`,
    };
    const first = await many(["4,5,6,7", out as string], env);
    expect(first.stderr).toContain("2 cells, 0 failed, 4 checks, 0 faults, 0 launchers");
    expect(first.stderr).toMatch(/failed: checks\n$/);
    expect(first.code).toBe(1);
    const asked = (await readFile(join(folder, "asked"), "utf8")).trim().split("\n");
    expect(asked).toHaveLength(2);
    expect(asked[0]).toMatch(/--gpus 4,5,6,7 .*\.ranks .*\.verify .*\.control-rank .*\.control$/);
    const ranks = `python3 ${join(TESTS, "fake_ranks.py")}`;
    const faults = { PARTS: "faults", VLLM: ranks, LAZYGRAPH: ranks };
    const second = await many(["4,5,6,7", out as string], { ...env, ...faults });
    // No stranger without a GPU: that case is left, and told.
    expect(second.stderr).toContain("short: can't be run");
    expect(second.stderr).toContain("2 cells, 0 failed, 4 checks, 3 faults, 0 launchers");
    const result = JSON.parse(await readFile(join(out as string, "many.json"), "utf8"));
    // What a stand-in's figures come to says nothing.
    const { cells, environment } = result as ManyResult;
    expect(cells.filter(isStart).map(({ via }) => via)).toEqual(["launcher", "launcher"]);
    expect(environment).toContain("NCCL_NVLS_ENABLE=0");
    expect(manyFindings(result as ManyResult, told).map(({ id }) => id)).toEqual(
      expect.arrayContaining([
        "many.small-tp4.idle.capture-share",
        "many.small-tp4.faults-held",
        "many.small-tp4.rank-control-found",
        "many.small-tp4.tokens-exact",
        "many.small-tp4.longest-stall",
      ]),
    );
    const again = await many(["4,5,6,7", out as string], { ...env, CHECKS: "ranks" });
    expect(again.code).toBe(0);
    expect((await readFile(join(folder, "asked"), "utf8")).trim().split("\n")).toHaveLength(2);
    // Where no launcher can be, and with too little time for what has no estimate.
    const bare = { LAUNCHER_ARGS: "--preload nothing", SECONDS_MAX: "59", PARTS: "starts checks" };
    const other = join(folder, "other");
    const third = await many(["4", other], { ...env, ...bare, CELLS: ".start.0.idle." });
    expect(third.stderr).toContain("left: small-tp4.ranks small-tp4.verify");
    const spawned = JSON.parse(await readFile(join(other, "many.json"), "utf8")) as ManyResult;
    expect(spawned.cells).toMatchObject([{ via: "spawn" }]);
  });
});

test("from a launcher, a start of each family; one that held is not run again", {
  timeout: 300_000,
}, async () => {
  const folder = await temporaryFolder();
  const [out, spec, vllm] = ["out", "spec.json", "vllm"].map((name) => join(folder, name));
  const args = ["-tp", "4", "--gpu-memory-utilization", "0.9"];
  const family = { name: "small-tp4", shape: "small", gpus: 4, args };
  await writeFile(spec as string, JSON.stringify({ families: [family] }));
  await mkdir(join(folder, "models/small"), { recursive: true });
  await writeFile(join(folder, "models/small/tokenizer.json"), "{}");
  await writeFile(vllm as string, `#!${PYTHON}\nimport fake_start\nfake_start.serve()\n`);
  await chmod(vllm as string, 0o755);
  const site = await pluginSite(folder);
  const env = {
    ...{ SPEC: spec, MODELS: join(folder, "models"), PYTHON, VLLM: vllm, RUNS: "1" },
    PYTHONPATH: [join(ROOT, "worker/src"), TESTS, site].join(":"),
    ...{ LAUNCHER_ARGS: "--preload fake_start --main fake_start:serve", PARTS: "launcher" },
  };
  const first = await many(["4", out as string], env);
  expect({ code: first.code, stderr: first.stderr }).toMatchObject({ code: 0 });
  const result: ManyResult = JSON.parse(await readFile(join(out as string, "many.json"), "utf8"));
  expect(manyFindings(result, told).map(({ id }) => id)).toContain(
    "many.small-tp4.forked-lazy.first-token-share",
  );
  expect(result.families[0]?.launcher?.serve).toMatch(/serve \S+ --load-format dummy -tp 4 /);
  const again = await many(["4", out as string], { ...env, VLLM: "/nowhere" });
  expect(again).toMatchObject({ code: 0 });
});

test("its families are on as many GPUs as they have ranks, stock and idle in turns", async () => {
  const text = await readFile(join(ROOT, "bench/gpu/many.json"), "utf8");
  for (const { name, gpus, args, starts } of parseFamilies(JSON.parse(text))) {
    expect(args[args.indexOf("--tensor-parallel-size") + 1]).toBe(String(gpus));
    expect(name).toContain(`-tp${gpus}`);
    expect(starts).toEqual({ stock: 2, idle: 2 });
  }
});

describe("claims", () => {
  const start = (family: string, longestStallMs: number) => {
    const gpus = [...Array(/tp8/.test(family) ? 8 : 4).keys()];
    const cell = { family, kind: "start", arm: "idle", round: 0, gpus };
    return { ...cell, ours: { longestStallMs } } as unknown as StartResult;
  };

  function family(fields: Partial<ManyFamily>): ManyFamily {
    return { family: "dense-70b-tp4", ranks: 4, checks: [], faults: [], ...fields };
  }

  function valuesOf(result: Partial<ManyResult>): Record<string, number> {
    const whole: ManyResult = {
      ...{ what: "many", host: "h", families: [family({})], cells: [], failed: [] },
      ...result,
    };
    return Object.fromEntries(manyFindings(whole, told).map(({ id, value }) => [id, value]));
  }

  test("what was not run claims nothing", () => {
    expect(valuesOf({})).toEqual({});
  });

  test("the longest stall is that of starts and of the fill in traffic, and grows by ranks", () => {
    const ranks = { check: "dense-70b-tp4.ranks", fine: true, longestStallMs: 80 };
    const families = [
      family({ family: "dense-70b-tp8", ranks: 8 }),
      family({ checks: [ranks] }),
      family({ family: "moe-30b-tp4-ep" }),
    ];
    const cells = [
      start("dense-70b-tp4", 60),
      start("dense-70b-tp8", 100),
      start("moe-30b-tp4-ep", 40),
    ];
    expect(valuesOf({ families, cells })).toEqual({
      "many.dense-70b-tp4.longest-stall": 80,
      "many.dense-70b-tp8.longest-stall": 100,
      "many.moe-30b-tp4-ep.longest-stall": 40,
      "many.dense-70b-tp8.stall-growth": 100 / 60,
    });
    // What other campaigns measured on fewer ranks: of a model the most of these.
    const whole = { what: "many", host: "h", families, cells, failed: [] } as const;
    const fewer = stallsOf([{ ...start("moe-30b-ep2", 50), gpus: [0, 1] }]);
    const ofFour = { family: "dense-70b-tp4", ranks: 4, ms: 50 };
    const ofTwo = { family: "dense-70b-tp2", ranks: 2, ms: 40 };
    const growth = (some: readonly Stall[], only: readonly StartResult[]) =>
      manyFindings({ ...whole, families: [], cells: only }, told, some)
        .filter(({ id }) => id.endsWith("growth"))
        .map(({ id, value }) => [id, value]);
    expect(growth(fewer, cells.slice(2))).toEqual([["many.moe-30b-tp4-ep.stall-growth", 0.8]]);
    expect(growth([ofFour, ofTwo], cells.slice(1, 2))).toEqual([
      ["many.dense-70b-tp8.stall-growth", 2],
    ]);
  });

  test("steps that differ are counted, and a check that saw too little is no agreement", () => {
    const steps = { ranks: 4, steps: 900, differ: 2 };
    const checks = [
      { check: "dense-70b-tp4.ranks", fine: false, steps },
      { check: "dense-70b-tp4.control-rank", fine: true },
      { check: "dense-70b-tp4.verify", fine: true, planned: 100, exact: [100, 99, 100, 100] },
    ];
    expect(valuesOf({ families: [family({ checks })] })).toEqual({
      "many.dense-70b-tp4.steps-differ": 2,
      "many.dense-70b-tp4.ranks-agree": 0,
      "many.dense-70b-tp4.rank-control-found": 1,
      "many.dense-70b-tp4.graphs-exact": 0.99,
    });
  });

  test("a rank that hangs is a process left, and a case that does not hold", () => {
    const fault = { case: "oom", holds: true, seconds: 4, left: 0, reason: "why" };
    const faults = [fault, { ...fault, case: "killed", holds: false, seconds: 90, left: 3 }];
    expect(valuesOf({ families: [family({ faults })] })).toEqual({
      "many.dense-70b-tp4.faults-held": 0.5,
      "many.dense-70b-tp4.processes-left": 3,
      "many.dense-70b-tp4.killed-seconds": 90,
    });
  });
});
