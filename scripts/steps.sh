# Usage: . scripts/steps.sh, then `step NAME COMMAND...` for each step and `report` at the end.
# Every step runs whatever became of the others; `report` prints one line for each and fails if any failed.
steps=()
failed=0

step() {
  local name=$1 begin=$SECONDS result=ok
  shift
  printf '\n== %s\n' "$name"
  "$@" </dev/null || { result=FAILED; failed=1; }
  steps+=("$(printf '%-7s %4ds  %s' "$result" $((SECONDS - begin)) "$name")")
}

report() {
  printf '\n== result\n'
  printf '%s\n' "${steps[@]}"
  return "$failed"
}
