# Carrack as it comes (SQLite, local disk, metrics), a bearer token on every request. Its data is loaded by plain PUTs,
# once for all cases, with keys as under $T_DATA. Only the uploads over TLS are acknowledged as nginx does it, unsynced.
T_CASES="D1 D1t D2 D3 D4 D5 I1 T1 T16 T1h TU TUh Z1 Z2 Z3 U1 U2 U3 U1p U2p U3p"
t_version() { "$CARRACK_BIN" --version; }
t_serve() {
  export CARRACK_ROOT_TOKEN=bench-root-token
  if t_tls; then export CARRACK_TLS__CERT="$T_CERTS/cert.pem" CARRACK_TLS__KEY="$T_CERTS/key.pem"; fi
  case "$T_CASE" in TU*) export CARRACK_UPLOADS__DURABILITY=process ;; esac
  exec "$CARRACK_BIN" serve --listen "127.0.0.1:$T_PORT" --data "$T_WORK/data"
}
t_headers() { echo "Authorization: Bearer bench-root-token"; }
# What a case needs, each folder loaded once.
t_prepare() {
  local folder stamp
  case "$1" in
    D1|D1t|D4|D5|T1|T1h) folder=big ;; D2|T16) folder=d2 ;; D3|I1) folder=z3/00 ;; Z1) folder=z1 ;; Z2) folder=z2 ;; Z3) folder=z3 ;; *) return 0 ;;
  esac
  stamp="$T_WORK/loaded-${folder//\//_}"
  [ -e "$stamp" ] && return 0
  (cd "$T_DATA" && find "$folder" -type f -print0 | python3 "$BENCH/servers/carrack_load.py" "$(t_base)" bench-root-token) || return 1
  : >"$stamp"
}
t_file_url() { echo "$(t_base)/v1/files/default/$1"; }
t_zip_url() { echo "$(t_base)/v1/zip/default?prefix=$1/"; }
t_tus_url() { echo "$(t_base)/v1/tus"; }
t_put_url() { echo "$(t_base)/v1/files/default/up/{}.bin"; }
t_clean() { python3 "$BENCH/servers/carrack_load.py" --delete "$(t_base)" bench-root-token; }
