import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";

interface Bill {
  readonly components: readonly { readonly name: string }[];
}

interface Rules {
  unpinned(manifest: object): string[];
  unlistedScripts(manifest: object, lock: object): string[];
  unlicensed(bill: object): string[];
  auditVerdict(text: string): { outcome: string; lines: string[] };
  withPython(bill: object, requirements: readonly string[]): Bill;
  requirementsOf(pyproject: string): string[];
}

const rules: Rules = await import(
  new URL("../../scripts/supply-chain-rules.mjs", import.meta.url).href
);

const read = (path: string): string =>
  readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");

test("every version of package.json is exact, and a range is found", () => {
  expect(rules.unpinned(JSON.parse(read("package.json")))).toEqual([]);
  const manifest = { dependencies: { a: "^1.2.3", b: "1.2.3" }, devDependencies: { c: "latest" } };
  expect(rules.unpinned(manifest)).toEqual([
    "a@^1.2.3 (dependencies)",
    "c@latest (devDependencies)",
  ]);
});

test("a package that runs a script when installed must be named", () => {
  const script = { hasInstallScript: true };
  const packages = {
    "": script,
    "node_modules/a": script,
    "node_modules/b/node_modules/c": script,
  };
  expect(rules.unlistedScripts({ allowScripts: { a: false } }, { packages })).toEqual(["c"]);
});

describe("npm audit", () => {
  test.for([
    ["nothing found", { vulnerabilities: {} }, "passed", []],
    [
      "a moderate hole",
      { vulnerabilities: { a: { name: "a", severity: "moderate", range: "<2" } } },
      "passed",
      ["moderate: a <2"],
    ],
    [
      "a high one",
      { vulnerabilities: { a: { name: "a", severity: "high", range: "*" } } },
      "failed",
      ["high: a *"],
    ],
    [
      "a registry without it",
      { message: "405 Method Not Allowed\nmore", error: { summary: "" } },
      "skipped",
      ["the registry answered no audit: 405 Method Not Allowed"],
    ],
  ] as const)("%s: %j is %s", ([, answer, outcome, lines]) => {
    expect(rules.auditVerdict(JSON.stringify(answer))).toEqual({ outcome, lines });
  });

  test("no JSON at all is no pass", () => {
    expect(rules.auditVerdict("").outcome).toBe("skipped");
  });
});

test("the bill has the plugin's requirements, and who lacks a license is named", () => {
  const requirements = rules.requirementsOf(read("worker/pyproject.toml"));
  expect(requirements).toEqual(["msgspec", "pyzmq>=25"]);
  const one = { name: "x", version: "1.0.0" };
  const bill = rules.withPython({ components: [one] }, requirements);
  expect(bill.components.map(({ name }) => name)).toEqual(["x", "msgspec", "pyzmq"]);
  expect(rules.unlicensed({ components: [one] })).toEqual(["x@1.0.0"]);
});
