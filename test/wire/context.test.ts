/** Our sockets' contexts keep no process from ending, and say how long they linger. */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { context } from "zeromq";
import { ownContext } from "../../src/wire/context.ts";

const SOCKET = /new (?:Router|Dealer|Reply|Request|Publisher|Subscriber|Push|Pull|Pair)\(\{/g;

/** What is wrong with the sockets and contexts of a source file, one sentence each. */
function faults(file: string, source: string): string[] {
  const found: string[] = [];
  if (!file.endsWith("wire/context.ts") && /new Context\(/.test(source)) {
    found.push(`${file} makes a context of its own`);
  }
  for (const { index } of source.matchAll(SOCKET)) {
    const options = source.slice(index, index + 400);
    if (!/\bcontext\b/.test(options)) found.push(`${file} has a socket of the default context`);
    if (!/\blinger: (?:\d|[A-Z_]+_MS\b)/.test(options))
      found.push(`${file} has a socket that lingers without end`);
  }
  return found;
}

test("a context of ours doesn't block, where the default one does", () => {
  expect(ownContext().blocky).toBe(false);
  expect(context.blocky).toBe(true);
});

test("no source file has a socket or a context that does", () => {
  const root = new URL("../../src/", import.meta.url).pathname;
  const files = readdirSync(root, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .map((file) => ({ file, source: readFileSync(join(root, file), "utf8") }));
  expect(files.flatMap(({ file, source }) => faults(file, source))).toEqual([]);
  const sockets = files.filter(({ source }) => source.match(SOCKET) !== null);
  expect(sockets.map(({ file }) => file).toSorted()).toEqual([
    "sim/live/link.ts",
    "wire/curve.ts",
    "wire/router.ts",
  ]);
  // The check finds these.
  expect(faults("x.ts", "new Dealer({ linger: 0 }); new Context()")).toHaveLength(2);
  expect(faults("x.ts", "new Dealer({ context })")).toHaveLength(1);
});
