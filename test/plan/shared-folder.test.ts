import { readdir, readFile, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { Contribution } from "../../src/plan/book.ts";
import { formatPlan, parsePlan, storable } from "../../src/plan/check.ts";
import { type PlanFiles, planFiles } from "../../src/plan/files.ts";
import { type Fingerprint, fingerprintKey, fingerprintOf } from "../../src/plan/fingerprint.ts";
import type { StoreLimits } from "../../src/plan/folder.ts";
import { addLearned, emptyPlan } from "../../src/plan/merge.ts";
import type { Learned } from "../../src/plan/recorder.ts";
import { PlanStore } from "../../src/plan/store.ts";
import { LIMITS } from "../../src/wire/protocol.ts";
import { FakeClock } from "../helpers/fake-clock.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { FINGERPRINT, graph, planOf, traffic } from "./helpers.ts";

const NAME = `${fingerprintKey(FINGERPRINT)}.json`;
const learnedOf = (requestSteps: number): Learned => ({
  traffic: [traffic(4, requestSteps)],
  graphs: [graph("FULL", 4)],
});

interface More {
  readonly files?: Partial<PlanFiles>;
  readonly limits?: StoreLimits;
}

function open(folder: string, { files, limits }: More = {}) {
  const clock = new FakeClock();
  const problems: string[] = [];
  const store = new PlanStore({
    folder,
    readOnly: false,
    clock,
    onProblem: (sentence) => void problems.push(sentence),
    files: { ...planFiles, ...files },
    ...(limits === undefined ? {} : { limits }),
  });
  const start = (learned: () => Learned, fingerprint: Fingerprint = FINGERPRINT) => {
    const contribution: Contribution = { fresh: true, learned };
    return store.start({ fingerprint, learnedBy: "a test" }, contribution);
  };
  return { clock, store, problems, start };
}

async function planIn(folder: string) {
  return parsePlan(await readFile(join(folder, NAME), "utf8"));
}

/** Lets a timer's save end, lock included: who meets one waits by a clock that stands. */
async function saved(folder: string, requestSteps: number): Promise<void> {
  for (;;) {
    const plan = await planIn(folder).catch(() => undefined);
    const locks = (await readdir(folder)).filter((name) => name.endsWith(".lock"));
    if (plan?.traffic[0]?.requestSteps === requestSteps && locks.length === 0) return;
    await new Promise((resolve) => setImmediate(resolve));
  }
}

describe("two controllers and one folder", () => {
  test("each adds to what the other wrote, and counts nothing twice", async () => {
    const folder = await temporaryFolder();
    const [a, b] = [open(folder), open(folder)];
    await Promise.all([a.store.refresh(), b.store.refresh()]);
    const steps = { a: 100, b: 1000 };
    a.start(() => learnedOf(steps.a));
    b.start(() => learnedOf(steps.b));
    a.clock.advance(121);
    await saved(folder, 100);
    // It had read nothing of that: as a second start it halves the first.
    b.clock.advance(121);
    await saved(folder, 1050);
    steps.a = 150;
    a.clock.advance(121);
    await saved(folder, 1100);
    steps.b = 1500;
    b.clock.advance(121);
    await saved(folder, 1600);
    await Promise.all([a.store.close(), b.store.close()]);
    expect(await planIn(folder)).toMatchObject({ starts: 2 });
    expect([...a.problems, ...b.problems]).toEqual([]);
    expect(await readdir(folder)).toEqual([NAME]);
  });

  test("a file that a newer version wrote meanwhile is left alone", async () => {
    const folder = await temporaryFolder();
    const { store, start, problems } = open(folder);
    await store.refresh();
    start(() => learnedOf(1));
    const text = formatPlan(planOf()).replace('"lazygraphPlan": 1', '"lazygraphPlan": 3');
    await writeFile(join(folder, NAME), text);
    await store.close();
    expect(await readFile(join(folder, NAME), "utf8")).toBe(text);
    expect(problems).toEqual([expect.stringMatching(/left as it is\.$/)]);
  });

  test("one that was damaged meanwhile is set aside", async () => {
    const folder = await temporaryFolder();
    const { store, start } = open(folder);
    await store.refresh();
    start(() => learnedOf(1));
    await writeFile(join(folder, NAME), "{");
    await store.close();
    expect((await readdir(folder)).sort()).toEqual([NAME, `${NAME}.corrupt-1`]);
  });

  test("one that can't be read any more is not replaced", async () => {
    const folder = await temporaryFolder();
    const read = async () => {
      throw Object.assign(new Error("input/output error"), { code: "EIO" });
    };
    const { store, start, problems } = open(folder, { files: { read } });
    const text = formatPlan(planOf());
    await writeFile(join(folder, NAME), text);
    start(() => learnedOf(1));
    await store.close();
    expect(await readFile(join(folder, NAME), "utf8")).toBe(text);
    expect(problems).toEqual([expect.stringMatching(/can be read, got EIO/)]);
  });

  test.for([
    ["when it ended", -60_000],
    ["before its clock went back", 60_000],
  ] as const)("a lock that a process left %s is void after half a minute", async ([, ms]) => {
    const folder = await temporaryFolder();
    const lock = join(folder, `.${NAME}.lock`);
    await writeFile(lock, "");
    expect(await planFiles.lock(folder, NAME)).toBeUndefined();
    const at = new Date(Date.now() + ms);
    await utimes(lock, at, at);
    await writeFile(join(folder, `.${NAME}.7-abcd.tmp`), "{");
    const release = await planFiles.lock(folder, NAME);
    expect(await planFiles.lock(folder, NAME)).toBeUndefined();
    await release?.();
    expect(await readdir(folder)).toEqual([]);
  });
});

describe("limits", () => {
  const fingerprint = (model: string): Fingerprint => ({ ...FINGERPRINT, model });

  test("of files: what was used the longest ago goes, and never what is in use", async () => {
    const folder = await temporaryFolder();
    const limits = { files: 3, fileBytes: 1 << 30, readBytes: 1 << 30 };
    for (let place = 0; place < 6; place++) {
      const own = open(folder, { limits });
      own.start(() => learnedOf(1), fingerprint(`model ${place}`));
      await own.store.close();
      const name = `${fingerprintKey(fingerprint(`model ${place}`))}.json`;
      const at = new Date(Date.now() - (10 - place) * 1000);
      await utimes(join(folder, name), at, at);
    }
    await writeFile(join(folder, "mine.json"), "the user's own");
    const last = open(folder, { limits });
    // The oldest that is left is used again, and stays.
    last.start(() => learnedOf(1), fingerprint("model 3"));
    last.start(() => learnedOf(1), fingerprint("model 6"));
    await last.store.close();
    const kept = ["model 3", "model 5", "model 6"].map((name) => fingerprintKey(fingerprint(name)));
    expect(new Set(await readdir(folder))).toEqual(
      new Set([...kept.map((key) => `${key}.json`), "mine.json"]),
    );
  });

  test("of memory: a plan that was forgotten is read again before it is written over", async () => {
    const folder = await temporaryFolder();
    const limits = { files: 100, fileBytes: 1 << 30, readBytes: 4000 };
    for (const model of ["a", "b", "c", "d"]) {
      const first = open(folder);
      first.start(() => learnedOf(100), fingerprint(model));
      await first.store.close();
    }
    const { store, start } = open(folder, { limits });
    await store.refresh();
    for (const model of ["a", "b", "c", "d"]) start(() => learnedOf(100), fingerprint(model));
    await store.close();
    for (const model of ["a", "b", "c", "d"]) {
      const file = join(folder, `${fingerprintKey(fingerprint(model))}.json`);
      expect(parsePlan(await readFile(file, "utf8")), model).toMatchObject({ starts: 2 });
    }
  });

  test("of time: a disk that doesn't answer holds up no closing, and nothing is written after", async () => {
    const folder = await temporaryFolder();
    let answer = (): void => {};
    const hung = new Promise<void>((resolve) => {
      answer = resolve;
    });
    const written: string[] = [];
    const { store, start, clock, problems } = open(folder, {
      files: {
        lock: async () => {
          await hung;
          return async () => undefined;
        },
        write: async (_folder, name) => void written.push(name),
      },
    });
    start(() => learnedOf(1));
    start(() => learnedOf(1), fingerprint("another"));
    let closed = false;
    const closing = store.close().then(() => {
      closed = true;
    });
    clock.advance(1.9);
    await new Promise((resolve) => setImmediate(resolve));
    expect(closed).toBe(false);
    clock.advance(0.2);
    await closing;
    expect(problems).toEqual([expect.stringMatching(/learned within 2 s, but .* it is lost\.$/)]);
    answer();
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
    expect(written).toEqual([]);
  });
});

describe("what an engine may tell can be stored", () => {
  const text = `\u0000\n${"日".repeat(LIMITS.idChars - 2)}`;
  const graphs = Array.from({ length: LIMITS.graphs }, (_, place) => ({
    id: `${String(place).padStart(4, "0")}${"日".repeat(LIMITS.idChars - 4)}`,
    kind: "FULL" as const,
    tokens: place + 1,
    // A case of its own each: more kinds of sizes than any real engine has.
    loras: place,
  }));

  test("names without a character that a file takes, 256 GPUs, 4,096 cases", () => {
    const hello = {
      vllmVersion: "",
      pluginVersion: text,
      model: text.repeat(16),
      tensorParallel: LIMITS.ranks,
      pipelineParallel: 1,
    };
    const ranks = Array.from({ length: LIMITS.ranks }, (_, rank) => ({
      gpuName: `${rank}`.padEnd(LIMITS.idChars, "日"),
    }));
    const fingerprint = fingerprintOf(hello, { cudagraphMode: "", graphs, ranks });
    const createdAt = new Date(0).toISOString();
    const learned: Learned = {
      traffic: graphs.map(({ tokens, loras }) => traffic(tokens, 1e300, { loras })),
      graphs: graphs.map((entry) => ({ ...graph("FULL", entry.tokens), ...entry })),
      load: { seconds: Number.POSITIVE_INFINITY, workSeconds: Number.NaN },
    };
    const plan = storable(
      addLearned(emptyPlan({ fingerprint, createdAt, learnedBy: "a test" }), [learned], 1),
    );
    const back = parsePlan(formatPlan(plan));
    expect(back.fingerprint).toEqual(fingerprint);
    expect(back.graphs).toHaveLength(LIMITS.graphs);
    expect(back.load).toEqual({ seconds: 1e15, workSeconds: 0 });
  });

  test.for([
    ["a sum beyond all numbers", { replays: Number.POSITIVE_INFINITY }, { replays: 1e15 }],
    ["no number at all", { stepSeconds: Number.NaN }, { stepSeconds: 0 }],
    ["a capture of months", { captureMs: 1e12 }, { captureMs: 86_400_000 }],
  ] as const)("%s is held to what a file takes", ([, told, stored]) => {
    const plan = storable(planOf({ graphs: [graph("FULL", 1, told)], first: [] }));
    expect(parsePlan(formatPlan(plan)).graphs[0]).toMatchObject(stored);
  });
});
