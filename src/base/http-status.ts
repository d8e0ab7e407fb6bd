import { askHttp } from "./http-ask.ts";

/** The status of a whole answer; undefined where none came in time, 0 where nobody answers. */
export async function statusOf(url: string | URL, withinMs: number): Promise<number | undefined> {
  const signal = AbortSignal.timeout(withinMs);
  try {
    return (await askHttp(new URL(url), { signal })).status;
  } catch {
    return signal.aborted ? undefined : 0;
  }
}
