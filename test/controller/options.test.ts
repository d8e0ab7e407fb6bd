import { describe, expect, test } from "vitest";
import { curveKeyPair } from "zeromq";
import { createController } from "../../src/controller/controller.ts";
import { type ControllerOptions, resolveOptions } from "../../src/controller/options.ts";

const PAIR = curveKeyPair();

describe("options", () => {
  test("have the documented defaults and are frozen", () => {
    const resolved = resolveOptions({ curve: PAIR });
    expect(resolved).toMatchObject({
      mode: "idle",
      endpoint: "tcp://127.0.0.1:0",
      heartbeatMs: 1000,
      captureTimeoutMs: 60_000,
      enginesMax: 64,
    });
    expect(resolved.settleWithinSeconds).toBeUndefined();
    expect(resolved.policy("lazy").name).toBe("lazy-simple");
    expect(Object.isFrozen(resolved)).toBe(true);
  });

  test.for([
    [
      { mode: "sometimes" },
      "mode",
      'Expected mode to be one of eager, lazy, idle, got "sometimes".',
    ],
    [{ heartbeatMs: 5 }, "heartbeatMs", /a whole number from 10 to 600000, got 5 \(number\)\.$/],
    [{ heartbeatMs: "1000" }, "heartbeatMs", /got "1000"\.$/],
    [{ heartbeatMs: 10.5 }, "heartbeatMs", /a whole number/],
    [{ captureTimeoutMs: 0 }, "captureTimeoutMs", /from 1 to 3600000/],
    [{ settleWithinSeconds: Number.NaN }, "settleWithinSeconds", /a number from 0/],
    [{ settleWithinSeconds: -1 }, "settleWithinSeconds", /got -1 \(number\)/],
    [{ enginesMax: 0 }, "enginesMax", /from 1 to 4096/],
    [{ policy: "idle" }, "policy", /a function that makes a policy/],
    [{ endpoint: 5557 }, "endpoint", /an endpoint such as/],
    [{ endpoint: "127.0.0.1:5557" }, "endpoint", /got "127\.0\.0\.1:5557"\.$/],
    [{ signal: {} }, "signal", /an AbortSignal/],
    [
      { plan: false, planFolder: "/p" },
      "plan",
      "Expected plan: false or planFolder, got both: give one of them.",
    ],
    [{ plan: false, planReadOnly: true }, "plan", /false or planReadOnly, got both/],
    [{ curve: {} }, "curve", /40 characters of Z85/],
    [{ curve: { ...PAIR, allowedClients: ["x"] } }, "curve", /allowedClients/],
    // Forty characters of the alphabet, but no 32 bytes.
    [{ curve: { ...PAIR, secretKey: "#".repeat(40) } }, "curve", /40 characters of Z85/],
    [{ curve: { ...PAIR, secretKey: curveKeyPair().secretKey } }, "curve", /that belong together/],
    [
      { curve: { ...PAIR, allowedClients: [{ key: PAIR.publicKey, engine: "a" }] } },
      "curve",
      /engines\?/,
    ],
    [
      { curve: { ...PAIR, allowedClients: [{ key: PAIR.publicKey, engines: ["x".repeat(129)] }] } },
      "curve",
      /names of engines/,
    ],
    [
      { curve: { publickey: PAIR.publicKey, secretKey: PAIR.secretKey } },
      "publickey",
      /option of curve, got "publickey": did you mean publicKey\?$/,
    ],
    [{ heartBeatMs: 10 }, "heartBeatMs", /got "heartBeatMs": did you mean heartbeatMs\?$/],
    [{ modes: "idle" }, "modes", /did you mean mode\?$/],
    [{ colour: "red" }, "colour", /known are mode, endpoint, .+\.$/],
    [null, "options", /Expected options to be an object/],
  ] as const)("%j", ([options, option, message]) => {
    expect(() => createController(options as ControllerOptions)).toThrow(
      expect.objectContaining({
        name: "OptionError",
        code: "ERR_LAZYGRAPH_OPTION",
        option,
        message: typeof message === "string" ? message : expect.stringMatching(message),
      }),
    );
  });

  test("never show a key", () => {
    const secretKey = "0123456789".repeat(4).slice(1);
    const attempt = (): unknown => createController({ curve: { ...PAIR, secretKey } });
    expect(attempt).toThrow(
      expect.objectContaining({ message: expect.not.stringContaining("1234") }),
    );
  });

  test("undefined stands for the default", () => {
    expect(resolveOptions({ mode: undefined } as unknown as ControllerOptions).mode).toBe("idle");
  });
});
