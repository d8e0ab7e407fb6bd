/**
 * `npm run graph [-- --mermaid] [FOLDER]`: the rooms at the top of src (its folders, and the files
 * in its root), the arrows between them, and the import cycles, types included. With `--mermaid` the
 * arrows come as a diagram. Exits 1 if there is a cycle.
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { parseCircular, parseDependencyTree } from "dpdm";

const root = fileURLToPath(new URL("..", import.meta.url));
const { values, positionals } = parseArgs({
  options: { mermaid: { type: "boolean", default: false } },
  allowPositionals: true,
});
const context = positionals[0] ?? root;

const tree = await parseDependencyTree(join(context, "src/**/*.ts"), {
  context,
  // Imports of types count: who reads a type has to know where it comes from.
  transform: false,
  include: /./,
  exclude: /node_modules/,
  extensions: ["", ".ts"],
});

const inSource = (file) => file?.startsWith("src/");
const room = (file) => file.split("/")[1];
const files = Object.keys(tree).filter(inSource);
const arrows = new Map();
for (const file of files) {
  for (const { id } of tree[file] ?? []) {
    if (!inSource(id) || room(id) === room(file)) continue;
    const arrow = `${room(file)} --> ${room(id)}`;
    arrows.set(arrow, (arrows.get(arrow) ?? 0) + 1);
  }
}
// An import that resolves to nothing would be an arrow less, and say so of no one.
const lost = files.flatMap((file) =>
  (tree[file] ?? []).filter(({ id, request }) => request.startsWith(".") && id === null),
);
if (files.length === 0 || lost.length > 0) {
  const which = lost.map(({ issuer, request }) => `${request} in ${issuer}`).join(", ");
  console.error(`Expected sources that can be followed, got ${which || `none in ${context}/src`}.`);
  process.exit(2);
}

if (values.mermaid) {
  console.log(["graph BT", ...[...arrows.keys()].sort().map((arrow) => `  ${arrow}`)].join("\n"));
} else {
  const rooms = new Set(files.map(room));
  const cycles = parseCircular(tree).filter((cycle) => cycle.every(inSource));
  console.log(`${rooms.size} rooms, ${arrows.size} arrows, ${cycles.length} cycles`);
  for (const cycle of cycles) console.log(`cycle: ${[...cycle, cycle[0]].join(" -> ")}`);
  if (cycles.length > 0) process.exitCode = 1;
}
