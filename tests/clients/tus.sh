#!/usr/bin/env bash
# Uploads a file with curl alone, the way the protocol says: tus.sh URL TOKEN FILE NAME. Prints the upload's URL.
set -uo pipefail
endpoint=$1 token=$2 file=$3 name=$4
size=$(stat -c %s "$file")
ask=(curl -sS --max-time 60 -H "Authorization: Bearer $token" -H "Tus-Resumable: 1.0.0")
url=$("${ask[@]}" -o /dev/null -w '%header{location}' -X POST -H "Upload-Length: $size" \
  -H "Upload-Metadata: filename $(printf %s "$name" | base64 -w0)" "$endpoint") || exit 1
for _ in $(seq 100); do
  offset=$("${ask[@]}" -I -w '%header{upload-offset}' -o /dev/null "$url") || continue
  [[ $offset == "$size" ]] && echo "$url" && exit 0
  tail -c "+$((offset + 1))" "$file" | "${ask[@]}" -o /dev/null -X PATCH -H "Upload-Offset: $offset" \
    -H "Content-Type: application/offset+octet-stream" -T - "$url"
done 2>/dev/null
exit 1
