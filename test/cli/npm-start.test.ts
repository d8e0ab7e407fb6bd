import { execFileSync, spawnSync } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/** Other tests, and other runs of them, start programs from there all the time. */
test("a build replaces no file that is as it was", () => {
  const file = join(ROOT, "dist/cli/run.js");
  const before = statSync(file).mtimeMs;
  const { status } = spawnSync("npm", ["run", "--silent", "build:ts"], { cwd: ROOT });
  expect(status).toBe(0);
  expect(statSync(file).mtimeMs).toBe(before);
});

test("`npm start --silent` leaves stdout to the command", () => {
  const { status, stdout } = spawnSync("npm", ["start", "--silent", "--", "--help"], {
    cwd: ROOT,
    encoding: "utf8",
  });
  const own = execFileSync(process.execPath, ["dist/cli/main.js", "demo", "--help"], {
    cwd: ROOT,
    encoding: "utf8",
  });
  expect(own).toMatch(/^Usage: lazygraph demo/);
  expect([status, stdout]).toEqual([0, own]);
});

test("npm prints what npm prints: nothing here turns its output into JSON", () => {
  const settings = readFileSync(join(ROOT, ".npmrc"), "utf8").split("\n");
  expect(settings.filter((line) => /^\s*(json|silent|loglevel)\b/.test(line))).toEqual([]);
});
