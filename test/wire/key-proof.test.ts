import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { curveKeyPair } from "zeromq";
import { type KeyPair, proveKey, provenKey } from "../../src/wire/key-proof.ts";
import type { Hello } from "../../src/wire/protocol.ts";
import { isCurveKey, keyBytes, toZ85 } from "../../src/wire/z85.ts";

interface Golden {
  readonly client: KeyPair;
  readonly server: KeyPair;
  readonly cases: readonly { engine: string; session: string; mac: string }[];
}

const golden = JSON.parse(
  readFileSync(new URL("../golden/key-proofs.json", import.meta.url), "utf8"),
) as Golden;

function helloWith(proof: Hello["proof"], engine = "e", session = "s"): Hello {
  return { type: "hello", engine, session, ...(proof === undefined ? {} : { proof }) } as Hello;
}

describe("a proof of a key", () => {
  test.for(golden.cases)("is the golden one for $engine", ({ engine, session, mac }) => {
    const { client, server } = golden;
    const proof = proveKey(client, server.publicKey, { engine, session });
    expect(proof).toEqual({ key: client.publicKey, mac });
    expect(provenKey(server, helloWith(proof, engine, session))).toBe(client.publicKey);
  });

  test("holds for any pair that ZeroMQ makes", () => {
    const [engine, server] = [curveKeyPair(), curveKeyPair()];
    const proof = proveKey(engine, server.publicKey, { engine: "e", session: "s" });
    expect(provenKey(server, helloWith(proof))).toBe(engine.publicKey);
  });

  const [mine, other, server] = [curveKeyPair(), curveKeyPair(), curveKeyPair()];
  const sound = proveKey(mine, server.publicKey, { engine: "e", session: "s" });
  const ofOther = proveKey(other, server.publicKey, { engine: "e", session: "s" });
  test.for([
    ["none", undefined],
    ["another name's", proveKey(mine, server.publicKey, { engine: "f", session: "s" })],
    ["another process's", proveKey(mine, server.publicKey, { engine: "e", session: "t" })],
    ["for another controller", proveKey(mine, other.publicKey, { engine: "e", session: "s" })],
    ["another key's under this one", { key: mine.publicKey, mac: ofOther.mac }],
    [
      "made with a secret that isn't the key's",
      proveKey({ ...other, publicKey: mine.publicKey }, server.publicKey, {
        engine: "e",
        session: "s",
      }),
    ],
    [
      "with a bit changed",
      { ...sound, mac: sound.mac.replace(/^./, (c) => (c === "0" ? "1" : "0")) },
    ],
    ["too short", { ...sound, mac: sound.mac.slice(2) }],
    ["no hexadecimal", { ...sound, mac: "x".repeat(64) }],
    ["of no key", { ...sound, key: "short" }],
    ["of a key of small order", { ...sound, key: "0".repeat(40) }],
  ] as const)("%s proves nothing", ([, proof]) => {
    expect(provenKey(server, helloWith(sound))).toBe(mine.publicKey);
    expect(provenKey(server, helloWith(proof))).toBeUndefined();
  });
});

test("Z85 goes both ways, and not every text of 40 characters is a key", () => {
  const { publicKey } = curveKeyPair();
  const bytes = keyBytes(publicKey);
  expect(bytes?.byteLength).toBe(32);
  expect(toZ85(bytes ?? Buffer.alloc(0))).toBe(publicKey);
  for (const text of ["#".repeat(40), "a".repeat(39), "ä".repeat(40), 7]) {
    expect(isCurveKey(text), String(text)).toBe(false);
  }
});
