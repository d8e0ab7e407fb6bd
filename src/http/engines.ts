/** What is asked about engines, and of them. */

import * as v from "valibot";
import { exactFields, oneOf } from "../base/schema.ts";
import { shownWhole } from "../base/shown.ts";
import type { Announcement } from "../controller/call-options.ts";
import { lookUp } from "../controller/controller.ts";
import { toldSnapshot } from "../controller/told-session.ts";
import type { SleepOptions, WakeOptions } from "../engine/sleep.ts";
import type { EngineSnapshot } from "../engine/snapshot.ts";
import { LIMITS, MODES } from "../wire/protocol.ts";
import { HttpError } from "./answer.ts";
import { bodyBy } from "./body.ts";
import { listOf } from "./listing.ts";
import type { Request, Route } from "./route.ts";

/** Engines named in a sentence. */
const NAMES_MAX = 5;

export const ENGINES: readonly Route[] = [
  {
    method: "GET",
    path: /^\/v1\/engines$/,
    answer: ({ controller }) => listOf(controller),
  },
  { method: "GET", path: /^\/v1\/engines\/([^/]+)$/, answer: getEngine },
  { method: "PUT", path: /^\/v1\/engines\/([^/]+)\/mode$/, answer: putMode },
  { method: "POST", path: /^\/v1\/engines\/([^/]+)\/freeze$/, answer: postFreeze },
  { method: "POST", path: /^\/v1\/engines\/([^/]+)\/announce$/, answer: postAnnounce },
  { method: "POST", path: /^\/v1\/engines\/([^/]+)\/sleep$/, waits: true, answer: postSleep },
  { method: "POST", path: /^\/v1\/engines\/([^/]+)\/wake$/, waits: true, answer: postWake },
];

function getEngine(request: Request): EngineSnapshot {
  return toldSnapshot(findEngine(request));
}

function findEngine({ controller, engine }: Request): EngineSnapshot {
  const { found, names: known } = lookUp(controller, engine);
  if (found !== undefined) return found;
  const more = known.length > NAMES_MAX ? ", …" : "";
  const list =
    known.length === 0
      ? "no engine has joined yet"
      : `known: ${known.slice(0, NAMES_MAX).join(", ")}${more}`;
  throw new HttpError(
    404,
    "ERR_LAZYGRAPH_ENGINE_UNKNOWN",
    `Expected the name of an engine that joined, got ${shownWhole(engine)} (${list}).`,
  );
}

const MODE_BODY = exactFields({ mode: oneOf(MODES) });
const FREEZE_BODY = v.optional(
  exactFields({ reason: v.optional(v.pipe(v.string(), v.maxLength(LIMITS.textChars))) }),
  {},
);

async function putMode(request: Request): Promise<EngineSnapshot> {
  findEngine(request);
  const { mode } = bodyBy(MODE_BODY, request.body, 'the body {"mode": "eager" | "lazy" | "idle"}');
  await request.controller.setMode(request.engine, mode);
  request.changed("mode", mode);
  return getEngine(request);
}

async function postFreeze(request: Request): Promise<EngineSnapshot> {
  findEngine(request);
  const { reason = "asked over HTTP" } = bodyBy(
    FREEZE_BODY,
    request.body,
    `no body, or {"reason": "…"} of at most ${LIMITS.textChars} characters`,
  );
  await request.controller.freeze(request.engine, reason);
  request.changed("freeze", reason);
  return getEngine(request);
}

async function postSleep(request: Request): Promise<EngineSnapshot> {
  findEngine(request);
  const { body = {} } = request;
  const options = body as SleepOptions;
  await request.controller.sleep(request.engine, options);
  request.changed("sleep", JSON.stringify(options));
  return getEngine(request);
}

async function postWake(request: Request): Promise<EngineSnapshot> {
  findEngine(request);
  const { body = {} } = request;
  const options = body as WakeOptions;
  await request.controller.wake(request.engine, options);
  request.changed("wake", JSON.stringify(options));
  return getEngine(request);
}

function postAnnounce(request: Request): EngineSnapshot {
  findEngine(request);
  // The controller checks it, and says what was expected.
  request.controller.announce(request.engine, request.body as Announcement);
  return getEngine(request);
}
