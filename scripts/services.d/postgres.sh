# Usage: . postgres.sh, after steps.sh, from a service that defines binaries() and then ends with: serve "$@"
# A cluster with its data in a folder of its own; its programs run as somebody else than root, who may not run them.
data=$directory/data
owner=$(id -un postgres 2>/dev/null || echo nobody)

as_owner() { # PostgreSQL refuses to run as root
  if [ "$(id -u)" = 0 ]; then (cd / && exec setpriv --reuid="$owner" --regid="$(id -g "$owner")" --clear-groups "$@"); else "$@"; fi
}

# cluster BIN: initialises and starts it, makes the database erp and prints its address.
cluster() {
  local bin=$1 port password
  mkdir -p "$data"
  password=$(secret)
  printf '%s\n' "$password" >"$data.password"
  if [ "$(id -u)" = 0 ]; then
    chmod 0711 "$directory" "$(dirname "$directory")"
    chown -R "$owner" "$data" "$data.password"
  fi
  as_owner "$bin/initdb" -D "$data" -U erp --auth=scram-sha-256 --pwfile="$data.password" -E UTF8 --no-locale --no-sync >&2
  port=$(free_port)
  # Durability is tested elsewhere, by killing processes, which needs no fsync.
  as_owner "$bin/pg_ctl" -D "$data" -l "$data/server.log" -w -t 60 start >&2 \
    -o "-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories='' -c fsync=off -c max_connections=200" </dev/null
  PGPASSWORD=$password "$bin/psql" -qX -h 127.0.0.1 -p "$port" -U erp -d postgres -c 'create database erp' >&2
  echo "postgresql://erp:$password@127.0.0.1:$port/erp"
}

down() {
  local bin
  if [ -e "$data/postmaster.pid" ] && bin=$(binaries); then
    as_owner "$bin/pg_ctl" -D "$data" -m immediate -w stop >/dev/null
  fi
}
