import { chmod, mkdir, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import type { Contribution } from "../../src/plan/book.ts";
import { formatPlan, PLAN_BYTES_MAX, parsePlan } from "../../src/plan/check.ts";
import { fingerprintKey } from "../../src/plan/fingerprint.ts";
import { defaultPlanFolder } from "../../src/plan/place.ts";
import type { Plan } from "../../src/plan/plan.ts";
import type { Learned } from "../../src/plan/recorder.ts";
import { PlanStore } from "../../src/plan/store.ts";
import { FakeClock } from "../helpers/fake-clock.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { FINGERPRINT, graph, planOf, traffic } from "./helpers.ts";

const KEY = fingerprintKey(FINGERPRINT);
const NAME = `${KEY}.json`;
const HEAD = { fingerprint: FINGERPRINT, learnedBy: "a test" };

function learnedOf(requestSteps: number): Learned {
  return { traffic: [traffic(4, requestSteps)], graphs: [graph("FULL", 4)] };
}

class Rig {
  readonly clock = new FakeClock();
  readonly problems: string[] = [];
  readonly store: PlanStore;

  constructor(folder: string, readOnly = false) {
    const { clock } = this;
    const onProblem = (sentence: string): void => void this.problems.push(sentence);
    this.store = new PlanStore({ folder, readOnly, clock, onProblem });
  }

  start(learned: Learned | undefined, fresh = true) {
    const contribution: Contribution = { fresh, learned: () => learned };
    return this.store.start(HEAD, contribution);
  }
}

async function readBack(folder: string, name = NAME): Promise<Plan> {
  return parsePlan(await readFile(join(folder, name), "utf8"));
}

/** Waits for the file that a timer writes. */
async function written(folder: string, matches: (plan: Plan) => boolean = () => true) {
  for (;;) {
    const plan = await readBack(folder).catch(() => undefined);
    if (plan !== undefined && matches(plan)) return plan;
    await new Promise((resolve) => setImmediate(resolve));
  }
}

describe("a store", () => {
  test("asks not all starts under way whenever one more begins", async () => {
    const rig = new Rig(await temporaryFolder(), true);
    let asked = 0;
    const learned = (): Learned => {
      asked++;
      return learnedOf(4);
    };
    for (let count = 0; count < 200; count++) rig.store.start(HEAD, { fresh: true, learned });
    // The first 16 ask those before them; with each asking all it would be 19,900.
    expect(asked).toBeLessThan(200);
    rig.clock.advance(6);
    expect(rig.start(learnedOf(4)).plan).toMatchObject({ starts: 200 });
    await rig.store.close();
  });

  test("keeps what one start learned for the next, in a folder that it makes", async () => {
    const folder = join(await temporaryFolder(), "state", "plans");
    const first = new Rig(folder);
    await first.store.refresh();
    expect(first.start(learnedOf(100))).toMatchObject({
      plan: undefined,
      file: join(folder, NAME),
    });
    await first.store.close();
    expect(await readdir(folder)).toEqual([NAME]);

    const second = new Rig(folder);
    await second.store.refresh();
    const { plan } = second.start(learnedOf(100));
    expect(plan).toMatchObject({ starts: 1, traffic: [{ tokens: 4, requestSteps: 100 }] });
    await second.store.close();
    // The first start counts half by now.
    expect(await readBack(folder)).toMatchObject({ starts: 2, traffic: [{ requestSteps: 150 }] });
    expect([...first.problems, ...second.problems]).toEqual([]);
  });

  test("writes soon after an engine has settled, and every two minutes what changed", async () => {
    const folder = await temporaryFolder();
    const rig = new Rig(folder);
    let learned = learnedOf(100);
    const start = rig.store.start(HEAD, { fresh: true, learned: () => learned });
    rig.clock.advance(60);
    start.settled();
    rig.clock.advance(0.9);
    expect(await readdir(folder)).toEqual([]);
    rig.clock.advance(0.2);
    await written(folder);
    learned = learnedOf(200);
    rig.clock.advance(121);
    await written(folder, (plan) => plan.traffic[0]?.requestSteps === 200);
    await rig.store.close();
  });

  test("of one engine that ended and one that comes counts both as starts", async () => {
    const folder = await temporaryFolder();
    const rig = new Rig(folder);
    rig.start(learnedOf(100)).end();
    const second = rig.start(learnedOf(100));
    expect(second.plan).toMatchObject({ starts: 1, traffic: [{ requestSteps: 100 }] });
    second.end();
    second.end();
    await rig.store.close();
    expect(await readBack(folder)).toMatchObject({ starts: 2, traffic: [{ requestSteps: 150 }] });
  });

  test("of two engines at once ages what came before them once", async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, NAME), formatPlan(planOf()));
    const rig = new Rig(folder);
    await rig.store.refresh();
    rig.start(learnedOf(4000));
    rig.start(learnedOf(4000));
    await rig.store.close();
    const plan = await readBack(folder);
    expect(plan.starts).toBe(3);
    expect(plan.traffic.map(({ requestSteps }) => requestSteps)).toEqual([500, 8000, 2000]);
  });

  test("of one engine that stays while hundreds come and go counts every start", async () => {
    const folder = await temporaryFolder();
    const rig = new Rig(folder);
    rig.start(learnedOf(4));
    for (let count = 0; count < 200; count++) rig.start(learnedOf(4)).end();
    await rig.store.close();
    const plan = await readBack(folder);
    expect(plan.starts).toBe(201);
    // Three times 64 became the base of those after them: that is when they began to count less.
    expect(plan.traffic[0]?.requestSteps).toBeLessThan(201 * 4);
    expect(plan.traffic[0]?.requestSteps).toBeGreaterThan(64 * 4);
  });

  test("of an engine that came back from another controller ages nothing", async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, NAME), formatPlan(planOf()));
    const rig = new Rig(folder);
    await rig.store.refresh();
    rig.start(learnedOf(100), false);
    await rig.store.close();
    const plan = await readBack(folder);
    expect(plan.starts).toBe(1);
    expect(plan.traffic.map(({ requestSteps }) => requestSteps)).toEqual([1000, 100, 4000]);
  });

  test("writes nothing where nothing was learned", async () => {
    const folder = await temporaryFolder();
    const rig = new Rig(folder);
    rig.start(undefined);
    await rig.store.close();
    expect(await readdir(folder)).toEqual([]);
  });

  test("finds a plan under any name, the newest of several", async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, "mine.json"), formatPlan(planOf({ starts: 7 })));
    const newer = planOf({ starts: 8, updatedAt: "2026-11-30T00:00:00Z" });
    await writeFile(join(folder, "a.json"), formatPlan(newer));
    await writeFile(join(folder, "notes.txt"), "not a plan");
    const rig = new Rig(folder, true);
    await rig.store.refresh();
    expect(rig.start(undefined)).toMatchObject({
      plan: { starts: 8 },
      file: join(folder, "a.json"),
    });
    expect(rig.problems).toEqual([]);
  });

  test("sees what another controller has written since", async () => {
    const folder = await temporaryFolder();
    const rig = new Rig(folder);
    await rig.store.refresh();
    await writeFile(join(folder, NAME), formatPlan(planOf()));
    await rig.store.refresh();
    expect(rig.start(undefined).plan?.starts).toBe(1);
  });
});

