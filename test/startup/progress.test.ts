import { readdir, readFile, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { START_PARTS } from "../../src/metrics/catalogue.ts";
import { addToHistory, historyKey, readHistory, STARTS_MAX } from "../../src/startup/history.ts";
import { hasPassed, pastStart, progressOf, START_PHASES } from "../../src/startup/progress.ts";
import { type Begun, readBegun, type Span } from "../../src/startup/spans.ts";
import { temporaryFolder } from "../helpers/folder.ts";

const begun = (name: string, begin: number, pid = 1): Begun => ({ name, begin, pid });
const span = (name: string, begin: number, end: number, pid = 1): Span => ({
  ...{ name, begin, end, pid, detail: {} },
});
const PAST = [
  { readySeconds: 40, began: { imports: 0, weights: 20, captures: 30 } },
  { readySeconds: 44, began: { imports: 0, weights: 22, captures: 32 } },
  { readySeconds: 99, began: { imports: 0, weights: 50, captures: 60 } },
];

test("the phase is what began last and hasn't ended, in whichever process", () => {
  const all = [begun("engine client", 105), begun("weights", 112, 2), begun("device", 110, 2)];
  const ended = [span("device", 110, 111, 2)];
  const at = (now: number) => progressOf(all, ended, [], { spawned: 100, now });
  expect(at(115)).toEqual({
    ...{ phase: "weights", phaseSeconds: 3, elapsedSeconds: 15 },
    ...{ leftSeconds: undefined, pastStarts: 0 },
  });
  // What has begun later by the clock of the asking isn't known yet.
  expect(at(111.5).phase).toBe("engine client");
});

test("before anything is told it is the spawn, between two phases none", () => {
  expect(progressOf([], [], PAST, { spawned: 100, now: 103 })).toMatchObject({
    ...{ phase: "spawn", phaseSeconds: 3, leftSeconds: 41 },
  });
  const imports = [span("imports", 100, 109), span("config", 109, 109.5)];
  expect(progressOf([], imports, [], { spawned: 100, now: 110 })).toMatchObject({
    ...{ phase: "unattributed", phaseSeconds: 0.5, elapsedSeconds: 10 },
  });
  // Past starts are asked by what ended last: weights of the first began at 20, 20 s before ready.
  const weights = [span("weights", 112, 118)];
  const between = progressOf([], weights, PAST.slice(0, 1), { spawned: 100, now: 119 });
  expect(between).toMatchObject({ phase: "unattributed", phaseSeconds: 1, leftSeconds: 13 });
});

test("a phase is no longer than the start, and none that ended before the spawn is named", () => {
  const wrapper = span("wrapper", 98.5, 99.99);
  expect(progressOf([], [wrapper], PAST, { spawned: 100, now: 100.4 })).toMatchObject({
    phase: "spawn",
    phaseSeconds: expect.closeTo(0.4),
    elapsedSeconds: expect.closeTo(0.4),
    leftSeconds: expect.closeTo(43.6),
  });
  // A clock that is off by a little, or a process that was there before.
  const early = progressOf([begun("weights", 99)], [], [], { spawned: 100, now: 101 });
  expect(early).toMatchObject({ phase: "weights", phaseSeconds: 1, elapsedSeconds: 1 });
});

test("no phase is both named as under way and passed", () => {
  const spans = [span("imports", 99, 101), span("weights", 101, 104), span("captures", 104.5, 106)];
  const known = spans.slice(1).map(({ name, begin }) => begun(name, begin));
  const named = new Set<string>();
  for (let now = 100; now < 108; now += 0.25) {
    const ended = spans.filter(({ end }) => end <= now);
    const started = known.filter(({ begin }) => begin <= now);
    const { phase } = progressOf(started, ended, [], { spawned: 100, now });
    expect(hasPassed(started, ended, phase), `${phase} at ${now}`).toBe(false);
    named.add(phase);
  }
  expect([...named]).toEqual(["spawn", "weights", "unattributed", "captures"]);
});

test("what a probe may wait for is what the plugin times and the manual lists", async () => {
  const source = await readFile("worker/src/lazygraph_vllm/timeline/phases.py", "utf8");
  const timed = [...source.matchAll(/Phase\([^()]*?"([A-Za-z -]+)"(?:, leaf=True)?\)/g)];
  const plugin = new Set(["imports", "JIT", ...timed.map(([, name]) => name)]);
  expect(new Set(START_PHASES)).toEqual(plugin);
  const manual = await readFile("docs/startup.md", "utf8");
  const table = manual.slice(manual.indexOf("| phase | what is timed"));
  const rows = table.slice(0, table.indexOf("\n\n")).split("\n").slice(2);
  const listed = rows.flatMap((row) => [...(row.split("|")[1] ?? "").matchAll(/`([^`]+)`/g)]);
  const others = ["spawn", "wrapper", "fork", "command line", "engine process", "unattributed"];
  expect(listed.map(([, name]) => name).toSorted()).toEqual(
    [...START_PHASES, ...others].toSorted(),
  );
  // As metrics only what the server's own processes do, and whatever else there may be.
  const parts = [...START_PHASES, "command line", "engine process", "unattributed", "other"];
  expect(START_PARTS.toSorted()).toEqual(parts.toSorted());
});

test("seconds left count from where the phase began, by the median of past starts", () => {
  // Imports took twice as long as ever: what is to come takes what it took.
  const left = (now: number, past = PAST) =>
    progressOf([begun("weights", 145)], [], past, { spawned: 100, now }).leftSeconds;
  expect(left(145)).toBe(22);
  expect(left(150)).toBe(17);
  expect(left(150, PAST.slice(0, 2))).toBe(16);
  // Longer than any: soon, and never less than nothing.
  expect(left(300)).toBe(0);
});

test("a phase that no past start had tells nothing of the seconds left", () => {
  const progress = progressOf([begun("compile", 110)], [], PAST, { spawned: 100, now: 111 });
  expect(progress).toMatchObject({ leftSeconds: undefined, pastStarts: 3 });
});

test("a phase is passed when it has ended in every process that began it", () => {
  const ranks = [begun("weights", 110, 2), begun("weights", 110.5, 3)];
  expect(hasPassed([], [], "weights")).toBe(false);
  expect(hasPassed(ranks, [span("weights", 110, 120, 2)], "weights")).toBe(false);
  const both = [span("weights", 110, 120, 2), span("weights", 110.5, 121, 3)];
  expect(hasPassed(ranks, both, "weights")).toBe(true);
  // Imports are known from their end on only.
  expect(hasPassed([], [span("imports", 100, 109)], "imports")).toBe(true);
});

test("what a start tells the next one: when each phase first began", () => {
  const spans = [span("imports", 99, 109), span("weights", 112, 115, 3), span("weights", 111, 114)];
  expect(pastStart(spans, 100, 130)).toEqual({
    readySeconds: 30,
    began: { imports: 0, weights: 11 },
  });
});

test("the last starts are kept; a file that is none is as if nothing were known", async () => {
  const file = join(await temporaryFolder(), "starts", "a.json");
  expect(await readHistory(file)).toEqual([]);
  for (let start = 0; start < STARTS_MAX + 3; start++) {
    await addToHistory(file, { readySeconds: start, began: { imports: 0 } });
  }
  const kept = await readHistory(file);
  expect(kept.map(({ readySeconds }) => readySeconds)).toEqual([3, 4, 5, 6, 7, 8, 9, 10]);
  const text = await readFile(file, "utf8");
  for (const damaged of ["{", "[]", text.replace('"readySeconds":5', '"readySeconds":"soon"')]) {
    await writeFile(file, damaged);
    const read = await readHistory(file);
    expect(read.map(({ readySeconds }) => readySeconds)).not.toContain("soon");
    expect(read.length).toBe(damaged.length > 10 ? STARTS_MAX - 1 : 0);
  }
  // Several at once may lose starts, not the file: in containers processes have the same number.
  const start = { readySeconds: 1, began: {} };
  await Promise.all([...Array(8)].map(() => addToHistory(file, start)));
  expect(await readHistory(file)).toContainEqual(start);
});

test("commands that nobody starts any more are forgotten, the oldest first", async () => {
  const folder = await temporaryFolder();
  const start = { readySeconds: 1, began: {} };
  for (const [age, name] of ["oldest", "older", ...Array(254).keys()].entries()) {
    const file = join(folder, `${name}.json`);
    await writeFile(file, "{}");
    await utimes(file, age, age);
  }
  await addToHistory(join(folder, "older.json"), start);
  expect(await readdir(folder)).toHaveLength(256);
  await addToHistory(join(folder, "new.json"), start);
  const names = await readdir(folder);
  expect(names).toHaveLength(256);
  expect(names).toEqual(expect.arrayContaining(["new.json", "older.json", "0.json"]));
  expect(names).not.toContain("oldest.json");
});

test("a file's name goes by all that it was given", () => {
  expect(historyKey(["a", "b"])).toMatch(/^[0-9a-f]{24}$/);
  expect(historyKey(["a", "b"])).not.toBe(historyKey(["a b"]));
});

test("what processes have begun is read from their files, and nothing else", async () => {
  const folder = await temporaryFolder();
  await writeFile(join(folder, "begun-7.jsonl"), '{"name":"weights","begin":5}\n{"name":7}\n{"na');
  await writeFile(join(folder, "spans-7.jsonl"), '{"name":"device","begin":4,"end":5}\n');
  expect(await readBegun(folder)).toEqual([{ name: "weights", begin: 5, pid: 7 }]);
});
