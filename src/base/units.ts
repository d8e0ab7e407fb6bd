/** Units that figures are told in. */

export const MIB: number = 1024 * 1024;
export const GIB: number = 1024 * MIB;

/** As the lines about memory have it. */
export function mib(bytes: number): string {
  return `${(bytes / MIB).toFixed(1)} MiB`;
}

export function micros(seconds: number): number {
  return Math.round(seconds * 1e6);
}

/** Seconds to the microsecond: further than any profile goes. */
export function rounded(seconds: number): number {
  return micros(seconds) / 1e6;
}
