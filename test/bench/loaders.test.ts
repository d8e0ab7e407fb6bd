/** The loaders' table in docs/startup.md is that of the raw result. */

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { type LoadersResult, loadersTable } from "../../bench/gpu/lib/loaders-result.ts";
import { readResult } from "../../bench/lib/result-file.ts";

const result = readResult<LoadersResult>(
  new URL("../../bench/results/loaders-h200-8b.json.br", import.meta.url),
);

test("the documentation has the table of the raw result", () => {
  const docs = readFileSync(new URL("../../docs/startup.md", import.meta.url), "utf8");
  expect(docs.replaceAll(/ +/g, " ")).toContain(loadersTable(result).replaceAll(/ +/g, " "));
});

test("a loader is a row, a page cache a column, and what was not run says so", () => {
  const start = (variant: string, cache: "cold" | "warm", seconds: number) => {
    return { variant, cache, phases: [{ name: "weights", seconds }] };
  };
  const starts = [start("a", "cold", 2), start("b", "cold", 3), start("a", "cold", 4)];
  const some = { starts: [...starts, start("b", "warm", 1.25)] } as unknown as LoadersResult;
  expect(loadersTable(some).split("\n").slice(2)).toEqual([
    "| `a` | 2.0, 4.0 | not run |",
    "| `b` | 3.0 | 1.3 |",
  ]);
});
