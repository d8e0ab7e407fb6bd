/** Claims: how they are judged, what the documents say of them, and that the list is up to date. */

import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  type Claim,
  type Finding,
  judge,
  latest,
  listOf,
  markedFigures,
  mismatch,
  readList,
  reasonsOf,
} from "../../bench/lib/claims.ts";
import { readResult } from "../../bench/lib/result-file.ts";

const root = new URL("../../", import.meta.url).pathname;
const results = new URL("bench/results/", new URL("../../", import.meta.url));

interface Cell {
  readonly family: string;
  readonly arm: string;
  readonly ours?: { readonly longestStallMs?: number };
}

const FINDING: Finding = {
  ...{ id: "a.share", value: 0.02, interval: [0.019, 0.0213], unit: "of stock's" },
  ...{ limit: 0.03, sense: "atMost", source: "a.json", command: "a.sh" },
};

describe("judge", () => {
  const least: Finding = { ...FINDING, id: "b", sense: "atLeast" };

  test("a value is held against its limit, whichever way it counts", () => {
    expect(judge([least, FINDING], [])).toEqual([
      { ...FINDING, holds: true },
      { ...least, holds: false, unmet: "" },
    ]);
  });

  test.each([
    ["an id twice", [FINDING, FINDING], "got a.share twice"],
    ["no number", [{ ...FINDING, value: Number.NaN }], "Expected a number for a.share"],
  ])("%s is told", (_, findings, sentence) => {
    expect(() => judge(findings, [])).toThrow(sentence);
  });

  test("a reason stays while its claim misses; where one is missing, or needless, is known", () => {
    const before = ["b", "a.share", "gone"].map(
      (id): Claim => ({ ...FINDING, id, holds: false, unmet: `Why ${id}.` }),
    );
    const claims = judge([FINDING, least, { ...least, id: "c" }], before);
    expect(claims.map(({ unmet }) => unmet)).toEqual([undefined, "Why b.", ""]);
    const [, share, gone] = before;
    const missing = [claims[2]];
    expect(reasonsOf(claims, before)).toEqual({ missing, dropped: [share, gone] });
    expect(reasonsOf(claims, claims)).toEqual({ missing, dropped: [] });
  });
});

test("the list has a claim a line, is read again as it was, and otherwise is one sentence", () => {
  const { id: _, interval: __, ...single } = FINDING;
  const claims = judge([{ ...single, limit: 0.01, id: "b" }, FINDING], []);
  const text = listOf(claims);
  expect(text.split("\n")).toEqual([
    "[",
    '{"id":"a.share","value":0.02,"interval":[0.019,0.0213],"unit":"of stock\'s","limit":0.03,' +
      '"sense":"atMost","holds":true,"source":"a.json","command":"a.sh"},',
    '{"id":"b","value":0.02,"unit":"of stock\'s","limit":0.01,' +
      '"sense":"atMost","holds":false,"unmet":"","source":"a.json","command":"a.sh"}',
    ...["]", ""],
  ]);
  expect(readList(text)).toEqual(claims);
  for (const other of ["{}", text.slice(1)]) {
    expect(() => readList(other)).toThrow(
      "Expected a JSON list in claims.json, got something else",
    );
  }
});

test("what was measured again stands, where it is measured later", () => {
  const [earlier, other] = [
    { ...FINDING, value: 0.09 },
    { ...FINDING, id: "b" },
  ];
  expect(latest([earlier, other, FINDING])).toEqual([FINDING, other]);
  expect(latest([FINDING, other, earlier])).toEqual([earlier, other]);
});

describe("figures of documents", () => {
  const [claim] = judge([FINDING], []) as [Claim];

  test.each([
    "| 0.02<!-- claim a.share --> | 1 |",
    "| 7 | 0.020 (0.019–0.021)<!-- claim a.share --> |",
    "takes 0.0200 (0.019 to 0.0213) of it <!-- claim a.share --> and more",
  ])("%s says what the claim does", (text) => {
    const [marked] = markedFigures(text);
    expect(mismatch(marked as never, [claim])).toBeUndefined();
  });

  test.each([
    "0.03<!-- claim a.share -->",
    "0.020 (0.018–0.021)<!-- claim a.share -->",
    "0.020 (0.019–0.022)<!-- claim a.share -->",
    "0.02<!-- claim other -->",
  ])("%s does not", (text) => {
    const [marked] = markedFigures(text);
    expect(mismatch(marked as never, [claim])).toContain("Expected");
  });

  test("a marker without a figure is told", () => {
    expect(() => markedFigures("| none <!-- claim a.share -->")).toThrow("Expected a figure");
  });
});

describe("this repository", () => {
  const claims = readList(readFileSync(join(root, "bench/results/claims.json"), "utf8"));

  test("the list is what its raw results say", () => {
    const command = ["--import", "tsx", "bench/claims.ts", "--check"];
    expect(() =>
      execFileSync(process.execPath, command, { cwd: root, stdio: "pipe" }),
    ).not.toThrow();
  }, 60_000);

  test("README and docs say what the list does", () => {
    const docs = readdirSync(join(root, "docs")).map((file) => join("docs", file));
    const files = ["README.md", ...docs].filter((file) => file.endsWith(".md"));
    const found = files.flatMap((file) => {
      const marked = markedFigures(readFileSync(join(root, file), "utf8"));
      return marked.map((figure) => ({ file, wrong: mismatch(figure, claims) }));
    });
    expect(found.filter(({ wrong }) => wrong !== undefined)).toEqual([]);
    expect(found.length).toBeGreaterThan(10);
  });

  test("README's longest stalls are those of vLLM 0.33, of every idle start", () => {
    const stalls = (file: string, family?: string): number[] => {
      const { cells } = readResult<{ cells: Cell[] }>(new URL(file, results));
      return cells.flatMap(({ family: of, arm, ours }) => {
        const isMeant = arm.startsWith("idle") && (family === undefined || of === family);
        const { longestStallMs } = ours ?? {};
        return isMeant && longestStallMs !== undefined ? [Math.round(longestStallMs)] : [];
      });
    };
    const dense = Math.max(...stalls("v033-families.json.br", "dense-8b"));
    const experts = Math.max(...stalls("v033-families.json.br", "moe-30b"));
    const more = ["more", "again"].flatMap((name) => stalls(`v033-${name}-families.json.br`));
    const readme = readFileSync(join(root, "README.md"), "utf8");
    const said = /\[(\d+) ms on that 8B and (\d+) on that.*?\[(\d+) to (\d+)\]/.exec(readme);
    const wanted = [dense, experts, Math.min(...more), Math.max(...more)];
    expect(said?.slice(1).map(Number)).toEqual(wanted);
    expect(more.length).toBeGreaterThan(8);
  });

  test("README says how many claims there are, and how many hold", () => {
    const said = /(\d+) of (\d+) claims hold/.exec(readFileSync(join(root, "README.md"), "utf8"));
    const held = claims.filter(({ holds }) => holds).length;
    expect(said?.slice(1).map(Number)).toEqual([held, claims.length]);
    // Both kinds are there: the sentence would mean nothing else.
    expect(held).toBeGreaterThan(0);
    expect(held).toBeLessThan(claims.length);
  });
});
