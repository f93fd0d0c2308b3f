#!/usr/bin/env bash
# Times the verification of one real model against its signature, from page cache, beside its peers in the same run:
# interleaved rounds, medians, and the spread, so that a noisy machine shows. It asserts nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
make -s build
model=${1:-$(.ci/parts gemma --accept-terms 2>/dev/null)}
peer=$(.ci/parts model-signing 2>/dev/null)
rounds=${ROUNDS:-7}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && "$OLDPWD/bin/weighbridge" key new bench >/dev/null)
bin/weighbridge model sign "$model" --private-key "$work/bench.key" --signature "$work/files.sig" --quiet
bin/weighbridge model sign "$model" --private-key "$work/bench.key" --signature "$work/shards.sig" --shard-size 16MiB --quiet

round() { # NAME COMMAND...: appends the microseconds that the command took to the name's list
  local name=$1 start end
  shift
  start=$(date +%s%N)
  "$@" >/dev/null 2>&1
  end=$(date +%s%N)
  echo "$(((end - start) / 1000))" >>"$work/$name"
}
ours() { bin/weighbridge model verify "$model" --public-key "$work/bench.pub" --signature "$work/$1.sig"; }
for _ in $(seq "$rounds"); do
  round files ours files
  round shards ours shards
  round sha256sum sha256sum "$model"
  round openssl openssl dgst -sha256 "$model"
  round model_signing "$peer" verify key "$model" --public_key "$work/bench.pub" --signature "$work/files.sig"
done

median() { sort -n "$work/$1" | sed -n "$(((rounds + 1) / 2))p"; }
spread() { sort -n "$work/$1" | awk 'NR==1{a=$1} {b=$1} END{printf "%d", (b-a)*100/a}'; }
printf '%s, %s cores, %s\nmodel of %s bytes, %s rounds\n' "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)" "$(nproc)" \
  "$(bin/weighbridge version | head -n 1)" "$(stat -c %s "$model")" "$rounds"
for name in files shards sha256sum openssl model_signing; do
  printf '%-14s median %5d ms, spread %d %%\n' "$name" "$(($(median $name) / 1000))" "$(spread $name)"
done
for peer in sha256sum openssl model_signing; do
  awk -v a="$(median files)" -v b="$(median $peer)" -v n="$peer" 'BEGIN{printf "verify/%s: %.2f\n", n, a/b}'
done
