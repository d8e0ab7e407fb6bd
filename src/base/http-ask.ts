/**
 * One request over HTTP and its whole answer, by Node's own client: `fetch` refuses ports that
 * browsers do, such as 6000 and 10080, though a server may well listen there.
 */

import { type IncomingMessage, request as requestPlain } from "node:http";
import { request as requestSecure } from "node:https";
import { codeOf, messageOf } from "./errors.ts";

/** Of 4,096 engines, as many as a controller takes, with 102 graphs each: 64 KiB for one. */
const ANSWER_BYTES_MAX = 256 << 20;
const MIB_BITS = 20;
/** It greets whoever connects. */
export const ZEROMQ = "ZeroMQ, not HTTP";

export interface HttpQuestion {
  readonly method?: "GET" | "PUT" | "POST" | undefined;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as JSON. */
  readonly body?: object | undefined;
  readonly socketPath?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Until an answer begins, and again for each MiB of it. @default the signal's to say */
  readonly timeoutMs?: number;
}

export interface HttpAnswer {
  readonly status: number;
  readonly text: string;
}

/** Redirects are answers, not followed: a token is for this host and nobody that it points to. */
export async function askHttp(url: URL, question: HttpQuestion): Promise<HttpAnswer> {
  const { method = "GET", body, socketPath, timeoutMs } = question;
  const send = url.protocol === "https:" ? requestSecure : requestPlain;
  const headers = {
    ...(body === undefined ? {} : { "content-type": "application/json" }),
    ...question.headers,
    // One that is kept may be closed by the server just as the next request goes out.
    connection: "close",
  };
  const limit = new AbortController();
  const late = timeoutMs === undefined ? undefined : setTimeout(() => limit.abort(), timeoutMs);
  const signal = question.signal ? AbortSignal.any([limit.signal, question.signal]) : limit.signal;
  try {
    return await new Promise((resolve, reject) => {
      const options = { method, headers, signal, ...(socketPath !== undefined && { socketPath }) };
      const request = send(url, options, (answer) => {
        const { statusCode: status = 0 } = answer;
        wholeText(answer, late).then((text) => resolve({ status, text }), reject);
      });
      request.on("error", reject);
      request.end(body === undefined ? undefined : JSON.stringify(body));
    });
  } catch (cause) {
    if (!limit.signal.aborted || timeoutMs === undefined) throw cause;
    throw new Error(`no answer within ${timeoutMs / 1000} s`, { cause });
  } finally {
    clearTimeout(late);
  }
}

async function wholeText(answer: IncomingMessage, late?: NodeJS.Timeout): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    if ((bytes + chunk.length) >> MIB_BITS > bytes >> MIB_BITS) late?.refresh();
    bytes += chunk.length;
    if (bytes > ANSWER_BYTES_MAX) {
      throw new Error(`an answer of more than ${ANSWER_BYTES_MAX} bytes`);
    }
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

/** Why `askHttp` failed, in few words: the system's or OpenSSL's code where there is one. */
export function askFailure(error: unknown): string {
  const code = codeOf(error);
  const said = messageOf(error);
  // While it writes Node tells OpenSSL's reason in the message only.
  const reason = code === "EPROTO" ? /:SSL routines:[^:]*:([^:]+):/.exec(said)?.[1] : undefined;
  if (reason !== undefined) return `ERR_SSL_${reason.toUpperCase().replaceAll(" ", "_")}`;
  // The parser's codes and words are for its authors.
  if (code?.startsWith("HPE_")) {
    const { rawPacket } = error as { readonly rawPacket?: Uint8Array };
    return rawPacket?.[0] === 0xff ? ZEROMQ : "an answer that is not HTTP";
  }
  return code ?? said;
}
