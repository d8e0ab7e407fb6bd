/** The pure parts of families.sh: its plan, its commands, parity, and what it claims. */

import { describe, expect, test } from "vitest";
import { serveCommand, serveEnvironment, TEN_SIZES } from "../../bench/gpu/lib/family-command.ts";
import {
  cellName,
  cellsOf,
  decodes,
  expectedSeconds,
  type Family,
  type FamilyCell,
  lanesOf,
  parseFamilies,
} from "../../bench/gpu/lib/family-plan.ts";
import {
  type ParityResult,
  type StartResult,
  summaryOf,
} from "../../bench/gpu/lib/family-result.ts";
import {
  gapsOf,
  msByRequests,
  parityFigures,
  parityOf,
  sharesOf,
  waitsOf,
  windowsOf,
} from "../../bench/gpu/lib/parity.ts";
import { overRanks } from "../../bench/gpu/lib/start-timing.ts";
import { familyFindings } from "../../bench/lib/claims-v033.ts";
import type { RequestRecord } from "../../src/bench/samples.ts";

function family(fields: Partial<Family> = {}): Family {
  const [parsed] = parseFamilies({ families: [{ name: "moe-30b", shape: "s", ...fields }] });
  return parsed as Family;
}

describe("the plan", () => {
  test("arms take turns, each round begins with another one, and warm-ups come first", () => {
    const cells = cellsOf(family({ starts: { stock: 2, lazy: 1, idle: 2 }, verify: true }));
    expect(cells.map(cellName)).toEqual([
      "moe-30b.start.warm.stock",
      "moe-30b.start.0.stock",
      "moe-30b.start.0.lazy",
      "moe-30b.start.0.idle",
      "moe-30b.start.1.idle",
      "moe-30b.start.1.stock",
      "moe-30b.verify.0.idle",
    ]);
  });

  test("a cell is expected to take what the longest start of its family took", () => {
    const cell: FamilyCell = { family: "moe-30b", kind: "start", arm: "stock", round: 0 };
    const [guess, known] = [[], [20, 30]].map((measured) =>
      expectedSeconds(cell, family({ startSeconds: 90 }), measured),
    ) as [number, number];
    expect(guess - known).toBe(60);
  });

  test("decoding is for the first rounds of starts, never for stock by hand", () => {
    const decoding = cellsOf(
      family({ starts: { stock: 2, "stock-ten": 1 }, decodeRounds: 1, verify: true }),
    ).filter((cell) => decodes(cell, family({ decodeRounds: 1 })));
    expect(decoding.map(cellName)).toEqual(["moe-30b.start.0.stock"]);
  });

  test("families of several GPUs don't fit on fewer", () => {
    const two = family({ gpus: 2 });
    expect(lanesOf([two, family()], [0, 1])).toMatchObject({ spread: [two] });
    expect(() => lanesOf([two], [0])).toThrow("Expected 2 GPUs for moe-30b");
  });

  test.each([
    [{}, "Expected a list `families`"],
    [{ families: [{ name: "a b", shape: "s" }] }, "Expected a family with name and shape"],
    [{ families: [{ name: "a", shape: "s", start: {} }] }, "of a, got start"],
    [{ families: [{ name: "a", shape: "s", starts: { idel: 1 } }] }, "got idel"],
    [{ families: [{ name: "a", shape: "s", parity: { arms: ["idel"] } }] }, "got idel"],
  ])("%j is told", (document, sentence) => {
    expect(() => parseFamilies(document)).toThrow(sentence);
  });
});

describe("commands", () => {
  const options = {
    ...{ model: "/m", serve: ["vllm", "serve"], port: 1, httpPort: 2 },
    lazygraph: ["lazygraph"],
  };

  test("an arm may name its policy, and starts alone take the arguments of starts", () => {
    const given = family({ startArgs: ["--stream-interval", "8"] });
    const start = serveCommand(given, { arm: "idle-simple", kind: "start" }, options).join(" ");
    expect(start).toMatch(/ --mode idle --policy simple .* --stream-interval 8/);
    const parity = serveCommand(given, { arm: "idle", kind: "parity" }, options);
    expect(parity).not.toContain("--stream-interval");
    expect(parity).not.toContain("--policy");
  });

  test("ours run under our command, stock with the kill switch and its own settings", () => {
    const args = { args: ["--quantization", "fp8"] };
    const ours = serveCommand(family(args), { arm: "lazy", kind: "start" }, options).join(" ");
    expect(ours).toMatch(/^lazygraph run --mode lazy .* -- vllm serve \/m .*--quantization fp8/);
    expect(
      serveCommand(family(), { arm: "stock-ten", kind: "start" }, options).slice(-TEN_SIZES.length),
    ).toEqual(TEN_SIZES);
    const plan = serveEnvironment(family(), "stock-plan", { gpus: [0, 1], caches: "/c" });
    expect(plan).toMatchObject({
      ...{ CUDA_VISIBLE_DEVICES: "0,1", LAZYGRAPH_DISABLE: "1", VLLM_ENABLE_STARTUP_PLAN: "1" },
      VLLM_CACHE_ROOT: "/c/moe-30b/vllm",
    });
    expect(serveEnvironment(family(), "idle", { gpus: [0] })).not.toHaveProperty(
      "LAZYGRAPH_DISABLE",
    );
  });
});

