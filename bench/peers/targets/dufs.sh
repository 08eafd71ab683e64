# dufs, log off, stored ZIP (--compress none).
T_CASES="D1 D1t D2 D3 D4 D5 I1 Z1 Z2 Z3 U1p U2p U3p"
t_version() { "$PEERS/bin/dufs" --version; }
t_setup() { mkdir -p "$T_WORK/root/up"; for d in "$T_DATA"/*/; do ln -sfn "${d%/}" "$T_WORK/root/$(basename "$d")"; done; }
t_serve() { exec "$PEERS/bin/dufs" -b 127.0.0.1 -p "$T_PORT" -A --log-format '' --compress none "$T_WORK/root"; }
t_zip_url() { echo "$(t_base)/$1?zip"; }
t_put_url() { echo "$(t_base)/up/{}.bin"; }
t_clean() { rm -rf "$T_WORK/root/up"; mkdir -p "$T_WORK/root/up"; }
