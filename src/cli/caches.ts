/** `lazygraph caches`: what engines compiled and keep, as one file that fits one kind of engine. */

import { stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { counted } from "../base/counted.ts";
import { codeOf, messageOf, OptionError } from "../base/errors.ts";
import { mib } from "../base/units.ts";
import { cachesError, checkFingerprint, readFolder, type Size, sizeOf } from "../caches/folder.ts";
import { CACHE_KINDS, type CachePlace, cacheVariables, usualPlaces } from "../caches/kinds.ts";
import type { Manifest } from "../caches/manifest.ts";
import { movedFrom, packFolder, readPack, unpack } from "../caches/pack.ts";
import { cacheFingerprint } from "./cache-fingerprint.ts";
import { choice, note, quote } from "./errors.ts";
import { type OptionSpec, type ParsedOptions, parseOptions } from "./options.ts";

const ACTIONS = ["list", "pack", "unpack", "check"] as const;
type Action = (typeof ACTIONS)[number];

const HELP = `Usage: lazygraph caches list [--caches DIR] [--variables]
       lazygraph caches pack FILE --caches DIR
       lazygraph caches unpack FILE --caches DIR -- COMMAND …
       lazygraph caches check FILE|DIR -- COMMAND …

What an engine compiles and keeps: vLLM's, Inductor's, Triton's and FlashInfer's caches, and the
compute cache of CUDA's driver. \`lazygraph run --caches DIR -- COMMAND\` fills DIR with those of one
engine; a pack is that folder as one file, to bake into an image or to mount. Both have one
fingerprint, of versions, GPU, model and options; where COMMAND's is another, they are refused with
what differs.

  list     where the caches are and how large: the usual places', or those in DIR
  pack     DIR into FILE
  unpack   FILE into DIR, which is empty; at the path where it was filled, if it can be
  check    whether they fit COMMAND on this host

Options:
  --caches DIR   a folder of one engine's caches
  --variables    list: the variables that put caches into DIR, for other ways to start an engine
  --unchecked    unpack: without COMMAND, as where an image is built and there is no GPU; a start
                 with \`run --caches\` checks it all the same
  --json         one document on stdout
  --help, -h     this text

Examples:
  lazygraph run --caches /var/cache/llama -- vllm serve MODEL
  lazygraph caches pack llama.caches --caches /var/cache/llama
  lazygraph caches unpack llama.caches --caches /var/cache/llama -- vllm serve MODEL
`;

const OPTIONS: OptionSpec = {
  caches: "string",
  variables: "boolean",
  unchecked: "boolean",
  json: "boolean",
};

const TAKES: Readonly<Record<Action, { path: boolean; options: readonly string[] }>> = {
  list: { path: false, options: ["caches", "variables"] },
  pack: { path: true, options: ["caches"] },
  unpack: { path: true, options: ["caches", "unchecked"] },
  check: { path: true, options: [] },
};

export async function runCaches(argv: readonly string[]): Promise<number> {
  const terminator = argv.indexOf("--");
  const own = terminator === -1 ? argv : argv.slice(0, terminator);
  const command = terminator === -1 ? [] : argv.slice(terminator + 1);
  const options = parseOptions(own, OPTIONS, {
    name: "ACTION [FILE]",
    min: 1,
    max: 2,
    first: ACTIONS,
  });
  if (options.flags.has("help")) {
    process.stdout.write(HELP);
    return 0;
  }
  const action = choice("ACTION", ACTIONS, options.positionals[0] ?? "");
  const path = options.positionals[1];
  checkWords(action, path, options, command);
  switch (action) {
    case "list":
      return listCaches(options);
    case "pack":
      return pack(path ?? "", folderOf(options), options);
    case "unpack":
      return unpackInto(path ?? "", folderOf(options), options, command);
    case "check":
      return check(path ?? "", options, command);
  }
}

function checkWords(
  action: Action,
  path: string | undefined,
  options: ParsedOptions,
  command: readonly string[],
): void {
  const takes = TAKES[action];
  if (takes.path !== (path !== undefined)) {
    const got = path === undefined ? "none" : quote(path);
    const wanted = takes.path ? "a FILE" : "no FILE";
    throw new OptionError("FILE", `Expected ${wanted} after caches ${action}, got ${got}.`);
  }
  const given = [...options.strings.keys(), ...options.flags].filter((name) => name !== "json");
  const wrong = given.find((name) => !takes.options.includes(name));
  if (wrong !== undefined) {
    throw new OptionError(
      `--${wrong}`,
      `Expected no --${wrong} with caches ${action}; see --help.`,
    );
  }
  const checks = action === "check" || (action === "unpack" && !options.flags.has("unchecked"));
  if (checks !== command.length > 0) {
    throw new OptionError(
      "--",
      checks
        ? `Expected the command that the caches are for after \`--\` with caches ${action}, got none.`
        : `Expected no command with caches ${action}, got ${quote(command[0] ?? "")}.`,
    );
  }
}

function folderOf(options: ParsedOptions): string {
  const folder = options.strings.get("caches");
  if (folder !== undefined) return folder;
  throw new OptionError("--caches", "Expected --caches DIR, the folder of caches, got none.");
}

async function listCaches(options: ParsedOptions): Promise<number> {
  const given = options.strings.get("caches");
  const folder = given === undefined ? undefined : resolve(given);
  if (options.flags.has("variables")) {
    if (folder === undefined) folderOf(options);
    const variables = Object.entries(cacheVariables(folder ?? ""));
    process.stdout.write(
      options.flags.has("json")
        ? `${JSON.stringify(Object.fromEntries(variables))}\n`
        : `${variables.map(([name, value]) => `${name}=${value}`).join("\n")}\n`,
    );
    return 0;
  }
  const manifest = folder === undefined ? undefined : await readFolder(folder);
  const places =
    folder === undefined
      ? usualPlaces(process.env, tmpdir())
      : CACHE_KINDS.map((kind): CachePlace => ({ ...kind, path: join(folder, kind.name) }));
  const rows: (CachePlace & { size: Size | undefined })[] = [];
  for (const place of places) rows.push({ ...place, size: await sizeOf(place.path) });
  if (options.flags.has("json")) {
    process.stdout.write(`${JSON.stringify({ ...manifest, caches: rows })}\n`);
    return 0;
  }
  for (const { name, path, size } of rows) {
    const amount =
      size === undefined ? "none" : `${mib(size.bytes)} in ${counted(size.files, "file")}`;
    process.stdout.write(`${name.padEnd(11)} ${amount.padEnd(26)} ${path}\n`);
  }
  if (manifest !== undefined) process.stdout.write(`${fingerprintText(manifest)}\n`);
  return 0;
}

function fingerprintText({ fingerprint }: Manifest): string {
  const { python, packages, gpu, model, options } = fingerprint;
  const versions = Object.entries(packages).map(([name, version]) => `${name} ${version}`);
  const lines = [
    `for      ${[model, ...options].join(" ")}`,
    `GPU      ${gpu}`,
    `Python   ${python}`,
    // A stand-in, or not the engine's Python: what fits it tells nothing of vLLM.
    `packages ${versions.length === 0 ? "none of vLLM's: is this its Python?" : versions.join(", ")}`,
  ];
  return lines.join("\n");
}

async function pack(file: string, folder: string, options: ParsedOptions): Promise<number> {
  const began = performance.now();
  const packed = await packFolder(folder, file);
  const seconds = (performance.now() - began) / 1000;
  if (options.flags.has("json")) {
    process.stdout.write(`${JSON.stringify({ file, ...packed, seconds })}\n`);
  } else {
    process.stdout.write(
      `${file}: ${counted(packed.files, "file")}, ${mib(packed.bytes)}, packed ` +
        `${mib(packed.packBytes)}\n`,
    );
  }
  return 0;
}

async function unpackInto(
  file: string,
  folder: string,
  options: ParsedOptions,
  command: readonly string[],
): Promise<number> {
  const content = await readPack(file);
  if (command.length > 0) {
    checkFingerprint(content.manifest, await cacheFingerprint(command, process.env), file);
  }
  await unpack(file, folder, content);
  const from = movedFrom(content, folder);
  if (options.flags.has("json")) {
    const { files, bytes } = content;
    process.stdout.write(`${JSON.stringify({ folder: resolve(folder), files, bytes, from })}\n`);
    return 0;
  }
  process.stdout.write(`${folder}: ${counted(content.files, "file")}, ${mib(content.bytes)}\n`);
  if (from !== undefined) {
    note(`They were filled at ${from}: what names its own place is compiled again elsewhere.`);
  }
  return 0;
}

async function check(
  path: string,
  options: ParsedOptions,
  command: readonly string[],
): Promise<number> {
  const manifest = await manifestAt(path);
  checkFingerprint(manifest, await cacheFingerprint(command, process.env), path);
  if (options.flags.has("json")) {
    process.stdout.write(`${JSON.stringify({ fits: true, ...manifest })}\n`);
  } else {
    process.stdout.write(`${path} fits.\n${fingerprintText(manifest)}\n`);
  }
  return 0;
}

async function manifestAt(path: string): Promise<Manifest> {
  const about = await stat(path).catch((error: unknown) => {
    if (codeOf(error) === "ENOENT") return undefined;
    const expected = `a pack or a folder of caches at ${path}`;
    throw cachesError(expected, messageOf(error), "name another", error);
  });
  if (about?.isFile() === true) return (await readPack(path)).manifest;
  const manifest = about === undefined ? undefined : await readFolder(path);
  if (manifest === undefined) {
    const got = about === undefined ? "nothing of that name" : "an empty folder";
    throw cachesError(`a pack or a folder of caches at ${path}`, got, "name another");
  }
  return manifest;
}
