# Debian nginx: sendfile, open_file_cache, access log off, 2 workers. tcp_nopush is off: with it on, D4 was seen to
# stall 40 ms per request. More worker_connections than elsewhere only where 10,000 clients connect.
# PUT uploads through the dav module (client_body_temp on the same file system, so a rename).
T_CASES="D1 D1t D2 D3 D4 D5 I1 T1 T16 T1h TU TUh U1p U2p U3p"
t_version() { nginx -v 2>&1 | sed 's/.*version: //'; }
t_setup() {
  mkdir -p "$T_WORK/up" "$T_WORK/tmp"
  local tls="" certificate="" connections=4096
  if t_tls; then
    tls="ssl http2"
    certificate="ssl_certificate $T_CERTS/cert.pem; ssl_certificate_key $T_CERTS/key.pem; ssl_protocols TLSv1.2 TLSv1.3;"
  fi
  [[ $T_CASE == I1 ]] && connections=16384
  cat >"$T_WORK/nginx.conf" <<CONF
user root;
worker_processes 2;
pid $T_WORK/nginx.pid;
error_log $T_WORK/error.log warn;
events { worker_connections $connections; }
http {
  access_log off;
  sendfile on;
  tcp_nopush off;
  keepalive_requests 1000000;
  open_file_cache max=30000 inactive=600s;
  client_body_temp_path $T_WORK/tmp;
  proxy_temp_path $T_WORK/tmp; fastcgi_temp_path $T_WORK/tmp; uwsgi_temp_path $T_WORK/tmp; scgi_temp_path $T_WORK/tmp;
  client_max_body_size 0;
  client_body_buffer_size 256k;
  server {
    listen 127.0.0.1:$T_PORT $tls backlog=4096;
    $certificate
    root $T_DATA;
    location /up/ { root $T_WORK; dav_methods PUT DELETE; create_full_put_path on; open_file_cache off; }
  }
}
CONF
}
t_serve() { exec nginx -e "$T_WORK/error.log" -p "$T_WORK" -c "$T_WORK/nginx.conf" -g 'daemon off;'; }
t_put_url() { echo "$(t_base)/up/{}.bin"; }
t_clean() { rm -rf "$T_WORK/up"; mkdir -p "$T_WORK/up"; }
