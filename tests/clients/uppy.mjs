// Uploads a file with Uppy in Chromium, from a page of another origin: node uppy.mjs URL TOKEN FILE NAME CHUNK
// CHUNK is a number of bytes or "infinite". Prints one line of JSON.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { chromium } from "playwright-core";

const [, , endpoint, token, path, name, chunk] = process.argv;
const here = (file) => fileURLToPath(new URL(file, import.meta.url));
const bundle = await build({ entryPoints: [here("uppy-page.mjs")], bundle: true, format: "esm", write: false });
const pages = {
  "/": ["text/html", readFileSync(here("uppy.html"))],
  "/page.js": ["text/javascript", bundle.outputFiles[0].contents],
};
const server = createServer((request, response) => {
  const [type, content] = pages[request.url] ?? ["text/plain", ""];
  response.writeHead(content === "" ? 404 : 200, { "Content-Type": type }).end(content);
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));

const programs = ["chromium-headless-shell", "chromium"];
const found = programs.map((program) => {
  try {
    return execFileSync("sh", ["-c", `command -v ${program}`], { encoding: "utf8" }).trim();
  } catch {
    return "";
  }
});
const browser = await chromium.launch({
  executablePath: found.find((program) => program !== ""),
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
try {
  const page = await browser.newPage();
  page.on("pageerror", (error) => console.error(String(error)));
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  await page.waitForFunction("window.upload");
  await page.setInputFiles("input", path);
  const result = await page.evaluate((wish) => window.upload(wish), { endpoint, token, name, chunk });
  console.log(JSON.stringify({ ...result, browser: browser.version() }));
  process.exitCode = result.failed.length === 0 ? 0 : 1;
} finally {
  await browser.close();
  server.close();
}
