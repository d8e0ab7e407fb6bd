/**
 * What a decoder takes in, a controller must be able to live with, and what it learns from that its
 * store must be able to read again: messages that are sound alone and make no sense together.
 */

import { describe, expect, test } from "vitest";
import { createRandom } from "../../src/base/random.ts";
import { createControllerOn } from "../../src/controller/controller.ts";
import { onEvent } from "../../src/engine/events.ts";
import { encode } from "../../src/wire/codec.ts";
import type { FromEngine } from "../../src/wire/protocol.ts";
import type { RouterOptions } from "../../src/wire/router.ts";
import { ProcessClock, Timeline } from "../faults/clock.ts";
import { SimDisk } from "../faults/disk.ts";
import { MESSAGES } from "../wire/golden-messages.ts";
import { corpus } from "./corpus.ts";
import { outcomeOf } from "./decoders.ts";
import { mutate } from "./mutate.ts";

const COURSES = 60;
const FRAMES = 40;
const PEER = "70";

function golden(type: FromEngine["type"]): FromEngine {
  const found = MESSAGES.find(({ message }) => message.type === type)?.message;
  if (found === undefined) throw new Error(`Expected a golden ${type}.`);
  return found as FromEngine;
}

interface Course {
  readonly problems: readonly string[];
  readonly files: number;
  readonly accepted: number;
}

/** An engine that begins soundly and goes on with whatever is accepted. */
async function runCourse(seed: number): Promise<Course> {
  const random = createRandom(seed);
  const timeline = new Timeline();
  const disk = new SimDisk();
  const problems: string[] = [];
  const stop = onEvent("lazygraph:problem", ({ code, message }) => {
    if (/_(INTERNAL|POLICY|PLAN)$/.test(code)) problems.push(`${code}: ${message}`);
  });
  let router: RouterOptions | undefined;
  const controller = createControllerOn(
    {
      clock: new ProcessClock(timeline),
      files: disk,
      watchLoad: () => () => 0,
      openRouter: async (options) => {
        router = options;
        return {
          endpoint: options.endpoint,
          send: () => true,
          admit: () => undefined,
          dismiss: () => undefined,
          unreadSeconds: () => 0,
          close: async () => undefined,
        };
      },
    },
    { mode: "idle", planFolder: "plans", memory: { gpu: false } },
  );
  const settle = async (seconds: number): Promise<void> => {
    const end = timeline.nowSeconds + seconds;
    do await new Promise<void>((resolve) => setImmediate(resolve));
    while (timeline.step(end));
  };
  try {
    void controller.start();
    await settle(1);
    const tell = (message: FromEngine): void => router?.onFrame(PEER, encode(message));
    for (const type of ["hello", "inventory", "ready", "telemetry"] as const) tell(golden(type));
    const seeds = corpus("from-engine");
    let accepted = 0;
    while (accepted < FRAMES) {
      const frame = mutate(random, seeds);
      if (outcomeOf("from-engine", frame).type !== "message") continue;
      accepted++;
      router?.onFrame(PEER, frame);
      await settle(0.2);
    }
    const closed = controller.close();
    await settle(5);
    await closed;
    disk.check();
    return { problems, files: disk.files.size, accepted };
  } finally {
    stop();
  }
}

describe("what is accepted", { timeout: 120_000 }, () => {
  test("is lived with, and what is learned from it can be read again", async () => {
    const courses: Course[] = [];
    for (let seed = 1; seed <= COURSES; seed++) courses.push(await runCourse(seed));
    expect(courses.flatMap(({ problems }) => problems)).toEqual([]);
    // Else nothing would have been learned, and nothing looked at.
    expect(courses.filter(({ files }) => files > 0).length).toBeGreaterThan(COURSES / 4);
  });
});

test("a file that is no plan is found", () => {
  const disk = new SimDisk();
  disk.files.set("x.json", { text: "{}", version: 1, atUnixMs: 0 });
  expect(() => disk.check()).toThrow(/lazygraphPlan/);
});
