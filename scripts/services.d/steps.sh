# Usage: . steps.sh, from a service of this folder, which then defines up() and down() and ends with: serve "$@"
# up starts the service below $directory on 127.0.0.1 and prints its address; down ends it. Everything else goes to stderr.
set -euo pipefail
directory=${2:-}
python=$(dirname "${BASH_SOURCE[0]}")/../../.venv/bin/python

stop() { echo "$*" >&2; exit 1; }

is_debian_root() { [ "$(id -u)" = 0 ] && [ -e /etc/debian_version ] && command -v apt-get >/dev/null; }

# install VARIABLE PACKAGE...: the packages of Debian, or a word on what to set instead. No service of the system is started.
install() {
  local variable=$1 policy=/usr/sbin/policy-rc.d made=""
  shift
  is_debian_root || stop "$1 is not installed; install it or set $variable"
  if [ ! -e "$policy" ]; then printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made=yes; fi
  export DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1
  local get=(apt-get install -y -q --no-install-recommends -o Dpkg::Options::=--force-confold "$@")
  { "${get[@]}" || { apt-get update -q && "${get[@]}"; }; } >&2 </dev/null || made="$made failed"
  case "$made" in yes*) rm -f "$policy" ;; esac
  case "$made" in *failed) stop "$1 could not be installed with apt-get; set $variable" ;; esac
}

free_port() {
  "$python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

secret() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

# answers PORT: waits until somebody accepts connections there, half a minute at most.
answers() {
  "$python" - "$1" <<'PYTHON' || stop "nothing answers on port $1; see $directory"
import socket, sys, time

until = time.monotonic() + 30
while time.monotonic() < until:
    try:
        socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1).close()
        sys.exit(0)
    except OSError:
        time.sleep(0.05)
sys.exit(1)
PYTHON
}

# run COMMAND...: in the background with its process id in $directory/pid and its words in $directory/server.log.
run() {
  setsid "$@" >"$directory/server.log" 2>&1 </dev/null &
  echo $! >"$directory/pid"
}

# end: what run has started, and whatever it started.
end() {
  local pid
  pid=$(cat "$directory/pid" 2>/dev/null) || return 0
  kill -- "-$pid" 2>/dev/null || kill "$pid" 2>/dev/null || true
  for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || return 0; sleep 0.1; done
  kill -KILL -- "-$pid" 2>/dev/null || true
}

serve() {
  case "${1:-} ${directory:+given}" in
    "up given") mkdir -p "$directory" && up ;;
    "down given") down && rm -rf "$directory" ;;
    *) stop "Usage: $(basename "$0") up|down DIRECTORY" ;;
  esac
}
