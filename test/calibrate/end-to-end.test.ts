import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import type { Graph } from "../../src/base/graph.ts";
import { freePort } from "../../src/bench/engine-command.ts";
import { type CalibrationOptions, calibrate } from "../../src/calibrate/calibrate.ts";
import { CalibrationControl } from "../../src/calibrate/control.ts";
import {
  AWAY_SECONDS_MAX,
  keepProfile,
  runCalibrate,
  watchEngines,
} from "../../src/cli/calibrate.ts";
import type { Controller } from "../../src/controller/controller.ts";
import { publish } from "../../src/engine/events.ts";
import { ServerAddress } from "../../src/measure/server-address.ts";
import { parseProfile } from "../../src/profile/load.ts";
import { createEngineState } from "../../src/schedule/state.ts";
import { startSimulatedEngine } from "../../src/sim/live/child.ts";
import { finish, lazygraph } from "../cli/helpers/command.ts";
import { SIMULATED_ENGINE } from "../helpers/built.ts";
import { FakeClock } from "../helpers/fake-clock.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { startController } from "../helpers/joined.ts";
import { listening } from "../helpers/listening.ts";
import { tinyDocument } from "../sim/helpers.ts";

/** Milliseconds instead of seconds, so that a calibration of it takes some. */
function document(): Record<string, unknown> {
  const rows = [1, 2, 4, 8].flatMap((tokens) => [
    ["PIECEWISE", tokens, 1, 1, 4, 4_000_000],
    ["FULL", tokens, 1, 1, 2, 2_000_000],
  ]);
  return {
    ...tinyDocument(),
    startupSeconds: 0.05,
    limits: { maxRequests: 8, maxBatchedTokens: 64, kvCacheTokens: 4096, kvBlockTokens: 16 },
    memory: {
      totalBytes: 1e9,
      freeBytes: 5e8,
      reservedBytes: 5e8,
      activationPeakBytes: 0,
    },
    steps: {
      full: [
        [1, 0.002],
        [8, 0.003],
      ],
      piecewise: [
        [1, 0.003],
        [8, 0.004],
      ],
      ungraphed: [
        [1, 0.005],
        [8, 0.006],
      ],
      secondsPerRequest: 2e-5,
      secondsPerContextToken: 4e-7,
      secondsPerTokenBeyond: 1e-4,
      secondsPerPromptPair: 2e-7,
    },
    captures: { ...(tinyDocument()["captures"] as object), rows: rows.reverse() },
  };
}

async function profileFile(name = "tiny"): Promise<string> {
  const file = join(await temporaryFolder(), "truth.json");
  await writeFile(file, JSON.stringify({ ...document(), name }));
  return file;
}

const options = (more: Partial<CalibrationOptions> & Pick<CalibrationOptions, "controller">) => ({
  control: new CalibrationControl(),
  server: new ServerAddress(new URL("http://127.0.0.1:1/")),
  model: "tiny",
  name: "mine",
  command: "simulated-engine",
  startedAtMs: performance.now(),
  apiSeconds: 0.5,
  signal: AbortSignal.timeout(120_000),
  ...more,
});

/** A controller whose policy is the calibration's, and a simulated engine that has joined it. */
async function rig(more: Partial<Parameters<typeof startSimulatedEngine>[0]> = {}) {
  const control = new CalibrationControl();
  const policy = () => control.policy;
  const controller = await startController({ mode: "lazy", plan: false, policy });
  const { endpoint } = controller;
  const profile = await profileFile();
  const engine = await startSimulatedEngine({ endpoint, profile, handshakeMs: 60_000, ...more });
  return {
    control,
    controller,
    /** Where its OpenAI side listens. */
    url: async () => new URL((await engine.waitFor("listening")).url),
    async [Symbol.asyncDispose](): Promise<void> {
      await engine[Symbol.asyncDispose]();
      await controller.close();
    },
  };
}

