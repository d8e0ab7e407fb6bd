import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../helpers/folder.ts";

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

interface CountsModule {
  fromVitest(path: string): Counts;
  fromJunit(path: string): Counts;
  line(counts: Counts): string;
}

const { fromVitest, fromJunit, line }: CountsModule = await import(
  new URL("../../scripts/counts.mjs", import.meta.url).href
);

async function file(text: string): Promise<string> {
  const path = join(await temporaryFolder(), "report");
  await writeFile(path, text);
  return path;
}

test("vitest's report; a file that couldn't be loaded counts as failed", async () => {
  const report = {
    numTotalTests: 6,
    numPassedTests: 3,
    numFailedTests: 1,
    testResults: [
      { status: "passed", assertionResults: [{}, {}, {}] },
      { status: "failed", assertionResults: [{}, {}, {}] },
      { status: "failed", assertionResults: [] },
    ],
  };
  const counts = fromVitest(await file(JSON.stringify(report)));
  expect(counts).toEqual({ passed: 3, failed: 2, skipped: 2 });
});

test("pytest's report; errors count as failed, all suites are summed", async () => {
  const report = `<?xml version="1.0"?><testsuites name="pytest tests">
    <testsuite name="pytest" errors="1" failures="2" skipped="3" tests="10" time="0.1"></testsuite>
    <testsuite name="other" errors="0" failures="0" skipped="0" tests="4"/>
  </testsuites>`;
  expect(fromJunit(await file(report))).toEqual({ passed: 8, failed: 3, skipped: 3 });
});

test("the line names skipped tests only when there are some", () => {
  expect(line({ passed: 2, failed: 0, skipped: 0 })).toBe("2 passed, 0 failed");
  expect(line({ passed: 2, failed: 1, skipped: 3 })).toBe("2 passed, 1 failed, 3 skipped");
});
