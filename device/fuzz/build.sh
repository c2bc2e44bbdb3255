#!/usr/bin/env bash
# Builds a fuzz target with libFuzzer and sanitizers.
#   device/fuzz/build.sh coding|frame|image|server PROGRAM
# $BITLOOP_CLANG names the compiler (default: clang).
set -euo pipefail

target=${1:?}
program=$(realpath -m "${2:?}")
device=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
clang=${BITLOOP_CLANG:-clang}
flags=(-std=c11 -Wall -Wextra -Werror -g -O2 -ffp-contract=off -fsanitize=address,undefined -fno-sanitize-recover=all)

# Their loops would take half of the time if the fuzzer watched each turn, and show it nothing: all but the frames'
# own target are fed good frames.
plain=(bl_sha256 bl_probe)
[ "$target" = frame ] || plain+=(bl_frame)

watched=("$device/fuzz/fuzz_$target.c")
unwatched=()
for source in "$device"/core/*.c; do
    if [[ " ${plain[*]} " == *" $(basename "$source" .c) "* ]]; then
        unwatched+=("$source")
    else
        watched+=("$source")
    fi
done
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT
cd "$objects"
"$clang" "${flags[@]}" -c "${unwatched[@]}"
"$clang" "${flags[@]}" -fsanitize=fuzzer-no-link -c "${watched[@]}"
"$clang" "${flags[@]}" -fsanitize=fuzzer ./*.o -o "$program"
