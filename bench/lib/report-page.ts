/** A report looked at in a browser: which figures of its first table are not to be seen. */

import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

export const BROWSERS: readonly string[] = [
  "chromium",
  "chromium-browser",
  "google-chrome",
  "google-chrome-stable",
  "chrome",
];

/** The first browser on PATH. */
export function browserPath(): string | undefined {
  const folders = (process.env["PATH"] ?? "").split(delimiter);
  return BROWSERS.flatMap((name) => folders.map((folder) => join(folder, name))).find((file) => {
    try {
      accessSync(file, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Root in a container has no user namespaces to make a sandbox of. */
export const BROWSER_ARGS: readonly string[] = ["--no-sandbox", "--disable-gpu"];

/*
 * What runs in the page is text, because the types of a browser's globals would let the whole
 * package use them.
 */

/** How far the page is wider than its window. */
export const OVERFLOW =
  "document.documentElement.scrollWidth - document.documentElement.clientWidth";

/** Figures of the first tables that are not on the page, or have no size or text to be read. */
export const UNSEEN: string = `[...document.querySelectorAll(".glance td")].filter((cell) => {
  const { left, right, width, height } = cell.getBoundingClientRect();
  const range = document.createRange();
  range.selectNodeContents(cell);
  const text = range.getBoundingClientRect();
  const inside = left >= 0 && right <= innerWidth && text.left >= 0 && text.right <= innerWidth;
  return !inside || width === 0 || height === 0 || cell.textContent.trim() === "";
}).length`;
