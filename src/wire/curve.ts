/**
 * CURVE keys of a controller, and who may use them.
 *
 * libzmq asks a handler on `inproc://zeromq.zap.01` of the same context whether a client's public
 * key is welcome (ZAP, https://rfc.zeromq.org/spec/27). Without a handler everybody who knows the
 * server's public key is.
 */

import { type Context, Reply } from "zeromq";

export interface CurveOptions {
  /** The controller's keys, 40 characters of Z85 each; zeromq's `curveKeyPair()` makes them. */
  readonly publicKey: string;
  readonly secretKey: string;
  /**
   * Public keys of the engines that may connect, or a function that is asked for them whenever one
   * does, so that they may change; it must answer at once. Who is connected stays.
   * @default undefined: every client that knows `publicKey`
   */
  readonly allowedClients?: AllowedClients;
}

export type AllowedClients = readonly string[] | (() => Iterable<string>);

const ZAP_ENDPOINT = "inproc://zeromq.zap.01";
const ZAP_VERSION = "1.0";

/** Answers libzmq's questions until closed. Must run before the socket it guards is bound. */
export async function guardClients(
  context: Context,
  allowedClients: AllowedClients,
): Promise<Reply> {
  const allowed =
    typeof allowedClients === "function" ? allowedClients : (): readonly string[] => allowedClients;
  const socket = new Reply({ context, linger: 0 });
  await socket.bind(ZAP_ENDPOINT);
  void answer(socket, allowed);
  return socket;
}

async function answer(socket: Reply, allowed: () => Iterable<string>): Promise<void> {
  try {
    for await (const frames of socket) {
      const [version, request, , , , mechanism, key] = frames;
      const known =
        version?.toString() === ZAP_VERSION &&
        mechanism?.toString() === "CURVE" &&
        key !== undefined &&
        isAmong(toZ85(key), allowed);
      const verdict = known ? ["200", "OK"] : ["400", "unknown client key"];
      await socket.send([ZAP_VERSION, request ?? "", ...verdict, "", ""]);
    }
  } catch {
    // The socket was closed while an answer was on its way; libzmq then refuses the client.
  }
}

/** A list that can't be had lets nobody in. */
function isAmong(key: string, allowed: () => Iterable<string>): boolean {
  try {
    return new Set(allowed()).has(key);
  } catch {
    return false;
  }
}

const Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/** Z85 text of bytes whose number is a multiple of four (https://rfc.zeromq.org/spec/32). */
function toZ85(bytes: Buffer): string {
  let text = "";
  for (let at = 0; at + 4 <= bytes.byteLength; at += 4) {
    let value = bytes.readUInt32BE(at);
    let group = "";
    for (let digit = 0; digit < 5; digit += 1) {
      group = Z85.charAt(value % 85) + group;
      value = Math.floor(value / 85);
    }
    text += group;
  }
  return text;
}

/** Whether this is 32 bytes in Z85; not every group of five characters is four bytes. */
export function isCurveKey(key: unknown): boolean {
  if (typeof key !== "string" || key.length !== 40) return false;
  const digits = [...key].map((character) => Z85.indexOf(character));
  if (digits.includes(-1)) return false;
  for (let at = 0; at < digits.length; at += 5) {
    const value = digits.slice(at, at + 5).reduce((sum, digit) => sum * 85 + digit, 0);
    if (value > 0xffff_ffff) return false;
  }
  return true;
}
