// Uploads a file with tus-js-client: node tus.mjs tus4|tus5 URL TOKEN FILE NAME CHUNK PARALLEL [PROTOCOL]
// CHUNK is a number of bytes or "infinite", PROTOCOL as the library names it. Prints one line of JSON.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const [, , library, endpoint, token, path, name, chunk, parallel, protocol = "tus-v1"] = process.argv;
const tus = createRequire(import.meta.url)(library);
const counts = { retries: 0, created: 0 };
const errors = [];
const upload = new tus.Upload(readFileSync(path), {
  endpoint,
  protocol,
  headers: { Authorization: `Bearer ${token}` },
  metadata: { filename: name, filetype: "application/x-test" },
  chunkSize: chunk === "infinite" ? Number.POSITIVE_INFINITY : Number(chunk),
  parallelUploads: Number(parallel),
  retryDelays: Array(50).fill(50),
  onShouldRetry(error) {
    counts.retries += 1;
    errors.push(String(error.message).slice(0, 200));
    return true;
  },
  onAfterResponse(request, response) {
    if (request.getMethod() === "POST" && response.getStatus() === 201) counts.created += 1;
  },
  onError(error) {
    console.error(String(error), counts, errors);
    process.exit(1);
  },
  onSuccess() {
    console.log(JSON.stringify({ ...counts, url: upload.url }));
  },
});
upload.start();
