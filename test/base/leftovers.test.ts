/** Who listens to a signal decides what it does; what is left over goes when nobody does. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { text } from "node:stream/consumers";
import { expect, onTestFinished, test } from "vitest";
import { MAIN } from "../helpers/built.ts";

const module = (path: string): string => JSON.stringify(join(dirname(MAIN), "..", path));

/** A program that has a folder of its own, says which, and ends when it is told to. */
async function program(before: string, after: string): Promise<[ChildProcess, string]> {
  const script = `
    import { temporaryFolder } from ${module("base/leftovers.js")};
    import { stopSignal } from ${module("cli/stop-signal.js")};
    ${before}
    const folder = await temporaryFolder("lazygraph-leftovers-");
    ${after}
    console.log(folder);
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  const [line] = (await once(child.stdout, "data")) as [Buffer];
  return [child, line.toString().trim()];
}

const STOPPING = `void stopSignal().then(() => setTimeout(() => {
  console.log("ended by itself");
  process.exit(3);
}, 50));`;

test.for([
  ["before it has a folder", STOPPING, ""],
  ["after that", "", STOPPING],
] as const)("one that listens once, from %s, ends by itself", async ([, before, after]) => {
  const [child, folder] = await program(before, after);
  const said = text(child.stdout as NodeJS.ReadableStream);
  child.kill("SIGINT");
  expect(await once(child, "close")).toEqual([3, null]);
  expect(await said).toBe("ended by itself\n");
  expect(existsSync(folder)).toBe(false);
});

test("one that doesn't listen is ended by the signal, and leaves no folder", async () => {
  const [child, folder] = await program("", "");
  expect(existsSync(folder)).toBe(true);
  child.kill("SIGTERM");
  expect(await once(child, "close")).toEqual([null, "SIGTERM"]);
  expect(existsSync(folder)).toBe(false);
});