test("the rank that spent the most in both captures together counts", () => {
  const rank = { captureSeconds: 0, freeLostBytes: 0 };
  const both = overRanks([
    { ...rank, captureModelSeconds: 1, profileSeconds: 5, deviceBeganAt: 9 },
    { ...rank, captureModelSeconds: 2, profileSeconds: 3, deviceBeganAt: 8 },
  ]);
  expect(both).toMatchObject({ captureModelSeconds: 2, profileSeconds: 5, deviceBeganAt: 8 });
  expect(both.allCaptureSeconds).toBe(6);
});

/** One request with a token each 10 ms, but those that end before `slowUntil` each 50 ms. */
function request(dueSeconds: number, firstSeconds: number, tokens: number, slowUntil = 0) {
  const itlMicros: number[] = [];
  let at = firstSeconds;
  while (itlMicros.length < tokens) {
    const micros = at < slowUntil ? 50_000 : 10_000;
    itlMicros.push(micros);
    at += micros / 1e6;
  }
  const sent = { index: 0, warmUp: false, dueSeconds, sentSeconds: dueSeconds, firstSeconds };
  return { ...sent, itlMicros, promptTokensWanted: 1, outputTokensWanted: 1 } as RequestRecord;
}

describe("parity", () => {
  test("it is reached when the last slow window is over", () => {
    const gaps = gapsOf([request(10, 10, 1000, 13)]);
    const parity = parityOf(windowsOf(gaps, 10, 18), 10);
    // From 12.17 s on a window has more gaps of 10 ms than of 50: 20 (13 − t) < 100 (t − 12).
    expect(parity.seconds).toBeCloseTo(2.2);
    expect(parity).toMatchObject({ reached: true });
    expect(parityOf(windowsOf(gaps, 10, 18), 2).reached).toBe(false);
    expect(parityOf(windowsOf(gaps, 13, 18), 10)).toMatchObject({ seconds: 0, windowsAbove: 0 });
  });

  test("waits count from when requests were due, in the span alone", () => {
    const waits = waitsOf([request(1, 2, 1), request(3, 6, 1), request(9, 99, 1)], 0, 5);
    expect(waits).toEqual({ requests: 2, meanSeconds: 2, medianSeconds: 2 });
    expect(waitsOf([], 0, 5)).toBeUndefined();
  });

  /** From second 0 on bursts of so many requests, each of 200 tokens after its first. */
  function load(bursts: readonly number[], msAt = (requests: number) => 10 + requests) {
    let at = 0;
    return bursts.flatMap((count) => {
      const micros = msAt(count) * 1000;
      const one = { ...request(at, at, 0), itlMicros: Array<number>(200).fill(micros) };
      at += 0.01 + 200 * (micros / 1e6);
      return Array<RequestRecord>(count).fill(one);
    });
  }
  const stockMs = msByRequests(load([1, 8, 3, 1]), 0);

  test("with more requests in bursts parity is later, but not at equal numbers of them", () => {
    const { windowMs, alike } = parityFigures(load([1, 8, 8, 8, 3, 6, 1]), 0, 0, 23, stockMs);
    expect(parityOf(windowMs, 12).windowsAbove).toBeGreaterThan(100);
    expect(alike).toMatchObject({ seconds: 0, windowsAbove: 0, reached: true });
    expect(alike?.longestGapMs).toBe(18);
  });

  test("a fifth more at one number of requests is found, until its burst ends", () => {
    const slow = load([1, 3, 8, 1], (count) => (count === 3 ? 15.6 : 10 + count));
    const { alike } = parityFigures(slow, 0, 0, 11, stockMs);
    // It lasts from 2.2 to 5.3 s.
    expect(alike?.windowsAbove).toBeGreaterThan(25);
    expect(alike?.seconds).toBeGreaterThan(4.3);
    expect(alike?.seconds).toBeLessThan(5.4);
  });

  test("between known numbers of requests the expected time is interpolated", () => {
    const known = stockMs.map(([requests, ms]) => [requests, Math.round(ms)] as const);
    expect(known).toEqual([1, 3, 8].map((requests) => [requests, 10 + requests]));
    expect(msByRequests([request(0, 1, 99)], 0)).toEqual([]);
    const gaps = [1, 4, 9].map((decoding) => ({ atSeconds: 0, ms: 30, decoding }));
    const shares = sharesOf(gaps, [
      [2, 10],
      [6, 20],
    ]);
    expect(shares.map(({ ms }) => ms)).toEqual([3, 2, 1.5]);
  });
});

