/** Set up in each file by old-tests.ts: skips the tests that are not in the list. */

import { readFileSync } from "node:fs";
import { beforeEach, type TestContext } from "vitest";

const list = process.env["OLD_TESTS"] ?? "";
const names = new Set((JSON.parse(readFileSync(list, "utf8")) as { names: string[] }).names);

function nameOf({ task }: TestContext): string {
  const titles = [task.name];
  for (let suite = task.suite; suite !== undefined; suite = suite.suite) titles.unshift(suite.name);
  return titles.join(" > ").replaceAll(process.cwd(), ".");
}

beforeEach((context) => {
  if (!names.has(nameOf(context))) context.skip();
});
