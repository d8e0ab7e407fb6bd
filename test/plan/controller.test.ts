import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { type Controller, createController } from "../../src/controller/controller.ts";
import type { ControllerOptions } from "../../src/controller/options.ts";
import { onEvent } from "../../src/engine/events.ts";
import { createHttpServer } from "../../src/http/server.ts";
import { readPlan } from "../../src/plan/files.ts";
import type { PolicyContext } from "../../src/schedule/choice.ts";
import { createPolicy } from "../../src/schedule/modes/modes.ts";
import type { EngineEvent } from "../../src/schedule/policy.ts";
import { startSimulatedEngine } from "../../src/sim/live/child.ts";
import { EventLog } from "../helpers/events.ts";
import { type FakeEngineOptions, plan as graphsOf } from "../helpers/fake-engine.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { joinEngine, startController } from "../helpers/joined.ts";
import { listening } from "../helpers/listening.ts";

function started(options: ControllerOptions): Promise<Controller> {
  return startController({ endpoint: "tcp://127.0.0.1:0", heartbeatMs: 50, ...options });
}

async function settledEngine(controller: Controller, options?: FakeEngineOptions) {
  const engine = await joinEngine(controller, options);
  await controller.waitForEngine({ engine: engine.hello.engine, settled: true });
  return engine;
}

/** The one plan file of a folder. */
async function onlyPlan(folder: string) {
  const names = await readdir(folder);
  expect(names).toHaveLength(1);
  return readPlan(join(folder, names[0] ?? ""));
}

test("a user without a home folder gets a controller without plans, and one problem says so", async () => {
  const { HOME, XDG_STATE_HOME } = process.env;
  onTestFinished(() => {
    if (HOME === undefined) delete process.env["HOME"];
    else process.env["HOME"] = HOME;
    process.env["XDG_STATE_HOME"] = XDG_STATE_HOME;
  });
  process.env["HOME"] = "";
  delete process.env["XDG_STATE_HOME"];
  using problems = new EventLog("lazygraph:problem");
  await using controller = await started({});
  await using _engine = await settledEngine(controller, { name: "homeless" });
  expect(controller.engines()[0]?.plan).toBeUndefined();
  const told = problems.all.filter(({ code }) => code === "ERR_LAZYGRAPH_PLAN");
  expect(told).toEqual([
    expect.objectContaining({ message: expect.stringMatching(/^Expected a home folder/) }),
  ]);
});

describe("a learned plan", () => {
  test("is written at close and is what the next start's policy gets", async () => {
    const planFolder = await temporaryFolder();
    {
      await using controller = await started({ planFolder });
      await using engine = await settledEngine(controller, { name: "first" });
      engine.steps(4, 50_000, "FULL:4");
      engine.steps(3, 100, "");
      // An answer to what comes after the steps tells that they came.
      using resyncs = new EventLog("lazygraph:problem", "first");
      engine.steps(1, 1, "FULL:nonsense");
      await resyncs.first(({ code }) => code === "ERR_LAZYGRAPH_UNKNOWN_GRAPH");
    }
    const plan = await onlyPlan(planFolder);
    expect(plan).toMatchObject({
      starts: 1,
      fingerprint: { model: "fake/model", gpuName: "Fake GPU" },
      learnedBy: expect.stringMatching(/^lazygraph \d/),
      traffic: [
        { tokens: 1, uniform: 1, steps: 1 },
        { tokens: 4, uniform: 1, steps: 50_100, requestSteps: 200_300 },
      ],
    });
    expect(plan.graphs.find(({ id }) => id === "FULL:4")).toMatchObject({
      replays: 50_000,
      captureMs: 1.5,
      bytes: 1_000_000,
      regret: expect.any(Number),
    });
    expect(plan.first).toContain("FULL:4");

    const contexts: PolicyContext[] = [];
    await using controller = await started({
      planFolder,
      policy: (mode, context) => {
        contexts.push(context);
        return createPolicy(mode);
      },
    });
    using decisions = new EventLog("lazygraph:decision", "second");
    await using _engine = await settledEngine(controller, { name: "second" });
    const { plan: shown } = await controller.waitForEngine();
    expect(shown).toMatchObject({ starts: 1, first: plan.first });
    expect(contexts).toHaveLength(1);
    expect(contexts[0]?.prior?.first).toEqual(plan.first);
    expect(contexts[0]?.prior?.traffic).toContainEqual({
      tokens: 4,
      uniform: 1,
      requestSteps: 200_300,
      steps: 50_100,
    });
    const { reason } = await decisions.first(({ decision }) => decision === "plan");
    expect(reason).toMatch(/^1 earlier start needed \d+ graphs? \(.+\.json\)$/);
  });

  test("of an engine with other graphs is not taken", async () => {
    const planFolder = await temporaryFolder();
    for (const [name, sizes] of [
      ["one", [1, 2, 4, 8]],
      ["two", [1, 2, 4]],
    ] as const) {
      await using controller = await started({ planFolder });
      await using _engine = await settledEngine(controller, { name, graphs: graphsOf(...sizes) });
      expect(controller.engines()[0]?.plan).toMatchObject({ starts: 0 });
    }
    expect(await readdir(planFolder)).toHaveLength(2);
  });

  test("is neither read nor written with plan: false", async () => {
    const planFolder = await temporaryFolder();
    vi.stubEnv("LAZYGRAPH_PLAN_DIR", planFolder);
    onTestFinished(() => void vi.unstubAllEnvs());
    {
      await using controller = await started({ plan: false });
      await using _engine = await settledEngine(controller);
      expect(controller.engines()[0]?.plan).toBeUndefined();
    }
    expect(await readdir(planFolder)).toEqual([]);
  });

  test("is read and not written with planReadOnly", async () => {
    const planFolder = await temporaryFolder();
    for (const planReadOnly of [false, true]) {
      await using controller = await started({ planFolder, planReadOnly });
      await using _engine = await settledEngine(controller);
    }
    expect(await onlyPlan(planFolder)).toMatchObject({ starts: 1 });
  });

  test("that can't be kept is one problem, and the engine settles all the same", async () => {
    const file = join(await temporaryFolder(), "occupied");
    await writeFile(file, "");
    using problems = new EventLog("lazygraph:problem");
    {
      await using controller = await started({ planFolder: file });
      await using _engine = await settledEngine(controller);
    }
    const about = problems.all.filter(({ code }) => code === "ERR_LAZYGRAPH_PLAN");
    expect(about).toMatchObject([{ engine: "", message: expect.stringContaining(file) }]);
  });
});

