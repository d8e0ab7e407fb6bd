import { createServer, type Socket } from "node:net";
import { setImmediate } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { streamRequest } from "../../src/bench/stream.ts";
import { ServerAddress } from "../../src/measure/server-address.ts";
import { findWholeChunk } from "../../src/measure/whole-chunk.ts";
import { listening } from "../helpers/listening.ts";
import { text, tokens } from "./shape-parts.ts";

function found(read: string, at = 0): string | undefined {
  const bytes = Buffer.from(read, "latin1");
  const place = { from: 0, to: 0, next: 0 };
  if (!findWholeChunk(bytes, at, bytes.length, place)) return undefined;
  return `${read.slice(place.from, place.to)}|${read.slice(place.next)}`;
}

describe("a whole chunk is found", () => {
  test.each([
    ["alone", "3\r\nabc\r\n", "abc|"],
    ["with more behind it", "3\r\nabc\r\n2\r\nd", "abc|2\r\nd"],
    ["with line ends in it", "4\r\n\r\n\r\n\r\n", "\r\n\r\n|"],
    ["with digits above nine", `1a\r\n${"x".repeat(26)}\r\n`, `${"x".repeat(26)}|`],
    ["in capitals", `0A\r\n${"x".repeat(10)}\r\n`, `${"x".repeat(10)}|`],
  ])("%s", (_, read, want) => {
    expect(found(read)).toBe(want);
  });

  test("where it begins later", () => {
    expect(found("3\r\nabc\r\n1\r\nz\r\n", 8)).toBe("z|");
  });
});

test.each([
  ["the last chunk", "0\r\n\r\n"],
  ["an extension", "3;a=b\r\nabc\r\n"],
  ["a length alone", "3"],
  ["a length without its line end", "3\r"],
  ["data that is cut", "3\r\nab"],
  ["data without its line end", "3\r\nabc\r"],
  ["other bytes where the line end should be", "3\r\nabcde"],
  ["a line feed alone", "3\nabc\n"],
  ["no digit", "\r\nabc\r\n"],
  ["a sign", "-3\r\nabc\r\n"],
  ["more digits than a read has bytes", `0000003\r\nabc\r\n`],
  ["nothing", ""],
])("%s is the parser's", (_, read) => {
  expect(found(read)).toBeUndefined();
});

const chunk = (data: string): string => `${Buffer.byteLength(data).toString(16)}\r\n${data}\r\n`;
const HEAD =
  "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const ANSWER = tokens.map(chunk).join("");

/** What the benchmark's client makes of an answer in the pieces in which it is written. */
async function outcomeOf(pieces: readonly string[]) {
  const server = createServer((socket: Socket) => {
    socket.setNoDelay(true).on("error", () => undefined);
    socket.once("data", async () => {
      for (const piece of pieces) {
        await new Promise<unknown>((resolve) => socket.write(piece, resolve));
        // The reader is in this process: a turn each, so that pieces are read one by one.
        for (let turn = 0; turn < 3; turn++) await setImmediate();
      }
    });
  });
  const url = new URL(await listening(server));
  return streamRequest({
    ...{ server: new ServerAddress(url), endpoint: "completions" },
    ...{ model: "m", prompt: "p", maxTokens: 2, ignoreEos: true, timeoutMs: 60_000 },
  });
}

describe("however chunks are cut the answer is the same", () => {
  test.each<[string, readonly string[]]>([
    ["in one piece", [`${HEAD}${ANSWER}0\r\n\r\n`]],
    ["chunk by chunk", [HEAD, ...tokens.map(chunk), "0\r\n\r\n"]],
    ["byte by byte", [HEAD, ...ANSWER, ..."0\r\n\r\n"]],
    [
      "in the middle of each length",
      [`${HEAD}${ANSWER.slice(0, 1)}`, `${ANSWER.slice(1)}0\r\n\r\n`],
    ],
    [
      "with an extension and a trailer",
      [HEAD, ...tokens.map((data) => chunk(data).replace("\r\n", ";a=b\r\n")), "0\r\nx: y\r\n\r\n"],
    ],
    [
      "an event over two chunks",
      [
        HEAD,
        chunk(text(" one").slice(0, 30)),
        chunk(text(" one").slice(30)),
        ANSWER.slice(chunk(tokens[0] ?? "").length),
        "0\r\n\r\n",
      ],
    ],
  ])("%s", async (_, pieces) => {
    const outcome = await outcomeOf(pieces);
    expect(outcome).toMatchObject({ failure: undefined, promptTokens: 7, outputTokens: 2 });
    expect(outcome.tokensAtMs).toHaveLength(2);
  });

  test("a chunk that isn't closed ends the request", async () => {
    const wrong = chunk(tokens[0] ?? "").replace(/\r\n$/, "xx");
    const outcome = await outcomeOf([HEAD, wrong, ANSWER]);
    expect(outcome.failure?.kind).toBe("cut_off");
  });
});
