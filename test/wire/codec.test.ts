import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { readResult } from "../../bench/lib/result-file.ts";
import { decode, encode } from "../../src/wire/codec.ts";
import { type FromEngine, LIMITS, type ToEngine } from "../../src/wire/protocol.ts";
import { FROM_ENGINE, TO_ENGINE } from "../../src/wire/validate.ts";
import { FOREIGN, type ForeignFrame, type GoldenMessage, MESSAGES } from "./golden-messages.ts";

interface GoldenFile {
  readonly frames: readonly (GoldenMessage & { readonly hex: string })[];
  readonly foreign: readonly ForeignFrame[];
}

const golden = readResult<GoldenFile>(new URL("../golden/frames.json.gz", import.meta.url));

function decodeAs(direction: GoldenMessage["direction"], frame: Uint8Array): unknown {
  return direction === "from-engine" ? decode(frame, FROM_ENGINE) : decode(frame, TO_ENGINE);
}

function frameOf(foreign: ForeignFrame): Buffer {
  const start = Buffer.from(foreign.hex, "hex");
  const padding = Math.max(0, (foreign.paddedBytes ?? 0) - start.byteLength);
  return Buffer.concat([start, Buffer.alloc(padding)]);
}

describe("golden frames", () => {
  test.for(golden.frames.map((frame) => [frame.name, frame] as const))("%s", ([, frame]) => {
    expect(encode(frame.message).toString("hex")).toBe(frame.hex);
    expect(decodeAs(frame.direction, Buffer.from(frame.hex, "hex"))).toEqual(frame.message);
  });

  test("cover every message type of both directions", () => {
    const seen = (direction: string): Set<string> =>
      new Set(golden.frames.filter((f) => f.direction === direction).map((f) => f.message.type));
    expect(seen("from-engine")).toEqual(new Set(Object.keys(FROM_ENGINE)));
    expect(seen("to-engine")).toEqual(new Set(Object.keys(TO_ENGINE)));
  });

  test("say what the sources say", () => {
    expect(golden.frames.map(({ hex: _, ...frame }) => frame)).toEqual(MESSAGES);
    expect(golden.foreign).toEqual(FOREIGN);
  });
});

describe("foreign frames", () => {
  test.for(golden.foreign.map((f) => [f.name, f.outcome, f] as const))(
    "%s: %s",
    ([, , foreign]) => {
      const frame = frameOf(foreign);
      if (foreign.outcome === "error") {
        expect(() => decodeAs(foreign.direction, frame)).toThrow(
          expect.objectContaining({
            code: "ERR_LAZYGRAPH_PROTOCOL_FRAME",
            message: expect.stringMatching(/^Expected .+, .+; .+\.$/),
          }),
        );
      } else {
        expect(decodeAs(foreign.direction, frame)).toEqual(foreign.message);
      }
    },
  );

  test("every cut and every flipped byte of a golden frame is refused or read, never worse", () => {
    const frames = golden.frames.map((frame) => Buffer.from(frame.hex, "hex"));
    fc.assert(
      fc.property(fc.constantFrom(...frames), fc.nat(), fc.nat(255), (frame, at, byte) => {
        const cut = frame.subarray(0, at % frame.byteLength);
        const flipped = Buffer.from(frame);
        flipped[at % frame.byteLength] = byte;
        expect(() => decode(cut, FROM_ENGINE)).toThrow(/^Expected a frame/);
        for (const bytes of [flipped, Buffer.concat([frame, cut])]) {
          for (const direction of ["from-engine", "to-engine"] as const) {
            try {
              decodeAs(direction, bytes);
            } catch (error) {
              expect(error).toMatchObject({ code: "ERR_LAZYGRAPH_PROTOCOL_FRAME" });
            }
          }
        }
      }),
      { numRuns: 2000 },
    );
  });

  test("random bytes are refused or read, never worse", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        try {
          decode(bytes, FROM_ENGINE);
        } catch (error) {
          expect(error).toMatchObject({ code: "ERR_LAZYGRAPH_PROTOCOL_FRAME" });
        }
      }),
      { numRuns: 2000 },
    );
  });

  test("a frame of nested headers that claim terabytes costs nothing to refuse", () => {
    // Each header claims 2²⁴ entries; a decoder that believed them would allocate 20 TB.
    const frame = Buffer.from("dd01000000".repeat(200_000), "hex");
    expect(() => decode(frame, FROM_ENGINE)).toThrow(/cut short/);
  });
});

describe("encode", () => {
  const edge: FromEngine = { type: "edge", state: "busy", running: 0, waiting: 0 };

  test.for([
    ["a negative count", { ...edge, running: -1 }, /edge\.running to be an integer from 0/],
    ["NaN", { ...edge, running: Number.NaN }, /got NaN \(number\)/],
    ["a fraction", { ...edge, waiting: 0.5 }, /edge\.waiting/],
    ["a lone surrogate", { type: "goodbye", reason: "\ud800" }, /well-formed Unicode/],
    ["text too long", { type: "goodbye", reason: "x".repeat(2049) }, /at most 2048 characters/],
    [
      "too many entries",
      { type: "start", graphs: Array.from({ length: LIMITS.graphs + 1 }, (_, i) => `FULL:${i}`) },
      /start\.graphs to have at most 4096 entries, got 4097/,
    ],
    ["an unknown type", { type: "celebrate" }, /no message has the type "celebrate"/],
  ] as const)("refuses %s", ([, message, sentence]) => {
    const attempt = (): Buffer => encode(message as FromEngine);
    expect(attempt).toThrow(sentence);
    expect(attempt).toThrow(expect.objectContaining({ code: "ERR_LAZYGRAPH_PROTOCOL_FRAME" }));
  });

  test("drops fields the protocol does not have and those that are undefined", () => {
    const hello = { type: "resync", hello: undefined, extra: 1 } as unknown as ToEngine;
    expect(decode(encode(hello), TO_ENGINE)).toEqual({ type: "resync" });
  });

  test("refuses a message whose frame exceeds the limit", () => {
    const graphs = Array.from({ length: LIMITS.rowGraphs }, (_, i) => `${"g".repeat(100)}${i}`);
    const row = (upTo: number): { upTo: number; graphs: string[] } => ({ upTo, graphs });
    const uniform = Array.from({ length: 1000 }, (_, i) => row(i + 1));
    expect(() => encode({ type: "dispatch", uniform, mixed: [] })).toThrow(
      /Expected dispatch to have at most 1048576 bytes/,
    );
  });

  test("integers at the edges survive", () => {
    for (const freeBytes of [0, 127, 128, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1]) {
      const rank = {
        rank: 0,
        gpuUuid: "",
        gpuName: "",
        totalBytes: freeBytes,
        freeBytes,
        reservedBytes: 0,
        poolBytes: 0,
        activationPeakBytes: 0,
      };
      const message: FromEngine = { type: "heartbeat", ranks: [rank] };
      expect(decode(encode(message), FROM_ENGINE)).toEqual(message);
    }
  });
});
