/** The status of a whole answer; 0 where none came in time, or it broke off. */
export async function statusOf(url: string | URL, withinMs: number): Promise<number> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(withinMs) });
    await response.arrayBuffer();
    return response.status;
  } catch {
    return 0;
  }
}
