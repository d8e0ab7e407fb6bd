/** Compressed streams, each piece flushed as servers do that stream. */

import {
  constants,
  createBrotliCompress,
  createDeflate,
  createDeflateRaw,
  createGzip,
} from "node:zlib";
import type { Shape } from "./shape.ts";
import { done, stop, text, usage } from "./shape-parts.ts";

const PLAIN = [text(""), text(" one"), text(" two"), stop("length") + usage(7, 2) + done];

type Packer = ReturnType<typeof createGzip> | ReturnType<typeof createBrotliCompress>;

/** What a compressor gives for each piece, the last one with its end. */
async function packed(packer: Packer, flush: number): Promise<Buffer[]> {
  const pieces: Buffer[] = [];
  let parts: Buffer[] = [];
  packer.on("data", (part: Buffer) => parts.push(part));
  for (const [index, piece] of PLAIN.entries()) {
    packer.write(piece);
    await new Promise<void>((resolve) => packer.flush(flush, resolve));
    if (index === PLAIN.length - 1) await new Promise<void>((resolve) => packer.end(resolve));
    pieces.push(Buffer.concat(parts));
    parts = [];
  }
  return pieces;
}

const ZLIB = constants.Z_SYNC_FLUSH;
const gzipped = await packed(createGzip(), ZLIB);
const brotli = await packed(createBrotliCompress(), constants.BROTLI_OPERATION_FLUSH);
const want = { first: 1, content: 2, prompt: 7, output: 2 } as const;

/** By Python's zstandard 0.25, a block flushed for each piece: Node 20 has no compressor of it. */
const ZSTD = [
  "28b52ffd0058000200646174613a207b2263686f69636573223a5b7b22696e646578223a302c2274657874223a22222c" +
    "2266696e6973685f726561736f6e223a6e756c6c7d5d7d0a0a",
  "6c000020206f6e650200478464780210",
  "640000206474776f0200201c0fb802",
  "640200b40364226c656e677468225d2c227573616765223a7b2270726f6d70745f746f6b656e73223a372c22636f6d70" +
    "6c6574696f6e327d5b444f4e455d0a0a05004b2818394539701dc05b492004010000",
].map((hex) => Buffer.from(hex, "hex"));

export const PACKED: readonly Shape[] = [
  { name: "gzip", from: "nginx with gzip on", contentEncoding: "gzip", pieces: gzipped, want },
  { name: "x-gzip", from: "older proxies", contentEncoding: "X-GZIP", pieces: gzipped, want },
  { name: "br", from: "Cloudflare", contentEncoding: "br", pieces: brotli, want },
  {
    name: "deflate",
    from: "RFC 9110: in zlib's format",
    contentEncoding: "deflate",
    pieces: await packed(createDeflate(), ZLIB),
    want,
  },
  {
    name: "bare deflate",
    from: "servers that read the name literally",
    contentEncoding: "deflate",
    pieces: await packed(createDeflateRaw(), ZLIB),
    want,
  },
  { name: "zstd", from: "Caddy, Cloudflare", contentEncoding: "zstd", pieces: ZSTD, want },
  {
    name: "gzip, cut before its end",
    from: "an engine that was killed behind nginx",
    contentEncoding: "gzip",
    pieces: gzipped.slice(0, 2),
    cut: true,
    want: { first: 1, content: 1, failure: "cut_off" },
  },
];
