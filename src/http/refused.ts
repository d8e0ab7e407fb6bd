/** What is answered to who may not ask. */

import type { IncomingHttpHeaders } from "node:http";
import { shownWhole } from "../base/shown.ts";
import type { Refusal } from "./access.ts";
import { HttpError } from "./answer.ts";

const REFUSALS: Readonly<
  Record<
    Refusal,
    { status: number; code: string; sentence: (headers: IncomingHttpHeaders) => string }
  >
> = {
  // Any page in a browser on this host could otherwise freeze an engine.
  origin: {
    status: 403,
    code: "ERR_HTTP_ORIGIN",
    sentence: ({ origin }) =>
      `Expected a request that no web page makes, got one from ${shownWhole(origin)}.`,
  },
  host: {
    status: 421,
    code: "ERR_HTTP_HOST",
    sentence: ({ host }) =>
      `Expected a request for localhost, 127.0.0.1 or [::1], got one for ${shownWhole(host)}: name ` +
      "one of these, send the controller's token, or start the controller with --http-unsafe.",
  },
  "token-missing": {
    status: 401,
    code: "ERR_LAZYGRAPH_TOKEN",
    sentence: () =>
      "Expected the controller's token as `Authorization: Bearer TOKEN`, got none: send the one " +
      "that the controller was started with.",
  },
  "token-wrong": {
    status: 401,
    code: "ERR_LAZYGRAPH_TOKEN",
    sentence: () =>
      "Expected the controller's token as `Authorization: Bearer TOKEN`, got another one: send " +
      "the one that the controller was started with.",
  },
};

export function refused(refusal: Refusal, headers: IncomingHttpHeaders): HttpError {
  const { status, code, sentence } = REFUSALS[refusal];
  return new HttpError(status, code, sentence(headers));
}
