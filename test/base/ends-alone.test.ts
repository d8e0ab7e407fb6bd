import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { endsAlone } from "../../src/base/ends-alone.ts";

test("all that a child wrote is read, and who else holds its output isn't waited for", async () => {
  const script = "printf '%60000s' ''; sleep 1000 & echo $! >&2";
  const asked = promisify(execFile)("/bin/sh", ["-c", script]);
  endsAlone(asked.child);
  const { stdout, stderr } = await asked;
  expect(stdout).toHaveLength(60_000);
  expect(process.kill(Number(stderr))).toBe(true);
});
