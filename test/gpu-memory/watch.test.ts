import { once } from "node:events";
import { inspect } from "node:util";
import { describe, expect, it, vi } from "vitest";
import type { GpuMemory, GpuWatchEvent, GpuWatchOptions } from "../../src/gpu/memory.ts";
import { GIB, Inbox, LiveValue, nvmlScript, openFake, openScript, scratch } from "./fake.ts";

const TOTAL = 80 * GIB;

/** A device whose free memory the test sets. */
async function live(value: number | string): Promise<{ memory: GpuMemory; free: LiveValue }> {
  const folder = scratch();
  const free = new LiveValue(folder, value);
  const script = nvmlScript([`device GPU-a total=${TOTAL} free=@${free.path}`], folder);
  return { memory: await openScript(script), free };
}

function options(more: Partial<GpuWatchOptions> = {}): GpuWatchOptions {
  return { uuid: "GPU-a", intervalMs: 10, belowBytes: 4 * GIB, hysteresisBytes: GIB, ...more };
}

describe("a watch", () => {
  it("tells each crossing once, with hysteresis", async () => {
    // The first reading checks the device; the others are the watch's.
    const free = [10, 10, 3, 2, 4.5, 4.9, 5, 6, 4, 3.5].map((gib) => Math.round(gib * GIB));
    const memory = await openFake([`device GPU-a total=${TOTAL} free=${free}`]);
    const inbox = new Inbox<GpuWatchEvent>();
    await memory.watch(options(), inbox.push);
    expect(await inbox.next()).toMatchObject({
      kind: "below",
      uuid: "GPU-a",
      reading: { totalBytes: TOTAL, freeBytes: 3 * GIB },
      replaced: 0,
    });
    expect(await inbox.next()).toMatchObject({ kind: "above", reading: { freeBytes: 5 * GIB } });
    expect(await inbox.next()).toMatchObject({ kind: "below", reading: { freeBytes: 3.5 * GIB } });
  });

  it("predicts when free memory will be used up", async () => {
    const falling = Array.from({ length: 400 }, (_, i) => 50 * GIB - i * 0.1 * GIB);
    const memory = await openFake([`device GPU-a total=${TOTAL} free=${falling.map(Math.round)}`]);
    const inbox = new Inbox<GpuWatchEvent>();
    await memory.watch(options({ belowBytes: 0, withinSeconds: 86_400 }), inbox.push);
    const event = await inbox.next();
    if (event.kind === "fault") throw event.error;
    const { bytesPerSecond = 0, secondsToExhaustion = 0 } = event;
    expect(event.kind).toBe("draining");
    expect(bytesPerSecond).toBeLessThan(0);
    expect(secondsToExhaustion * -bytesPerSecond).toBeCloseTo(event.reading.freeBytes, -3);
  });

  it("reports a device that disappears and one that comes back", async () => {
    const { memory, free } = await live(10 * GIB);
    const inbox = new Inbox<GpuWatchEvent>();
    await memory.watch(options(), inbox.push);
    free.set("!15");
    expect(await inbox.next()).toMatchObject({
      kind: "fault",
      uuid: "GPU-a",
      error: { code: "ERR_LAZYGRAPH_GPU_LOST" },
    });
    free.set(9 * GIB);
    expect(await inbox.next()).toMatchObject({
      kind: "restored",
      reading: { freeBytes: 9 * GIB },
    });
  });

  it("delivers nothing after its close", async () => {
    const { memory, free } = await live(GIB);
    const events: GpuWatchEvent[] = [];
    const closed = new Inbox<GpuWatchEvent>();
    const watch = await memory.watch(options(), (event) => {
      events.push(event);
      void watch.close().then(() => closed.push(event));
    });
    await closed.next();
    free.set(50 * GIB);
    // A second watch sees the change; the first, were it alive, would have seen it too.
    const second = new Inbox<GpuWatchEvent>();
    await memory.watch(options({ belowBytes: 60 * GIB }), second.push);
    await second.next();
    expect(events).toHaveLength(1);
  });

  it("ends by its signal, also by one that was aborted before", async () => {
    const { memory } = await live(GIB);
    const controller = new AbortController();
    const watch = await memory.watch(options({ signal: controller.signal }), () => {});
    controller.abort();
    await watch.closed;
    const callback = vi.fn();
    const never = await memory.watch(options({ signal: controller.signal }), callback);
    await never.closed;
    expect(callback).not.toHaveBeenCalled();
  });

  it("leaves no listener on a signal that outlives it", async () => {
    const { memory } = await live(GIB);
    const { signal } = new AbortController();
    const removed = vi.spyOn(signal, "removeEventListener");
    const watch = await memory.watch(options({ signal }), () => {});
    await watch.close();
    expect(removed).toHaveBeenCalledTimes(1);
  });

  it("goes on when its callback throws or rejects, and says so", async () => {
    const { memory, free } = await live(GIB);
    const errors = new Inbox<unknown>();
    let calls = 0;
    const callback = (): unknown => {
      calls += 1;
      if (calls === 1) throw new Error("first");
      return Promise.reject(new Error("second"));
    };
    await memory.watch(options({ onCallbackError: errors.push }), callback);
    expect(await errors.next()).toMatchObject({ message: "first" });
    free.set(50 * GIB);
    expect(await errors.next()).toMatchObject({ message: "second" });
  });

  it("turns the first error that nobody handles into a warning", async () => {
    const { memory } = await live(GIB);
    const warning = once(process, "warning") as Promise<[Error & { code: string }]>;
    await memory.watch(options(), () => {
      throw new Error("boom");
    });
    const [{ code, message }] = await warning;
    expect(code).toBe("LAZYGRAPH_GPU_CALLBACK");
    expect(message).toContain("boom");
  });

  it("is refused over the limit, and its place is free again after a close", async () => {
    const { memory } = await live(10 * GIB);
    const open = Array.from({ length: 64 }, () => memory.watch(options(), () => {}));
    await expect(memory.watch(options(), () => {})).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_GPU_CALL",
      message: expect.stringContaining("64"),
    });
    const watches = await Promise.all(open);
    await watches[0]?.close();
    const another = await memory.watch(options(), () => {});
    await another.close();
  });

  it("ends with its reader", async () => {
    const { memory } = await live(10 * GIB);
    const watch = await memory.watch(options(), () => {});
    await memory.close();
    await watch.closed;
  });
});

