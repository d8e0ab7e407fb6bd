/** Which requests go to engines: by the path that is sent on, and not by another reading of it. */

const PREFIX = "/v1/";

/**
 * Path and query as they are sent on; undefined for what is no path under `/v1/`.
 *
 * A client may write a URL in full, or a path that comes to another one once its escapes and dots
 * are resolved. What this gateway takes for one thing, and an engine or a proxy before it for
 * another, must not pass.
 *
 * @param target of the request line
 */
export function forwardedPath(target: string): string | undefined {
  const path = target.startsWith("/") ? target : pathOf(target);
  if (path === undefined || path.includes("#")) return undefined;
  const [plain = ""] = path.split("?", 1);
  if (!plain.startsWith(PREFIX)) return undefined;
  let decoded: string;
  try {
    decoded = decodeURIComponent(plain);
  } catch {
    return undefined;
  }
  const hasDots = decoded.split(/[/\\]/).some((part) => part === "." || part === "..");
  return hasDots ? undefined : path;
}

/** Of the absolute form, which only a client of a proxy sends: the host in it is no concern. */
function pathOf(target: string): string | undefined {
  if (!/^https?:\/\//i.test(target) || !URL.canParse(target)) return undefined;
  const { pathname, search } = new URL(target);
  return pathname + search;
}
