/** Folders of caches and packs on a real file system. */

import { execFileSync } from "node:child_process";
import {
  access,
  chmod,
  mkdir,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import { dirname, join } from "node:path";
import { create } from "tar";
import { expect, test } from "vitest";
import type { CacheFingerprint } from "../../src/caches/fingerprint.ts";
import { readFolder, useCaches } from "../../src/caches/folder.ts";
import { cacheVariables } from "../../src/caches/kinds.ts";
import { formatManifest, MANIFEST, UNPACKING } from "../../src/caches/manifest.ts";
import { movedFrom, packFolder, readPack, unpack } from "../../src/caches/pack.ts";
import { temporaryFolder } from "../helpers/folder.ts";

const HERE: CacheFingerprint = {
  ...{ python: "3.12.3", packages: { vllm: "0.33.0" }, gpu: "NVIDIA H200", driver: "580" },
  ...{ model: "MODEL", options: [], variables: {} },
};

async function put(folder: string, files: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), text);
  }
}

async function filled(): Promise<string> {
  const folder = join(await temporaryFolder(), "caches");
  await put(folder, {
    [MANIFEST]: formatManifest({ fingerprint: HERE, folder }),
    ...{ "vllm/torch_compile_cache/a/model": "graph", "triton/b/kernel.so": "kernel" },
    ...{ "triton/tmp.pid_7/kernel.so": "half", "vllm/a.lock": "", "vllm/locks/x": "held" },
  });
  return folder;
}

test("what was packed is unpacked, with its times and without locks and half files", async () => {
  const folder = await filled();
  const kernel = "triton/b/kernel.so";
  await utimes(join(folder, kernel), 1_700_000_000, 1_700_000_000);
  await symlink("/etc/passwd", join(folder, "vllm", "link"));
  const file = join(dirname(folder), "llama.caches");
  const packed = await packFolder(folder, file);
  expect(packed).toMatchObject({ files: 2, bytes: expect.any(Number) });
  const content = await readPack(file);
  expect(content).toMatchObject({ files: 2, manifest: { fingerprint: HERE, folder } });
  const target = join(dirname(folder), "deep", "other");
  await unpack(file, target, content);
  const found = (await readdir(target, { recursive: true })).filter((name) =>
    /\.|model/.test(name),
  );
  expect(found.sort()).toEqual([MANIFEST, kernel, "vllm/torch_compile_cache/a/model"]);
  expect(await readFile(join(target, kernel), "utf8")).toBe("kernel");
  expect((await stat(join(target, kernel))).mtimeMs).toBe(1_700_000_000_000);
  expect(await readFolder(target)).toEqual(content.manifest);
  expect(movedFrom(content, target)).toBe(folder);
  expect(movedFrom(content, folder)).toBeUndefined();
  // Into a folder that has some they would be mixed.
  await expect(unpack(file, target, content)).rejects.toMatchObject({
    ...{ code: "ERR_LAZYGRAPH_CACHES", message: expect.stringContaining("an empty folder") },
  });
});

test("of several that unpack into one folder one does; half of a pack is used by nobody", async () => {
  const folder = await filled();
  const file = join(dirname(folder), "pack");
  await packFolder(folder, file);
  const content = await readPack(file);
  const target = join(dirname(folder), "target");
  const ways = [...Array(8)].map(() => unpack(file, target, content));
  const failed = (await Promise.allSettled(ways)).flatMap((end) =>
    end.status === "rejected" ? [end.reason.message] : [],
  );
  expect(failed).toHaveLength(7);
  for (const why of failed) expect(why).toMatch(/an empty folder .* got (one with|some that)/);
  expect(await readFolder(target)).toEqual(content.manifest);
  // Killed in the middle, and while a start claimed the folder.
  await writeFile(join(target, UNPACKING), "");
  const refused = { message: expect.stringContaining("some that are being unpacked") };
  await expect(useCaches(target, HERE, false)).rejects.toMatchObject(refused);
  await expect(packFolder(target, file)).rejects.toMatchObject(refused);
  await rm(join(target, MANIFEST));
  await expect(unpack(file, target, content)).rejects.toMatchObject(refused);
});