describe("bad files", () => {
  test.each([
    ["half a file", formatPlan(planOf()).slice(0, 200), /expected JSON/],
    ["an empty file", "", /expected JSON, got an empty file/],
    ["a wrong value", formatPlan(planOf({ starts: -1 })), /\$\.starts to be a whole number/],
    [
      "another engine's plan under this name",
      formatPlan(planOf({ fingerprint: { ...FINGERPRINT, model: "another" } })),
      /expected the plan of fingerprint [0-9a-f]{24}, got that of/,
    ],
    ["a huge file", "x".repeat(PLAN_BYTES_MAX + 1), /expected at most \d+ bytes/],
  ])("%s is set aside with a sentence, and replaced", async (_, text, sentence) => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, NAME), text);
    await writeFile(join(folder, `${NAME}.corrupt-1`), "an earlier one");
    const rig = new Rig(folder);
    await rig.store.refresh();
    await rig.store.refresh();
    expect(rig.problems).toHaveLength(1);
    expect(rig.problems[0]).toMatch(sentence);
    expect(rig.problems[0]).toContain(`it is set aside as ${NAME}.corrupt-2.`);
    expect(await readFile(join(folder, `${NAME}.corrupt-2`), "utf8")).toBe(text);
    expect(rig.start(learnedOf(1)).plan).toBeUndefined();
    await rig.store.close();
    expect((await readBack(folder)).starts).toBe(1);
  });

  test("at most nine are kept", async () => {
    const folder = await temporaryFolder();
    const rig = new Rig(folder);
    for (let count = 1; count <= 12; count++) {
      await writeFile(join(folder, NAME), `bad ${count}`);
      await rig.store.refresh();
    }
    expect(await readdir(folder)).toHaveLength(9);
    expect(await readFile(join(folder, `${NAME}.corrupt-9`), "utf8")).toBe("bad 12");
  });

  test("are ignored where plans are read only, and left as they are", async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, NAME), "{");
    const rig = new Rig(folder, true);
    await rig.store.refresh();
    rig.start(learnedOf(1)).end();
    await rig.store.close();
    expect(rig.problems).toEqual([expect.stringMatching(/it is ignored\.$/)]);
    expect(await readFile(join(folder, NAME), "utf8")).toBe("{");
    expect(await readdir(folder)).toEqual([NAME]);
  });

  test("of a newer version are never replaced", async () => {
    const folder = await temporaryFolder();
    const text = formatPlan(planOf()).replace('"lazygraphPlan": 1', '"lazygraphPlan": 3');
    await writeFile(join(folder, NAME), text);
    const rig = new Rig(folder);
    await rig.store.refresh();
    expect(rig.start(learnedOf(1)).plan).toBeUndefined();
    await rig.store.close();
    expect(rig.problems).toEqual([expect.stringMatching(/of a newer version of this package/)]);
    expect(await readFile(join(folder, NAME), "utf8")).toBe(text);
  });

  test("a folder of that name, and a link to nothing, are told and ignored", async () => {
    const folder = await temporaryFolder();
    await mkdir(join(folder, "folder.json"));
    await symlink(join(folder, "nowhere"), join(folder, "link.json"));
    const rig = new Rig(folder);
    await rig.store.refresh();
    expect(rig.problems).toEqual([expect.stringMatching(/folder\.json: expected a file/)]);
  });
});

