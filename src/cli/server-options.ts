/** How a command is told of a server: its URL, a key, headers. */

import { OptionError } from "../base/errors.ts";
import { checkApiKey, checkHeaders } from "../measure/access-check.ts";
import { proxyVariable } from "../measure/http-client.ts";
import {
  ServerAddress,
  type ServerAddressOptions,
  serverUrl,
  shownUrl,
} from "../measure/server-address.ts";
import { usageError } from "./errors.ts";
import type { OptionSpec, ParsedOptions } from "./options.ts";

export const ACCESS_OPTIONS: OptionSpec = { "api-key": "string", header: "list" };

/** @param environment of which OPENAI_API_KEY is the key where no option gives one */
export function accessOptions(
  { strings, lists }: ParsedOptions,
  environment: Readonly<Record<string, string | undefined>>,
): ServerAddressOptions {
  const headers = Object.fromEntries((lists.get("header") ?? []).map(headerOf));
  const apiKey =
    checkApiKey("--api-key", strings.get("api-key")) ??
    checkApiKey("OPENAI_API_KEY", environment["OPENAI_API_KEY"]);
  return { apiKey, headers: checkHeaders("--header", headers) };
}

/** @throws OptionError unless `value` is an `http://` or `https://` URL */
export function serverOption(
  option: string,
  value: string,
  options: ParsedOptions,
  environment: Readonly<Record<string, string | undefined>>,
): ServerAddress {
  const url = serverUrl(value);
  if (url !== undefined) {
    // A proxy's URL that is none is told now, and not of every request.
    proxyVariable(url.origin);
    return new ServerAddress(url, accessOptions(options, environment));
  }
  throw usageError(option, "a URL such as http://127.0.0.1:8000", shownUrl(value));
}

function headerOf(text: string): [name: string, value: string] {
  const [, name, value] = /^([^:\s]+):\s*(.*)$/s.exec(text) ?? [];
  if (name !== undefined && value !== undefined) return [name, value];
  // Without what came: it may be a key that was given in the wrong place.
  throw new OptionError("--header", "Expected --header to be NAME:VALUE, got no colon in it.");
}