describe("claims of families", () => {
  const told = { source: "v033.json", command: "families.sh" };

  function start(arm: StartResult["arm"], seconds: number, first: number): StartResult {
    return {
      ...{ family: "moe-30b", kind: "start", arm, round: 0, shape: "s", gpus: [0], args: [] },
      via: "launcher",
      timing: {
        ...overRanks([{ captureModelSeconds: seconds, captureSeconds: 0, freeLostBytes: 0 }]),
      },
      ...{ spawnToReadySeconds: first, spawnToFirstTokenSeconds: first },
      ...{ deviceToFirstTokenSeconds: first - 1, kvTokens: arm === "stock" ? 100 : 110 },
      decode: [
        {
          concurrent: 8,
          tpotMs: [arm === "stock" ? 10 : 10.05],
          // Not every file has the engine's own.
          ...(arm === "eager" ? {} : { stepMs: [arm === "stock" ? 8 : 8.16] }),
        },
      ],
      ...(arm === "stock"
        ? {}
        : {
            ours: {
              ...{
                graphsPlanned: 4,
                graphsAtReady: 1,
                graphsBeforeDecode: 4,
                graphsAfterDecode: 4,
              },
              ...{ longestCaptureMs: 1, captures: [], forecastBytes: 110 << 20 },
              takenBytes: 100 << 20,
            },
          }),
    };
  }

  test("starts of one round are compared, family by family", () => {
    const findings = familyFindings(
      [start("stock", 20, 40), start("idle", 0.5, 21), start("eager", 8, 29)],
      told,
    );
    const value = (id: string) => findings.find((finding) => finding.id === `v033.moe-30b.${id}`);
    expect(value("idle.capture-share")).toMatchObject({ value: 0.025, limit: 1 / 30 });
    expect(value("eager.capture-share")).toMatchObject({ value: 0.4, limit: 0.45 });
    expect(value("idle.saved-share")).toMatchObject({ value: 0.95, limit: 0.9, sense: "atLeast" });
    expect(value("idle.decode-8")?.value).toBeCloseTo(1.005);
    expect(value("idle.engine-step-8")).toMatchObject({ limit: 1.01, sense: "atMost" });
    expect(value("idle.engine-step-8")?.value).toBeCloseTo(1.02);
    expect(value("eager.decode-8")?.value).toBeCloseTo(1.005);
    expect(value("eager.engine-step-8")).toBeUndefined();
    expect(value("idle.forecast-error")).toMatchObject({ value: 10, limit: 64 });
    expect(value("idle.kv-tokens-more")).toMatchObject({ value: 10, sense: "atLeast" });
    expect(value("lazy.capture-share")).toBeUndefined();
  });

  test("of a start that filled caches only captures are compared", () => {
    const ids = (stock: StartResult): string[] =>
      familyFindings([stock, start("lazy", 0.5, 21)], told).map(({ id }) => id);
    const seconds = ["saved-share", "spawn-to-first-token-saved"].map((of) => {
      return `v033.moe-30b.lazy.${of}`;
    });
    expect(ids(start("stock", 20, 40))).toEqual(expect.arrayContaining(seconds));
    const cold = ids({ ...start("stock", 20, 90), cold: true });
    expect(cold).toEqual(["v033.moe-30b.lazy.capture-share", "v033.moe-30b.lazy.kv-tokens-more"]);
  });

  test("families of a feature are told together, each to its limit, and not in eager mode", () => {
    const of = (family: string): StartResult[] =>
      [start("stock", 20, 40), start("lazy", 0.5, 21), start("eager", 8, 29)].map((cell) => {
        return { ...cell, family };
      });
    const share = (family: string) =>
      familyFindings(of(family), told).filter(({ id }) => id.endsWith("capture-share"));
    expect(share("lora-8b-16")).toMatchObject([
      { id: "v033.lora.8b-16.lazy.capture-share", limit: 1 / 50 },
    ]);
    expect(share("breakable-8b")).toMatchObject([
      { id: "v033.breakable.8b.lazy.capture-share", limit: 1 / 30 },
    ]);
  });

  test("stock's load from the second in which ours was ready gives the share of the wait", () => {
    const cell = (arm: ParityResult["arm"], ready: number, requests: RequestRecord[]) =>
      ({
        ...{ family: "moe-30b", kind: "parity", arm, round: 0, shape: "s", gpus: [0], rate: 4 },
        ...{ via: "launcher", seconds: 60, readySeconds: ready, loadSeconds: 12, requests },
      }) satisfies ParityResult;
    const steady = request(12.5, 22, 5500);
    const results = [cell("idle", 12, [request(12.5, 13, 5900, 14)]), cell("stock", 22, [steady])];
    const findings = familyFindings(
      results.map((cell) => summaryOf(cell, results)),
      told,
    );
    const wait = findings.find(({ id }) => id === "v033.moe-30b.idle.wait-share");
    expect(wait?.value).toBeCloseTo(0.5 / 9.5);
    const parity = findings.find(({ id }) => id === "v033.moe-30b.idle.parity-seconds");
    expect(parity?.value).toBeCloseTo(1.2);
    const alike = findings.find(({ id }) => id === "v033.moe-30b.idle.parity-alike-seconds");
    expect(alike?.value).toBeCloseTo(1.2);
    const failed = findings.find(({ id }) => id === "v033.moe-30b.idle.requests-failed");
    expect(failed?.value).toBe(0);
  });
});
