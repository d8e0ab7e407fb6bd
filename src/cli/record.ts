/** `lazygraph record`: a pass-through in front of an OpenAI endpoint that writes a trace. */

import { lookup } from "node:dns/promises";
import { once } from "node:events";
import { rm } from "node:fs/promises";
import type { Server, ServerResponse } from "node:http";
import { networkInterfaces } from "node:os";
import { systemClock, withinSeconds } from "../base/clock.ts";
import { counted } from "../base/counted.ts";
import { OptionError } from "../base/errors.ts";
import { onEvent } from "../engine/events.ts";
import type { ServerAddress } from "../measure/server-address.ts";
import { createRecordingProxy } from "../record/proxy.ts";
import { createTraceRecorder, type TraceRecorderCounts } from "../record/recorder.ts";
import { isLoopback } from "../wire/endpoint.ts";
import { note, quote, signalExit } from "./errors.ts";
import { listen } from "./listen.ts";
import { numberOption } from "./number-option.ts";
import { type HostPort, hostPortOption, type ParsedOptions, parseOptions } from "./options.ts";
import { ACCESS_OPTIONS, serverOption } from "./server-options.ts";
import { stopSignal } from "./stop-signal.ts";

/** For answers under way when it is told to stop; a second signal ends them at once. */
const DRAIN_SECONDS_MAX = 30;

const HELP = `Usage: lazygraph record --upstream URL --output FILE [options]

Passes requests on to an OpenAI-compatible server, and writes when they arrived and how long prompt
and answer were, without their content: a trace for \`simulate\`, \`bench\` and simulated engines.
Point clients at --listen instead of the server.

Options:
  --upstream URL      the server, such as http://127.0.0.1:8000, with or without /v1
  --api-key-file FILE a file with the key for requests that bring none, which other users can't read;
                      --api-key KEY: everybody on this host may read it
  --header NAME:VALUE sent with every request; more than once for several; as open as --api-key
  --output FILE       a file that doesn't exist yet; gzipped when its name ends in .gz
  --listen HOST:PORT  where clients connect (default 127.0.0.1:8900; port 0: any free one)
  --listen-unsafe     let --listen be reached from other machines; the only authentication is the
                      upstream's
  --seconds N         ends after N seconds (default: at SIGINT or SIGTERM)
  --requests N        leaves out all after N requests (default 10000000)
  --json              the counts on stdout at the end, as one line of JSON
  --quiet             nothing on stderr but errors
  --help, -h          this text

Rows are \`seconds,prompt_tokens,output_tokens\`. Lengths are those that the server tells as usage;
where it tells none, four bytes of request make a token of prompt and an event with content one of
output, and the end says of how many. vLLM tells usage in every stream with
--enable-force-include-usage. Chat, completions, responses and messages are read, streamed or whole,
plain or as gzip, br, deflate or zstd. What is no row is counted by its reason. A client that leaves
in the middle of an answer makes a row of what came until then, and the end says how many did; one
that leaves before is counted as \`left\`. WebSockets, CONNECT and TRACE are not passed on, but
refused. Requests get a \`Via\`, and one that comes back is refused with status 508.

At SIGINT or SIGTERM, and after --seconds, answers under way may end, for up to ${DRAIN_SECONDS_MAX} s; a second
signal ends them at once. Either way the file is whole and the counts are told. Exit code: 0, also
where answers were cut after ${DRAIN_SECONDS_MAX} s; 128 and the signal's number after a second signal.

Examples:
  lazygraph record --upstream http://127.0.0.1:8000 --output monday.csv.gz
  lazygraph simulate --trace monday.csv.gz --policy stock,idle-costed
`;

export async function runRecord(argv: readonly string[]): Promise<number> {
  const options = parseOptions(argv, {
    ...ACCESS_OPTIONS,
    upstream: "string",
    output: "string",
    listen: "string",
    "listen-unsafe": "boolean",
    seconds: "string",
    requests: "string",
    json: "boolean",
    quiet: "boolean",
  });
  if (options.flags.has("help")) {
    process.stdout.write(HELP);
    return 0;
  }
  const upstream = upstreamOption(options);
  const file = required(options, "output", "a file such as trace.csv.gz");
  const address = listenOption(options);
  await requireOther(upstream, address);
  const seconds = numberOption(options, "seconds", { min: 0.001, max: 2_000_000, fallback: 0 });
  const requestsMax = numberOption(options, "requests", {
    min: 1,
    max: 100_000_000,
    fallback: 10_000_000,
    whole: true,
  });
  const say = options.flags.has("quiet") ? () => {} : note;
  const recorder = await createTraceRecorder({ file, requestsMax });
  // A server that is away, a file that can't be written any more: errors, however quiet.
  const unsubscribe = onEvent("lazygraph:problem", ({ message, code }) =>
    note(`${message} [${code}]`),
  );
  const stopping = stopSignal();
  const server = createRecordingProxy(upstream, recorder);
  const underWay = answersOf(server);
  let url: string;
  try {
    url = await listen(server, address, { option: "--listen" });
  } catch (error) {
    // Else the file that holds nothing would be in the way of the next try.
    await recorder.close();
    await rm(file, { force: true });
    throw error;
  }
  say(`recording at ${url} in front of ${upstream.shown}, to ${file}; Ctrl-C ends it.`);
  const first = await (seconds === 0 ? stopping : withinSeconds(systemClock, seconds, stopping));
  const why = first ?? `${seconds} s are over`;
  const more = first === undefined ? "Ctrl-C" : "once more";
  const again = await drain(server, underWay, (count) =>
    say(
      `${why}: ${counted(count, "answer")} under way may end, for up to ${DRAIN_SECONDS_MAX} s; ` +
        `${more} ends at once.`,
    ),
  );
  const counts = await recorder.close();
  unsubscribe();
  say(summary(file, counts));
  if (options.flags.has("json")) process.stdout.write(`${JSON.stringify(counts)}\n`);
  return again === undefined ? 0 : signalExit(again);
}

