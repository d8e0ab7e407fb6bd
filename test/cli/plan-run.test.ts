import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { closeWithin } from "../../src/cli/close-within.ts";
import { publishProblem } from "../../src/engine/events.ts";
import { readPlan } from "../../src/plan/files.ts";
import { SIMULATED_ENGINE } from "../helpers/built.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { lazygraph, type Running } from "./helpers/command.ts";

const COMMAND = [process.execPath, SIMULATED_ENGINE, "--speed=20", "--handshake-ms=60000"];

/** An engine that fills what it may and is then asked to end. */
async function settledRun(...options: string[]): Promise<{ running: Running; stderr: string }> {
  const running = lazygraph(["run", ...options, "--", ...COMMAND]);
  await running.line("stderr", /is settled/);
  running.process.kill("SIGTERM");
  const { stderr } = await running.finished;
  return { running, stderr };
}

test("`run` keeps what its engine learned, within the rules, and the next one finds it", async () => {
  const folder = join(await temporaryFolder(), "plans");
  const options = [
    "--policy=costed",
    "--init-only",
    "--exclude=PIECEWISE,>8",
    "--pin=FULL:2",
    `--plan-dir=${folder}`,
  ];
  const first = await settledRun(...options);
  expect(first.stderr).toMatch(/settled: .*\(2 of 102 graphs, /);
  const [name = ""] = await readdir(folder);
  const plan = await readPlan(join(folder, name));
  expect(plan).toMatchObject({ starts: 1, simulated: "llama-3.1-8b-h200" });
  const captured = plan.graphs.filter(({ captureMs }) => captureMs !== undefined);
  expect(captured.map(({ id }) => id).sort()).toEqual(["FULL:2", "FULL:8"]);
  await settledRun(...options);
  expect(await readPlan(join(folder, name))).toMatchObject({ starts: 2 });
});

test("a folder that can't be used is one line, and `run` goes on", async () => {
  const file = join(await temporaryFolder(), "occupied");
  await writeFile(file, "");
  const { stderr } = await settledRun("--mode=eager", `--plan-dir=${file}`);
  expect(stderr.match(/\[ERR_LAZYGRAPH_PLAN\]/g)).toHaveLength(1);
  // Before its engine is there.
  expect(stderr).toMatch(/^lazygraph: Expected a folder .*, got ENOTDIR for .* --no-plan\. \[/);
  expect(stderr).toMatch(/settled: .*\(102 of 102 graphs, /);
});

test("what can't be written at the end, when nobody follows engines any more, is told", async () => {
  const told: unknown[][] = [];
  const close = async () => publishProblem("", "ERR_LAZYGRAPH_PLAN", "It is lost.");
  await closeWithin({ close }, (...line) => void told.push(line));
  expect(told).toEqual([["It is lost.", "ERR_LAZYGRAPH_PLAN"]]);
});