describe("rules of the user's", () => {
  test("pin, exclude and cap what is captured", async () => {
    await using controller = await started({
      mode: "idle",
      plan: false,
      pin: ["FULL:2"],
      exclude: ["PIECEWISE"],
      graphsMax: 3,
    });
    await using engine = await settledEngine(controller);
    expect(engine.ofType("start")[0]?.graphs).toEqual(["FULL:8", "FULL:2"]);
    const [snapshot] = controller.engines();
    expect(engine.captured.size).toBe(3);
    expect(snapshot).toMatchObject({ graphsCaptured: 3, graphsRefused: 4 });
    expect(snapshot?.graphs.find(({ id }) => id === "PIECEWISE:8")).toMatchObject({
      status: "refused",
      reason: "excluded by the user",
    });
  });

  test("hold after a change of mode, and nothing of them counts as a refusal to ask again", async () => {
    await using controller = await started({ mode: "lazy", plan: false, exclude: [">2"] });
    await using engine = await joinEngine(controller);
    await controller.waitForEngine({ phase: "serving" });
    controller.setMode("engine-0", "lazy");
    expect(engine.ofType("mode")).toEqual([]);
    controller.setMode("engine-0", "idle");
    await controller.waitForEngine({ settled: true });
    expect([...engine.captured.keys()].sort()).toEqual([
      "FULL:1",
      "FULL:2",
      "PIECEWISE:1",
      "PIECEWISE:2",
    ]);
  });

  test("that match nothing are told once", async () => {
    using problems = new EventLog("lazygraph:problem", "engine-0");
    await using controller = await started({
      plan: false,
      pin: ["FULL:3"],
      exclude: ["FULL:5", "8"],
    });
    await using engine = await settledEngine(controller);
    engine.inventory();
    await engine.flushed();
    const { message } = await problems.first(({ code }) => code === "ERR_LAZYGRAPH_OPTION");
    expect(message).toContain("got FULL:3, FULL:5: what matches nothing is ignored.");
    expect(problems.all.filter(({ code }) => code === "ERR_LAZYGRAPH_OPTION")).toHaveLength(1);
  });
});