function answersOf(server: Server): ReadonlySet<ServerResponse> {
  const underWay = new Set<ServerResponse>();
  server.on("request", (_, response: ServerResponse) => {
    underWay.add(response);
    response.once("close", () => underWay.delete(response));
  });
  return underWay;
}

/**
 * Answers under way may end; new requests are not taken.
 *
 * @param tell how many there are, if any
 * @returns the signal that ended them at once
 */
async function drain(
  server: Server,
  underWay: ReadonlySet<ServerResponse>,
  tell: (count: number) => void,
): Promise<NodeJS.Signals | undefined> {
  const again = stopSignal();
  const closed = once(server, "close").then(() => undefined);
  server.close();
  server.closeIdleConnections();
  if (underWay.size > 0) tell(underWay.size);
  const signal = await withinSeconds(systemClock, DRAIN_SECONDS_MAX, Promise.race([closed, again]));
  server.closeAllConnections();
  await closed;
  // A server is closed before its answers have heard of it, and what they came to is a row.
  await Promise.all([...underWay].map((response) => once(response, "close")));
  return signal;
}

function summary(file: string, counts: TraceRecorderCounts): string {
  const { recorded, estimated, leftEarly, unanswered, leftOut, passed, reasons } = counts;
  const guessed = estimated === 0 ? "" : `, ${estimated} of them with guessed lengths`;
  const early = leftEarly === 0 ? "" : `, ${leftEarly} of them cut before their end`;
  const left = leftOut === 0 ? "" : `; ${leftOut} left out`;
  const why = Object.entries(reasons).map(([reason, count]) => `${reason} ${count}`);
  const because = why.length === 0 ? "" : ` (${why.join(", ")})`;
  const others = passed === 0 ? "" : `; ${passed} of other kinds`;
  const rows = `${counted(recorded, "request")} in ${file}${guessed}${early}`;
  return `${rows}; ${unanswered} without a whole answer${left}${because}${others}.`;
}

function required(options: ParsedOptions, name: string, expected: string): string {
  const value = options.strings.get(name);
  if (value !== undefined) return value;
  throw new OptionError(`--${name}`, `Expected --${name} to be ${expected}, got none.`);
}

function upstreamOption(options: ParsedOptions): ServerAddress {
  const value = required(options, "upstream", "a URL such as http://127.0.0.1:8000");
  // Its clients bring their keys: one of the environment would be lent to whoever can connect.
  return serverOption("--upstream", value, options, {});
}

/** Not where it listens itself: every request would come back. What has other names is known later. */
async function requireOther({ origin, shown }: ServerAddress, listening: HostPort): Promise<void> {
  const { protocol, hostname, port } = new URL(origin);
  const portAsked = Number(port) || (protocol === "https:" ? 443 : 80);
  if (portAsked !== listening.port) return;
  const upstream = await addressesOf(hostname.replace(/^\[|\]$/g, ""));
  const own = await addressesOf(listening.host);
  const every = own.some((address) => address === "0.0.0.0" || address === "::");
  const interfaces = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  if (every) own.push(...interfaces.map(({ address }) => address));
  if (!upstream.some((address) => own.includes(address))) return;
  throw new OptionError(
    "--upstream",
    `Expected --upstream to be a server, got ${shown}, where \`lazygraph record\` itself is to ` +
      "listen: give the server's address, or another --listen.",
  );
}

/** Empty for a name that nobody knows: whoever connects or listens says so. */
async function addressesOf(host: string): Promise<string[]> {
  const found = await lookup(host, { all: true }).catch(() => []);
  return found.map(({ address }) => address);
}

function listenOption(options: ParsedOptions): HostPort {
  const value = options.strings.get("listen") ?? "127.0.0.1:8900";
  const address = hostPortOption("--listen", value);
  const host = address.host.includes(":") ? `[${address.host}]` : address.host;
  if (isLoopback(`tcp://${host}:0`) || options.flags.has("listen-unsafe")) return address;
  throw new OptionError(
    "--listen",
    `Expected --listen to be on loopback, such as 127.0.0.1:8900, got ${quote(value)}: ` +
      "whoever can connect can use the server, so say --listen-unsafe if that is meant.",
  );
}
