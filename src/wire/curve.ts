/**
 * CURVE keys of a controller, and who may use them.
 *
 * libzmq asks a handler on `inproc://zeromq.zap.01` of the same context whether a client's public
 * key is welcome (ZAP, https://rfc.zeromq.org/spec/27). Without a handler everybody who knows the
 * server's public key is.
 */

import { type Context, Reply } from "zeromq";
import { toZ85 } from "./z85.ts";

export interface CurveOptions {
  /** The controller's keys, 40 characters of Z85 each; zeromq's `curveKeyPair()` makes them. */
  readonly publicKey: string;
  readonly secretKey: string;
  /**
   * Public keys of the engines that may connect, with the names that each may take, or a function
   * that is asked for them whenever one does, so that they may change; it must answer at once. Who is
   * connected stays. Where one entry has names, every engine must prove its key.
   * @default undefined: every client that knows `publicKey`
   */
  readonly allowedClients?: AllowedClients;
}

/** A public key alone, or with the names that it may take. */
export type AllowedClient = string | AllowedEngines;

export interface AllowedEngines {
  readonly key: string;
  /**
   * Names that an engine with this key may take, and that no other key may; one that ends in `*`
   * stands for all that begin so. @default none: every name that is not another key's
   */
  readonly engines?: readonly string[];
}

export type AllowedClients = readonly AllowedClient[] | (() => Iterable<AllowedClient>);

const ZAP_ENDPOINT = "inproc://zeromq.zap.01";
const ZAP_VERSION = "1.0";

/** Answers libzmq's questions until closed. Must run before the socket it guards is bound. */
export async function guardClients(
  context: Context,
  allowedClients: AllowedClients,
): Promise<Reply> {
  const allowed = (): Iterable<AllowedClient> => listOf(allowedClients);
  const socket = new Reply({ context, linger: 0 });
  await socket.bind(ZAP_ENDPOINT);
  void answer(socket, allowed);
  return socket;
}

async function answer(socket: Reply, allowed: () => Iterable<AllowedClient>): Promise<void> {
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
function isAmong(key: string, allowed: () => Iterable<AllowedClient>): boolean {
  try {
    for (const client of allowed()) if (keyOf(client) === key) return true;
    return false;
  } catch {
    return false;
  }
}

/** What may connect as of now. @throws what the caller's function throws */
export function listOf(allowed: AllowedClients): Iterable<AllowedClient> {
  return typeof allowed === "function" ? allowed() : allowed;
}

export function keyOf(client: AllowedClient): string {
  return typeof client === "string" ? client : client.key;
}
