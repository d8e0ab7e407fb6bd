/** What a request line asks for, in every form that it may have (RFC 9112, 3.2). Pure. */

/** Of OPTIONS: about the server as a whole. */
export const WHOLE_SERVER = "*";

/**
 * Path and query, of an absolute form too, as a client sends it to what it takes for its proxy.
 *
 * @returns undefined for what no server can answer
 */
export function targetOf(method: string, url: string): string | undefined {
  if (url === WHOLE_SERVER) return method === "OPTIONS" ? url : undefined;
  const path = url.replace(/^https?:\/\/[^/?#]*/i, "");
  if (path === "") return method === "OPTIONS" ? WHOLE_SERVER : "/";
  if (path.startsWith("/")) return path;
  return path.startsWith("?") && path !== url ? `/${path}` : undefined;
}
