import { defineConfig } from "vitest/config";

/** The page in Chromium, against daemons of the lab: run by `cargo xtask test ui`, which says where they are. */
export default defineConfig({
  test: {
    include: ["browser/**/*.test.ts"],
    // One browser, one story: later steps build on earlier ones.
    fileParallelism: false,
    bail: 1,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
