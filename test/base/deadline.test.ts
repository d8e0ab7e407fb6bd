/** Limits of waits, which the garbage collector must not lift. */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { within } from "../../src/base/deadline.ts";

const ROOT = new URL("../../", import.meta.url).pathname;

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

describe("a wait with a limit", () => {
  const forever = (signal: AbortSignal): Promise<never> =>
    new Promise((_, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason as Error));
      if (signal.aborted) reject(signal.reason as Error);
    });

  test("ends when its time is over, with a sentence", async () => {
    const never = new AbortController().signal;
    await expect(within(20, never, forever)).rejects.toThrow("no answer within 0.02 s");
  });

  test("ends when it is called off, before or meanwhile, by the caller's reason", async () => {
    const user = new AbortController();
    const ended = within(60_000, user.signal, forever);
    user.abort(new Error("the user left"));
    await expect(ended).rejects.toThrow("the user left");
    await expect(within(60_000, user.signal, forever)).rejects.toThrow("the user left");
  });

  test("hands on what came in time", async () => {
    const never = new AbortController().signal;
    expect(await within(60_000, never, async () => "an answer")).toBe("an answer");
  });
});
