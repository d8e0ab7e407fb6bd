#!/bin/sh
# A zstd file may consist of several frames (RFC 8878, section 3), as `zstd`, `pzstd` and `cat` of
# two files write them. Node 22's decoders, zstdDecompressSync and the stream, give the first frame's
# content and say nothing of the rest, while its gunzip reads all members of such a file. Node 24
# does so up to 24.12 at least, and reads all frames in its latest.
# Seen with Node 22.23.5 and 24.22.3.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
case $(uname -m) in x86_64) cpu=x64 ;; aarch64) cpu=arm64 ;; *) exit 77 ;; esac

cat >frames.mjs <<'JS'
import zlib from "node:zlib";

function streamed(bytes) {
  return new Promise((resolve) => {
    const decoder = zlib.createZstdDecompress();
    let text = "";
    decoder.on("data", (chunk) => (text += chunk));
    decoder.once("error", (error) => resolve(error.code));
    decoder.once("end", () => resolve(text));
    decoder.end(bytes);
  });
}

function at_once(read, bytes) {
  try {
    return read(bytes).toString();
  } catch (error) {
    return error.code;
  }
}

const frames = Buffer.concat(["one ", "two"].map((text) => zlib.zstdCompressSync(text)));
const members = Buffer.concat(["one ", "two"].map((text) => zlib.gzipSync(text)));
console.log("gunzip:", at_once(zlib.gunzipSync, members));
console.log("zstd at once:", at_once(zlib.zstdDecompressSync, frames));
console.log("zstd streamed:", await streamed(frames));
JS
for version in 22.23.5 24.22.3; do
  npm pack --silent "node-linux-$cpu@$version" >file
  mkdir "$version" && tar -xzf "$(cat file)" -C "$version" package/bin/node
  echo "Node $version"
  "$version/package/bin/node" --no-warnings frames.mjs
done | tee output
cmp - output <<'OUTPUT'
Node 22.23.5
gunzip: one two
zstd at once: one 
zstd streamed: one 
Node 24.22.3
gunzip: one two
zstd at once: one two
zstd streamed: one two
OUTPUT