describe("watch options", () => {
  const wrong: readonly (readonly [string, Record<string, unknown>])[] = [
    ["uuid", { uuid: "" }],
    ["uuid", { uuid: 3 }],
    ["uuid", { uuid: "GPU-a\0b" }],
    ["uuid", { uuid: "x".repeat(97) }],
    ["intervalMs", { intervalMs: Object.create(null) }],
    ["intervalMs", { intervalMs: -1 }],
    ["intervalMs", { intervalMs: 9 }],
    ["intervalMs", { intervalMs: 60_001 }],
    ["intervalMs", { intervalMs: Number.NaN }],
    ["intervalMs", { intervalMs: "10" }],
    ["belowBytes", { belowBytes: -1 }],
    ["belowBytes", { belowBytes: 0.5 }],
    ["belowBytes", { belowBytes: 10n }],
    ["belowBytes", { belowBytes: TOTAL + 1 }],
    ["hysteresisBytes", { hysteresisBytes: TOTAL }],
    ["hysteresisBytes", { hysteresisBytes: -1 }],
    ["withinSeconds", { withinSeconds: Number.POSITIVE_INFINITY }],
    ["signal", { signal: {} }],
    ["onCallbackError", { onCallbackError: 5 }],
    ["intervalMS", { intervalMS: 10 }],
  ];
  for (const [option, more] of wrong) {
    const shown = Object.entries(more).map(([name, value]) => `${name}=${inspect(value)}`);
    it(`refuse ${shown}`, async () => {
      const { memory } = await live(GIB);
      const call = memory.watch({ ...options(), ...more } as never, () => {});
      await expect(call).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_OPTION", option });
    });
  }

  it("refuse a callback that is none, and a device that is not there", async () => {
    const { memory } = await live(GIB);
    await expect(memory.watch(options(), undefined as never)).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_OPTION",
      option: "callback",
    });
    await expect(memory.watch(options({ uuid: "GPU-b" }), () => {})).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_GPU_UNKNOWN_DEVICE",
    });
  });

  it("have a default hysteresis that the device can reach", async () => {
    const memory = await openFake(["device GPU-a total=1000 free=1,1,1000"]);
    const inbox = new Inbox<GpuWatchEvent>();
    await memory.watch({ uuid: "GPU-a", intervalMs: 10, belowBytes: 990 }, inbox.push);
    expect((await inbox.next()).kind).toBe("below");
    expect((await inbox.next()).kind).toBe("above");
  });
});
