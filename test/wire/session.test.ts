import { describe, expect, test } from "vitest";
import { LazygraphError } from "../../src/base/errors.ts";
import type { CaptureResult, Dropped, ToEngine } from "../../src/wire/protocol.ts";
import { Session } from "../../src/wire/session.ts";
import { FakeClock } from "../helpers/fake-clock.ts";
import { FakeEngine } from "../helpers/fake-engine.ts";

function open(
  deliver: () => boolean = () => true,
  unreadSeconds = () => 0,
): {
  clock: FakeClock;
  session: Session;
  sent: ToEngine[];
  lost: LazygraphError[];
} {
  const clock = new FakeClock();
  const sent: ToEngine[] = [];
  const lost: LazygraphError[] = [];
  let commands = 40;
  const session = new Session(new FakeEngine().hello, {
    clock,
    send: (message) => {
      sent.push(message);
      return deliver();
    },
    unreadSeconds,
    heartbeatMs: 1000,
    captureTimeoutMs: 60_000,
    incarnation: 123,
    nextCommand: () => {
      commands += 1;
      return commands;
    },
    onLost: (error) => lost.push(error),
  });
  return { clock, session, sent, lost };
}

function answerTo(command: number, graph: string): CaptureResult {
  const cost = { stallMs: 1, ms: 1, bytes: 1, ranks: [], epoch: 1 };
  return { type: "result", command, graph, outcome: "captured", ...cost };
}

describe("heartbeats", () => {
  test("go out every heartbeatMs after the welcome; five missed ones end the session", () => {
    const { clock, session, sent, lost } = open();
    session.welcome("lazy");
    expect(sent).toEqual([
      { type: "welcome", version: 1, incarnation: 123, heartbeatMs: 1000, mode: "lazy" },
    ]);
    clock.advance(5);
    expect(sent.filter((message) => message.type === "heartbeat")).toHaveLength(5);
    expect(lost).toEqual([]);
    clock.advance(1);
    expect(lost).toMatchObject([{ code: "ERR_LAZYGRAPH_ENGINE_LOST" }]);
    expect(session.open).toBe(false);
    expect(clock.pending).toBe(0);
  });

  test("an engine that is heard of stays, and a second welcome starts no second beat", () => {
    const { clock, session, sent, lost } = open();
    session.welcome("lazy");
    session.welcome("lazy");
    for (let beat = 0; beat < 60; beat += 1) {
      clock.advance(4);
      session.heard();
    }
    expect(lost).toEqual([]);
    expect(sent.filter((message) => message.type === "heartbeat")).toHaveLength(240);
  });

  test("time in which this process stood still does not count against the engine", () => {
    const { clock, session, lost } = open();
    session.welcome("idle");
    clock.stall(30);
    expect(lost).toEqual([]);
    clock.advance(3);
    expect(lost).toEqual([]);
    clock.advance(4);
    expect(lost).toHaveLength(1);
  });

  test("what lies unread is not silence, as far as thirty heartbeats", () => {
    let unread = 0;
    const { clock, session, lost } = open(undefined, () => unread);
    session.welcome("idle");
    for (; unread < 20; unread++) clock.advance(1);
    expect(lost).toEqual([]);
    session.heard();
    for (; unread < 50; unread++) clock.advance(1);
    expect(lost).toEqual([]);
    for (; unread < 60; unread++) clock.advance(1);
    expect(lost).toHaveLength(1);
  });

  test("a frame read late in a standstill buys no silence beyond the usual", () => {
    const { clock, session, lost } = open();
    session.welcome("idle");
    clock.after(0.5, () => session.heard());
    clock.stall(30);
    expect(lost).toEqual([]);
    clock.advance(7);
    expect(lost).toHaveLength(1);
  });
});

describe("ends", () => {
  test("a heartbeat that ends the session starts no other", () => {
    let deliver = true;
    const opened = open(() => {
      if (!deliver) opened.session.lose(new LazygraphError("ERR_LAZYGRAPH_ENGINE_LOST", "Full."));
      return deliver;
    });
    const { clock, session, sent } = opened;
    session.welcome("idle");
    deliver = false;
    clock.advance(30);
    expect(sent.map((message) => message.type)).toEqual(["welcome", "heartbeat"]);
    expect(clock.pending).toBe(0);
  });

  test("a welcome that ends the session starts no heartbeat", () => {
    const opened = open(() => {
      opened.session.lose(new LazygraphError("ERR_LAZYGRAPH_ENGINE_LOST", "Full."));
      return false;
    });
    opened.session.welcome("idle");
    expect(opened.clock.pending).toBe(0);
  });
});

