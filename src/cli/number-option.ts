import { usageError } from "./errors.ts";
import type { ParsedOptions } from "./options.ts";

export interface NumberRule {
  readonly min: number;
  readonly max: number;
  readonly fallback: number;
  /** No fractions. */
  readonly whole?: boolean;
}

/** A number within its rule, or the fallback where the option is not given. */
export function numberOption(options: ParsedOptions, name: string, rule: NumberRule): number {
  const text = options.strings.get(name);
  if (text === undefined) return rule.fallback;
  const value = text.trim() === text ? Number(text) : Number.NaN;
  const sound = value >= rule.min && value <= rule.max;
  if (sound && (rule.whole !== true || Number.isInteger(value))) return value;
  const kind = rule.whole === true ? "a whole number" : "a number";
  throw usageError(`--${name}`, `${kind} from ${rule.min} to ${rule.max}`, text);
}
