module github.com/weighbridge/weighbridge

go 1.26.0

require (
	cel.dev/cel-go v0.33.2 // the conditions of access rules, typed and bounded; it was github.com/google/cel-go
	github.com/digitorus/timestamp v0.0.0-20231217203849-220c5c2851b7 // RFC 3161 requests, and responses in tests
	github.com/dustin/go-humanize v1.1.0 // sizes such as 8GiB in configuration
	github.com/fsnotify/fsnotify v1.10.1 // watches the statements directories
	github.com/go-jose/go-jose/v4 v4.1.5 // signs the JWT-SVIDs of development identities
	github.com/go-json-experiment/json v1.27.2 // strict JSON (no duplicate or unknown names) and RFC 8785, which encoding/json can't do
	github.com/google/certificate-transparency-go v1.3.3 // the certificate log of the Sigstore instance in tests
	github.com/hanwen/go-fuse/v2 v2.12.1 // files that misbehave, in tests
	github.com/klauspost/cpuid/v2 v2.4.2 // whether the processor has the SHA instructions, which x/sys/cpu does not tell
	github.com/landlock-lsm/go-landlock v0.11.0 // the runtimes' sandbox
	github.com/ollama/ollama v0.17.4 // drives Ollama, by package api alone
	github.com/openai/openai-go/v3 v3.99.0 // a client that people have, in tests
	github.com/opencontainers/go-digest v1.0.0 // digests in OCI manifests
	github.com/opencontainers/image-spec v1.1.1 // the manifests of bundles
	github.com/prometheus/client_golang v1.25.0 // the /metrics handler and the process's own metrics
	github.com/prometheus/procfs v0.22.0 // what runtimes take of the processor and of memory
	github.com/rogpeppe/go-internal v1.16.0 // testscript: commands tested as users type them
	github.com/secure-systems-lab/go-securesystemslib v0.11.0 // the DSSE pre-authentication encoding
	github.com/sigstore/protobuf-specs v0.5.1 // the shape of bundles and log entries that sigstore-go verifies
	github.com/sigstore/rekor-tiles/v2 v2.3.0 // a transparency log of version 2 in tests
	github.com/sigstore/sigstore v1.10.8 // keys, their encrypted forms, and signatures over them
	github.com/sigstore/sigstore-go v1.3.0 // verifies keyless signatures, and is the reference for our bundles in tests
	github.com/sigstore/timestamp-authority/v2 v2.1.3 // verifies RFC 3161 timestamps
	github.com/spf13/cobra v1.10.2 // the command tree, help and completion
	github.com/spf13/pflag v1.0.10 // flag names with underscores, as model_signing takes them
	github.com/spiffe/go-spiffe/v2 v2.9.0 // SPIFFE identities: Workload API, X.509-SVIDs, TLS
	go.opentelemetry.io/otel v1.47.0 // traces and metrics
	go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc v1.47.0 // sends traces to a collector
	go.opentelemetry.io/otel/exporters/prometheus v0.69.0 // shows metrics to Prometheus
	go.opentelemetry.io/otel/metric v1.47.0 // the metrics API
	go.opentelemetry.io/otel/sdk v1.47.0 // the traces' provider
	go.opentelemetry.io/otel/sdk/metric v1.47.0 // the metrics' provider
	go.opentelemetry.io/otel/trace v1.47.0 // the traces' API
	go.opentelemetry.io/proto/otlp v1.11.0 // a collector in tests
	go.yaml.in/yaml/v3 v3.0.6 // configuration and policy files, strictly read, all errors at once
	golang.org/x/crypto v0.57.0 // BLAKE2b
	golang.org/x/mod v0.41.0 // the Merkle tree, tiles and signed checkpoints of the audit log
	golang.org/x/sync v0.23.0 // errgroup
	golang.org/x/sys v0.48.0 // memfd, seals, Landlock's kernel interface
	golang.org/x/term v0.46.0 // progress bars on terminals only
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260928230214-8a89bd6388cc // RetryInfo, by which a gRPC caller learns when to come back
	google.golang.org/grpc v1.85.0 // the gRPC front door and the control API
	google.golang.org/protobuf v1.36.12 // the contracts in proto/
	kernel.org/pub/linux/libs/security/libcap/psx v1.2.77 // system calls on every thread of a process that confines itself
	lukechampine.com/blake3 v1.4.1 // BLAKE3 with SIMD
)

