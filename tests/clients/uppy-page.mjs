// What runs in the browser: Uppy as anybody would set it up, with an endpoint of another origin.
import Uppy from "@uppy/core";
import Tus from "@uppy/tus";

window.upload = async ({ endpoint, token, name, chunk }) => {
  const counts = { created: 0, retries: 0, progress: 0 };
  const uppy = new Uppy({ autoProceed: false }).use(Tus, {
    endpoint,
    headers: { Authorization: `Bearer ${token}` },
    chunkSize: chunk === "infinite" ? Number.POSITIVE_INFINITY : Number(chunk),
    retryDelays: Array(50).fill(50),
    onShouldRetry(error, attempt, options, next) {
      counts.retries += 1;
      return next(error);
    },
    onAfterResponse(request, response) {
      if (request.getMethod() === "POST" && response.getStatus() === 201) counts.created += 1;
    },
  });
  uppy.on("upload-progress", (file, progress) => {
    counts.progress = Math.max(counts.progress, progress.bytesUploaded);
  });
  const [data] = document.querySelector("input").files;
  uppy.addFile({ name, type: "application/x-test", data });
  const { successful, failed } = await uppy.upload();
  return { ...counts, url: successful[0]?.uploadURL, failed: failed.map((file) => String(file.error)) };
};
