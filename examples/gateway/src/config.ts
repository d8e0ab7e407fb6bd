/** The gateway's settings, from its environment; a mistake is one sentence. */

import { MODES, type Mode } from "lazygraph";
import { ServerAddress, serverUrl, shownUrl } from "lazygraph/measure";
import { BODY_BYTES_MAX } from "./body.ts";

const MIB = 1 << 20;

export interface Config {
  readonly host: string;
  readonly port: number;
  /** The engines' names (their LAZYGRAPH_ENGINE) and where their OpenAI servers are. */
  readonly engines: ReadonlyMap<string, ServerAddress>;
  /** Where engines connect to the controller: their LAZYGRAPH_ENDPOINT. */
  readonly endpoint: string;
  readonly mode: Mode;
  readonly control: ControlConfig;
  /** Of the controller's HTTP side, this one's own included. */
  readonly token: string | undefined;
  /** Requests held while no engine is ready, and for how long. */
  readonly holdMax: number;
  /** Bytes of all bodies that are being read or held, together. */
  readonly holdBytes: number;
  readonly holdSeconds: number;
  /** From sending a request to an engine to the first byte of its answer. */
  readonly firstByteSeconds: number;
  /** After SIGTERM, for streams under way. */
  readonly drainSeconds: number;
  /** Folder for traces of arrivals and lengths; undefined: none are recorded. */
  readonly traceFolder: string | undefined;
}

/** Where the controller is. */
export type ControlConfig =
  | { readonly kind: "embedded" }
  | { readonly kind: "elsewhere"; readonly url: string }
  | {
      readonly kind: "standby";
      readonly peers: readonly string[];
      readonly place: number;
      /** Of its HTTP side, while it leads. */
      readonly host: string;
      readonly port: number;
    };

type Environment = Readonly<Record<string, string | undefined>>;

/** @throws TypeError that names the variable, what was expected and what came */
export function configOf(environment: Environment): Config {
  const { host, port } = address("LISTEN", environment["LISTEN"] || "127.0.0.1:8000");
  return {
    host,
    port,
    engines: engineList(environment["ENGINES"] ?? "", environment["ENGINE_API_KEY"]),
    endpoint: environment["LAZYGRAPH_ENDPOINT"] || "tcp://127.0.0.1:5757",
    mode: modeOf(environment["LAZYGRAPH_MODE"] || "idle"),
    control: controlOf(environment),
    token: tokenOf("LAZYGRAPH_HTTP_TOKEN", environment),
    holdMax: number(environment, "HOLD_MAX", 512, 0, 100_000),
    holdBytes: number(environment, "HOLD_MIB", 256, BODY_BYTES_MAX / MIB, 1 << 20) * MIB,
    holdSeconds: number(environment, "HOLD_SECONDS", 120, 0.01, 3600),
    firstByteSeconds: number(environment, "FIRST_BYTE_SECONDS", 60, 0.01, 3600),
    drainSeconds: number(environment, "DRAIN_SECONDS", 30, 0, 3600),
    traceFolder: environment["TRACE_FOLDER"] || undefined,
  };
}

/** @param apiKey of the engines, for requests that bring none */
function engineList(text: string, apiKey?: string): ReadonlyMap<string, ServerAddress> {
  const engines = new Map<string, ServerAddress>();
  for (const entry of entriesOf(text)) {
    const [, name = "", url = ""] = /^([^=]+)=(.+)$/.exec(entry) ?? [];
    const address = serverUrl(url);
    if (address === undefined) throw mistake("ENGINES", "NAME=URL,NAME=URL, …", shownUrl(entry));
    if (engines.has(name)) throw mistake("ENGINES", "a list of names that differ", shownUrl(entry));
    engines.set(name, new ServerAddress(address, { apiKey }));
  }
  if (engines.size === 0) throw mistake("ENGINES", "NAME=URL,NAME=URL, …", text);
  return engines;
}

function controlOf(environment: Environment): ControlConfig {
  const url = environment["CONTROLLER"] || undefined;
  const peers = entriesOf(environment["PEERS"] ?? "");
  if (url !== undefined && peers.length > 0) {
    throw mistake("PEERS", "left out with CONTROLLER, which is asked instead", peers.join(","));
  }
  if (url !== undefined) return { kind: "elsewhere", url: httpUrl("CONTROLLER", url) };
  if (peers.length === 0) return { kind: "embedded" };
  const own = environment["CONTROL_LISTEN"] || "127.0.0.1:7480";
  return {
    kind: "standby",
    peers: peers.map((peer) => httpUrl("PEERS", peer)),
    place: number(environment, "PLACE", 0, 0, 15),
    ...address("CONTROL_LISTEN", own),
  };
}

function entriesOf(text: string): string[] {
  const entries = text.split(",").map((entry) => entry.trim());
  return entries.filter((entry) => entry !== "");
}

function tokenOf(name: string, environment: Environment): string | undefined {
  const token = environment[name]?.trim();
  if (token === undefined || token === "" || /^[!-~]{16,512}$/.test(token))
    return token || undefined;
  // Without what came: it is secret, even where it can't be used.
  throw mistake(name, "16 to 512 printable ASCII characters without blanks", "others");
}

function httpUrl(name: string, text: string): string {
  if (serverUrl(text) !== undefined) return text;
  throw mistake(name, "an http:// URL of a controller's HTTP side", shownUrl(text));
}

function address(name: string, text: string): { host: string; port: number } {
  const [, host, port] = /^\[?([^\]]+?)\]?:(\d{1,5})$/.exec(text) ?? [];
  if (host === undefined || Number(port) > 65_535) throw mistake(name, "HOST:PORT", text);
  return { host, port: Number(port) };
}

function modeOf(text: string): Mode {
  const mode = MODES.find((known) => known === text);
  if (mode === undefined) throw mistake("LAZYGRAPH_MODE", MODES.join(" or "), text);
  return mode;
}

function number(from: Environment, name: string, fallback: number, min: number, max: number) {
  const text = from[name];
  // An empty variable is how compose files and charts write one that is not set.
  if (text === undefined || text.trim() === "") return fallback;
  const value = Number(text);
  if (!(value >= min && value <= max)) throw mistake(name, `from ${min} to ${max}`, text);
  return value;
}

function mistake(name: string, expected: string, got: string): TypeError {
  return new TypeError(`Expected ${name} to be ${expected}, got ${JSON.stringify(got)}.`);
}
