# caddy file_server, no log, no admin endpoint, no TLS, no encode.
T_CASES="D1 D1t D2 D3 D4 D5 I1"
t_version() { caddy version | sed 's/^v\?\([^ ]*\).*/caddy \1/'; }
t_setup() {
  cat >"$T_WORK/Caddyfile" <<CONF
{
  admin off
  auto_https off
}
http://127.0.0.1:$T_PORT {
  bind 127.0.0.1
  root * $T_DATA
  file_server
}
CONF
}
t_serve() { export HOME="$T_WORK" XDG_DATA_HOME="$T_WORK" XDG_CONFIG_HOME="$T_WORK"; exec caddy run --adapter caddyfile --config "$T_WORK/Caddyfile"; }
