/**
 * The simulator and the controller are the same loop: a session that the simulator recorded, told to
 * a controller's driver message by message, has the driver send and publish the very same, in the
 * same order and at the same seconds.
 */

import { setImmediate } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import type { Clock } from "../../src/base/clock.ts";
import { EngineDriver } from "../../src/engine/driver.ts";
import { EVENT_NAMES, onEvent } from "../../src/engine/events.ts";
import type { Effect, EngineInput } from "../../src/engine/step/effects.ts";
import { EnginePlans } from "../../src/plan/engine-plan.ts";
import { loadProfile } from "../../src/profile/load.ts";
import type { Profile } from "../../src/profile/profile.ts";
import { EngineModel } from "../../src/sim/model/engine.ts";
import { helloOf } from "../../src/sim/model/self-report.ts";
import { createSetup, type PolicyName } from "../../src/sim/virtual/setups.ts";
import { simulate } from "../../src/sim/virtual/virtual.ts";
import { readTrace, type TraceRequest } from "../../src/trace/trace.ts";
import type { ToEngine } from "../../src/wire/protocol.ts";
import { Session } from "../../src/wire/session.ts";

const profile = loadProfile();
const conversation = "azure-llm-2023-conversation";

interface Recorded {
  /** What the engine told and which waits ended, with the second at which. */
  readonly inputs: readonly { readonly atSeconds: number; readonly input: EngineInput }[];
  /** What the simulator's step sent and published. */
  readonly log: readonly string[];
}

/** Graphs of this plan need 1.1 GiB beside what serving is due. */
function onGpuWith(freeBytes: number): Profile {
  return { ...profile, memory: { ...profile.memory, freeBytes } };
}

async function record(
  of: Profile,
  name: PolicyName,
  requests: AsyncIterable<TraceRequest> | readonly TraceRequest[],
): Promise<Recorded> {
  const inputs: { atSeconds: number; input: EngineInput }[] = [];
  const log: string[] = [];
  await simulate({
    profile: of,
    ...createSetup(name, of),
    requests,
    onStep(what, atSeconds) {
      if (isInput(what)) inputs.push({ atSeconds, input: what });
      else log.push(...line(what, atSeconds));
    },
  });
  return { inputs, log };
}

function isInput(what: EngineInput | Effect): what is EngineInput {
  return ["message", "timer", "announce"].includes(what.type);
}

/** An effect as it is seen from outside. */
function line(effect: Effect | EngineInput, atSeconds: number): string[] {
  switch (effect.type) {
    case "send":
      return [sent(effect.message, atSeconds)];
    case "drop":
      // Its command has a number only when it is sent.
      return "answer" in effect ? [] : [sent({ ...effect, command: 0 } as never, atSeconds)];
    case "command": {
      const { graph, whenIdle, needBytes } = effect;
      return [sent({ type: "capture", command: 0, graph, whenIdle, needBytes }, atSeconds)];
    }
    case "publish":
      return [published(effect.name, effect.event, atSeconds)];
    default:
      return [];
  }
}

function sent(message: ToEngine, atSeconds: number): string {
  if (message.type === "drop") {
    const graphs = message.graphs.map((graph: string | { id: string }) =>
      typeof graph === "string" ? graph : graph.id,
    );
    return `${atSeconds} send ${JSON.stringify({ type: "drop", graphs })}`;
  }
  const { command: _, ...told } = { command: 0, ...message };
  return `${atSeconds} send ${JSON.stringify(told)}`;
}

function published(name: string, event: object, atSeconds: number): string {
  return `${atSeconds} ${name} ${JSON.stringify(event)}`;
}

/** Time as the recording has it. */
class RecordedClock implements Clock {
  seconds = 0;
  #waits: { readonly dueSeconds: number; readonly callback: () => void }[] = [];

  now(): number {
    return this.seconds;
  }

  after(seconds: number, callback: () => void): () => void {
    const wait = { dueSeconds: this.seconds + seconds, callback };
    this.#waits.push(wait);
    return () => {
      this.#waits = this.#waits.filter((other) => other !== wait);
    };
  }

