# Every target is one line that can be typed by hand. Downloads and builds are cached outside the tree, see .ci/parts.
export GOFLAGS ?= -buildvcs=false
PARTS := .ci/parts

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: build ## a real model behind mTLS, served because its release was signed, approved and published; then a refusal
	@cmd/demo.sh

test: parts ## all tests, with the real llama-server, Ollama and model_signing tool
	WEIGHBRIDGE_LLAMA_SERVER=$$($(PARTS) llama-server) WEIGHBRIDGE_OLLAMA=$$($(PARTS) ollama) go test -timeout 20m ./...

race: parts ## the same with the race detector and shuffled
	WEIGHBRIDGE_LLAMA_SERVER=$$($(PARTS) llama-server) WEIGHBRIDGE_OLLAMA=$$($(PARTS) ollama) go test -race -shuffle=on -timeout 30m ./...

lint: ## gofmt, vet, golangci-lint, buf, generated code, tidy modules, known vulnerabilities
	@.ci/lint

build: ## bin/weighbridge, and bin/conformance for the public OMS conformance suite
	CGO_ENABLED=0 go build -trimpath -ldflags "-X main.revision=$$(git rev-parse --short=12 HEAD 2>/dev/null)" -o bin/weighbridge ./cmd/weighbridge
	CGO_ENABLED=0 go build -trimpath -o bin/conformance ./cmd/conformance

parts: ## fetch and build llama-server, Ollama and the model_signing tool, and install clients, into the cache
	@$(PARTS) llama-server >/dev/null && $(PARTS) ollama >/dev/null && $(PARTS) model-signing >/dev/null
	@$(PARTS) python-clients >/dev/null && $(PARTS) node-clients >/dev/null

gemma: ## fetch the Gemma 3 270M weights into the cache; their terms are shown and accepted
	@$(PARTS) gemma --accept-terms

generate: ## regenerate the code of proto/ and the assembly of the hash lanes
	@.ci/generate

fuzz: ## each fuzz target for 20 seconds
	@.ci/fuzz 20s

bench: bench-hash bench-load bench-decide bench-swap bench-overhead bench-fair ## all benchmarks, one after the other; each ends with its figures

bench-hash: build ## hash, read and seal weights beside crypto/sha256, openssl, sha256sum, b3sum and model_signing; ROUNDS=n
	@go run ./benchmarks/hash -results benchmarks/results

bench-load: build parts ## time until a 4 GB model can answer, verified and not, cold and warm; ROUNDS=n, LAYERS=n, SMALL=1, PRESENT=1
	@go run ./benchmarks/load -results benchmarks/results

bench-decide: ## the decision over the statements of years; ROUNDS=n
	@go run ./benchmarks/decide -results benchmarks/results

bench-swap: build parts ## latency under load while releases are swapped and rolled back; ROUNDS=n
	@go run ./benchmarks/swap -results benchmarks/results

bench-overhead: build parts ## what the gateway adds to its model server, beside a bare proxy and nginx; ROUNDS=n
	@go run ./benchmarks/overhead -results benchmarks/results

bench-fair: build parts ## latency of a caller beside one that asks for twenty times what it may; ROUNDS=n
	@go run ./benchmarks/fair -results benchmarks/results

.PHONY: help demo test race lint build parts gemma generate fuzz bench bench-hash bench-load bench-decide bench-swap bench-overhead bench-fair
