/**
 * `BEFORE=CHECKOUT npm run bench:test-time`: the tests of an earlier checkout, there and here. All of
 * its tests run there; here those of the same names, and no others. Writes
 * bench/results/test-time.json.gz; wants a machine with nothing else to do.
 *
 * Hypothesis, against commit 491cc66 on two cores: at most half of the time.
 */

import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { writeResult } from "./lib/result-file.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const SUITE_MS_MAX = 1_800_000;
const PYTHON = join(ROOT, "worker/.venv/bin/python");

interface Suite {
  readonly seconds: number;
  /** Of tests that passed, each once. */
  readonly names: ReadonlySet<string>;
  readonly failed: readonly string[];
}

/** Failed tests are told and not hidden: a suite's exit code is 1 then. */
function seconds(file: string, args: readonly string[], cwd: string): number {
  const began = performance.now();
  const { error } = spawnSync(file, args, { cwd, stdio: "inherit", timeout: SUITE_MS_MAX });
  if (error !== undefined) throw error;
  return (performance.now() - began) / 1000;
}

/** @param root of its checkout: some tests are named by a file's path */
function vitestReport(
  file: string,
  root: string,
): Omit<Suite, "seconds"> & { readonly files: string[] } {
  const { testResults } = JSON.parse(readFileSync(file, "utf8")) as {
    testResults: {
      name: string;
      assertionResults: { ancestorTitles: string[]; title: string; status: string }[];
    }[];
  };
  const files = testResults.map(({ name }) => basename(name));
  const tests = testResults.flatMap(({ assertionResults }) => assertionResults);
  const of = (status: string) =>
    tests
      .filter((test) => test.status === status)
      .map(({ ancestorTitles, title }) => [...ancestorTitles, title].join(" > "))
      .map((name) => name.replaceAll(root, "."));
  return { names: new Set(of("passed")), failed: of("failed"), files };
}

/** A test's name is its file's and its own; the folder may have changed. */
function pytestReport(file: string): Omit<Suite, "seconds"> {
  const cases = readFileSync(file, "utf8").split("<testcase ").slice(1);
  const named = cases.map((text) => {
    const of = (name: string) => new RegExp(`\\b${name}="([^"]*)"`).exec(text)?.[1] ?? "";
    const failed = /<(failure|error)\b/.test(text);
    return { name: `${of("classname").split(".").at(-1)}::${of("name")}`, failed, text };
  });
  return {
    names: new Set(
      named.filter(({ failed, text }) => !failed && !/<skipped\b/.test(text)).map((t) => t.name),
    ),
    failed: named.filter(({ failed }) => failed).map(({ name }) => name),
  };
}

const before = process.env["BEFORE"];
if (before === undefined) {
  console.error("Expected BEFORE to name an earlier checkout with node_modules, got nothing.");
  process.exit(2);
}
const then = resolve(before);
const folder = mkdtempSync(join(tmpdir(), "lazygraph-test-time-"));
try {
  const file = (name: string) => join(folder, name);
  const pytest = (cwd: string, report: string, more: readonly string[]): Suite => {
    const args = ["-m", "pytest", "-q", "-p", "no:cacheprovider", `--junit-xml=${file(report)}`];
    const took = seconds(PYTHON, [...args, ...more], join(cwd, "worker"));
    return { seconds: took, ...pytestReport(file(report)) };
  };

  const vitestArgs = ["run", "--reporter=default", "--reporter=json"];
  const vitestSeconds = seconds(
    join(then, "node_modules/.bin/vitest"),
    [...vitestArgs, `--outputFile.json=${file("then.json")}`],
    then,
  );
  const { files, ...reportThen } = vitestReport(file("then.json"), then);
  const vitestThen: Suite = { seconds: vitestSeconds, ...reportThen };
  const pytestThen = pytest(then, "then.xml", []);

  writeFileSync(file("names.json"), JSON.stringify({ files, names: [...vitestThen.names] }));
  const script = ["--import", "tsx", "bench/lib/old-tests.ts", file("names.json")];
  const nowSeconds = seconds(process.execPath, [...script, file("now.json")], ROOT);
  const { files: _, ...reportNow } = vitestReport(file("now.json"), resolve(ROOT));
  const vitestNow: Suite = { seconds: nowSeconds, ...reportNow };
  // What this checkout's tests are called, then those of the old names.
  // Quieter by one more -q, as in the project's own options, it would count and not name them.
  const list = ["-m", "pytest", "-o", "addopts=", "-q", "--collect-only", "-p", "no:cacheprovider"];
  const collected = execFileSync(PYTHON, list, { cwd: join(ROOT, "worker"), encoding: "utf8" });
  const known = collected.split("\n").filter((line) => {
    const [path = "", ...name] = line.split("::");
    const module = path.split("/").at(-1)?.replace(/\.py$/, "");
    return name.length > 0 && pytestThen.names.has(`${module}::${name.at(-1)}`);
  });
  if (known.length === 0) throw new Error("Expected tests of pytest's that both have, got none.");
  writeFileSync(file("tests.txt"), known.join("\n"));
  const pytestNow = pytest(ROOT, "now.xml", [`@${file("tests.txt")}`]);

  const told = (one: Suite, other: Suite) => {
    const found = [...one.names].filter((name) => other.names.has(name)).length;
    return {
      ...{ tests: one.names.size, found, gone: [...one.names].filter((n) => !other.names.has(n)) },
      ...{ beforeSeconds: one.seconds, nowSeconds: other.seconds },
      ...{ failedBefore: one.failed, failedNow: other.failed },
    };
  };
  const head = execFileSync("git", ["rev-parse", "--short", "HEAD"], { cwd: then });
  const result = {
    ...{ node: process.version, cores: availableParallelism() },
    commitBefore: head.toString().trim(),
    vitest: told(vitestThen, vitestNow),
    pytest: told(pytestThen, pytestNow),
  };
  writeResult(new URL("results/test-time.json.gz", import.meta.url), result);
  for (const [name, suite] of Object.entries({ vitest: result.vitest, pytest: result.pytest })) {
    const { beforeSeconds, nowSeconds: seconds, tests, found } = suite;
    console.log(
      `${name}: ${found} of ${tests} tests, ${beforeSeconds.toFixed(0)} s before, ${seconds.toFixed(0)} s now.`,
    );
  }
} finally {
  rmSync(folder, { recursive: true });
}
