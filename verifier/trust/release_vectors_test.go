package trust_test

import (
	"bytes"
	"strings"

	"github.com/weighbridge/weighbridge/verifier/digest"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// release makes the releases and returns the payload of the smallest.
func (m *vectorMaker) release(weights []byte) []byte {
	root := "sha256:" + payloadRoot([]byte(payloadsOf(m.t, weights)[0]))
	small := trust.Descriptor{
		Model: "tiny", Version: "1.0",
		Weights:   trust.Weights{Root: root, Statement: bytes.TrimSpace(weights)},
		Runtime:   trust.Runtime{Kind: "llamacpp"},
		Behaviour: trust.Behaviour{Tools: []string{}, Adapters: []trust.Adapter{}},
	}
	payload := m.valid("release", "release", "no more than is required")(trust.NewRelease(small))
	full := small
	full.Runtime = trust.Runtime{Kind: "llamacpp", Args: map[string]string{"ctx-size": "4096", "flash-attn": "on"}, Build: string(idOf([]byte("llama-server")))}
	full.Behaviour = trust.Behaviour{
		SystemPrompt: "You weigh things.\nAnswer in grams: \u00fcber <1 g> & \u2028.", ChatTemplate: "{{ messages }}",
		Sampling: trust.Sampling{Temperature: &trust.Range{Default: 0.7, Max: 1}, TopP: &trust.Range{Default: 0.95, Max: 1}},
		Output:   trust.Output{MaxTokens: 512}, Tools: []string{"search", "weigh"}, Adapters: []trust.Adapter{},
	}
	full.Warmup = trust.Warmup{Prompt: "1 + 1 =", Contains: "2"}
	full.Provenance = trust.Provenance{Base: "tiny-base", Data: "corpus 7", Run: "run 12"}
	m.valid("release", "release-full", "every field that this version can enforce")(trust.NewRelease(full))
	m.broken("release", payload, []broken{
		{"subject-name", "tolerated", "", `"subject":[{"digest":{"sha256":"` + payloadRoot(payload) + `"},"name":"tiny"`, `"subject":[{"digest":{"sha256":"` + payloadRoot(payload) + `"},"name":"other"`, "the subject's name is informational"},
		{"tools", "unenforceable", "behaviour.tools", `"tools":[]},"model":"tiny","runtime":{"args":{},`, `"tools":["search"]},"model":"tiny","runtime":{"args":{"embeddings":"true"},`, "well-formed; this version can't enforce it, so it is refused where it would serve"},
		{"argument", "unenforceable", "runtime.args.host", `"args":{}`, `"args":{"host":"0.0.0.0"}`, "well-formed; an argument that this version does not allow"},
		{"embeddings-warmup", "unenforceable", "warmup.contains", `"runtime":{"args":{},"kind":"llamacpp"},"version":"1.0"`, `"runtime":{"args":{"embeddings":"true"},"kind":"llamacpp"},"version":"1.0","warmup":{"contains":"2","prompt":"1 + 1 ="}`, "well-formed; vectors contain no text"},
		{"pooling", "unenforceable", "runtime.args.pooling", `"args":{}`, `"args":{"pooling":"mean"}`, "well-formed; an argument that goes with another"},
		{"predicate-type", "predicate-type", "", `weighbridge:release:v1`, `weighbridge:release:v2`, "another predicate type"},
		{"not-canonical", "canonical", "", `"model":"tiny"`, `"model": "tiny"`, "a space"},
		{"unknown-field", "unknown-field", "", `"model":"tiny"`, `"guardrails":{},"model":"tiny"`, "a field of another version"},
		{"default-spelled-out", "spelling", "", `"output":{}`, `"output":{"maxTokens":0}`, "a default spelled out"},
		{"null", "spelling", "", `"sampling":{}`, `"sampling":{"topP":null}`, "a null"},
		{"null-list", "spelling", "", `"tools":[]`, `"tools":null`, "a null for a list"},
		{"missing-field", "spelling", "", `,"tools":[]`, ``, "a required list is missing"},
		{"empty-warmup", "spelling", "", `"version":"1.0"`, `"version":"1.0","warmup":{}`, "an object that says nothing"},
		{"no-version", "field", "version", `"version":"1.0"`, `"version":""`, "a required text is empty"},
		{"unprintable", "field", "version", `"version":"1.0"`, `"version":"1\u001b"`, "an escape character in what people read"},
		{"default-above-max", "field", "behaviour.sampling.topP.default", `"sampling":{}`, `"sampling":{"topP":{"default":1,"max":0.5}}`, "a default above the highest"},
		{"kind", "field", "runtime.kind", `"kind":"llamacpp"`, `"kind":"llama.cpp"`, "no name of a runtime"},
		{"subject", "subject", "", `"subject":[{"digest":{"sha256":"` + payloadRoot(payload), `"subject":[{"digest":{"sha256":"` + strings.Repeat("0", 64), "the subject is not the weights' root"},
		{"weights-bundle", "weights", "", `"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"`, `"mediaType":"application/vnd.dev.sigstore.bundle+json;version=0.2"`, "the embedded bundle is of another version"},
	})
	other := strings.ReplaceAll(string(payload), payloadRoot(payload), strings.Repeat("0", 64)) // the bundle holds it in base64 only
	m.put(vector{File: "release-weights-root.json", Kind: "release", Expect: "weights", Why: "subject and root agree, and the embedded statement is about other weights"}, m.sign("1", []byte(other)))
	return payload
}

// adapters makes releases with adapters.
func (m *vectorMaker) adapters(weights []byte) {
	root := "sha256:" + payloadRoot([]byte(payloadsOf(m.t, weights)[0]))
	sign := func(name string, files ...oms.Resource) trust.Adapter {
		payload, err := oms.NewPayload(name, files, oms.Serialization{Method: oms.MethodFiles, HashType: digest.SHA256})
		if err != nil {
			m.t.Fatal(err)
		}
		return trust.Adapter{Root: "sha256:" + payloadRoot(payload), Base: root, Scale: 0.5, Statement: bytes.TrimSpace(m.sign("1", payload))}
	}
	file := func(name string) oms.Resource {
		return oms.Resource{Name: name, Algorithm: "sha256", Digest: idOf([]byte(name)).Hex()}
	}
	one, two := sign("lora.gguf", file(".")), sign("two", file("a.gguf"), file("b.gguf"))
	d := trust.Descriptor{
		Model: "tiny", Version: "1.0", Weights: trust.Weights{Root: root, Statement: bytes.TrimSpace(weights)}, Runtime: trust.Runtime{Kind: "llamacpp"},
		Behaviour: trust.Behaviour{Adapters: []trust.Adapter{one}},
	}
	payload := m.valid("release", "release-adapter", "an adapter of one file")(trust.NewRelease(d))
	m.broken("release", payload, []broken{
		{"adapter-base", "field", "behaviour.adapters[0].base", `"base":"` + root, `"base":"sha256:` + strings.Repeat("0", 64), "an adapter of other weights"},
		{"adapter-scale", "field", "behaviour.adapters[0].scale", `"scale":0.5`, `"scale":0`, "an adapter that is not applied"},
		{"adapter-no-scale", "spelling", "", `"scale":0.5,`, ``, "a required field is missing"},
		{"adapter-unknown-field", "unknown-field", "", `"base":"` + root + `"`, `"base":"` + root + `","name":"lora"`, "an unknown field of an adapter"},
		{"adapter-root", "adapter", "", `"root":"` + one.Root, `"root":"` + two.Root, "the embedded statement is about another adapter"},
		{"adapter-twice", "field", "behaviour.adapters[1].root", `"adapters":[`, `"adapters":[` + canonicalOf(m.t, []byte(quote(m.t, one))) + `,`, "an adapter is listed twice"},
		{"adapter-of-two-files", "unenforceable", "behaviour.adapters[0]", canonicalOf(m.t, []byte(quote(m.t, one))), canonicalOf(m.t, []byte(quote(m.t, two))), "well-formed; llamacpp takes an adapter that is one file"},
		{"tool-name", "field", "behaviour.tools", `"tools":[]`, `"tools":["get weather"]`, "no name of a tool"},
	})
}
