/**
 * One streaming request against an OpenAI-compatible endpoint, with the time of every piece of
 * content. What goes wrong is an outcome, not an exception: a benchmark counts it and goes on.
 */

import type { Answer } from "../measure/answer.ts";
import {
  type AnswerReader,
  createAnswerReader,
  headerText,
  isEventStream,
} from "../measure/answer-reader.ts";
import type { ByteHandler, ByteRequest, RequestControl } from "../measure/direct-dispatch.ts";
import { connectionFailure, dispatchBytes, isClosedConnection } from "../measure/http-client.ts";
import type { ServerAddress } from "../measure/server-address.ts";
import type { Failure, FailureKind } from "./failure.ts";
import { refusalOf } from "./refusal.ts";

export type Endpoint = "completions" | "chat";

/** What not every server takes. */
export interface RequestFields {
  /** Generates as many tokens as asked for, whatever the model would say. */
  readonly ignoreEos: boolean;
  /** `max_tokens` is sent. @default true */
  readonly maxTokensSent?: boolean;
  /** `stream_options` is sent, which asks for usage. @default true */
  readonly streamOptions?: boolean;
}

export interface StreamRequest extends RequestFields {
  readonly server: ServerAddress;
  readonly endpoint: Endpoint;
  readonly model: string;
  /** A text, or token ids where the endpoint is completions. */
  readonly prompt: string | readonly number[];
  readonly maxTokens: number;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/** Milliseconds are of `performance.now()`. */
export interface StreamOutcome {
  readonly sentAtMs: number;
  /** One for each event that carried content, in order; empty when none came. */
  readonly tokensAtMs: readonly number[];
  /** As the server counted them; undefined when it did not say. */
  readonly promptTokens: number | undefined;
  readonly outputTokens: number | undefined;
  /** Sent again, because the server had closed the connection before the first byte. */
  readonly resent: boolean;
  readonly failure: Failure | undefined;
}

const DETAIL_CHARS_MAX = 300;
/** Kept of an answer that is no stream: a secret that is cut where it ends would not be found. */
const REFUSAL_CHARS_MAX = 4096;
const RESENDS_MAX = 1;

/** Never rejects. */
export function streamRequest(options: StreamRequest): Promise<StreamOutcome> {
  return new Promise((resolve) => new Exchange(options, resolve).send());
}

function bodyOf(options: StreamRequest): object {
  const { endpoint, prompt } = options;
  const asked =
    endpoint === "chat" ? { messages: [{ role: "user", content: prompt }] } : { prompt };
  return {
    model: options.model,
    ...asked,
    ...(options.maxTokensSent === false ? {} : { max_tokens: options.maxTokens }),
    temperature: 0,
    ...(options.ignoreEos ? { ignore_eos: true } : {}),
    stream: true,
    ...(options.streamOptions === false ? {} : { stream_options: { include_usage: true } }),
  };
}

/** A request and its answer. */
class Exchange implements ByteHandler {
  readonly #options: StreamRequest;
  readonly #resolve: (outcome: StreamOutcome) => void;
  readonly #request: ByteRequest;
  readonly #sentAtMs = performance.now();
  readonly #timer: NodeJS.Timeout;
  readonly #abort = (): void => this.#stop("aborted", "The benchmark was stopped.");
  #control: RequestControl | undefined;
  #reader: AnswerReader | undefined;
  #resends = 0;
  /** Of an answer that is no stream. */
  #refusal: { readonly status: number; readonly type: string; text: string } | undefined;
  #failure: Failure | undefined;

  constructor(options: StreamRequest, resolve: (outcome: StreamOutcome) => void) {
    this.#options = options;
    this.#resolve = resolve;
    const { server, endpoint, timeoutMs, signal } = options;
    const path = endpoint === "chat" ? "/v1/chat/completions" : "/v1/completions";
    this.#request = {
      origin: server.origin,
      path: server.path(path),
      method: "POST",
      headers: { ...server.headers, "content-type": "application/json" },
      body: JSON.stringify(bodyOf(options)),
    };
    this.#timer = setTimeout(
      () => this.#stop("timeout", `No end of the answer within ${timeoutMs} ms.`),
      timeoutMs,
    );
    signal?.addEventListener("abort", this.#abort, { once: true });
  }

