/**
 * bench/gpu/launcher.sh with a stand-in for vLLM: that its parts measure what they should, and that
 * one that fails costs none of the others. Its figures say nothing of a GPU.
 */

import { execFile } from "node:child_process";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import type { LauncherResult } from "../../bench/gpu/lib/start-result.ts";
import { startupFindings } from "../../bench/lib/claims-startup.ts";
import { pluginSite } from "../cli/helpers/plugin-site.ts";
import { temporaryFolder } from "../helpers/folder.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const PYTHON = join(ROOT, "worker/.venv/bin/python");
const MINUTES = 60_000;

interface Ran {
  readonly code: number;
  readonly out: string;
  readonly stderr: string;
}

async function script(parts: string, more: Readonly<Record<string, string>> = {}): Promise<Ran> {
  const folder = await temporaryFolder();
  const site = await pluginSite(folder);
  await mkdir(join(folder, "bin"));
  const vllm = join(folder, "bin", "vllm");
  await writeFile(vllm, `#!${PYTHON}\nimport fake_start\nfake_start.serve()\n`);
  await chmod(vllm, 0o755);
  const env = {
    ...process.env,
    PYTHONPATH: [join(ROOT, "worker/src"), join(ROOT, "worker/tests"), site].join(":"),
    ...{ MODEL: "MODEL", VLLM: vllm, PYTHON, SERVE_ARGS: "--gpu-memory-utilization 0.9" },
    LAUNCHER_ARGS: "--preload fake_start --main fake_start:serve",
    ...{ RUNS: "1", CACHES_RUNS: "1", STARTS: "1", KILL_AFTER: "0.3", PARTS: parts },
    ...{ FAKE_COMPILE_SECONDS: "1", ...more },
  };
  const out = join(folder, "out");
  return new Promise((resolve) => {
    const command = join(ROOT, "bench/gpu/launcher.sh");
    execFile(command, [out], { env, timeout: 5 * MINUTES }, (error, _, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code ?? -1), out, stderr });
    });
  });
}

function summary(out: string): Promise<LauncherResult> {
  const words = ["--import", "tsx", join(ROOT, "bench/gpu/launcher-summary.ts")];
  return new Promise((resolve, reject) => {
    const command = [...words, "stand-in", "a host", out];
    execFile(process.execPath, command, { cwd: ROOT }, (error, stdout) => {
      if (error === null) resolve(JSON.parse(stdout) as LauncherResult);
      else reject(error);
    });
  });
}

test("all parts measure, and what they found are claims", { timeout: 6 * MINUTES }, async () => {
  const { code, out, stderr } = await script("compare checks caches");
  expect({ code, stderr }).toMatchObject({ code: 0 });
  const result = await summary(out);
  expect(result.parts.map(({ part, state }) => `${part} ${state}`)).toEqual([
    ...["compare held", "checks held", "caches held"],
  ]);
  const compared = result.comparison?.starts.map(({ variant }) => variant);
  expect(compared).toEqual(["stock", "forked-lazy", "lazy", "forked"]);
  expect(result.checks?.tokens).toMatchObject({ starts: 1, equal: 1 });
  expect(result.checks?.killed?.cases).toHaveLength(1);
  // Compiled where the caches are empty, and nowhere else.
  const compiling = Object.fromEntries(
    (result.caches?.starts ?? []).map(({ variant, phases }) => [
      variant,
      (phases.find(({ name }) => name === "compile")?.seconds ?? 0) >= 1,
    ]),
  );
  expect(compiling).toEqual({
    ...{ "forked-pack": false, "forked-empty": true },
    ...{ "spawned-pack": false, "spawned-empty": true },
  });
  const found = new Map(
    startupFindings(result, { source: "", command: "" }).map(({ id, value }) => [id, value]),
  );
  expect(found.get("startup.stand-in.forked-tokens-equal")).toBe(1);
  expect(found.get("startup.stand-in.zombies")).toBe(0);
  expect(found.get("startup.stand-in.pack.spawned-saved")).toBeTypeOf("number");
  expect(found.get("startup.stand-in.forked-lazy.first-token-share")).toBeTypeOf("number");
});

test("without a launcher stock is measured all the same, and the parts that need one are told", async () => {
  const broken = { LAUNCHER_ARGS: "--preload no_such_module" };
  const { code, out, stderr } = await script("checks compare", broken);
  expect(code).toBe(1);
  expect(stderr).toContain("no_such_module");
  expect(stderr).toMatch(/failed: checks compare\n$/);
  const result = await summary(out);
  expect(result.checks).toBeUndefined();
  // What was to be forked was spawned, which is why the part is no measurement of it.
  expect(result.parts).toMatchObject([{ state: "failed" }, { state: "failed" }]);
  expect(result.comparison?.starts.map(({ variant }) => variant)).toEqual(["stock", "lazy"]);
  expect(await readFile(join(out, "forked-lazy-1.log"), "utf8")).toContain(
    "Not forked but spawned",
  );
}, 120_000);