describe("a calibration", () => {
  test("recovers the simulated engine's own profile from its telemetry, with noise", {
    timeout: 120_000,
  }, async () => {
    await using engine = await rig({ http: "127.0.0.1:0", jitter: 0.03 });
    const { controller, control } = engine;
    const lines: string[] = [];
    const document_ = await calibrate(
      options({
        controller,
        control,
        server: new ServerAddress(await engine.url()),
        sizes: [1, 4],
        onProgress: (line) => lines.push(line),
      }),
    );
    const truth = parseProfile(JSON.stringify(document()), "truth");
    const mine = parseProfile(JSON.stringify(document_), "mine");
    const off = (found: number, wanted: number): number => Math.abs(found / wanted - 1);
    const { cells } = document_["provenance"] as { cells: { cell: string }[] };
    const measured = new Set(cells.map(({ cell }) => cell.toLowerCase()));
    for (const cell of ["full:1", "full:8", "piecewise:4", "piecewise:8", "ungraphed:8"]) {
      expect(measured).toContain(cell);
    }
    for (const table of ["full", "piecewise", "ungraphed"] as const) {
      const [first, last] = truth.steps[table];
      for (const [tokens, seconds] of mine.steps[table]) {
        if (!measured.has(`${table}:${tokens}`)) continue;
        const share = (tokens - 1) / 7;
        const wanted = (first?.[1] ?? 0) * (1 - share) + (last?.[1] ?? 0) * share;
        expect(off(seconds, wanted), `${table} ${tokens}`).toBeLessThan(0.05);
      }
    }
    expect(off(mine.steps.secondsPerContextToken, 4e-7)).toBeLessThan(0.25);
    expect(off(mine.steps.secondsPerTokenBeyond, 1e-4)).toBeLessThan(0.25);
    // The noise of a graph's capture, of which there is one.
    for (const { graph, laterMs, bytes } of mine.captures.costs) {
      expect(off(laterMs, graph.kind === "FULL" ? 2 : 4), graph.id).toBeLessThan(
        graph.tokens === 8 ? 0.7 : 0.2,
      );
      expect(bytes).toBe(graph.kind === "FULL" ? 2_000_000 : 4_000_000);
    }
    expect(mine.limits).toEqual(truth.limits);
    expect(mine.engine).toMatchObject({ model: "tiny", gpuName: "none (simulated)" });
    expect(mine.title).toMatch(/^SIMULATED \(profile tiny\)/);
    expect(lines).toContainEqual(expect.stringMatching(/^with every graph: wave 1 of/));
  });

  test("of an endpoint that serves another model ends in one sentence", async () => {
    await using engine = await rig({ http: "127.0.0.1:0" });
    const { controller, control } = engine;
    const calibration = calibrate(
      options({
        controller,
        control,
        server: new ServerAddress(await engine.url()),
        model: "another",
      }),
    );
    await expect(calibration).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_CALIBRATE",
      message: expect.stringMatching(/to give the model "another", got tiny\.$/),
    });
  });

  test.for([
    ["nobody", undefined, /to give an answer to \/v1\/models, got/],
    ["no OpenAI endpoint", 404, /to give a list of models, got HTTP status 404/],
    ["another engine", 200, /an address where this engine serves/],
  ] as const)("of %s ends in one sentence", async ([, status, sentence]) => {
    const answer = '{"data":[{"id":"tiny"}],"choices":[{"text":"a","finish_reason":"stop"}]}';
    const server = createServer((_, response) => response.writeHead(status ?? 200).end(answer));
    const url = new URL(await listening(server));
    if (status === undefined) await new Promise((resolve) => server.close(resolve));
    await using engine = await rig();
    const { controller, control } = engine;
    const its = options({ controller, control, server: new ServerAddress(url) });
    await expect(calibrate(its)).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_CALIBRATE",
      message: expect.stringMatching(sentence),
    });
  });

  test("of graphs that no profile can hold ends at once", async () => {
    const control = new CalibrationControl();
    control.state = createEngineState([{ id: "FULL:8:2", kind: "FULL", tokens: 8, uniform: 2 }]);
    const controller = { waitForEngine: async () => ({}) } as unknown as Controller;
    await expect(calibrate(options({ controller, control }))).rejects.toThrow(/got FULL:8:2/);
  });

  test("of an engine that others keep at work ends", async () => {
    const clock = new FakeClock();
    const ended = expect(new CalibrationControl(clock).idle()).rejects.toThrow("nobody else uses");
    clock.advance(61);
    await ended;
  });

  test("no wait for the engine is without a limit", async () => {
    const clock = new FakeClock();
    const control = new CalibrationControl(clock);
    const wait = { code: "ERR_LAZYGRAPH_CALIBRATE", message: expect.stringMatching(/got no.+ s/) };
    const ended = [control.table("none"), control.captureAll()].map((waiting) =>
      expect(waiting).rejects.toMatchObject(wait),
    );
    clock.advance(121);
    await Promise.all(ended);
    expect(clock.pending).toBe(0);
  });

  test("captures that go on have the time they need; those that stop end it", async () => {
    const clock = new FakeClock();
    const control = new CalibrationControl(clock);
    const sizes = [1, 2, 4];
    const graphs = sizes.map((tokens): Graph => ({ id: `FULL:${tokens}`, kind: "FULL", tokens }));
    const state = createEngineState(graphs);
    state.ready = true;
    const tick = () => control.policy.decide(state, { type: "tick", atSeconds: clock.now() });
    const ended = expect(control.captureAll()).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_CALIBRATE",
      message:
        "Expected captures to go on while nobody else uses the engine, got none for 120 s: 1 of " +
        "3 graphs are missing, put off: the engine has work.",
    });
    for (const graph of ["FULL:1", "FULL:2"]) {
      expect(tick()).toContainEqual(expect.objectContaining({ type: "capture" }));
      Object.assign(state.graphs.get(graph) ?? {}, { status: "captured" });
      clock.advance(119);
      tick();
    }
    Object.assign(state.graphs.get("FULL:4") ?? {}, { reason: "put off: the engine has work." });
    clock.advance(119);
    tick();
    clock.advance(1);
    await ended;
    expect(tick()).not.toContainEqual(expect.objectContaining({ type: "capture" }));
    expect(clock.pending).toBe(0);
  });

  test("ends with its engine", async () => {
    await using engine = await rig({ http: "127.0.0.1:0" });
    const { controller, control } = engine;
    const ended = new AbortController();
    const calibration = calibrate(
      options({
        controller,
        control,
        server: new ServerAddress(await engine.url()),
        signal: ended.signal,
        onProgress: (line) => {
          if (line.startsWith("without graphs: wave 2")) ended.abort(new Error("gone"));
        },
      }),
    );
    await expect(calibration).rejects.toThrow("gone");
  });
});