  send(): void {
    if (this.#options.signal?.aborted === true) {
      this.#abort();
      this.#settle(undefined);
    } else dispatchBytes({ ...this.#request, fresh: this.#resends > 0 }, this);
  }

  onRequestStart(control: RequestControl): void {
    this.#control = control;
    // Stopped while it waited for a connection.
    if (this.#failure !== undefined) control.abort(new Error(this.#failure.detail));
  }

  onResponseStart(
    _control: RequestControl,
    status: number,
    headers: Readonly<Record<string, string | string[] | undefined>>,
  ): void {
    const type = headerText(headers["content-type"]);
    const encoding = headerText(headers["content-encoding"]);
    if (status === 200 && isEventStream(type)) {
      const usageAsked = this.#options.streamOptions !== false;
      this.#reader = createAnswerReader({
        contentType: type,
        contentEncoding: encoding,
        usageAsked,
      });
      if (this.#reader !== undefined) return;
      this.#stop("not_sse", `An answer in the encoding ${encoding}, which is not known.`);
    }
    this.#refusal = { status, type: type ?? "no content type", text: "" };
  }

  onResponseData(
    control: RequestControl,
    bytes: Buffer,
    from: number = 0,
    to: number = bytes.length,
  ): void {
    const reader = this.#reader;
    if (reader !== undefined) {
      reader.push(bytes, performance.now(), from, to);
      // Left open it might go on for ever: what it was is known.
      if (reader.failed) control.abort(new Error("The answer has failed."));
    } else if (this.#refusal !== undefined && this.#refusal.text.length < REFUSAL_CHARS_MAX) {
      this.#refusal.text += bytes.toString("utf8", from, to);
    }
  }

  onResponseEnd(): void {
    this.#settle(undefined);
  }

  onResponseError({ reused }: RequestControl, error: Error): void {
    const answered = this.#reader !== undefined || this.#refusal !== undefined;
    const stopped = this.#failure !== undefined;
    // A server may close an idle connection just as a request goes out on it.
    const wasIdle = reused !== false && isClosedConnection(error);
    if (!answered && !stopped && wasIdle && this.#resends < RESENDS_MAX) {
      this.#resends++;
      this.send();
      return;
    }
    if (!answered) this.#fail("unreachable", connectionFailure(error));
    this.#settle(connectionFailure(error));
  }

  #stop(kind: FailureKind, detail: string): void {
    this.#fail(kind, detail);
    this.#control?.abort(new Error(detail));
  }

  /** The first failure stands. */
  #fail(kind: FailureKind, detail: string): void {
    const shown = this.#options.server.hide(detail).trim().slice(0, DETAIL_CHARS_MAX);
    this.#failure ??= { kind, detail: shown };
  }

  /** @param cut why the connection ended before the answer did, where it did */
  #settle(cut: string | undefined): void {
    clearTimeout(this.#timer);
    this.#options.signal?.removeEventListener("abort", this.#abort);
    if (this.#refusal !== undefined) {
      const { kind, detail } = refusalOf(this.#refusal);
      this.#fail(kind, detail);
    }
    const reader = this.#reader;
    if (reader === undefined) this.#finish(undefined);
    else reader.end((answer) => this.#finish(answer), cut);
  }

  #finish(answer: Answer | undefined): void {
    const failed = answer?.failure;
    if (failed !== undefined) this.#fail(failed.kind, failed.detail);
    this.#resolve({
      sentAtMs: this.#sentAtMs,
      tokensAtMs: answer?.contentAtMs ?? [],
      promptTokens: answer?.promptTokens,
      outputTokens: answer?.outputTokens,
      resent: this.#resends > 0,
      failure: this.#failure,
    });
  }
}
