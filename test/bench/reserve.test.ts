import { readdir, readFile, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { isHeld, reserveCells } from "../../src/bench/reserve.ts";
import type { CellName } from "../../src/bench/spec.ts";
import { openFolder } from "../../src/bench/store.ts";
import { finish, lazygraph } from "../cli/helpers/command.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { quickProfile } from "./helpers/profile.ts";

const cell = (mode: string): CellName => ({ mode, load: "calm", run: 1 });

async function newFolder(): Promise<string> {
  const folder = join(await temporaryFolder(), "out");
  await openFolder(folder);
  return folder;
}

const locks = async (folder: string): Promise<string[]> =>
  (await readdir(join(folder, "runs"))).filter((name) => name.endsWith(".lock"));

test("a cell is run by one, other cells by others, and anybody's once it is given back", async () => {
  const folder = await newFolder();
  const release = await reserveCells(folder, [cell("stock"), cell("idle")]);
  await expect(reserveCells(folder, [cell("lazy"), cell("idle")])).rejects.toMatchObject({
    code: "ERR_LAZYGRAPH_BENCH",
    message: expect.stringMatching(
      /^Expected no other benchmark to run idle\/calm\/1 in ".+", got process \d+ on .+, which does: wait for it, or give another --out\.$/,
    ),
  });
  const other = await reserveCells(folder, [cell("lazy")]);
  await release();
  const again = await reserveCells(folder, [cell("idle")]);
  expect(await locks(folder)).toHaveLength(2);
  await other();
  await again();
  expect(await locks(folder)).toEqual([]);
});

test.each([
  ["of a process that is gone", { began: "1" }, 0, true],
  ["of another host that goes on", { place: "elsewhere" }, 0, false],
  ["of another host that fell silent", { place: "elsewhere" }, 60, true],
])("a lock %s", async (_, change, silentSeconds, isVoid) => {
  const folder = await newFolder();
  const release = await reserveCells(folder, [cell("stock")]);
  const [name = ""] = await locks(folder);
  const file = join(folder, "runs", name);
  const { place, began } = await ownIdentity(file);
  await release();
  const lock = { cells: ["stock~calm~1"], host: "h", pid: process.pid, place, began, ...change };
  await writeFile(file, JSON.stringify(lock));
  const at = Date.now() / 1000 - silentSeconds;
  await utimes(file, at, at);
  const reserving = reserveCells(folder, [cell("stock")]);
  if (!isVoid) return expect(reserving).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_BENCH" });
  const own = await reserving;
  expect(await locks(folder)).not.toContain(name);
  await own();
});

test("a lock that is half written takes no cell, and is kept for its writer", async () => {
  const folder = await newFolder();
  await writeFile(join(folder, "runs", ".1-ab.lock"), '{"cells":["st');
  const release = await reserveCells(folder, [cell("stock")]);
  await release();
  expect(await locks(folder)).toEqual([".1-ab.lock"]);
});

test.for([
  ["a process of this system", { place: "here", began: "7", silentMs: 1e9 }, true],
  ["one whose number is another's now", { place: "here", began: "6", silentMs: 0 }, false],
  ["a system that tells nothing", { place: undefined, began: undefined, silentMs: 29_000 }, true],
  ["such a one, silent", { place: undefined, began: undefined, silentMs: 31_000 }, false],
] as const)("%s", ([, lock, held]) => {
  expect(isHeld(lock, { place: "here", began: "7" })).toBe(held);
});

test("a second bench of the same cells is refused, and none once the first was killed", {
  timeout: 120_000,
}, async () => {
  const folder = join(await temporaryFolder(), "out");
  const profile = await quickProfile();
  const args = ["bench", "--simulated", "--profile", profile, "--quiet", "--out", folder];
  const load = ["--arrivals", "constant", "--request-rate", "2", "--output-len", "4"];
  const long = lazygraph([...args, ...load, "--real-time", "--seconds", "600"]);
  await expect.poll(() => locks(folder).catch(() => [])).toHaveLength(1);
  const second = await finish([...args, ...load, "--seconds", "10"]);
  expect(second.stderr).toMatch(/another --out\. \[ERR_LAZYGRAPH_BENCH\]\n$/);
  expect(second).toMatchObject({ code: 1, stdout: "" });
  const elsewhere = await finish([...args, ...load, "--seconds", "10", "--name", "other"]);
  expect(elsewhere).toMatchObject({ code: 0 });
  const [left = ""] = await locks(folder);
  const { cells } = JSON.parse(await readFile(join(folder, "runs", left), "utf8"));
  const [mode = "", name = "", run] = cells[0].split("~");
  const same = [{ mode, load: name, run: Number(run) }];
  await expect(reserveCells(folder, same)).rejects.toThrow("another --out");
  long.process.kill("SIGKILL");
  await long.finished;
  expect(await locks(folder)).toEqual([left]);
  const release = await reserveCells(folder, same);
  await release();
  expect(await locks(folder)).toEqual([]);
});

async function ownIdentity(file: string): Promise<{ place?: string; began?: string }> {
  return JSON.parse(await readFile(file, "utf8"));
}