require (
	cel.dev/expr v0.25.3 // indirect
	github.com/Microsoft/go-winio v0.6.2 // indirect
	github.com/antlr4-go/antlr/v4 v4.13.1 // indirect
	github.com/asaskevich/govalidator v0.0.0-20230301143203-a9d515a09cc2 // indirect
	github.com/bahlo/generic-list-go v0.2.0 // indirect
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/blang/semver v3.5.1+incompatible // indirect
	github.com/buger/jsonparser v1.1.1 // indirect
	github.com/cenkalti/backoff/v5 v5.0.3 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/coder/websocket v1.8.15 // indirect
	github.com/coreos/go-oidc/v3 v3.17.0 // indirect
	github.com/cyberphone/json-canonicalization v0.0.0-20241213102144-19d51d7fe467 // indirect
	github.com/digitorus/pkcs7 v0.0.0-20230818184609-3a137a874352 // indirect
	github.com/go-logr/logr v1.4.4 // indirect
	github.com/go-logr/stdr v1.2.2 // indirect
	github.com/go-openapi/analysis v0.25.5 // indirect
	github.com/go-openapi/errors v0.22.8 // indirect
	github.com/go-openapi/jsonpointer v1.0.0 // indirect
	github.com/go-openapi/jsonreference v1.0.0 // indirect
	github.com/go-openapi/loads v0.25.0 // indirect
	github.com/go-openapi/runtime v0.33.0 // indirect
	github.com/go-openapi/runtime/server-middleware v0.32.3 // indirect
	github.com/go-openapi/spec v0.22.9 // indirect
	github.com/go-openapi/strfmt v0.27.0 // indirect
	github.com/go-openapi/swag v0.28.0 // indirect
	github.com/go-openapi/swag/cmdutils v0.28.0 // indirect
	github.com/go-openapi/swag/conv v0.28.0 // indirect
	github.com/go-openapi/swag/fileutils v0.28.0 // indirect
	github.com/go-openapi/swag/jsonutils v0.28.0 // indirect
	github.com/go-openapi/swag/loading v0.28.0 // indirect
	github.com/go-openapi/swag/mangling v0.28.0 // indirect
	github.com/go-openapi/swag/netutils v0.28.0 // indirect
	github.com/go-openapi/swag/pools v0.28.0 // indirect
	github.com/go-openapi/swag/stringutils v0.28.0 // indirect
	github.com/go-openapi/swag/typeutils v0.28.0 // indirect
	github.com/go-openapi/swag/yamlutils v0.28.0 // indirect
	github.com/go-openapi/validate v0.26.1 // indirect
	github.com/go-viper/mapstructure/v2 v2.5.0 // indirect
	github.com/google/go-containerregistry v0.21.7 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/grpc-ecosystem/grpc-gateway/v2 v2.30.0 // indirect
	github.com/hashicorp/go-cleanhttp v0.5.2 // indirect
	github.com/hashicorp/go-retryablehttp v0.7.8 // indirect
	github.com/in-toto/attestation v1.2.0 // indirect
	github.com/in-toto/in-toto-golang v0.11.0 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/jedisct1/go-minisign v0.0.0-20211028175153-1c139d1cc84b // indirect
	github.com/letsencrypt/boulder v0.20260309.0 // indirect
	github.com/mailru/easyjson v0.7.7 // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/oklog/ulid/v2 v2.1.1 // indirect
	github.com/pkg/browser v0.0.0-20240102092130-5ac0b6a4141c // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/prometheus/client_model v0.6.3 // indirect
	github.com/prometheus/common v0.72.0 // indirect
	github.com/prometheus/otlptranslator v1.0.0 // indirect
	github.com/sassoftware/relic v7.2.1+incompatible // indirect
	github.com/shibumi/go-pathspec v1.3.0 // indirect
	github.com/sigstore/rekor v1.5.3 // indirect
	github.com/theupdateframework/go-tuf v0.7.0 // indirect
	github.com/theupdateframework/go-tuf/v2 v2.4.2 // indirect
	github.com/tidwall/gjson v1.20.0 // indirect
	github.com/tidwall/match v1.1.1 // indirect
	github.com/tidwall/pretty v1.2.1 // indirect
	github.com/tidwall/sjson v1.2.5 // indirect
	github.com/titanous/rocacheck v0.0.0-20171023193734-afe73141d399 // indirect
	github.com/transparency-dev/formats v0.1.1 // indirect
	github.com/transparency-dev/merkle v0.0.2 // indirect
	github.com/wk8/go-ordered-map/v2 v2.1.8 // indirect
	github.com/youmark/pkcs8 v0.0.0-20240726163527-a2c0da244d78 // indirect
	go.opentelemetry.io/auto/sdk v1.2.1 // indirect
	go.opentelemetry.io/otel/exporters/otlp/otlptrace v1.47.0 // indirect
	go.opentelemetry.io/otel/log v1.47.0 // indirect
	golang.org/x/exp v0.0.0-20251023183803-a4bb9ffd2546 // indirect
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/oauth2 v0.37.0 // indirect
	golang.org/x/text v0.42.0 // indirect
	golang.org/x/tools v0.49.0 // indirect
	google.golang.org/genproto/googleapis/api v0.0.0-20260928230214-8a89bd6388cc // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
	k8s.io/klog/v2 v2.140.0 // indirect
)
