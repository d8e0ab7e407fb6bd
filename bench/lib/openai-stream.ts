/** One streaming completion over HTTP, with the times of its first and last token. */

import { Agent, request } from "node:http";

export interface StreamTimes {
  /** Milliseconds of `performance.now()`. */
  readonly sentAtMs: number;
  readonly firstAtMs: number;
  readonly lastAtMs: number;
  readonly tokens: number;
}

export interface Completion {
  readonly url: URL;
  readonly model: string;
  readonly prompt: readonly number[];
  readonly maxTokens: number;
  readonly timeoutMs: number;
}

const agent = new Agent({ keepAlive: true, maxSockets: 1024 });

/** Rejects on an HTTP error, a stream that ends early, or after `timeoutMs` without an end. */
export function streamCompletion(options: Completion): Promise<StreamTimes> {
  const body = JSON.stringify({
    model: options.model,
    prompt: options.prompt,
    max_tokens: options.maxTokens,
    temperature: 0,
    ignore_eos: true,
    stream: true,
    stream_options: { include_usage: true },
  });
  return new Promise((resolve, reject) => {
    const sentAtMs = performance.now();
    const call = request(
      new URL("/v1/completions", options.url),
      {
        method: "POST",
        agent,
        headers: { "content-type": "application/json", "content-length": Buffer.byteLength(body) },
      },
      (response) => {
        let firstAtMs = 0;
        let lastAtMs = 0;
        let tokens = 0;
        let tail = "";
        let done = false;
        response.setEncoding("utf8");
        response.on("data", (text: string) => {
          const now = performance.now();
          tail += text;
          const lines = tail.split("\n");
          tail = lines.pop() ?? "";
          for (const line of lines) {
            if (!line.startsWith("data: ")) continue;
            if (line === "data: [DONE]") {
              done = true;
            } else if (line.includes('"choices":[]')) {
              tokens = Number(/"completion_tokens":(\d+)/.exec(line)?.[1] ?? 0);
            } else {
              if (firstAtMs === 0) firstAtMs = now;
              lastAtMs = now;
            }
          }
        });
        response.on("error", reject);
        response.on("end", () => {
          if (response.statusCode !== 200) {
            reject(new Error(`Expected status 200, got ${response.statusCode}: ${tail}`));
          } else if (!done || firstAtMs === 0) {
            reject(new Error("The stream ended before [DONE]."));
          } else {
            resolve({ sentAtMs, firstAtMs, lastAtMs, tokens });
          }
        });
      },
    );
    call.setTimeout(options.timeoutMs, () => {
      call.destroy(new Error(`No end of the stream within ${options.timeoutMs} ms.`));
    });
    call.on("error", reject);
    call.end(body);
  });
}