describe("the costed policy", () => {
  test("is selectable, and says of every missing graph why it is missing", async () => {
    await using controller = await started({ mode: "lazy", policy: "costed", plan: false });
    await using _engine = await joinEngine(controller);
    await controller.waitForEngine({ phase: "serving" });
    const [snapshot] = controller.engines();
    expect(snapshot?.policy).toBe("lazy-costed");
    const missing = snapshot?.graphs.filter(({ status }) => status === "planned") ?? [];
    expect(missing.length).toBeGreaterThan(0);
    for (const { id, reason } of missing) expect(reason).toMatch(`${id}: deferred`);
  });

  test("in eager mode captures everything, as ever", async () => {
    await using controller = await started({ mode: "eager", policy: "costed", plan: false });
    await using _engine = await settledEngine(controller);
    expect(controller.engines()[0]).toMatchObject({ policy: "eager", graphsCaptured: 8 });
  });
});

describe("announce", () => {
  test("reaches the engine's policy", async () => {
    const events: EngineEvent[] = [];
    await using controller = await started({
      plan: false,
      policy: (mode) => {
        const policy = createPolicy(mode);
        return {
          name: policy.name,
          decide(state, event) {
            events.push(event);
            return policy.decide(state, event);
          },
        };
      },
    });
    await using _engine = await joinEngine(controller);
    await controller.waitForEngine({ phase: "serving" });
    controller.announce("engine-0", { inSeconds: 2, requests: 8 });
    controller.announce("engine-0", { inSeconds: 0 });
    const announced = events.filter(({ type }) => type === "announce");
    expect(announced).toMatchObject([
      { inSeconds: 2, requests: 8 },
      { inSeconds: 0, requests: 1 },
    ]);
  });

  test.for([
    [undefined, "announcement", /an object such as \{ inSeconds: 2, requests: 8 \}, got nothing/],
    [{}, "inSeconds", /a number from 0 to 3600, got nothing/],
    [{ inSeconds: -1 }, "inSeconds", /got -1 \(number\)/],
    [{ inSeconds: Number.NaN }, "inSeconds", /a number from 0 to 3600/],
    [{ inSeconds: 1, requests: 0 }, "requests", /a whole number from 1 to 1000000, got 0/],
    [{ inSeconds: 1, requests: 1.5 }, "requests", /a whole number/],
    [{ inSeconds: 1, request: 1 }, "request", /did you mean requests\?/],
  ] as const)("refuses %j", async ([announcement, option, sentence]) => {
    await using controller = createController({ plan: false });
    expect(() => controller.announce("engine-0", announcement as never)).toThrow(
      expect.objectContaining({
        code: "ERR_LAZYGRAPH_OPTION",
        option,
        message: expect.stringMatching(sentence),
      }),
    );
  });

  test("of an engine that never joined, and of one that is gone", async () => {
    await using controller = await started({ plan: false });
    expect(() => controller.announce("nobody", { inSeconds: 1 })).toThrow(
      expect.objectContaining({ code: "ERR_LAZYGRAPH_ENGINE_UNKNOWN" }),
    );
    using lost = new EventLog("lazygraph:engine:lost", "engine-0");
    await using engine = await joinEngine(controller);
    await controller.waitForEngine();
    engine.send({ type: "goodbye", reason: "done" });
    await lost.first();
    expect(() => controller.announce("engine-0", { inSeconds: 1 })).toThrow(
      expect.objectContaining({ code: "ERR_LAZYGRAPH_ENGINE_LOST" }),
    );
  });
});

describe("announce over HTTP", () => {
  async function post(controller: Controller, engine: string, body: unknown): Promise<Response> {
    const url = await listening(createHttpServer(controller));
    return fetch(`${url}/v1/engines/${engine}/announce`, {
      method: "POST",
      body: JSON.stringify(body),
    });
  }

  test("tells the engine's policy, and refuses what is none", async () => {
    const events: EngineEvent[] = [];
    const decide = (event: EngineEvent): [] => {
      events.push(event);
      return [];
    };
    await using controller = await started({
      plan: false,
      policy: () => ({ name: "listening", decide: (_, event) => decide(event) }),
    });
    await using _engine = await joinEngine(controller);
    await controller.waitForEngine();
    while (!events.some(({ type }) => type === "inventory")) await setImmediate();

    const answer = await post(controller, "engine-0", { inSeconds: 3, requests: 2 });
    expect(answer.status).toBe(200);
    expect(await answer.json()).toMatchObject({ engine: "engine-0", policy: "listening" });
    expect(events.at(-1)).toMatchObject({ type: "announce", inSeconds: 3, requests: 2 });

    const bad = await post(controller, "engine-0", { inSeconds: "soon" });
    expect(bad.status).toBe(400);
    expect(await bad.json()).toMatchObject({
      error: { code: "ERR_LAZYGRAPH_OPTION", message: expect.stringContaining("inSeconds") },
    });
    expect((await post(controller, "nobody", { inSeconds: 1 })).status).toBe(404);
  });
});

