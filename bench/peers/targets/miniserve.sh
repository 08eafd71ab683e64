# miniserve with ZIP on (it builds the whole archive in memory or a spool before sending).
T_CASES="D1 D1t D2 D3 D4 D5 I1 Z1 Z2 Z3"
t_version() { "$PEERS/bin/miniserve" --version; }
t_serve() { exec "$PEERS/bin/miniserve" -i 127.0.0.1 -p "$T_PORT" --enable-zip "$T_DATA"; }
t_zip_url() { echo "$(t_base)/$1/?download=zip"; }
