/**
 * What to do about a connection that failed, by the system's or OpenSSL's code for it, or by what
 * was answered. Pure.
 */

import { codeOf } from "./errors.ts";
import { ZEROMQ } from "./http-ask.ts";
import { printable } from "./printable.ts";

/**
 * @param failure such as `DEPTH_ZERO_SELF_SIGNED_CERT`
 * @returns half a sentence; undefined where the code says no more than that nothing answered
 */
export function connectionAdvice(failure: string, { protocol }: URL): string | undefined {
  if (/ALTNAME/.test(failure)) {
    return "name it by a host that its certificate is for";
  }
  if (/CERT_HAS_EXPIRED|CERT_NOT_YET_VALID/.test(failure)) {
    return "renew its certificate, or see the clock";
  }
  if (/CERT|UNABLE_TO_VERIFY/.test(failure)) {
    return "name the certificate of its authority by the variable NODE_EXTRA_CA_CERTS";
  }
  if (/WRONG_VERSION_NUMBER|PACKET_LENGTH/.test(failure)) {
    return "it may want http:// in its URL";
  }
  // What listens for TLS closes a connection that begins otherwise.
  if (protocol === "http:" && /UND_ERR_SOCKET|ECONNRESET|other side closed/.test(failure)) {
    return "it may want https:// in its URL";
  }
  return undefined;
}

/**
 * What to say to somebody who got no answer of a controller's from its HTTP side.
 *
 * @param got the system's code, or what was answered instead
 * @param other what to do where neither code nor answer says more
 * @param answer of the other side: who named it by a wrong host, say, has found it and need not be
 *   told to start it
 * @returns one sentence, or the end of one
 */
export function controllerAdvice(got: string, url: URL, other: string, answer?: object): string {
  const advice = got === ZEROMQ ? "give the port of --http, not the engines'" : undefined;
  return refusalSaid(answer) ?? `${advice ?? connectionAdvice(got, url) ?? other}.`;
}

/** The sentence of a controller's HTTP side that refuses a request as such (`ERR_HTTP_…`). */
function refusalSaid(answer: object | undefined): string | undefined {
  const error = answer !== undefined && "error" in answer ? answer.error : undefined;
  if (typeof error !== "object" || error === null || !("message" in error)) return undefined;
  const isOwn = codeOf(error)?.startsWith("ERR_HTTP_") === true;
  return isOwn ? printable(String(error.message)) : undefined;
}
