/** Lines for whoever runs a service: with time and level, or one JSON object each. */

import { printable } from "../base/printable.ts";

export const LOG_FORMATS = ["text", "json"] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

export type LogLevel = "info" | "warn" | "error";
/** What a program reads besides the sentence. */
export type LogFields = Readonly<Record<string, string | number | undefined>>;

export interface Log {
  line(level: LogLevel, message: string, fields?: LogFields): void;
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
    line(level, message, fields = {}) {
      const time = now().toISOString();
      // Tables have several lines; a log line is one.
      const one = message.trim().replaceAll(/\s*\n\s*/g, "; ");
      write(
        format === "json"
          ? `${JSON.stringify({ time, level, message: one, ...fields })}\n`
          : `${time} ${level.padEnd(5)} ${one}${fieldsText(fields)}\n`,
      );
    },
  };
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
