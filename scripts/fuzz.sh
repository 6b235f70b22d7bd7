#!/usr/bin/env bash
# Runs every fuzz target of a build folder for some seconds: scripts/fuzz.sh build/fuzz 20
# Inputs found are kept in build/corpus, so that the next run starts from them.
set -euo pipefail
folder=$1
seconds=$2
count=0
while IFS= read -r target; do
  name=$(basename "$target")
  corpus=build/corpus/$name
  mkdir -p "$corpus"
  echo "fuzz: $name, $seconds s"
  "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -artifact_prefix="$corpus/" -print_final_stats=0 \
    "$corpus" 2>"$folder/$name.log" || { tail -40 "$folder/$name.log"; exit 1; }
  count=$((count + 1))
done < <(find "$folder" -type f -name 'fuzz_*' -perm -u+x | LC_ALL=C sort)
[ "$count" -gt 0 ] || { echo "fuzz: no target under $folder" >&2; exit 1; }
echo "fuzz: $count targets, no failure"
