# Sourced before every target file. A target file sets variables and functions:
#
#   T_CASES   the cases it can run, e.g. "D1 D1t D2 D3 D4 D5 I1 T1 Z1 U1"
#   t_version          prints one line: name and version
#   t_setup            optional; writes configuration under $T_WORK before the start
#   t_serve            runs the server in the FOREGROUND with `exec`, bound to
#                      127.0.0.1:$T_PORT, so that its pid is the pid the runner holds
#   t_prepare CASE     optional; after the server is up (make shares, log in, ...)
#   t_file_url REL     URL of the file $T_DATA/REL
#   t_zip_url DIR      URL that streams the directory $T_DATA/DIR as a ZIP
#   t_tus_url          tus creation endpoint
#   t_put_url          raw PUT endpoint; {} becomes the upload's number
#   t_urls CASE        optional; all URLs of a case, one per line, instead of the above
#   t_headers          optional; extra request headers, one per line
#   t_clean            optional; empties the upload store between two runs
#
# In the environment: T_CASE (the case it is started for; T* want TLS, with the certificate and key
# $T_CERTS/cert.pem and key.pem), T_PORT, T_DATA (the served tree), T_WORK (scratch of this
# target), PEERS (installed peers), BENCH (this directory).
T_CASES=""
t_version() { echo "$T_NAME"; }
t_setup() { :; }
t_prepare() { :; }
t_headers() { :; }
t_clean() { rm -rf "$T_WORK/up"; mkdir -p "$T_WORK/up"; }
t_tls() { [[ ${T_CASE-} == T* ]]; }
t_base() { if t_tls; then echo "https://127.0.0.1:$T_PORT"; else echo "http://127.0.0.1:$T_PORT"; fi; }
t_file_url() { echo "$(t_base)/$1"; }
t_urls() {
  local i
  case "$1" in
    D1|D1t|D4|D5|T1|T1h) t_file_url big/4g.bin ;;
    D2|T16) for i in $(seq -f %02g 0 15); do t_file_url "d2/$i.bin"; done ;;
    # one call, then a rewrite: 1,000 shell calls would be slow
    D3|I1) local u; u=$(t_file_url z3/00/@@@@.bin); for i in $(seq -f %04g 0 999); do echo "${u//@@@@/$i}"; done ;;
    Z1) t_zip_url z1 ;;
    Z2) t_zip_url z2 ;;
    Z3) t_zip_url z3 ;;
    TU|TUh|U1p|U2p|U3p) t_put_url ;;
    U*) t_tus_url ;;
  esac
}