test("a pack that is cut off, or none, is refused before anything is unpacked", async () => {
  const folder = await filled();
  const file = join(dirname(folder), "pack");
  await packFolder(folder, file);
  const bytes = await readFile(file);
  const refused = { code: "ERR_LAZYGRAPH_CACHES" };
  await writeFile(file, bytes.subarray(0, bytes.length - 40));
  await expect(readPack(file)).rejects.toMatchObject(refused);
  await writeFile(file, "no archive at all");
  await expect(readPack(file)).rejects.toMatchObject(refused);
  await expect(readPack(join(folder, "gone"))).rejects.toMatchObject(refused);
  await create({ file, cwd: folder, gzip: true }, ["vllm"]);
  await expect(readPack(file)).rejects.toMatchObject({
    ...{ ...refused, message: expect.stringContaining(MANIFEST) },
  });
});

test("what is no cache in a pack made by others is left where it is", async () => {
  const folder = await filled();
  await put(folder, { "other/file": "x", ".bashrc": "x" });
  const target = join(dirname(folder), "target");
  const file = join(dirname(folder), "pack");
  await symlink("/etc", join(folder, "vllm", "etc"));
  await create({ file, cwd: folder, gzip: true }, [MANIFEST, "other", ".bashrc", "vllm"]);
  await unpack(file, target, await readPack(file));
  expect((await readdir(target)).sort()).toEqual([MANIFEST, "vllm"]);
  expect(await readdir(join(target, "vllm"))).not.toContain("etc");
});

test("an empty folder is filled, one of this engine used, another's refused with what differs", async () => {
  const folder = join(await temporaryFolder(), "new");
  const first = await useCaches(folder, HERE, false);
  expect(first).toMatchObject({ how: "filled", variables: cacheVariables(folder) });
  const second = await useCaches(folder, HERE, false);
  expect(second).toMatchObject({ how: "used", variables: cacheVariables(folder) });
  await expect(useCaches(folder, { ...HERE, gpu: "NVIDIA L4" }, false)).rejects.toMatchObject({
    code: "ERR_LAZYGRAPH_CACHES_FINGERPRINT",
    message: expect.stringContaining("GPU NVIDIA H200 (here NVIDIA L4)"),
  });
});

test("read-only caches are used as a private copy, which goes away again", async () => {
  const folder = await filled();
  const used = await useCaches(folder, HERE, true);
  expect(used.how).toBe("copied");
  const copy = used.variables["TRITON_CACHE_DIR"] ?? "";
  expect(copy.startsWith(folder)).toBe(false);
  expect(await readFile(join(copy, "b", "kernel.so"), "utf8")).toBe("kernel");
  await used.release();
  await expect(access(copy)).rejects.toThrow("ENOENT");
  expect(await readFile(join(folder, "triton", "b", "kernel.so"), "utf8")).toBe("kernel");
  const empty = join(dirname(folder), "empty");
  await expect(useCaches(empty, HERE, true)).rejects.toMatchObject({
    code: "ERR_LAZYGRAPH_CACHES",
  });
});

test("a folder of other files is left alone; a volume's own is none", async () => {
  const folder = await temporaryFolder();
  await mkdir(join(folder, "lost+found"));
  expect(await readFolder(folder)).toBeUndefined();
  await put(folder, { "photo.jpg": "x" });
  await expect(useCaches(folder, HERE, false)).rejects.toMatchObject({
    ...{ code: "ERR_LAZYGRAPH_CACHES", message: expect.stringContaining("photo.jpg") },
  });
  expect(await readdir(folder)).not.toContain(MANIFEST);
});

