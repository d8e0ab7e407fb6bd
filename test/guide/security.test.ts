import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { ROOT } from "../package/packed.ts";

const page = readFileSync(join(ROOT, "docs", "security.md"), "utf8");
const rows = [...page.matchAll(/^\| [^|]+ \| ([\d,.]+) \| `([^`]+)` `([A-Za-z_]+)` \|$/gm)].map(
  ([, value = "", file = "", name = ""]) => ({
    value: Number(value.replaceAll(",", "")),
    file,
    name,
  }),
);

/** A constant or field of the source: a number, or a product or shift of some. */
function numberOf(file: string, name: string): number {
  const source = readFileSync(join(ROOT, file), "utf8");
  const found = new RegExp(`\\b${name}(?:: number)?(?: =|:) ([\\d_.<* ]+)[;,\\n]`).exec(
    source,
  )?.[1];
  if (found === undefined) throw new Error(`Expected a number for ${name} in ${file}, got none.`);
  const [first = Number.NaN, ...rest] = found.replaceAll("_", "").split(/<<|\*/).map(Number);
  return found.includes("<<") ? first << (rest[0] ?? 0) : rest.reduce((a, b) => a * b, first);
}

test("the table has limits, each in the right shape", () => {
  const [, table = ""] = page.split("## Limits");
  const lines = table.split("\n## ")[0]?.match(/^\| (?!of |-)/gm) ?? [];
  expect(rows.length).toBeGreaterThan(20);
  expect(rows).toHaveLength(lines.filter((line) => line !== "|---").length);
});

test("the attack on the socket has the raw result's figures", () => {
  const raw = JSON.parse(readFileSync(join(ROOT, "bench/results/trust-socket.json"), "utf8")) as {
    rows: {
      build: string;
      missedHeartbeats: number;
      longestSilenceMs: number;
      answered: number;
      probes: number;
      healthzP99Ms: number;
      sigtermMs: number;
    }[];
  };
  const [before, now] = ["before", "this"].map((build) =>
    raw.rows.find((row) => row.build === build),
  );
  if (before === undefined || now === undefined) throw new Error("a row is missing");
  const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;
  expect(page).toContain(
    `silent for ${seconds(before.longestSilenceMs)}, ${before.answered} of ${before.probes} probes ` +
      `was answered within 10 s, and a SIGTERM took ${seconds(before.sigtermMs)}`,
  );
  expect(now.missedHeartbeats).toBe(0);
  expect(page).toContain(
    `${now.answered} of ${now.probes} probes were answered with p99 ` +
      `${now.healthzP99Ms.toFixed(0)} ms, and the SIGTERM took ${now.sigtermMs.toFixed(0)} ms`,
  );
});

test.for(rows)("$file has $name = $value", ({ value, file, name }) => {
  expect(numberOf(file, name)).toBe(value);
});

test("the figures are those of the raw result", () => {
  const raw = JSON.parse(readFileSync(join(ROOT, "bench/results/trust-http.json"), "utf8")) as {
    rows: {
      build: string;
      attack: string;
      answered: number;
      firstAnswerMs: number;
      p99Ms: number;
    }[];
  };
  const row = (build: string, attack: string) => {
    const found = raw.rows.find((entry) => entry.build === build && entry.attack === attack);
    if (found === undefined) throw new Error(`no row of ${build}, ${attack}`);
    return found;
  };
  const before = `${(row("before", "silent").firstAnswerMs / 1000).toFixed(1)} s`;
  expect(row("before", "renewed").answered).toBe(0);
  const after = `${row("this", "silent").firstAnswerMs.toFixed(0)} ms`;
  const { answered, p99Ms } = row("this", "renewed");
  expect(page).toContain(
    `before these limits the first answer came after ${before}, and none of 300`,
  );
  expect(page).toContain(
    `now after ${after}, and ${answered} of 300 with p99 ${p99Ms.toFixed(0)} ms`,
  );
});

test("what the pages link to is there", () => {
  for (const [file, folder] of [
    ["docs/security.md", "docs"],
    ["SECURITY.md", "."],
  ] as const) {
    const text = readFileSync(join(ROOT, file), "utf8");
    const links = [...text.matchAll(/\]\(([^)#]+)(?:#[^)]*)?\)/g)].map(([, link = ""]) => link);
    expect(links.length).toBeGreaterThan(0);
    for (const link of links) expect(existsSync(join(ROOT, folder, link)), link).toBe(true);
  }
});