describe("captures", () => {
  test("a command still open is sent again to an engine that is welcomed again", async () => {
    const { session, sent, clock } = open();
    session.welcome("idle");
    const capture = session.capture("FULL:8", true);
    clock.advance(1);
    session.welcome("idle");
    const [, first, , , again] = sent;
    expect(sent.map((message) => message.type)).toEqual([
      ...["welcome", "capture", "heartbeat", "welcome", "capture"],
    ]);
    expect(again).toEqual(first);
    expect(session.answer(answerTo(41, "FULL:8"))).toBe(true);
    await capture;
    session.welcome("idle");
    expect(sent.at(-1)?.type).toBe("welcome");
  });

  test("the answer with the command's id settles it, once", async () => {
    const { clock, session, sent } = open();
    const capture = session.capture("FULL:8", true);
    expect(sent).toEqual([{ type: "capture", command: 41, graph: "FULL:8", whenIdle: true }]);
    expect(session.answer(answerTo(40, "FULL:8"))).toBe(false);
    expect(session.answer(answerTo(41, "FULL:4"))).toBe(false);
    const answer = answerTo(41, "FULL:8");
    expect(session.answer(answer)).toBe(true);
    expect(session.answer(answer)).toBe(false);
    await expect(capture).resolves.toBe(answer);
    expect(clock.pending).toBe(0);
  });

  test("no answer within captureTimeoutMs ends the session", async () => {
    const { clock, session, lost } = open();
    const capture = session.capture("FULL:8", false);
    clock.advance(59.9);
    expect(lost).toEqual([]);
    clock.advance(0.1);
    await expect(capture).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_ENGINE_TIMEOUT",
      message: expect.stringMatching(/FULL:8 within 60000 ms, got no answer/),
    });
    expect(lost).toMatchObject([{ code: "ERR_LAZYGRAPH_ENGINE_TIMEOUT" }]);
    expect(session.answer(answerTo(41, "FULL:8"))).toBe(false);
    await expect(session.capture("FULL:4", false)).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_ENGINE_LOST",
    });
  });

  test("an answer that came while this process stood still is read before its time is over", async () => {
    const { clock, session, lost } = open();
    session.welcome("lazy");
    const answered = session.capture("FULL:8", false);
    clock.stall(90);
    expect(lost).toEqual([]);
    session.heard();
    expect(session.answer(answerTo(41, "FULL:8"))).toBe(true);
    await expect(answered).resolves.toMatchObject({ outcome: "captured" });
    const unanswered = session.capture("FULL:4", false);
    clock.stall(90);
    clock.advance(1);
    await expect(unanswered).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_ENGINE_TIMEOUT" });
    expect(clock.pending).toBe(0);
  });

  test("a command that can't be delivered fails at once", async () => {
    const { session, lost } = open(() => false);
    await expect(session.capture("FULL:8", false)).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_ENGINE_LOST",
    });
    expect(lost).toHaveLength(1);
  });

  test("two at once are a mistake of the caller's", () => {
    const { session } = open();
    session.capture("FULL:8", false).catch(() => undefined);
    expect(() => session.capture("FULL:4", false)).toThrow(/while FULL:8 is under way/);
  });
});

describe("memory", () => {
  const dropped: Dropped = {
    type: "dropped",
    command: 41,
    outcome: "dropped",
    graphs: ["FULL:8"],
    freedBytes: 4,
    ranks: [],
    epoch: 2,
  };

  test("a capture says what was reserved for it", () => {
    const { session, sent } = open();
    session.capture("FULL:8", true, 4096).catch(() => undefined);
    expect(sent).toEqual([
      { type: "capture", command: 41, graph: "FULL:8", whenIdle: true, needBytes: 4096 },
    ]);
  });

  test("a drop is settled by the answer to it, not by a result of the same id", async () => {
    const { clock, session, sent } = open();
    const drop = session.drop(["FULL:8"]);
    expect(sent).toEqual([{ type: "drop", command: 41, graphs: ["FULL:8"] }]);
    expect(session.answer(answerTo(41, "FULL:8"))).toBe(false);
    expect(session.answer({ ...dropped, command: 40 })).toBe(false);
    expect(session.answer(dropped)).toBe(true);
    await expect(drop).resolves.toBe(dropped);
    expect(clock.pending).toBe(0);
  });

  test("a capture is not settled by the answer to a drop; a drop waits its turn", () => {
    const { session } = open();
    session.capture("FULL:8", true).catch(() => undefined);
    expect(session.answer(dropped)).toBe(false);
    expect(() => session.drop(["FULL:8"])).toThrow(/while FULL:8 is under way/);
  });

  test("a drop that nobody answers ends the session with its name", async () => {
    const { clock, session } = open();
    const drop = session.drop(["FULL:8", "FULL:16"]);
    clock.advance(60);
    await expect(drop).rejects.toThrow(/answer the drop of FULL:8, FULL:16 within 60000 ms/);
  });
});