  /** Ends the first wait that is due at this very second; false where none is. */
  end(): boolean {
    const wait = this.#waits.find(({ dueSeconds }) => dueSeconds === this.seconds);
    this.#waits = this.#waits.filter((other) => other !== wait);
    wait?.callback();
    return wait !== undefined;
  }
}

/** Tells a driver what was recorded; what it sends and publishes. */
async function replay(of: Profile, name: PolicyName, { inputs }: Recorded): Promise<string[]> {
  const log: string[] = [];
  const clock = new RecordedClock();
  const { mode = "idle", policy } = createSetup(name, of);
  const model = new EngineModel({ profile: of });
  const hello = helloOf(model, {
    engine: "simulated",
    session: "virtual",
    mode,
    orders: undefined,
  });
  let commands = 0;
  const session: Session = new Session(hello, {
    clock,
    send(message) {
      if (message.type !== "heartbeat" && message.type !== "welcome") {
        log.push(sent(message, clock.seconds));
      }
      return true;
    },
    // Out of the way of the waits that count.
    heartbeatMs: 1e9,
    captureTimeoutMs: 1e9,
    incarnation: 1,
    nextCommand: () => ++commands,
    onLost: (error) => driver.detach(error),
  });
  const driver: EngineDriver = new EngineDriver(hello, mode, session, {
    clock,
    policy,
    settleWithinSeconds: undefined,
    plans: new EnginePlans(undefined, "test", of),
    onChange: () => undefined,
  });
  const stops = EVENT_NAMES.map((event) =>
    onEvent(event, (payload) => {
      const {
        engine: _,
        session: __,
        atUnixMs: ___,
        ...told
      } = payload as unknown as Record<string, unknown>;
      log.push(published(event, told, clock.seconds));
    }),
  );
  driver.join();
  for (const { atSeconds, input } of inputs) {
    clock.seconds = atSeconds;
    if (input.type === "message") driver.receive(input.message);
    else if (input.type === "announce") driver.announce(input.inSeconds, input.requests);
    // A wait that the driver hasn't got, or has for another second, is a difference.
    else expect([input, clock.end()]).toEqual([input, true]);
    // The queue of commands hands over in microtasks.
    await setImmediate();
  }
  for (const stop of stops) stop();
  return log;
}

function burst(atSeconds: number, count: number): TraceRequest[] {
  return Array.from({ length: count }, () => ({ atSeconds, promptTokens: 500, outputTokens: 50 }));
}

describe("the driver of a controller does what the simulator did", () => {
  test.for([
    ["idle-costed", 60, 1],
    ["lazy-costed", 60, 3],
    ["idle-simple", 60, 1],
    ["lazy-simple", 60, 3],
    ["eager", 20, 1],
  ] as const)(
    "%s over %d s of the conversation trace at speed %d",
    async ([name, seconds, speed]) => {
      const requests = readTrace(conversation, { seconds, speed });
      const recorded = await record(profile, name, requests);
      expect(recorded.log.filter((entry) => entry.includes('"type":"start"'))).toHaveLength(1);
      expect(recorded.log.length).toBeGreaterThan(20);
      expect(await replay(profile, name, recorded)).toEqual(recorded.log);
    },
  );

  test.for(["idle-costed", "lazy-costed", "idle-simple"] as const)(
    "%s on a GPU that has no room for all graphs: refused, and asked for again",
    async (name) => {
      const tight = onGpuWith(3.6 * 2 ** 30);
      const requests = [0, 30, 60, 90, 200].flatMap((at) => burst(at, 20 + at));
      const recorded = await record(tight, name, requests);
      const events = recorded.log.map((entry) => entry.split(" ")[1]);
      expect(events).toContain("lazygraph:memory:refused");
      expect(events).toContain("lazygraph:capture:end");
      if (name === "idle-costed") expect(events).toContain("lazygraph:memory:room");
      expect(await replay(tight, name, recorded)).toEqual(recorded.log);
    },
  );
});
