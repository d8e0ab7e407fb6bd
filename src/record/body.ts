/** A request's body on its way: whole where it is small, to be sent again, else as it comes. */

import type { IncomingMessage } from "node:http";
import { Readable } from "node:stream";

/** Of a prompt of some 200,000 tokens; longer ones are not held. */
const WHOLE_BYTES_MAX = 1 << 20;

export interface RequestBody {
  readonly whole?: Buffer;
  readonly stream?: Readable;
}

/** Neither of the two: there is none. Rejects when the client breaks off before all is there. */
export async function takeBody(incoming: IncomingMessage): Promise<RequestBody> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  const rest = incoming[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  while (bytes <= WHOLE_BYTES_MAX) {
    const { value, done } = await rest.next();
    if (done === true) return bytes === 0 ? {} : { whole: Buffer.concat(pieces) };
    pieces.push(value);
    bytes += value.length;
  }
  return { stream: Readable.from(joined(pieces, rest), { objectMode: false }) };
}

async function* joined(
  first: readonly Buffer[],
  rest: AsyncIterator<Buffer>,
): AsyncGenerator<Buffer> {
  yield* first;
  for (let next = await rest.next(); next.done !== true; next = await rest.next()) yield next.value;
}
