#!/usr/bin/env bash
# The demo: a real model, served behind SPIFFE mTLS because its release was signed, approved and published, answers one
# question, with a receipt that verifies elsewhere; then one byte of a copy is flipped and refused. Everything runs on this machine, nothing is left running.
set -euo pipefail
cd "$(dirname "$0")/.."
weighbridge=$PWD/bin/weighbridge
cache=${XDG_CACHE_HOME:-$HOME/.cache}/weighbridge

step() { printf '\n== %s\n' "$*"; }
show() { printf '$ weighbridge %s\n' "$*"; "$weighbridge" "$@"; }

step "Real parts (cached in $cache)"
llama=$(.ci/parts llama-server)
gemma=$(.ci/parts gemma --accept-terms)
printf 'llama-server: %s\nmodel:        %s\n' "$llama" "$gemma"

mkdir -p "$cache"
work=$(mktemp -d "$cache/demo.XXXXXX") # beside the model, so that it can be linked and not copied
gateway=
cleanup() {
  status=$?
  if [ -n "$gateway" ]; then kill "$gateway" 2>/dev/null || true; wait "$gateway" 2>/dev/null || true; fi
  if [ $status != 0 ] && [ -e "$work/gateway.log" ]; then tail -n 20 "$work/gateway.log" >&2; fi
  rm -rf "$work"
}
trap cleanup EXIT
cd "$work"

step "Identities: who may sign what"
for name in root trainer alice bob shipper; do show key new "$name"; done
show key new gateway --type ed25519
cat >policy.yaml <<YAML
apiVersion: weighbridge/v1
kind: TrustPolicy
version: 1
expires: $(date -u -d '+1 year' +%Y-%m-%dT%H:%M:%SZ 2>/dev/null || date -u -v+1y +%Y-%m-%dT%H:%M:%SZ)
identities:
  security: {keys: [root.pub]}
  trainer:  {keys: [trainer.pub]}
  alice:    {keys: [alice.pub]}
  bob:      {keys: [bob.pub]}
  shipper:  {keys: [shipper.pub]}
  gw1:      {keys: [gateway.pub]}
roles:
  root:      {members: [security], threshold: 1}
  producer:  {members: [trainer]}
  approver:  {members: [alice, bob]}
  publisher: {members: [shipper]}
  gateway:   {members: [gw1]} # whose receipts count
channels:
  chat:
    require:
      release:  {role: producer}
      approval: {role: approver, count: 2}
    publish:  {role: publisher}
    separate: [producer, approver, publisher]
YAML
show trust sign policy.yaml --key root.key --out policy.jsonl

step "The producer signs the weights and a release of them"
mkdir models statements
ln "$gemma" models/gemma.gguf 2>/dev/null || cp "$gemma" models/gemma.gguf
show model sign models/gemma.gguf --private-key trainer.key --signature models/gemma.gguf.sig
cat >template.jinja <<'JINJA'
{%- for message in messages %}{{ message.content }}
{% endfor %}
JINJA
cat >release.yaml <<'YAML'
apiVersion: weighbridge/v1
kind: Release
model: gemma-3-270m
version: 1.0.0
weights: {path: ./models/gemma.gguf, signature: ./models/gemma.gguf.sig}
runtime: {kind: llamacpp, args: {ctx-size: 1024}}
behaviour:
  chatTemplate: ./template.jinja # the base model has none of its own
  sampling: {temperature: {default: 0.2, max: 1.0}, topP: {default: 0.9, max: 1.0}}
  output: {maxTokens: 64}
  tools: []
  adapters: []
warmup: {prompt: "One, two, three,"}
provenance: {base: "Gemma 3 270M, quantized to Q4_K_M"}
YAML
show release create -f release.yaml --key trainer.key --statements statements >release.out
cat release.out
release=$(tail -n 1 release.out)

step "Two people approve it, a third role publishes it"
show release approve "$release" --key alice.key --channel chat --ticket CHG-1 --statements statements
show release approve "$release" --key bob.key --channel chat --ticket CHG-1 --statements statements
show release publish "$release" --channel chat --epoch next --key shipper.key --statements statements

step "The gateway decides, verifies, seals and serves"
cat >gateway.yaml <<YAML
listen: {grpc: 127.0.0.1:0, http: 127.0.0.1:0, control: "unix:./control.sock", metrics: 127.0.0.1:0}
identity: {development: {trustDomain: demo.weighbridge, socket: ./spiffe.sock}}
trust:
  root: {keys: [$("$weighbridge" key id root.pub)], threshold: 1}
  policy: policy.jsonl
  statements: [./statements]
  state: ./state
audit: {key: gateway.key}
weights: [./models]
runtimes: {llamacpp: {command: $llama}}
channels: {chat: {}}
access: [{caller: "spiffe://demo.weighbridge/apps/*", channels: [chat], methods: [chat, models]}]
YAML
"$weighbridge" serve --config gateway.yaml --init-state 2>gateway.log &
gateway=$!
field() { sed -n "s/.*\"msg\":\"$1\".*\"$2\":\"\{0,1\}\([^,\"}]*\).*/\1/p" gateway.log | tail -n 1; }
show status --wait 2m --server unix:./control.sock
grpc=$(field "gateway listens" grpc)

step "One question, over gRPC with SPIFFE mTLS"
export SPIFFE_ENDPOINT_SOCKET=unix://$work/spiffe.sock
show chat chat "The capital of France is" --server "$grpc" --receipt receipt.json
printf '\nweights read, hashed and sealed in %.2f s; runtime ready %.2f s later\n' \
  "$(field "release serves" loadSeconds)" "$(field "release serves" startSeconds)"

step "Who stands behind that answer"
show explain chat --policy policy.jsonl --root root.pub --statements statements

step "The receipt, on another machine: no gateway, no statements, only the policy and the root key"
mkdir elsewhere
cp receipt.json policy.jsonl root.pub elsewhere
cd elsewhere
show receipt verify receipt.json --policy policy.jsonl --root root.pub
printf '\nand with one byte of it changed:\n'
middle=$(($(wc -c <receipt.json) / 2))
was=$(dd if=receipt.json bs=1 skip=$middle count=1 status=none)
printf '%s' "$([ "$was" = A ] && echo B || echo A)" | dd of=receipt.json bs=1 seek=$middle conv=notrunc status=none
if show receipt verify receipt.json --policy policy.jsonl --root root.pub; then
  echo "the altered receipt was accepted" >&2
  exit 1
fi
cd ..

step "One flipped byte in a copy"
cp models/gemma.gguf copy.gguf
printf '\377' | dd of=copy.gguf bs=1 seek=123456789 conv=notrunc status=none
if show model verify copy.gguf --signature models/gemma.gguf.sig --public-key trainer.pub; then
  echo "the altered copy was accepted" >&2
  exit 1
fi
printf '\nRefused, as it must be. The demo is over and leaves nothing running.\n'
