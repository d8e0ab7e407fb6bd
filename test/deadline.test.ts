import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, test } from "vitest";
import { within } from "../src/base/deadline.ts";

/** As `fetch` does it: rejects with the signal's reason, and keeps nothing else of it. */
function never(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const fail = (): void => reject(signal.reason as Error);
    if (signal.aborted) fail();
    else signal.addEventListener("abort", fail, { once: true });
  });
}

describe("a wait with a limit", () => {
  test("gives what the work made, and lets go of both signals", async () => {
    const outer = new AbortController();
    let seen: AbortSignal | undefined;
    const made = await within(20, outer.signal, (signal) => {
      seen = signal;
      return Promise.resolve(7);
    });
    expect(made).toBe(7);
    await sleep(40);
    outer.abort();
    expect(seen?.aborted).toBe(false);
  });

  test("ends when its time is over, garbage collected or not", async () => {
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    const waiting = within(300, new AbortController().signal, never);
    const rejected = expect(waiting).rejects.toThrow("no answer within 0.3 s");
    for (let round = 0; round < 5; round++) {
      await sleep(20);
      collect();
    }
    await rejected;
  });

  test("many at once on one signal are no leak", async () => {
    const warnings: Error[] = [];
    const onWarning = (warning: Error): void => void warnings.push(warning);
    process.on("warning", onWarning);
    const { signal } = new AbortController();
    await Promise.all(Array.from({ length: 20 }, () => within(60_000, signal, () => sleep(1))));
    process.off("warning", onWarning);
    expect(warnings).toEqual([]);
  });

  test("ends with the other signal's reason, before the work began too", async () => {
    const outer = new AbortController();
    const waiting = within(60_000, outer.signal, never);
    outer.abort(new Error("enough"));
    await expect(waiting).rejects.toThrow("enough");
    await expect(within(60_000, outer.signal, never)).rejects.toThrow("enough");
  });
});

const ROOT = new URL("../", import.meta.url).pathname;

/** A timeout that nothing but `any` has, which Node 20 forgets once it is collected. */
const FORGOTTEN = /AbortSignal\.any\([^;]*?AbortSignal\.timeout\(/;

function texts(folder: string, ending: RegExp): { name: string; text: string }[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => ending.test(name) && !name.includes("node_modules"))
    .map((name) => join(folder, name))
    .map((name) => ({ name, text: readFileSync(join(ROOT, name), "utf8") }));
}

/** Without comments, which may say what not to write. */
const codeOf = (text: string): string => text.replaceAll(/^\s*(?:\/\/|\/?\*).*$/gm, "");

test("no code of ours, and none that we show, leaves a timeout to `any` alone", () => {
  const all = [
    ...texts("src", /\.ts$/),
    ...texts("examples", /\.(?:ts|mjs)$/),
    ...texts("docs", /\.md$/),
    { name: "README.md", text: readFileSync(join(ROOT, "README.md"), "utf8") },
  ];
  expect(all.filter(({ text }) => FORGOTTEN.test(codeOf(text))).map(({ name }) => name)).toEqual(
    [],
  );
  expect("const hold = AbortSignal.any([signal, AbortSignal.timeout(60_000)]);").toMatch(FORGOTTEN);
  expect("const limit = AbortSignal.timeout(9); f(AbortSignal.any([limit]));").not.toMatch(
    FORGOTTEN,
  );
});
