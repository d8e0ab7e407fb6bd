import { describe, expect, test } from "vitest";
import type { RequestSample } from "../../src/sim/model/batcher.ts";
import { Drive, listArrivals } from "../../src/sim/model/drive.ts";
import { EngineModel } from "../../src/sim/model/engine.ts";
import { type Change, set, tinyProfile } from "./helpers.ts";

type Row = readonly [at: number, prompt: number, output: number];

/** Everything by its exact FULL graph, or by the next one. */
const table = {
  uniform: [
    { upTo: 1, graphs: ["FULL:1", "FULL:4"] },
    { upTo: 4, graphs: ["FULL:4"] },
  ],
  mixed: [],
};

function engineOf(requests: readonly Row[], start: readonly string[], change: Change) {
  const steps: string[] = [];
  const samples: RequestSample[] = [];
  const model = new EngineModel({
    profile: tinyProfile(change),
    observer: {
      onLoaded: () => void model.start(start),
      onStep: ({ requests: count, seconds }, at) => {
        steps.push(`${at - seconds}-${at}: ${count}`);
      },
      onRequest: (sample) => void samples.push(sample),
    },
  });
  model.dispatch(table);
  const trace = requests.map(([atSeconds, promptTokens, outputTokens]) => {
    return { atSeconds, promptTokens, outputTokens };
  });
  return { model, drive: new Drive(model, listArrivals(trace)), steps, samples };
}

const graphs = ["FULL:4", "FULL:1"];
const ahead: Change = (document) => set(document, "limits.stepsAhead", 1);

describe("an engine that composes a step ahead", () => {
  const late = [
    [20, 1, 5],
    [21.5, 1, 1],
  ] as const;

  test("lets who comes during a step wait for the next one too", () => {
    const { drive, steps } = engineOf(late, graphs, ahead);
    drive.advance(100);
    // Of one request a second, of two four.
    expect(steps).toEqual(["20-21: 1", "21-22: 1", "22-23: 1", "23-27: 2", "27-28: 1"]);
  });

  test("one that doesn't lets them into the next step", () => {
    const { drive, steps } = engineOf(late, graphs, () => {});
    drive.advance(100);
    expect(steps).toEqual(["20-21: 1", "21-22: 1", "22-26: 2", "26-27: 1", "27-28: 1"]);
  });

  test("who comes with the start of a step is in the next one", () => {
    const { drive, steps } = engineOf([late[0], [21, 1, 1]], graphs, ahead);
    drive.advance(100);
    expect(steps.slice(0, 3)).toEqual(["20-21: 1", "21-22: 1", "22-26: 2"]);
  });

  test("composes at once when nobody else is left to run", () => {
    const alone = [
      [20, 1, 1],
      [20.5, 1, 1],
    ] as const;
    const { drive, steps } = engineOf(alone, graphs, ahead);
    drive.advance(100);
    expect(steps).toEqual(["20-21: 1", "21-22: 1"]);
  });

  test("composes after a capture, which waits until nothing is in flight", () => {
    const { model, drive, steps } = engineOf(
      [
        [20, 1, 3],
        [22, 1, 1],
      ],
      ["FULL:4"],
      ahead,
    );
    drive.advance(21);
    model.capture(1, "FULL:1", false);
    drive.advance(100);
    // A step in FULL:4 until 24, the capture until 26: who came at 22 is in the step after it.
    expect(steps.slice(0, 2)).toEqual(["20-24: 1", "26-30: 2"]);
  });

  // Without a graph one request, or a chunk of 8 of its 14 tokens, takes 10 s of launches.
  const ungraphed = [
    [20, 8, 9],
    [29, 1, 1],
    [31, 1, 1],
  ] as const;

  test("of one process, once it has launched a step without a graph", () => {
    const { drive, steps } = engineOf(ungraphed, [], ahead);
    drive.advance(200);
    // 14 s: launched after 10, so that only who came by then is in the second step.
    expect(steps.slice(0, 3)).toEqual(["20-34: 1", "34-44: 2", "44-54: 2"]);
  });

  test("of several ranks, as soon as a step starts: they launch in processes of their own", () => {
    const { drive, steps } = engineOf(ungraphed, [], (document) => {
      ahead(document);
      set(document, "engine.tensorParallel", 2);
    });
    drive.advance(200);
    expect(steps.slice(0, 3)).toEqual(["20-34: 1", "34-44: 1", "44-54: 3"]);
  });
});

describe("a front end", () => {
  test("holds each request back before the engine sees it, and counts in its times", () => {
    const { drive, steps, samples } = engineOf(
      [
        [20, 1, 2],
        [20.5, 1, 1],
      ],
      graphs,
      (document) => set(document, "frontEndSeconds", 3),
    );
    expect(drive.nextSeconds).toBe(0);
    drive.advance(17);
    expect(drive.nextSeconds).toBe(23);
    drive.advance(100);
    expect(steps).toEqual(["23-24: 1", "24-28: 2"]);
    expect(samples.map((sample) => [sample.arrivalSeconds, sample.firstTokenSeconds])).toEqual([
      [20, 24],
      [20.5, 28],
    ]);
  });
});
