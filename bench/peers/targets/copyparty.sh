# copyparty, quiet, no database, -j 1 (its default). Not I1: each connection has a thread.
T_CASES="D1 D1t D2 D3 D4 D5 Z1 Z2 Z3 U1p U2p U3p"
t_version() { "$PEERS/py/bin/copyparty" --version 2>/dev/null | sed -n '1s/".*//p'; }
t_setup() { mkdir -p "$T_WORK/up" "$T_WORK/home"; }
t_serve() {
  export HOME="$T_WORK/home" XDG_CONFIG_HOME="$T_WORK/home" PRTY_CONFIG=
  exec "$PEERS/py/bin/python" "$PEERS/py/bin/copyparty" -q -i 127.0.0.1 -p "$T_PORT" -v "$T_DATA::r" -v "$T_WORK/up:up:rwd" --no-thumb -nih --put-ck no --hist "$T_WORK/home"
}
t_zip_url() { echo "$(t_base)/$1/?zip=utf8"; }
t_put_url() { echo "$(t_base)/up/{}.bin"; }
