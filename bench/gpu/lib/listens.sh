# shellcheck shell=bash
# PID LISTENS LOG SECONDS: whether a launcher says in LISTENS where it does; else the end of its LOG.
listens() {
  for _ in $(seq "${4}0"); do
    [ -s "$2" ] && return 0
    kill -0 "$1" 2> /dev/null || break
    sleep 0.1
  done
  tail -n 5 "$3" >&2
  return 1
}
