/** Compressed bytes that can't be decompressed, or that turned out to be others. */

import { messageOf } from "../base/errors.ts";

/** `checksum`: all of it could be decompressed, and is not what it was written from. */
export type CompressionFault = "cut short" | "damaged" | "checksum";

export class CompressionError extends Error {
  override readonly name = "CompressionError";
  readonly compression: string;
  readonly fault: CompressionFault;

  constructor(compression: string, fault: CompressionFault, cause: unknown) {
    super(`${compression}: ${messageOf(cause)}`, { cause });
    this.compression = compression;
    this.fault = fault;
  }
}