async function calibrating(...command: string[]): Promise<string[]> {
  const output = join(await temporaryFolder(), "mine.json");
  const args = ["--url=http://127.0.0.1:1", "--model=tiny", `--output=${output}`];
  return ["calibrate", ...args, "--", ...command];
}

describe("lazygraph calibrate", () => {
  test("writes a profile that simulate takes, and ends the engine", {
    timeout: 120_000,
  }, async () => {
    const output = join(await temporaryFolder(), "mine.json");
    const port = await freePort();
    const running = lazygraph([
      "calibrate",
      `--url=http://127.0.0.1:${port}/v1`,
      "--model=tiny",
      `--output=${output}`,
      "--sizes=1,8",
      "--",
      process.execPath,
      SIMULATED_ENGINE,
      `--profile=${await profileFile("llama-3.1-8b-h200")}`,
      `--http=127.0.0.1:${port}`,
    ]);
    const { code, stderr } = await running.finished;
    expect(stderr).toContain(`the profile is in ${output}.`);
    expect(code).toBe(0);
    const mine = parseProfile(await readFile(output, "utf8"), output);
    expect(mine.name).toBe("mine");
    // A simulated engine's start in real time says nothing: it is that of the profile it names.
    expect(mine.startupSeconds).toBe(8);
    expect(mine.provenance["startupSeconds"]?.kind).toBe("assumed");
    // Waves of eight pass through the sizes below while their requests come and go.
    expect(mine.steps.full.map(([tokens]) => tokens)).toEqual(expect.arrayContaining([1, 8]));
    const trace = join(await temporaryFolder(), "trace.csv");
    await writeFile(trace, "seconds,prompt_tokens,output_tokens\n0,8,4\n1,8,4\n");
    const simulated = await finish([
      "simulate",
      `--trace=${trace}`,
      `--profile=${output}`,
      "--policy=stock",
    ]);
    expect(simulated.stdout).toContain("Profile mine: SIMULATED");
    expect(simulated.stdout).toContain("ESTIMATED in this profile, not measured: captures before");
  });

  test("a command that ends before it serves is one sentence", async () => {
    const { code, stderr } = await finish(await calibrating("sh", "-c", "exit 3"));
    expect(code).toBe(1);
    expect(stderr).toMatch(/ended with exit code 3; .+ \[ERR_LAZYGRAPH_CALIBRATE\]\n$/);
  });

  test("a signal ends it, a second one its command, even one that ignores them", async () => {
    const stubborn = "trap '' INT TERM; echo up; while :; do sleep 0.1; done";
    const running = lazygraph(await calibrating("sh", "-c", stubborn));
    await running.line("stdout", /^up$/);
    running.process.kill("SIGINT");
    await running.line("stderr", /SIGINT: the calibration ends/);
    running.process.kill("SIGINT");
    const { code, stderr } = await running.finished;
    expect(code).toBe(130);
    expect(stderr).toMatch(/got SIGINT: .+ \[ERR_LAZYGRAPH_CALIBRATE\]\n$/);
  });

  test("an engine that stays away and one too many end it", () => {
    const clock = new FakeClock();
    const whys: string[] = [];
    onTestFinished(watchEngines(clock, ({ message }) => void whys.push(message)));
    const tell = (event: "join" | "lost", engine: string, seconds = 0): void => {
      publish(`lazygraph:engine:${event}`, { engine, session: "s", reason: "gone." } as never);
      clock.advance(seconds);
    };
    tell("join", "a");
    for (let round = 0; round < 3; round++) {
      tell("lost", "a", AWAY_SECONDS_MAX - 1);
      tell("join", "a");
    }
    expect(whys).toEqual([]);
    tell("lost", "a", AWAY_SECONDS_MAX);
    tell("join", "b");
    expect(whys).toEqual([
      "Expected a back within 30 s, but it is away: gone.",
      expect.stringMatching(/^Expected one engine .+ got b, too\.$/),
    ]);
  });

  test("a profile whose file can't be written any more is on stdout", async () => {
    const write = vi.spyOn(process.stdout, "write").mockReturnValue(true);
    onTestFinished(() => write.mockRestore());
    const full = { write: () => Promise.reject(new Error("full")) };
    await expect(keepProfile(full, { schema: 1 })).rejects.toThrow("full");
    expect(write).toHaveBeenCalledWith('{"schema":1}\n');
  });

  test("a command that isn't there", async () => {
    const { code, stderr } = await finish(await calibrating("no-such-command"));
    expect(code).toBe(127);
    expect(stderr).toContain("[ERR_LAZYGRAPH_COMMAND_NOT_FOUND]");
  });

  test.for([
    [[], "Expected --url to be given, such as http://127.0.0.1:8000"],
    [["--url=127.0.0.1:8000"], "Expected --url to be a URL such as"],
    [["--url=http://a"], "Expected --model to be given"],
    [["--url=http://a", "--model=m"], "Expected --output to be given"],
    [["--url=http://a", "--model=m", "--output=p.json"], "Expected a command after `--`"],
    [
      ["--url=http://a", "--model=m", "--output=p.json", "--sizes=1,x", "--", "vllm"],
      "Expected --sizes to be planned sizes with commas",
    ],
    [
      [
        "--url=http://a",
        "--model=m",
        "--output=p.json",
        `--name=${"n".repeat(2049)}`,
        "--",
        "vllm",
      ],
      "Expected --name to be a text of at most 2048 characters",
    ],
    [
      ["--url=http://a", "--model=m", "--output=p", "--endpoint=tcp://0.0.0.0:0", "--", "vllm"],
      "Expected --endpoint to be an address of loopback, for want of keys",
    ],
    [
      ["--url=http://a", "--model=m", "--output=/nowhere/p.json", "--", "vllm"],
      "Expected --output to be a file in a folder that can be written",
    ],
    [
      ["--url=http://a", "--model=m", "--output=p", "--", "env", "LAZYGRAPH_MODE=idle", "vllm"],
      "Expected `calibrate` to choose LAZYGRAPH_MODE for its command",
    ],
  ] as const)("usage error: %j", async ([args, sentence]) => {
    await expect(runCalibrate(args)).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_OPTION",
      message: expect.stringContaining(sentence),
    });
  });
});
