# nginx with mod_zip, whose module has to lie at $PEERS/modzip/ngx_http_zip_module.so. It is given the CRC-32 of every file,
# which is its best case. Z3 is of the first 15,000 files: it keeps all members open until the archive ends, and has no more
# descriptors than that; rates are by the byte.
T_CASES="Z1 Z2 Z3"
t_version() { echo "$(nginx -v 2>&1 | sed 's/.*version: //') + mod_zip"; }
t_setup() {
  mkdir -p "$T_WORK/tmp"
  cat >"$T_WORK/nginx.conf" <<CONF
load_module $PEERS/modzip/ngx_http_zip_module.so;
user root;
worker_processes 2;
pid $T_WORK/nginx.pid;
error_log $T_WORK/error.log warn;
events { worker_connections 4096; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  client_body_temp_path $T_WORK/tmp;
  proxy_temp_path $T_WORK/tmp; fastcgi_temp_path $T_WORK/tmp; uwsgi_temp_path $T_WORK/tmp; scgi_temp_path $T_WORK/tmp;
  upstream lists { server unix:$T_WORK/lists.sock; keepalive 8; }
  server {
    listen unix:$T_WORK/lists.sock;
    root $T_DATA/manifest;
    etag off;
    add_header X-Archive-Files zip;
  }
  server {
    listen 127.0.0.1:$T_PORT backlog=4096;
    root $T_DATA;
    location ~ ^/zip/([a-z0-9]+)\$ {
      proxy_pass http://lists/\$1.txt;
      proxy_buffers 64 64k;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Range "";
      proxy_set_header If-Range "";
    }
  }
}
CONF
}
t_serve() { exec nginx -e "$T_WORK/error.log" -p "$T_WORK" -c "$T_WORK/nginx.conf" -g 'daemon off;'; }
t_zip_url() { if [ "$1" = z3 ]; then set -- z3a; fi; echo "$(t_base)/zip/$1"; }
