/** Which requests make an engine generate: everything else of its API says nothing of its load. */

/** With and without `/v1`, as base URLs are given, and with a slash at the end. */
const PATHS = /^(?:\/v1)?\/(?:chat\/completions|completions|responses|messages)\/?$/;

/** @param path with its query, if it has one */
export function isGenerating(method: string, path: string): boolean {
  return method === "POST" && PATHS.test(path.split("?", 1)[0] ?? "");
}
