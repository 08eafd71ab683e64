# rustus: file storage, file info storage, defaults otherwise (log level ERROR, body limit lifted).
T_CASES="U1 U2 U3"
t_version() { "$PEERS/bin/rustus" --version; }
t_setup() { mkdir -p "$T_WORK/up" "$T_WORK/info"; }
t_serve() {
  exec "$PEERS/bin/rustus" --host 127.0.0.1 --port "$T_PORT" --data-dir "$T_WORK/up" --info-dir "$T_WORK/info" \
    --max-body-size 6000000000 --log-level ERROR --dir-structure ""
}
t_tus_url() { echo "$(t_base)/files/"; }
t_clean() { rm -rf "$T_WORK/up" "$T_WORK/info"; mkdir -p "$T_WORK/up" "$T_WORK/info"; }
