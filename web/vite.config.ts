import { svelte } from "@sveltejs/vite-plugin-svelte";
import { gzipSync } from "node:zlib";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

/** All that a browser loads, compressed. */
const BUDGET_BYTES = 200_000;

/** Fails the build when the page has become too heavy. */
const budget: Plugin = {
  name: "budget",
  apply: "build",
  generateBundle(_, bundle) {
    const sizes = Object.values(bundle).map((file) => gzipSync(file.type === "chunk" ? file.code : file.source).length);
    const total = sizes.reduce((sum, size) => sum + size, 0);
    if (total > BUDGET_BYTES) this.error(`the page has ${total} bytes compressed; it may have ${BUDGET_BYTES}`);
    console.log(`the page has ${total} of ${BUDGET_BYTES} bytes, compressed`);
  },
};

export default defineConfig({
  plugins: [svelte(), budget],
  build: {
    target: "es2022",
    // A strict content security policy forbids inline pictures and scripts: everything is its own file.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    proxy: { "/api": "http://127.0.0.1:8670" },
  },
  test: {
    include: ["tests/**/*.test.ts"],
  },
});
