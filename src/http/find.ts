/** Which route a request is for, and what its path and query say. */

import { shownWhole } from "../base/shown.ts";
import { HttpError } from "./answer.ts";
import { ENGINES } from "./engines.ts";
import { PROBES } from "./probes.ts";
import type { Route } from "./route.ts";

/** Enough for a path with the longest name, encoded. */
const PATH_CHARS_MAX = 500;
const ROUTES: readonly Route[] = [...PROBES, ...ENGINES];

/** The route, and the engine's name as it is in the path. */
export function routeOf(given: string, path: string): { route: Route; name: string } {
  const matches = ROUTES.flatMap((route) => {
    const match = route.path.exec(path);
    return match === null ? [] : [{ route, name: match[1] ?? "" }];
  });
  if (matches.length === 0) {
    throw new HttpError(
      404,
      "ERR_HTTP_NOT_FOUND",
      `Expected /livez, /readyz, /healthz, /startupz, /metrics or a path under /v1/engines, got ${shownWhole(path)}${encodingHint(path)}.`,
    );
  }
  // HEAD is GET without the body, which Node leaves out by itself.
  const method = given === "HEAD" ? "GET" : given;
  const found = matches.find(({ route }) => route.method === method);
  if (found !== undefined) return found;
  const allow = matches.map(({ route }) => route.method).join(", ");
  throw new HttpError(
    405,
    "ERR_HTTP_METHOD",
    `Expected ${allow} for ${shownWhole(path)}, got ${shownWhole(given)}.`,
    allow,
  );
}

/** A parameter that nobody reads would be taken for one that works. */
export function checkQuery(path: string, { parameters }: Route, query: URLSearchParams): void {
  const allowed = path.startsWith("/v1/") ? [] : parameters;
  if (allowed === undefined) return;
  const other = [...query.keys()].find((name) => !allowed.includes(name));
  if (other === undefined) return;
  const expected =
    allowed.length === 0 ? "no parameters" : `no parameter but ${allowed.join(", ")}`;
  throw new HttpError(
    400,
    "ERR_HTTP_QUERY",
    `Expected ${expected} for ${shownWhole(path)}, got ${shownWhole(other)}.`,
  );
}

/** A name with a slash is what most try first. */
function encodingHint(path: string): string {
  const match = /^\/v1\/engines\/([^/]+\/.*?)(\/mode|\/freeze|\/announce|\/sleep|\/wake)?$/.exec(
    path,
  );
  if (match === null) return "";
  const [, name = "", rest = ""] = match;
  const encoded = `/v1/engines/${name.replaceAll("/", "%2F")}${rest}`;
  return `: names are percent-encoded, as in ${shownWhole(encoded, PATH_CHARS_MAX)}`;
}

export function decodeName(name: string): string {
  try {
    return decodeURIComponent(name);
  } catch {
    throw new HttpError(
      400,
      "ERR_HTTP_PATH",
      `Expected a percent-encoded engine name in the path, got ${shownWhole(name)}.`,
    );
  }
}
