/**
 * Counts of tests, summed over suites that report in their own formats.
 * A suite that ran nothing is a failure: it would otherwise look like success.
 */
import { readFileSync } from "node:fs";

export const NONE = { passed: 0, failed: 0, skipped: 0 };

/** vitest's `--reporter=json`. A file that failed to load has no tests of its own: count it. */
export function fromVitest(path) {
  const report = JSON.parse(readFileSync(path, "utf8"));
  const unloaded = (report.testResults ?? []).filter(
    (file) => file.status === "failed" && file.assertionResults.length === 0,
  ).length;
  const collected = report.numTotalTests;
  const passed = report.numPassedTests;
  const failed = report.numFailedTests;
  return { passed, failed: failed + unloaded, skipped: Math.max(0, collected - passed - failed) };
}

/** pytest's `--junit-xml`: the attributes of each `<testsuite>`. */
export function fromJunit(path) {
  const counts = { ...NONE };
  const text = readFileSync(path, "utf8");
  for (const [tag] of text.matchAll(/<testsuite\s[^>]*>/g)) {
    const attribute = (name) => Number(new RegExp(`\\s${name}="(\\d+)"`).exec(tag)?.[1] ?? 0);
    const failed = attribute("failures") + attribute("errors");
    const skipped = attribute("skipped");
    counts.passed += attribute("tests") - failed - skipped;
    counts.failed += failed;
    counts.skipped += skipped;
  }
  return counts;
}

export function add(a, b) {
  return {
    passed: a.passed + b.passed,
    failed: a.failed + b.failed,
    skipped: a.skipped + b.skipped,
  };
}

/** `N passed, N failed`, and `, N skipped` where something was. */
export function line({ passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`;
}
