#!/bin/sh
# dependency-cruiser reads TypeScript by the `typescript` package that it finds, up to version 6:
# version 7 is a native program whose package has no compiler API. With 7 beside it, files in
# TypeScript are no longer seen, and the check passes: no violations, 0 modules, exit code 0. So an
# upgrade of the compiler turns a check of the architecture off, and nothing turns red.
# Seen with dependency-cruiser 17.4.3 on two files that import each other, `no-circular` forbidden:
# with typescript 6 it is an error, with 7.0.2 it passes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
echo 'import type { B } from "./b.js"; export type A = B | 1;' >src/a.ts
echo 'import type { A } from "./a.js"; export type B = A | 2;' >src/b.ts
cat >rules.cjs <<'JS'
module.exports = {
  forbidden: [{ name: "no-circular", severity: "error", from: {}, to: { circular: true } }],
  options: { tsPreCompilationDeps: true },
};
JS
npm init -y >npm.log
npm install --no-json --ignore-scripts --no-audit dependency-cruiser@17.4.3 >>npm.log 2>&1
for typescript in 6.0.2 7.0.2; do
  npm install --no-json --ignore-scripts --no-audit "typescript@$typescript" >>npm.log 2>&1
  status=0
  npx --no-install depcruise --config rules.cjs src >"with-$typescript" || status=$?
  echo "typescript $typescript: exit code $status, $(grep -o '[0-9]* modules' "with-$typescript")"
done | tee output
printf 'typescript 6.0.2: exit code 1, 2 modules\ntypescript 7.0.2: exit code 0, 0 modules\n' |
  cmp - output
