/**
 * Whose `hello` this is: a proof that its sender has the secret key to a public one.
 *
 * ZeroMQ tells a handler (ZAP) the public key of a connection and a ROUTER the routing id of a
 * message, and nothing that joins the two: the identity in a ZAP request is the server's own socket's,
 * and a message's `User-Id`, which libzmq has, zeromq.js doesn't show. So the engine says it in
 * `hello` itself. What X25519 makes of its secret key and the controller's public one, and of the
 * two other halves here, nobody else can make; HKDF-SHA256 turns that into a proof of the very name
 * and process claimed. It travels inside CURVE, so that only its controller ever sees it and nobody
 * can replay it; to another controller it proves nothing.
 */

import {
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  hkdfSync,
  type KeyObject,
  timingSafeEqual,
} from "node:crypto";
import type { Hello, KeyProof } from "./protocol.ts";
import { keyBytes } from "./z85.ts";

/** What the proof is for: the same shared secret must never mean anything else. */
const LABEL = "lazygraph hello 1";
const PROOF_BYTES = 32;
/** The kind of key, as JWK calls it. */
const X25519 = { kty: "OKP", crv: "X25519" } as const;

export interface KeyPair {
  /** Z85. */
  readonly publicKey: string;
  readonly secretKey: string;
}

/** Whether the two belong together; swapped or mixed-up keys don't. */
export function isPair(pair: KeyPair): boolean {
  // The given public half is not looked at: what comes out is made from the secret one.
  const made = createPublicKey(privateKeyOf(pair));
  return made.export({ format: "jwk" }).x === base64(pair.publicKey);
}

type Claimed = Pick<Hello, "engine" | "session">;

/** The engine's: made once for a process, its name and its controller. */
export function proveKey(own: KeyPair, serverKey: string, claimed: Claimed): KeyProof {
  const mac = proofOf(own, serverKey, claimed, { client: own.publicKey, server: serverKey });
  return { key: own.publicKey, mac: mac.toString("hex") };
}

/** The controller's: the public key whose owner sent this; undefined: it proves none. */
export function provenKey(own: KeyPair, hello: Hello): string | undefined {
  const { proof } = hello;
  if (proof === undefined || keyBytes(proof.key) === undefined) return undefined;
  const given = Buffer.from(proof.mac, "hex");
  if (given.byteLength !== PROOF_BYTES) return undefined;
  let mac: Buffer;
  try {
    mac = proofOf(own, proof.key, hello, { client: proof.key, server: own.publicKey });
  } catch {
    // A key of small order has no shared secret: OpenSSL refuses it.
    return undefined;
  }
  return timingSafeEqual(mac, given) ? proof.key : undefined;
}

function proofOf(
  own: KeyPair,
  theirs: string,
  { engine, session }: Claimed,
  keys: { readonly client: string; readonly server: string },
): Buffer {
  const peer = { ...X25519, x: base64(theirs) };
  const shared = diffieHellman({
    privateKey: privateKeyOf(own),
    publicKey: createPublicKey({ key: peer, format: "jwk" }),
  });
  // Keys have a fixed length and neither name has a zero in it: no two claims read alike.
  const info = [LABEL, keys.client, keys.server, engine, session].join("\0");
  return Buffer.from(hkdfSync("sha256", shared, "", info, PROOF_BYTES));
}

function privateKeyOf({ publicKey, secretKey }: KeyPair): KeyObject {
  const key = { ...X25519, x: base64(publicKey), d: base64(secretKey) };
  return createPrivateKey({ key, format: "jwk" });
}

function base64(key: string): string {
  return keyBytes(key)?.toString("base64url") ?? "";
}
