/** What probes, and who collects metrics, ask. */

import { randomUUID } from "node:crypto";
import { shownWhole } from "../base/shown.ts";
import { HttpError, StatusAnswer, type TextAnswer } from "./answer.ts";
import { scrapeOf } from "./listing.ts";
import type { Request, Route } from "./route.ts";

/** When to ask again for a start of which nothing is known, and at the latest. */
const RETRY_SECONDS = 1;
const RETRY_SECONDS_MAX = 60;

/** Of two whose controllers started in the same millisecond the one that has less stays. */
export const PROCESS: string = randomUUID();

export const PROBES: readonly Route[] = [
  { method: "GET", path: /^\/livez$/, answer: () => ({ ok: true }) },
  { method: "GET", path: /^\/readyz$/, answer: getReady },
  { method: "GET", path: /^\/healthz$/, answer: getHealth },
  { method: "GET", path: /^\/startupz$/, parameters: ["until"], answer: getStart },
  { method: "GET", path: /^\/metrics$/, answer: getMetrics },
];

/** Its endpoint is bound from its start until it is closed. */
function getReady({ controller }: Request): object {
  if (controller.listening) return { ready: true };
  throw new HttpError(
    503,
    "ERR_HTTP_NOT_READY",
    "Expected a controller that takes engines, but it doesn't listen.",
  );
}

/** One that has been closed leads no engines, and a standby that still believed it never would. */
function getHealth({ controller: { listening, incarnation } }: Request): object {
  if (listening !== false) return { ok: true, incarnation, process: PROCESS };
  throw new HttpError(
    503,
    "ERR_HTTP_NOT_READY",
    "Expected a controller that runs, but it hasn't started, or is closed.",
  );
}

/** Where a phase is asked for, a probe can give each its own time. */
async function getStart({ start, query }: Request): Promise<unknown> {
  if (start === undefined) {
    throw new HttpError(
      404,
      "ERR_HTTP_NOT_FOUND",
      "No start is watched here: `lazygraph run --http` watches that of its command.",
    );
  }
  const until = query.get("until") ?? undefined;
  const { phases } = start;
  if (until !== undefined && phases?.includes(until) === false) {
    throw new HttpError(
      400,
      "ERR_HTTP_QUERY",
      `Expected until to name a phase of a start, got ${shownWhole(until)}: one of ` +
        `${phases.join(", ")}.`,
    );
  }
  const report = await start.report(until);
  const body = Object.fromEntries(
    Object.entries(report).map(([name, value]) => [
      name,
      typeof value === "number" ? Math.round(value * 10) / 10 : value,
    ]),
  );
  if (report.passed) return body;
  const left = report.leftSeconds ?? RETRY_SECONDS;
  return new StatusAnswer(503, body, Math.min(Math.max(1, Math.ceil(left)), RETRY_SECONDS_MAX));
}

function getMetrics({ metrics }: Request): Promise<TextAnswer> {
  if (metrics !== undefined) return scrapeOf(metrics);
  throw new HttpError(404, "ERR_HTTP_NOT_FOUND", "No metrics are collected here.");
}
