/** Lines for whoever runs a service: with time and level, or one JSON object each. */

import { printable } from "../base/printable.ts";

export const LOG_FORMATS = ["text", "json"] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

export type LogLevel = "info" | "warn" | "error";
/** What a program reads besides the sentence. */
export type LogFields = Readonly<Record<string, string | number | undefined>>;

/** What the sentence says already: a program reads it as fields, people read it once. */
export interface LogAbout {
  readonly engine?: string | undefined;
  readonly mode?: string | undefined;
  /** Text has it behind the sentence, in brackets, as every error has. */
  readonly code?: string | undefined;
}

export interface Log {
  line(level: LogLevel, message: string, fields?: LogFields, about?: LogAbout): void;
}

/**
 * @param now the time of a line, for tests
 * @param write takes whole lines
 */
export function createLog(
  format: LogFormat,
  write: (text: string) => void = (text) => void process.stderr.write(text),
  now: () => Date = () => new Date(),
): Log {
  return {
    line(level, message, fields = {}, about = {}) {
      const time = now().toISOString();
      // What came from elsewhere may have several lines; a log line is one.
      const one = message.trim().replaceAll(/\s*\n\s*/g, "; ");
      write(
        format === "json"
          ? `${JSON.stringify({ time, level, message: one, ...about, ...fields })}\n`
          : `${time} ${level.padEnd(5)} ${withCode(one, about.code)}${fieldsText(fields)}\n`,
      );
    },
  };
}

/** A sentence and its code, as people read them. */
export function withCode(sentence: string, code: string | undefined): string {
  return code === undefined ? sentence : `${sentence} [${printable(code)}]`;
}

/** `key=value`, quoted where a blank or a quote would break the line's words. */
function fieldsText(fields: LogFields): string {
  const words = Object.entries(fields).flatMap(([name, value]) => {
    if (value === undefined) return [];
    const text = printable(String(value));
    return [`${name}=${/^[\w./:@-]+$/.test(text) ? text : JSON.stringify(text)}`];
  });
  return words.length === 0 ? "" : ` ${words.join(" ")}`;
}
