import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { RUN_OPTIONS } from "../../src/cli/run-options.ts";
import { SERVE_OPTIONS } from "../../src/cli/serve.ts";
import { resolveOptions } from "../../src/controller/options.ts";
import { MEMORY_OPTION_NAMES } from "../../src/memory/options.ts";
import { ROOT } from "../package/packed.ts";

const page = readFileSync(join(ROOT, "docs", "configuration.md"), "utf8");
/** Presets are no options: their table is held to the presets in test/cli/presets.test.ts. */
const withoutPresets = page.replace(/\n## Presets\n.*?(?=\n## )/s, "");
/** Table rows as cells. */
const rows = withoutPresets
  .split("\n")
  .filter((line, index, lines) => /^\| [`–]/.test(line) && !/^\|-/.test(lines[index + 1] ?? ""))
  .map((line) =>
    line
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );

function named(pattern: RegExp, cells: readonly (string | undefined)[]): string[] {
  return [...new Set(cells.flatMap((cell) => [...(cell ?? "").matchAll(pattern)].map(([n]) => n)))];
}

test("lists every option of the controller, and none else", () => {
  // An unknown option's sentence names all known ones.
  let sentence = "";
  try {
    resolveOptions({ zzzzzzzz: 1 } as object);
  } catch (error) {
    sentence = (error as Error).message;
  }
  const known = (/known are (.*)\.$/.exec(sentence)?.[1] ?? "").split(", ");
  const expected = known.flatMap((name) =>
    name === "memory" ? MEMORY_OPTION_NAMES.map((option) => `memory.${option}`) : [name],
  );
  const listed = named(
    /(?<=^`)[a-z][A-Za-z.]+(?=`$)/g,
    rows.map(([cell]) => cell),
  );
  expect(listed.sort()).toEqual(expected.sort());
});

test("lists every option of run and serve, and none else", () => {
  const expected = [...new Set([...Object.keys(RUN_OPTIONS), ...Object.keys(SERVE_OPTIONS)])];
  const listed = named(/(?<=`--)[a-z-]+(?=`)/g, rows.flat());
  expect(listed.sort()).toEqual(expected.sort());
});

test("names every variable that either side reads, and none else", () => {
  const read = (folder: string, extension: string) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(extension))
      .map((name) => readFileSync(join(ROOT, folder, name), "utf8"))
      .join("\n");
  const source = `${read("src", ".ts")}\n${read("worker/src", ".py")}`;
  const used = new Set(
    // A `code` is no variable.
    [...source.matchAll(/(?<!code: )["'](LAZYGRAPH_[A-Z_]+)["']/g)].map(([, name]) => name ?? ""),
  );
  const listed = new Set([...page.matchAll(/`(LAZYGRAPH_[A-Z_]+)(?:=1)?`/g)].map(([, n]) => n));
  expect([...listed].sort()).toEqual([...used].sort());
});

test("says first what lazy and idle mode cost, in the figures of the benchmarks", () => {
  const [, first] = page.split("\n\n");
  expect(first).toMatch(
    /^> \*\*Read first\.\*\* Lazy and idle mode make time to first token \*less/,
  );
  const benchmarks = readFileSync(join(ROOT, "docs", "benchmarks.md"), "utf8");
  const stalls = /^\| longest stall after ready.*\| 0 \| (.*) \| (.*) \|$/m.exec(benchmarks);
  expect(stalls?.slice(1)).toEqual(["47 (38–55); 60", "53 (45–61); 66"]);
  expect(first).toContain(
    "47 ms in lazy mode (mean of five starts, 95% interval 38 to 55; the worst start 60)",
  );
  expect(first).toContain("53 ms in idle mode (45 to 61; 66)");
  expect(first).toContain("1.004 (0.993 to 1.015) times stock's");
  // Its claim stands in a comment between the figure and the end of its cell.
  expect(benchmarks).toMatch(/^\| idle, settled \| 1\.004 \(0\.993–1\.015\)(<!-- .*? -->)? \|/m);
});