describe("a place that can't be used", () => {
  test("a file where the folder should be: told once, and nothing fails", async () => {
    const file = join(await temporaryFolder(), "occupied");
    await writeFile(file, "");
    const rig = new Rig(file);
    await rig.store.refresh();
    const start = rig.start(learnedOf(1));
    expect(start.plan).toBeUndefined();
    start.settled();
    rig.clock.advance(500);
    await rig.store.close();
    expect(rig.problems).toEqual([expect.stringMatching(/can be read, got ENOTDIR/)]);
  });

  test.skipIf(process.getuid?.() === 0)("a folder without permission", async () => {
    const folder = await temporaryFolder();
    await chmod(folder, 0o500);
    const rig = new Rig(folder);
    await rig.store.refresh();
    rig.start(learnedOf(1));
    await rig.store.close();
    expect(rig.problems).toEqual([expect.stringMatching(/can be written, got EACCES/)]);
  });

  test("that nothing can be written is told also after many files that are no plans", async () => {
    const folder = join(await temporaryFolder(), "plans");
    await mkdir(folder);
    for (let count = 0; count < 25; count++) await writeFile(join(folder, `${count}.json`), "");
    const rig = new Rig(folder);
    await rig.store.refresh();
    rig.start(learnedOf(1));
    await rm(folder, { recursive: true });
    await writeFile(folder, "");
    await rig.store.close();
    expect(rig.problems).toHaveLength(21);
    expect(rig.problems.at(-1)).toMatch(/can be written, got E/);
  });

  test("a folder that can't be made", async () => {
    const rig = new Rig("/proc/nowhere/plans");
    await rig.store.refresh();
    rig.start(learnedOf(1));
    await rig.store.close();
    expect(rig.problems).toEqual([expect.stringMatching(/can be written, got E[A-Z]+ for/)]);
  });
});

test("plans lie where the user says, else in the state folder", () => {
  expect(defaultPlanFolder({ LAZYGRAPH_PLAN_DIR: "plans" })).toBe("plans");
  expect(defaultPlanFolder({ XDG_STATE_HOME: "/state" })).toBe("/state/lazygraph/plans");
  expect(defaultPlanFolder({ XDG_STATE_HOME: "state" })).toMatch(
    /\.local\/state\/lazygraph\/plans$/,
  );
  expect(defaultPlanFolder({ LAZYGRAPH_PLAN_DIR: "" })).toMatch(/lazygraph\/plans$/);
});

test("without a home folder nothing is made up", () => {
  const { HOME } = process.env;
  onTestFinished(() => {
    if (HOME === undefined) delete process.env["HOME"];
    else process.env["HOME"] = HOME;
  });
  process.env["HOME"] = "";
  expect(() => defaultPlanFolder({})).toThrow(
    expect.objectContaining({
      code: "ERR_LAZYGRAPH_PLAN",
      message: expect.stringMatching(/^Expected a home folder .* set LAZYGRAPH_PLAN_DIR/),
    }),
  );
});
