import { describe, expect, test } from "vitest";
import type { Answer } from "../../src/measure/answer.ts";
import { createAnswerReader } from "../../src/measure/answer-reader.ts";
import { EventStream } from "../../src/measure/event-stream.ts";
import type { Shape } from "./shape.ts";
import { SHAPES } from "./shapes.ts";

const CUT = "The connection was cut.";

/** The time of a piece is its number. */
async function read(shape: Shape, pieces: readonly (readonly [Buffer, number])[]) {
  const reader = createAnswerReader({
    contentType: shape.contentType ?? "text/event-stream",
    contentEncoding: shape.contentEncoding,
    usageAsked: true,
  });
  if (reader === undefined) throw new Error("An encoding of the table is not known.");
  for (const [bytes, at] of pieces) reader.push(bytes, at);
  return new Promise<Answer>((resolve) => {
    reader.end(resolve, shape.cut === true ? CUT : undefined);
  });
}

const whole = (shape: Shape) =>
  shape.pieces.map((piece, index) => [Buffer.from(piece), index] as const);

test("the table has at least 60 shapes, no two of one name", () => {
  const names = SHAPES.map(({ name }) => name);
  expect(new Set(names).size).toBe(names.length);
  expect(names.length).toBeGreaterThanOrEqual(60);
});

test.for(["x", "data: x\n"])("%j without an end is not kept once it was too much", (line) => {
  const heard: string[] = [];
  const sink = (text: string): void => void heard.push(text);
  const stream = new EventStream({ event: sink, strayLine: sink });
  const piece = Buffer.from(line.repeat(2 ** 20 + 1));
  expect(() => stream.push(piece)).toThrow("over 1048576 characters");
  heard.length = 0;
  // Kept, it would be told again and again, and come out at the end.
  stream.push(piece);
  stream.end();
  expect(heard).toEqual([]);
});

describe("a shape is read right", () => {
  test.for(SHAPES)("$name ($from)", async (shape) => {
    const answer = await read(shape, whole(shape));
    const { first, content, prompt, output, failure } = shape.want;
    expect(answer.failure?.kind).toBe(failure);
    expect(answer.contentAtMs[0]).toBe(first);
    expect(answer.contentEvents).toBe(content);
    expect(answer.contentAtMs).toHaveLength(content);
    if (failure === undefined || prompt !== undefined) {
      expect(answer).toMatchObject({ promptTokens: prompt, outputTokens: output });
    }
  });
});

describe("cut after every byte it is the same", () => {
  const small = SHAPES.filter(({ pieces }) => pieces.every((piece) => piece.length < 10_000));
  test.for(small)("$name", async (shape) => {
    const bytes = whole(shape).flatMap(([piece, at]) =>
      [...piece].map((byte) => [Buffer.of(byte), at] as const),
    );
    const [one, other] = [await read(shape, whole(shape)), await read(shape, bytes)];
    expect(other.failure?.kind).toBe(one.failure?.kind);
    expect(other.contentAtMs).toEqual(one.contentAtMs);
    expect(other).toMatchObject({ outputTokens: one.outputTokens, promptTokens: one.promptTokens });
  });
});
