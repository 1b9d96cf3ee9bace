#!/usr/bin/env bash
# Runs each fuzz target of the repository, in whatever module it is, for the time given (30s), and fails if one finds
# something, or makes fewer than 1,000 executions: then its inputs are too slow to find anything.
set -uo pipefail
cd "$(dirname "$0")/.."
time=${1:-30s} least=1000 failed=0
targets=$(grep -rHoE '^func Fuzz[A-Za-z0-9_]+' --include='*_test.go' . | sort) || { echo "fuzz: there are no targets" >&2; exit 1; }
# A folder of its own: the inputs that earlier runs have kept would be tried first, and could take all of the time.
kept=$(mktemp -d)
trap 'rm -rf "$kept"' EXIT

# run TARGET in the current folder sets out, status and execs.
run() {
    # Without the flag about minimising, large seeds are minimised instead of fuzzed. The tag leaves out what only slows a
    # target down.
    out=$("${GO:-go}" test -tags fuzz -run '^$' -fuzz "^$1\$" -fuzztime "$time" -fuzzminimizetime=1x . -test.fuzzcachedir="$kept" 2>&1)
    status=$?
    execs=$(sed -nE 's/^fuzz: elapsed: .*, execs: ([0-9]+).*/\1/p' <<<"$out" | sort -n | tail -n 1)
    : "${execs:=0}"
    # When the time is over, Go at times reports that as a failure of the target. A real one leaves its input behind.
    if grep -q '^ *context deadline exceeded$' <<<"$out" && ! grep -q 'Failing input' <<<"$out"; then
        status=0
    fi
}

while IFS=: read -r file target; do
    target=${target#func } dir=$(dirname "$file")
    pushd "$dir" >/dev/null || exit 1
    run "$target"
    # The machine may have been busy: twice more.
    for _ in 1 2; do
        if [ "$status" -eq 0 ] && [ "$execs" -lt "$least" ]; then
            run "$target"
        fi
    done
    popd >/dev/null || exit 1
    printf 'fuzz: %-28s %-16s %9s executions\n' "$dir" "$target" "$execs"
    if [ "$status" -ne 0 ]; then
        printf '%s\n' "$out" >&2
        failed=1
    elif [ "$execs" -lt "$least" ]; then
        echo "fuzz: $dir $target: fewer than $least executions in $time: make its inputs smaller or its setup shorter" >&2
        failed=1
    fi
done <<<"$targets"
exit "$failed"
