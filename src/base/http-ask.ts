/**
 * One request over HTTP and its whole answer, by Node's own client: `fetch` refuses ports that
 * browsers do, such as 6000 and 10080, though a server may well listen there.
 */

import { type IncomingMessage, request as requestPlain } from "node:http";
import { request as requestSecure } from "node:https";
import { codeOf, messageOf } from "./errors.ts";

/** Of 4,096 engines, as many as a controller takes, with 102 graphs each: 64 KiB for one. */
const ANSWER_BYTES_MAX = 256 << 20;

export interface HttpQuestion {
  readonly method?: "GET" | "PUT" | "POST" | undefined;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as JSON. */
  readonly body?: object | undefined;
  readonly socketPath?: string | undefined;
  readonly signal: AbortSignal;
}

export interface HttpAnswer {
  readonly status: number;
  readonly text: string;
}

/** Redirects are answers, not followed: a token is for this host and nobody that it points to. */
export function askHttp(url: URL, question: HttpQuestion): Promise<HttpAnswer> {
  const { method = "GET", body, socketPath, signal } = question;
  const send = url.protocol === "https:" ? requestSecure : requestPlain;
  const headers = {
    ...(body === undefined ? {} : { "content-type": "application/json" }),
    ...question.headers,
    // One that is kept may be closed by the server just as the next request goes out.
    connection: "close",
  };
  return new Promise((resolve, reject) => {
    const options = { method, headers, signal, ...(socketPath !== undefined && { socketPath }) };
    const request = send(url, options, (answer) => {
      const { statusCode: status = 0 } = answer;
      wholeText(answer).then((text) => resolve({ status, text }), reject);
    });
    request.on("error", reject);
    request.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

async function wholeText(answer: IncomingMessage): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for await (const chunk of answer as AsyncIterable<Buffer>) {
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
  // The parser's codes are for its authors.
  return code === undefined || code.startsWith("HPE_") ? said : code;
}
