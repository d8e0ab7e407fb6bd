import { expect, test } from "vitest";
import { EngineSession, type SessionHost } from "../../src/sim/live/session.ts";
import { EngineModel } from "../../src/sim/model/engine.ts";
import type {
  CaptureResult,
  FromEngine,
  Hello,
  Inventory,
  ToEngine,
} from "../../src/wire/protocol.ts";
import { FakeClock } from "../helpers/fake-clock.ts";
import { tinyProfile } from "./helpers.ts";

const inventory = { type: "inventory", captured: [] } as unknown as Inventory;

function welcome(incarnation: number): ToEngine {
  return { type: "welcome", version: 1, incarnation, heartbeatMs: 60_000, mode: "idle" };
}

function capture(graph: string): ToEngine {
  return { type: "capture", command: 1, graph, whenIdle: false };
}

function outcome(command: number, graph: string): CaptureResult {
  const figures = { stallMs: 0, ms: 0, bytes: 0, ranks: [], epoch: 1 };
  return { type: "result", command, graph, outcome: "captured", ...figures };
}

function connected() {
  const sent: FromEngine[] = [];
  const asked: { command: number; graph: string }[] = [];
  let replaced = 0;
  const host: Partial<SessionHost> = {
    clock: new FakeClock(),
    send: async (message) => {
      sent.push(message);
      return true;
    },
    hello: () => ({ versionMin: 1, versionMax: 2 }) as Hello,
    inventory: () => inventory,
    ready: () => undefined,
    onMode: () => {},
    onMemory: () => {},
    onCapture: (command, graph) => void asked.push({ command, graph }),
    onReplaced: () => {
      replaced += 1;
    },
  };
  const session = new EngineSession(host as SessionHost);
  session.receive(welcome(100));
  return { session, sent, asked, replaced: () => replaced };
}

test("what another controller asked for is no answer to the one that took over", () => {
  const { session, sent, asked, replaced } = connected();
  const before = replaced();
  session.receive(capture("FULL:1"));
  session.receive(welcome(101));
  expect(replaced()).toBe(before + 1);
  session.receive(capture("FULL:4"));
  expect(asked.map(({ graph }) => graph)).toEqual(["FULL:1", "FULL:4"]);
  const [old, young] = asked.map(({ command }) => command);
  sent.length = 0;
  session.answer(outcome(old ?? 0, "FULL:1"));
  expect(sent).toEqual([inventory]);
  session.answer(outcome(young ?? 0, "FULL:4"));
  expect(sent.slice(1)).toEqual([outcome(1, "FULL:4")]);
  session.receive(capture("FULL:4"));
  expect(sent.slice(2)).toEqual([outcome(1, "FULL:4")]);
  expect(asked).toHaveLength(2);
});

test("a return of the same controller voids nothing", () => {
  const { session, sent, asked, replaced } = connected();
  const before = replaced();
  session.receive(capture("FULL:1"));
  session.receive(welcome(100));
  expect(replaced()).toBe(before);
  session.receive(capture("FULL:1"));
  expect(asked).toHaveLength(1);
  session.answer(outcome(asked[0]?.command ?? 0, "FULL:1"));
  expect(sent.at(-1)).toEqual(outcome(1, "FULL:1"));
});

test("commands that are forgotten are neither carried out nor answered", () => {
  const results: string[] = [];
  const model = new EngineModel({
    profile: tinyProfile(),
    observer: { onCaptureResult: ({ graph }) => void results.push(graph) },
  });
  model.start([]);
  model.capture(1, "FULL:1", false);
  model.drop(2, ["FULL:1"]);
  model.forgetCommands();
  model.capture(1, "FULL:4", false);
  const activity = model.begin(0);
  expect(activity).toMatchObject({ type: "capture", graph: { id: "FULL:4" } });
  model.finish(1);
  expect(model.begin(1).type).toBe("idle");
  expect(results).toEqual(["FULL:4"]);
});
