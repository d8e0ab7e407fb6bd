import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

/**
 * A folder for PYTHONPATH in which the plugin's metadata says that it is installed; of its code
 * nothing is there.
 */
export async function pluginSite(folder: string): Promise<string> {
  const site = join(folder, "site");
  const info = join(site, "lazygraph_vllm-0.1.0.dist-info");
  await mkdir(info, { recursive: true });
  await writeFile(join(info, "METADATA"), "Name: lazygraph-vllm\nVersion: 0.1.0\n");
  await writeFile(
    join(info, "entry_points.txt"),
    "[vllm.general_plugins]\nlazygraph = lazygraph_vllm.plugin:register\n",
  );
  return site;
}
