// Uploads files with tus-js-client, one after the other, until standard input ends, as an application does that leaves
// everything at its defaults: node tus-load.mjs URL TOKEN NAME BYTES CHUNK
// Tells in lines of JSON what it was told: {"event": "created" | "accepted" | "broke" | "done" | "failed", ...}.
// CHUNK is a number of bytes or "infinite".
import { createHash, randomBytes } from "node:crypto";
import { createRequire } from "node:module";

const [, , endpoint, token, name, bytes, chunk] = process.argv;
const tus = createRequire(import.meta.url)("tus4");
let more = true;
process.stdin.on("end", () => (more = false)).resume();
const tell = (event, facts) => console.log(JSON.stringify({ event, ...facts }));

function send(number) {
  const content = randomBytes(Number(bytes));
  const key = `${name}/${number}`;
  let known = 0;
  return new Promise((resolve) => {
    const upload = new tus.Upload(content, {
      endpoint,
      headers: { Authorization: `Bearer ${token}` },
      metadata: { filename: key },
      chunkSize: chunk === "infinite" ? Number.POSITIVE_INFINITY : Number(chunk),
      onShouldRetry(error) {
        // What the library does unless it is told otherwise; only telling is new.
        const status = error.originalResponse?.getStatus() ?? 0;
        tell("broke", { status, known, key, problem: String(error.message).slice(0, 300) });
        return status < 400 || status >= 500 || status === 409 || status === 423;
      },
      onAfterResponse(request, response) {
        const status = response.getStatus();
        if (status < 200 || status >= 300) return;
        if (request.getMethod() === "POST") return tell("created", { key, url: response.getHeader("Location") });
        const offset = Number(response.getHeader("Upload-Offset"));
        tell("accepted", { method: request.getMethod(), offset, known });
        known = offset;
      },
      onError(error) {
        tell("failed", { key, problem: String(error).slice(0, 400) });
        resolve();
      },
      onSuccess() {
        tell("done", { key, sha256: createHash("sha256").update(content).digest("hex") });
        resolve();
      },
    });
    upload.start();
  });
}

for (let number = 0; more; number += 1) await send(number);
