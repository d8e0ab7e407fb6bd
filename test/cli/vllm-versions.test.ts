import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import {
  triedVersions,
  versionsInShort,
  versionsMarkdown,
  versionsText,
  vllmVersions,
} from "../../src/cli/vllm-versions.ts";
import { finish } from "./helpers/command.ts";

const TABLE = {
  versions: [
    {
      vllm: "1.0.0",
      lazily: ["dense models", "LoRA"],
      gpus: ["NVIDIA H200"],
      asStock: [
        { what: ["hybrid models", "Ray"], why: "not tried" },
        { what: ["microbatches"], why: "goes wrong" },
      ],
    },
    { vllm: "1.1.0", lazily: [], gpus: [], asStock: [{ what: ["everything"], why: "too new" }] },
  ],
  otherVersions: "unknown",
  always: ["sleep mode", "offloading"],
};

test("a table for a terminal", () => {
  expect(versionsText(TABLE).split("\n")).toEqual([
    "1.0.0   lazily  dense models, LoRA (NVIDIA H200)",
    "        stock   hybrid models, Ray: not tried",
    "        stock   microbatches: goes wrong",
    "1.1.0   stock   everything: too new",
    "other   stock   everything: unknown",
    "all     stock   sleep mode, offloading",
  ]);
});

test("what runs as stock is told to the end", () => {
  const text = versionsText(vllmVersions());
  for (const name of vllmVersions().always) expect(text).toContain(name);
  expect(text).not.toContain("...");
});

test("a version is tried when something was", () => {
  expect(triedVersions(TABLE)).toEqual(["1.0.0"]);
  expect(triedVersions(vllmVersions()).length).toBeGreaterThan(0);
});

test("the documentation has the table that the plugin's lists make", async () => {
  const page = await readFile(new URL("../../docs/vllm-versions.md", import.meta.url), "utf8");
  expect(page).toContain(`\n\n${versionsMarkdown(vllmVersions())}\n\n`);
});

test("a short one still has every version, what was tried, what is left alone and why", () => {
  const always = Array.from({ length: 9 }, (_, at) => `feature number ${at}`);
  const short = versionsInShort({ ...TABLE, always });
  expect(short.split("\n")).toEqual([
    ...versionsText(TABLE).split("\n").slice(0, -1),
    "all     stock   feature number 0, feature number 1, feature number 2 and 6 more",
  ]);
  for (const line of versionsInShort(vllmVersions()).split("\n")) {
    expect(line.length).toBeLessThan(120);
  }
});

test("doctor prints it in short or as a whole, and has it in its document", async () => {
  const args = ["doctor", "--for", "serve"];
  const text = await finish(args);
  expect(text.code).toBe(0);
  expect(text.stdout.startsWith(`${versionsInShort(vllmVersions())}\n(`)).toBe(true);
  const whole = await finish([...args, "--versions"]);
  expect(whole.stdout.startsWith(`${versionsText(vllmVersions())}\n\n`)).toBe(true);
  const json = await finish([...args, "--json"]);
  expect(JSON.parse(json.stdout)).toMatchObject({ vllm: vllmVersions() });
});