test("what a launcher leaves before the first start is no other file", async () => {
  const source = await filled();
  const file = join(dirname(source), "llama.caches");
  await packFolder(source, file);
  const before = async (): Promise<string> => {
    const folder = await temporaryFolder();
    await mkdir(join(folder, "inductor", "locks"), { recursive: true });
    await put(folder, { "driver/index": "the driver's" });
    return folder;
  };
  const folder = await before();
  expect(await useCaches(folder, HERE, false)).toMatchObject({ how: "filled" });
  expect(await readdir(folder)).toContain(MANIFEST);
  const other = await before();
  await unpack(file, other, await readPack(file));
  expect(await readFile(join(other, "triton/b/kernel.so"), "utf8")).toBe("kernel");
  // Something compiled for nobody knows which engine.
  const unlabelled = await before();
  await put(unlabelled, { "triton/b/kernel.so": "kernel" });
  await expect(useCaches(unlabelled, HERE, false)).rejects.toMatchObject({
    ...{ code: "ERR_LAZYGRAPH_CACHES", message: expect.stringContaining("such as triton") },
  });
  const linked = await before();
  await symlink(join(source, "triton"), join(linked, "inductor", "b"));
  await expect(readFolder(linked)).rejects.toMatchObject({
    ...{ code: "ERR_LAZYGRAPH_CACHES", message: expect.stringContaining("such as inductor") },
  });
});

test("of engines that fill an empty folder at once one has it, the others are refused", async () => {
  const folder = join(await temporaryFolder(), "new");
  const half = `.${MANIFEST}.of-a-killed-one`;
  await put(folder, { [half]: "{" });
  const kinds = ["A", "B", "C"].map((gpu) => useCaches(folder, { ...HERE, gpu }, false));
  const ends = await Promise.allSettled(kinds);
  const { fingerprint } = (await readFolder(folder)) ?? { fingerprint: HERE };
  expect(ends.map(({ status }) => status === "fulfilled")).toEqual(
    ["A", "B", "C"].map((gpu) => gpu === fingerprint.gpu),
  );
  expect(await readdir(folder)).toEqual([half, MANIFEST]);
});

test("a damaged manifest is told, not taken for an empty folder", async () => {
  const folder = await filled();
  await writeFile(join(folder, MANIFEST), "{");
  await expect(readFolder(folder)).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_CACHES" });
  await rm(join(folder, MANIFEST));
  await mkdir(join(folder, MANIFEST));
  await expect(readFolder(folder)).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_CACHES" });
});

test("a private copy may be written where the folder's own rights forbid it", async () => {
  const folder = await filled();
  execFileSync("mkfifo", [join(folder, "triton", "pipe")]);
  await chmod(join(folder, "triton", "b", "kernel.so"), 0o555);
  await chmod(join(folder, "triton", "b"), 0o555);
  const { how, variables, release } = await useCaches(folder, HERE, true);
  expect(how).toBe("copied");
  const copy = join(variables["TRITON_CACHE_DIR"] ?? "", "b");
  for (const path of [copy, join(copy, "kernel.so")]) {
    expect((await stat(path)).mode & 0o777).toBe(0o755);
  }
  await release();
  await expect(access(copy)).rejects.toThrow("ENOENT");
});

test("two may pack into the same file, and a pipe is no pack", async () => {
  const folder = await filled();
  const file = join(dirname(folder), "pack");
  await Promise.all([packFolder(folder, file), packFolder(folder, file)]);
  expect((await readPack(file)).files).toBe(2);
  expect(await readdir(dirname(folder))).toEqual(["caches", "pack"]);
  execFileSync("mkfifo", [`${file}.pipe`]);
  await expect(readPack(`${file}.pipe`)).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_CACHES" });
  await expect(readPack(`${file}.gone`)).rejects.toThrow(
    "got nothing of that name: check its name",
  );
});

test.skipIf(process.getuid?.() === 0)("a folder that can't be written says so", async () => {
  const folder = await temporaryFolder();
  await chmod(folder, 0o555);
  await expect(useCaches(join(folder, "new"), HERE, false)).rejects.toMatchObject({
    code: "ERR_LAZYGRAPH_CACHES",
  });
});
