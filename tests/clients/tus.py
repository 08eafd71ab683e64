"""Uploads a file with tuspy: tus.py URL TOKEN FILE NAME CHUNK. Prints the upload's URL."""

import sys

from tusclient import client

endpoint, token, path, name, chunk = sys.argv[1:]
server = client.TusClient(endpoint, headers={"Authorization": f"Bearer {token}"})
uploader = server.uploader(path, chunk_size=int(chunk), metadata={"filename": name}, retries=50, retry_delay=0)
uploader.upload()
print(uploader.url)
