/** What a command says of vLLM's options, however it is written. */

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { takesWordsBehind, vllmOption } from "../../src/cli/vllm-options.ts";
import { temporaryFolder } from "../helpers/folder.ts";

const SERVE = ["vllm", "serve", "M"];

test.for([
  [[...SERVE, "--stream-interval", "4"], "4"],
  [[...SERVE, "--stream_interval", "4"], "4"],
  [[...SERVE, "--stream-interval=4"], "4"],
  [[...SERVE, "--stream_interval=4", "--stream-interval", "5"], "5"],
  // argparse takes the beginning of an option.
  [[...SERVE, "--stream-int", "4"], "4"],
  [[...SERVE, "--stream-interval", "--seed", "1"], ""],
  [[...SERVE, "--stream-interval"], ""],
  [["sh", "-c", "exec vllm serve M --stream-interval 4"], "4"],
  [["/bin/bash", "-lc", "cd x && vllm serve M --stream-interval '4'; echo"], "4"],
  [["docker", "run", "IMAGE", "sh", "-c", 'vllm serve "M N" --stream-interval="4"'], "4"],
  [["sh", "-c", "vllm serve M --stream-interval $N"], "$N"],
  [["sh", "-c", 'exec vllm "$@"', "sh", "--stream-interval", "4"], "4"],
  [SERVE, undefined],
  [[...SERVE, "--stream-intervals", "4"], undefined],
  [[...SERVE, "--st", "4"], undefined],
  [[...SERVE, "stream-interval"], undefined],
] as const)("%j", ([command, value]) => {
  expect(vllmOption(command, "stream-interval")).toBe(value);
});

test.for([
  ["port: 9001\nstream-interval: 4\n", "4"],
  ["stream_interval: '4' # few\r\n", "4"],
  ['"stream-interval": 4   # few', "4"],
  ["# stream-interval: 4\n", undefined],
  ["speculative-config:\n  stream-interval: 4\n", undefined],
  ["stream-interval: 3\nstream-interval: 4\n", "4"],
  ["stream-interval:\n", ""],
] as const)("a file of options with %j", async ([text, value]) => {
  const file = join(await temporaryFolder(), "vllm.yaml");
  await writeFile(file, text);
  expect(vllmOption([...SERVE, "--config", file], "stream-interval")).toBe(value);
  const script = `vllm serve M --config '${file}'`;
  expect(vllmOption(["sh", "-c", script], "stream-interval")).toBe(value);
  // The command line wins.
  const both = [...SERVE, "--stream-interval", "9", "--config", file];
  expect(vllmOption(both, "stream-interval")).toBe("9");
});

test("a file that isn't there, is too large or none of vLLM's says nothing", async () => {
  const folder = await temporaryFolder();
  const [json, large] = [join(folder, "x.json"), join(folder, "large.yaml")];
  await writeFile(json, "port: 1");
  await writeFile(large, `port: 1\n${"#".repeat(1 << 20)}`);
  for (const file of [json, large, folder, "/nowhere/x.yaml"]) {
    expect(vllmOption([...SERVE, "--config", file], "port")).toBeUndefined();
  }
});

test("a script of a shell gets what is put behind it, and mostly passes nothing on", () => {
  expect(takesWordsBehind(SERVE)).toBe(true);
  expect(takesWordsBehind(["sh", "start.sh", "-c", "x"])).toBe(true);
  expect(takesWordsBehind(["sh", "-c", 'vllm serve M "$@"', "sh"])).toBe(true);
  // The first word behind it would be its name.
  expect(takesWordsBehind(["sh", "-c", 'vllm serve M "$@"'])).toBe(false);
  expect(takesWordsBehind(["sh", "-c", "vllm serve M"])).toBe(false);
  expect(takesWordsBehind(["docker", "run", "IMAGE", "bash", "-ec", "vllm serve M"])).toBe(false);
});
