import { defineConfig } from "vite";

// The build is committed, so it must be the same bytes wherever it is made: no source maps with paths, no dates.
export default defineConfig({
  base: "./",
  build: {
    outDir: "../deployments/page/built",
    emptyOutDir: true,
    assetsDir: "page",
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    sourcemap: false,
    target: "es2022",
  },
  server: { proxy: { "/v1": "http://127.0.0.1:8000", "/readyz": "http://127.0.0.1:8000" } },
});