describe("options", () => {
  test.for([
    [{ policy: "smart" }, "policy", /simple, costed or a function that makes a policy/],
    [{ pin: "FULL:8" }, "pin", /a list of at most 256 graphs/],
    [{ pin: [""] }, "pin", /such as "FULL:24", "PIECEWISE", "24"/],
    [{ exclude: ["FULL:8, FULL:4"] }, "exclude", /a list of at most 256 graphs/],
    [{ pin: ["FULL:-3"] }, "pin", /"<8", got the entry "FULL:-3"\.$/],
    [{ pin: ["8", "nonsense"] }, "pin", /got the entry "nonsense"\.$/],
    [{ exclude: [">abc"] }, "exclude", /got the entry ">abc"\.$/],
    [{ exclude: ["PIECWISE"] }, "exclude", /such as .+"PIECEWISE".+got the entry "PIECWISE"\.$/],
    [{ exclude: [8] }, "exclude", /got the entry 8 \(number\)\.$/],
    [{ exclude: Array.from({ length: 257 }, () => "8") }, "exclude", /at most 256/],
    [{ graphsMax: 0 }, "graphsMax", /a whole number from 1 to 4096/],
    [{ initOnly: "yes" }, "initOnly", /true or false/],
    [
      { initOnly: true, policy: "simple" },
      "initOnly",
      /to go with the policy "costed".+got "simple"/,
    ],
    [{ plan: "off" }, "plan", /true or false/],
    [{ planFolder: "" }, "planFolder", /a path/],
    [{ planReadOnly: 1 }, "planReadOnly", /true or false/],
    [{ profile: 1 }, "profile", /a path/],
  ] as const)("%j", ([options, option, sentence]) => {
    expect(() => createController(options as ControllerOptions)).toThrow(
      expect.objectContaining({
        code: "ERR_LAZYGRAPH_OPTION",
        option,
        message: expect.stringMatching(sentence),
      }),
    );
  });

  test("a profile that isn't there is told when the controller is made", () => {
    expect(() => createController({ profile: "no-such-profile" })).toThrow(
      expect.objectContaining({ code: "ERR_LAZYGRAPH_PROFILE" }),
    );
  });
});

describe("a simulated engine's second start", () => {
  test("captures first what serves the steps of the first one", async () => {
    const folder = await temporaryFolder();
    const planFolder = join(folder, "plans");
    const trace = join(folder, "trace.csv");
    // One request after the other: decode steps of one request, and a prompt of 40 tokens each.
    const rows = Array.from({ length: 12 }, (_, index) => `${index * 0.5},40,60`);
    await writeFile(trace, `seconds,prompt_tokens,output_tokens\n${rows.join("\n")}\n`);
    const before = new Map<string, string[]>();
    const needed: string[] = [];
    for (const name of ["first", "second"]) {
      using readies = new EventLog("lazygraph:engine:ready", name);
      {
        await using controller = await started({ planFolder, policy: "costed", mode: "lazy" });
        await using engine = await startSimulatedEngine({
          endpoint: controller.endpoint,
          engine: name,
          handshakeMs: 60_000,
          speed: 4,
          trace: { file: trace },
        });
        const unsubscribe = onEvent("lazygraph:engine:ready", () => {
          const [{ graphs } = { graphs: [] }] = controller.engines();
          const captured = graphs.filter(({ status }) => status === "captured");
          before.set(
            name,
            captured.map(({ id }) => id),
          );
        });
        await readies.first();
        unsubscribe();
        await engine.waitFor("drained");
      }
      const plan = await onlyPlan(planFolder);
      if (name === "first") needed.push(...plan.first);
      else expect(plan.starts).toBe(2);
    }
    // The tops, and what a thirtieth of stock's seconds holds beside them.
    const first = before.get("first") ?? [];
    expect(first.slice(0, 2)).toEqual(["PIECEWISE:512", "FULL:512"]);
    expect(first.slice(2)).toEqual([expect.stringMatching(/^FULL:\d+$/)]);
    // Steps of one request are served as well by any of the smaller graphs; where the first set had
    // one, the first start may have missed none; the second is alike.
    const second = before.get("second") ?? [];
    expect(second.some((id) => id.startsWith("FULL:") && id !== "FULL:512")).toBe(true);
    if (needed.length === 0) expect(second).toEqual(first);
    else expect(second).not.toContain("PIECEWISE:512");
  });
});
