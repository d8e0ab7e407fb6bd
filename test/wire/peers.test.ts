import { describe, expect, test } from "vitest";
import { FRAMES_PER_SECOND_MAX, Peers, WORK_SHARE_MAX } from "../../src/wire/peers.ts";
import { WorkBudget } from "../../src/wire/work-budget.ts";

const LARGE = 1_000_000;
const SMALL = 100;

describe("a budget of work", () => {
  test("gives its burst at once, and its share from then on", () => {
    const budget = new WorkBudget(0.25, 0.5, 0);
    let doneSeconds = 0;
    for (let tenths = 0; tenths < 600; tenths += 1) {
      const now = tenths / 10;
      while (!budget.isSpent(now)) {
        budget.spend(now, 0.05);
        doneSeconds += 0.05;
      }
    }
    expect(doneSeconds).toBeGreaterThanOrEqual(0.5 + 0.25 * 59.9);
    expect(doneSeconds).toBeLessThanOrEqual(0.5 + 0.25 * 59.9 + 0.05);
  });

  test("what overdraws it is paid off before the next", () => {
    const budget = new WorkBudget(0.25, 0.5, 0);
    budget.spend(0, 2);
    expect(budget.isSpent(5.9)).toBe(true);
    expect(budget.isSpent(6.1)).toBe(false);
  });
});

describe("peers", () => {
  const id = (name: string): Buffer => Buffer.from(name);

  test("one that takes too long has its large frames dropped, and its small ones read", () => {
    const peers = new Peers(0);
    const slow = peers.heard(id("slow"), 0);
    peers.admit(slow.name);
    const other = peers.heard(id("other"), 0);
    peers.admit(other.name);
    peers.worked(slow, 0, 0.6);
    expect(peers.excess(slow, LARGE, 0)).toBe("work");
    expect(peers.excess(slow, SMALL, 0)).toBeUndefined();
    expect(peers.excess(other, LARGE, 0)).toBeUndefined();
    expect(peers.excess(slow, LARGE, 0.1 / WORK_SHARE_MAX + 0.01)).toBeUndefined();
    expect(peers.overflow(slow, 0.9)).toBeUndefined();
    expect(peers.overflow(slow, 1)).toEqual({ frames: 0, work: 1 });
    expect(peers.overflow(slow, 2)).toBeUndefined();
  });

  test("strangers have one budget together, whatever they are called", () => {
    const peers = new Peers(0);
    for (let n = 0; n < 10; n += 1) peers.worked(peers.heard(id(`s${n}`), 0), 0, 0.11);
    expect(peers.excess(peers.heard(id("new"), 0), LARGE, 0)).toBe("work");
    const member = peers.heard(id("member"), 0);
    peers.admit(member.name);
    expect(peers.excess(member, LARGE, 0)).toBeUndefined();
  });

  test("more than so many frames in a second are dropped, however small", () => {
    const peers = new Peers(0);
    const peer = peers.heard(id("a"), 0);
    for (let n = 0; n < FRAMES_PER_SECOND_MAX; n += 1) {
      expect(peers.excess(peer, SMALL, 0)).toBeUndefined();
    }
    expect(peers.excess(peer, SMALL, 0.5)).toBe("frames");
    expect(peers.overflow(peer, 1)).toEqual({ frames: 1, work: 0 });
    expect(peers.excess(peer, SMALL, 1)).toBeUndefined();
  });

  test("strangers are forgotten for each other, and a peer with a session for none", () => {
    const peers = new Peers(0);
    const member = peers.heard(id("member"), 0);
    peers.admit(member.name);
    for (let n = 0; n < 2000; n += 1) peers.heard(id(`s${n}`), 0);
    expect(peers.find(member.name)).toBe(member);
    expect(peers.find(id("s0").toString("hex"))).toBeUndefined();
    expect(peers.find(id("s1999").toString("hex"))).toBeDefined();
    peers.dismiss(member.name);
    expect(peers.find(member.name)).toBe(member);
    for (let n = 0; n < 2000; n += 1) peers.heard(id(`t${n}`), 0);
    expect(peers.find(member.name)).toBeUndefined();
  });
});
