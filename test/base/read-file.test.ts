import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readRegularFile } from "../../src/base/read-file.ts";
import { readFacts } from "../../src/bench/store.ts";
import { runBench } from "../../src/cli/bench.ts";
import { readClients } from "../../src/cli/key-folder.ts";
import { readSpans } from "../../src/startup/spans.ts";
import { finish } from "../cli/helpers/command.ts";
import { temporaryFolder } from "../cli/helpers/folder.ts";

/** A folder with a pipe that nobody writes into. */
async function piped(name: string): Promise<string> {
  const folder = await temporaryFolder();
  execFileSync("mkfifo", [join(folder, name)]);
  return folder;
}

const REFUSED = /a pipe or a device of that name/;

test("only a regular file of some size is read", async () => {
  expect(() => readRegularFile("/dev/zero", 9)).toThrow(REFUSED);
  expect(() => readRegularFile(import.meta.filename, 9)).toThrow(/bytes, over the limit of 9$/);
  expect(() => readRegularFile("/", 1 << 20)).toThrow("EISDIR");
  expect(readRegularFile(import.meta.filename, 1 << 20).toString()).toContain("readRegularFile");
});

test("nobody waits for a pipe, whichever input it is", async () => {
  const pipe = join(await piped("pipe"), "pipe");
  const load = ["--simulated", "--request-rate=1", "--seconds=1"];
  for (const args of [[`--spec=${pipe}`], [...load, `--sharegpt=${pipe}`]]) {
    const out = join(await temporaryFolder(), "out");
    await expect(runBench([...args, `--out=${out}`, "--quiet"])).rejects.toThrow(REFUSED);
  }
  expect((await finish(["serve", `--config=${pipe}`])).stderr).toMatch(REFUSED);
  await expect(readFacts(await piped("bench.json"))).rejects.toThrow(REFUSED);
  await expect(readSpans(await piped("spans-1.jsonl"))).rejects.toThrow(REFUSED);
  const clients = await piped("clients.keys");
  expect(() => readClients("--keys", clients)).toThrow(REFUSED);
});
