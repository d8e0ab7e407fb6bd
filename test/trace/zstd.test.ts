import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { CompressionError } from "../../src/trace/compression-error.ts";
import { openTraceBytes } from "../../src/trace/source.ts";
import { readTrace } from "../../src/trace/trace.ts";
import { checksZstd } from "../../src/trace/zstd.ts";
import { FrameSplitter, hasChecksum } from "../../src/trace/zstd-frames.ts";
import { unzstdedByLibrary } from "../../src/trace/zstd-library.ts";

const SAMPLE = new URL("samples/azure-code.csv.zst", import.meta.url);
const SKIPPABLE = Buffer.from("502a4d1803000000abcdef", "hex");
const BEHIND_MAGIC = 4;

let sample: Buffer;
let content: string;
let file: string;

/** Of the process, from its first read on. */
const warnings: unknown[] = [];
process.on("warning", (warning: NodeJS.ErrnoException) => warnings.push(warning.code));

beforeAll(async () => {
  const folder = await mkdtemp(join(tmpdir(), "lazygraph-"));
  sample = await readFile(SAMPLE);
  file = join(folder, "trace.csv.zst");
  content = await unpacked(sample);
  return () => rm(folder, { recursive: true });
});

async function unpacked(bytes: Uint8Array): Promise<string> {
  await writeFile(file, bytes);
  const chunks: Uint8Array[] = [];
  for await (const chunk of await openTraceBytes(file)) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

function flipped(bit: number): Buffer {
  const bytes = Buffer.from(sample);
  const at = Math.floor(bit / 8);
  bytes[at] = (bytes[at] ?? 0) ^ (1 << (bit % 8));
  return bytes;
}

/** Those that pass for sound and read otherwise. */
async function flipsUnseen(): Promise<number> {
  let unseen = 0;
  for (let bit = BEHIND_MAGIC * 8; bit < sample.length * 8; bit += 3) {
    const got = await unpacked(flipped(bit)).catch((error: unknown) => {
      expect(error).toBeInstanceOf(CompressionError);
      return content;
    });
    if (got !== content) unseen++;
  }
  return unseen;
}

/** A warning is emitted after the turn that it was made in. */
const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("the sample is one that damage can be told of", () => {
  expect(hasChecksum(sample[BEHIND_MAGIC] ?? 0)).toBe(true);
  expect(content).toMatch(/^TIMESTAMP,/);
});

describe.runIf(checksZstd)("where Node has a decoder", () => {
  test("no flipped bit changes what is read in silence", async () => {
    expect(await flipsUnseen()).toBe(0);
    await nextTurn();
    expect(warnings).toEqual([]);
  });

  test("a wrong checksum: the sentence says that it is one, and what to do", async () => {
    await writeFile(file, flipped(sample.length * 8 - 1));
    const reading = async (): Promise<void> => {
      for await (const _ of readTrace(file));
    };
    await expect(reading()).rejects.toThrow(
      expect.objectContaining({
        code: "ERR_LAZYGRAPH_TRACE",
        message: `${file}, line 1: expected a whole zstd file up to its end, got zstd that is not what was written, by its checksum: copy it anew.`,
      }),
    );
  });
});

describe.runIf(!checksZstd)("where Node has none", () => {
  test("there is damage that nobody sees: one warning says so", async () => {
    // Of a literal: the file stays one, with another letter.
    expect(await unpacked(flipped(396))).not.toBe(content);
    await nextTurn();
    expect(warnings).toEqual(["LAZYGRAPH_ZSTD_UNCHECKED"]);
  });
});

describe("the library", () => {
  const standIn = async (push: string): Promise<string> => {
    const path = join(dirname(file), `${push.length}.cjs`);
    await writeFile(path, `exports.Decompress = class { push(piece) { ${push} } };`);
    return path;
  };

  async function read(options: Parameters<typeof unzstdedByLibrary>[1]): Promise<string> {
    await writeFile(file, sample);
    const chunks: Uint8Array[] = [];
    for await (const chunk of unzstdedByLibrary(file, options)) chunks.push(chunk);
    return Buffer.concat(chunks).toString();
  }

  test("reads a sound file", async () => {
    expect(await read({})).toBe(content);
  });

  test("is ended where it doesn't come back, and the file is called damaged", async () => {
    const library = await standIn("for (;;);");
    await expect(read({ library, pieceMsMax: 50 })).rejects.toThrow(
      expect.objectContaining({
        fault: "damaged",
        message: "zstd: no end of a piece after 0.05 s",
      }),
    );
  });

  test("may fail in any way, and the file is called damaged", async () => {
    for (const push of ["throw new RangeError('far out')", "process.exit(3)"]) {
      const library = await standIn(push);
      const reading = read({ library, pieceMsMax: 5000 });
      await expect(reading).rejects.toThrow(expect.objectContaining({ fault: "damaged" }));
    }
  });

  test("is gone when its reader leaves", async () => {
    await writeFile(file, sample);
    const before = process.getActiveResourcesInfo().filter((name) => name === "MessagePort").length;
    for await (const _ of unzstdedByLibrary(file)) break;
    const after = process.getActiveResourcesInfo().filter((name) => name === "MessagePort").length;
    expect(after).toBe(before);
  });
});

test("all frames of a file are one trace, and those without content are none of it", async () => {
  const bytes = Buffer.concat([sample, SKIPPABLE, sample, SKIPPABLE]);
  expect(await unpacked(bytes)).toBe(content + content);
});

test.for([
  ["within the frame's header", 6, "cut short"],
  ["within a block", 60, "cut short"],
  ["within the checksum", -2, "cut short"],
] as const)("cut %s", async ([, end, fault]) => {
  const reading = unpacked(sample.subarray(0, end));
  await expect(reading).rejects.toThrow(expect.objectContaining({ fault }));
});

test("bytes behind the last frame are damage", async () => {
  const reading = unpacked(Buffer.concat([sample, Buffer.from("more")]));
  // The library takes them for the beginning of another frame.
  const fault = checksZstd ? "damaged" : "cut short";
  await expect(reading).rejects.toThrow(expect.objectContaining({ fault }));
});

describe("where frames end", () => {
  /** Frames as texts, the rest of one that has no end last. */
  function framesOf(pieces: readonly Uint8Array[]): string[] {
    const splitter = new FrameSplitter();
    const frames: string[] = [];
    let open = "";
    for (const piece of pieces) {
      for (const { bytes, isLast } of splitter.push(piece)) {
        open += Buffer.from(bytes).toString("hex");
        if (!isLast) continue;
        frames.push(open);
        open = "";
      }
    }
    expect(splitter.isBetweenFrames).toBe(open === "");
    return open === "" ? frames : [...frames, open];
  }

  test("is the same however the bytes were cut", () => {
    const frames = [sample, SKIPPABLE, SKIPPABLE, sample];
    const bytes = Buffer.concat(frames);
    const hex = frames.map((frame) => frame.toString("hex"));
    const cuts = fc.array(fc.nat(bytes.length), { maxLength: 20 });
    fc.assert(
      fc.property(cuts, fc.nat(bytes.length), (at, end) => {
        const places = [0, ...at.filter((cut) => cut < end).sort((a, b) => a - b), end];
        const pieces = places.slice(1).map((to, index) => bytes.subarray(places[index], to));
        const got = framesOf(pieces);
        expect(got.join("")).toBe(bytes.subarray(0, end).toString("hex"));
        got.forEach((frame, index) => {
          if (index < got.length - 1) expect(frame).toBe(hex[index]);
          else expect(hex[index]?.startsWith(frame)).toBe(true);
        });
      }),
    );
    expect(framesOf([bytes])).toEqual(hex);
  });

  test.for([
    // One segment, 64 bytes at most: no window, one byte of size.
    ["a raw block", "28b52ffd 20 03 190000 616263"],
    ["a repeated byte stands once, whatever its block's size", "28b52ffd 20 ff fb0700 61"],
    [
      "a window, a dictionary of four bytes, a size of eight",
      `28b52ffd c3 58 ${"00".repeat(12)} 010000`,
    ],
    ["two blocks and a checksum", "28b52ffd 24 02 080000 61 090000 62 01020304"],
  ] as const)("%s", ([, spaced]) => {
    const hex = spaced.replaceAll(" ", "");
    expect(framesOf([Buffer.from(hex + hex, "hex")])).toEqual([hex, hex]);
  });

  test.for([
    ["a reserved flag", "28b52ffd 28 01 090000 61"],
    ["a reserved type of block", "28b52ffd 20 01 0f0000 61"],
    ["another magic", "28b52ffe 20 01 090000 61"],
  ] as const)("%s can't be", ([, hex]) => {
    expect(() => framesOf([Buffer.from(hex.replaceAll(" ", ""), "hex")])).toThrow(
      expect.objectContaining({ fault: "damaged" }),
    );
  });
});
