import { askHttp } from "./http-ask.ts";

/** The status of a whole answer; 0 where none came in time, or it broke off. */
export async function statusOf(url: string | URL, withinMs: number): Promise<number> {
  try {
    return (await askHttp(new URL(url), { signal: AbortSignal.timeout(withinMs) })).status;
  } catch {
    return 0;
  }
}
