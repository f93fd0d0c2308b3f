package keyless_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"

	"github.com/weighbridge/weighbridge/verifier/keyless"
	"github.com/weighbridge/weighbridge/verifier/keyless/keylesstest"
	"github.com/weighbridge/weighbridge/verifier/statement"
)

type object = map[string]any

// edited returns a trusted root with something changed.
func edited(t *testing.T, trustedRoot []byte, change func(object)) []byte {
	t.Helper()
	var all object
	if err := json.Unmarshal(trustedRoot, &all); err != nil {
		t.Fatal(err)
	}
	change(all)
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestValidFor: what the trusted root names counts within its time there, and at no other.
func TestValidFor(t *testing.T) {
	const before, after = -time.Hour, time.Hour
	tests := []struct {
		name, list string
		start, end time.Duration // from now; 0: as it was
		s          keylesstest.Signing
		want       error
	}{
		{"authority, while it was", "certificateAuthorities", before, after, signing(nil), nil},
		{"authority, to the second", "certificateAuthorities", before, time.Second, signing(nil), nil},
		{"authority that had ended", "certificateAuthorities", 2 * before, before, signing(nil), statement.ErrChain},
		{"authority that came later", "certificateAuthorities", after, 0, signing(nil), statement.ErrChain},
		{"certificate log, while it was", "ctlogs", before, after, signing(nil), nil},
		{"certificate log that had ended", "ctlogs", 2 * before, before, signing(nil), statement.ErrChain},
		{"certificate log that came later", "ctlogs", after, 0, signing(nil), statement.ErrChain},
		{"log, while it was", "tlogs", before, after, signing(nil), nil},
		{"log that had ended", "tlogs", 2 * before, before, signing(nil), statement.ErrChain},
		{"log that came later", "tlogs", after, 0, signing(nil), statement.ErrChain},
		{"log without a promise, while it was", "tlogs", before, after, without(keylesstest.Promise), nil},
		{"log without a promise that had ended", "tlogs", 2 * before, before, without(keylesstest.Promise), statement.ErrChain},
		{"log without a promise that came later", "tlogs", after, 0, without(keylesstest.Promise), statement.ErrChain},
		{"log of version 2, while it was", "tlogs", before, after, version2(), nil},
		{"log of version 2 that had ended", "tlogs", 2 * before, before, version2(), statement.ErrChain},
		{"log of version 2 that came later", "tlogs", after, 0, version2(), statement.ErrChain},
		{"clock, while it was", "timestampAuthorities", before, after, version2(), nil},
		{"clock that had ended", "timestampAuthorities", 2 * before, before, version2(), statement.ErrChain},
		{"clock that came later", "timestampAuthorities", after, 0, version2(), statement.ErrChain},
		{"clock that had ended, beside the log's time", "timestampAuthorities", 2 * before, before, signing(nil), nil},
	}
	instance := keylesstest.New(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, err := keyless.New(edited(t, instance.TrustedRoot(), func(all object) {
				for _, one := range all[tt.list].([]any) {
					entry := one.(object)
					if key, there := entry["publicKey"]; there {
						entry = key.(object)
					}
					valid := entry["validFor"].(object)
					for name, at := range map[string]time.Duration{"start": tt.start, "end": tt.end} {
						if at != 0 {
							valid[name] = now.Add(at).Format(time.RFC3339)
						}
					}
				}
			}))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.Verify(instance.Signed(payload(t, "approved"), tt.s), carol); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Errorf("Verify = %v, want %v", err, tt.want)
			}
		})
	}
}

// TestMediaTypes reads a trusted root in each of its versions, and in no other.
func TestMediaTypes(t *testing.T) {
	instance := keylesstest.New(t)
	const kind = "application/vnd.dev.sigstore.trustedroot"
	for _, tt := range []struct {
		mediaType string
		ok        bool
	}{
		{kind + "+json;version=0.1", true}, {kind + ".v0.1+json", true}, {kind + ".v0.2+json", true},
		{kind + ".v0.3+json", false}, {kind + "+json", false}, {"", false},
	} {
		v, err := keyless.New(edited(t, instance.TrustedRoot(), func(all object) {
			all["mediaType"] = tt.mediaType
			if strings.Contains(tt.mediaType, "0.2") {
				all["tlogs"].([]any)[0].(object)["operator"] = "example.com"
			}
		}))
		if (err == nil) != tt.ok {
			t.Errorf("New of %q = %v, want accepted %v", tt.mediaType, err, tt.ok)
		}
		if err != nil {
			continue
		}
		if _, err := v.Verify(instance.Signed(payload(t, "approved"), signing(nil)), carol); err != nil {
			t.Errorf("Verify by %q = %v", tt.mediaType, err)
		}
	}
}

// TestStamps: every time that a trusted authority says must be one at which the certificate was valid; what a stranger
// says is no time.
func TestStamps(t *testing.T) {
	instance, stranger := keylesstest.New(t), keylesstest.New(t)
	v, err := keyless.New(instance.TrustedRoot())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		by    *keylesstest.Instance
		after time.Duration
		want  error
	}{
		{"while the certificate was valid", instance, time.Minute, nil},
		{"when it had expired", instance, keylesstest.Valid, statement.ErrChain},
		{"before it was valid", instance, -time.Hour, statement.ErrChain},
		{"by a stranger, when it had expired", stranger, keylesstest.Valid, nil},
	} {
		for _, first := range []bool{true, false} {
			s := version2()
			s.Broken = func(b *protobundle.Bundle) {
				data := b.GetVerificationMaterial().GetTimestampVerificationData()
				second := &protocommon.RFC3161SignedTimestamp{SignedTimestamp: tt.by.Stamp(b.GetDsseEnvelope().GetSignatures()[0].GetSig(), now.Add(tt.after))}
				if data.Rfc3161Timestamps = append(data.Rfc3161Timestamps, second); first {
					data.Rfc3161Timestamps = append(data.Rfc3161Timestamps[1:], data.Rfc3161Timestamps[0])
				}
			}
			if _, err := v.Verify(instance.Signed(payload(t, "approved"), s), carol); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Errorf("stamped again %s, in front %v: Verify = %v, want %v", tt.name, first, err, tt.want)
			}
		}
	}
}

// TestSplitTrustConfig has trust configurations, and then one thing wrong per row.
func TestSplitTrustConfig(t *testing.T) {
	const mediaType = `"mediaType":"application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"`
	for _, tt := range []struct{ name, text, root, config, want string }{
		{"whole", `{` + mediaType + `,"trustedRoot":{"a":1},"signingConfig":{"b":[]}}`, `{"a":1}`, `{"b":[]}`, ""},
		{"in the other spelling", `{"media_type"` + mediaType[11:] + `,"trusted_root":{"a":1},"signing_config":{"b":[]}}`, `{"a":1}`, `{"b":[]}`, ""},
		{"without a signing config", `{` + mediaType + `,"trustedRoot":{"a":1}}`, `{"a":1}`, "", ""},
		{"without a trusted root", `{` + mediaType + `,"signingConfig":{}}`, "", "", "no trustedRoot"},
		{"without a media type", `{"trustedRoot":{}}`, "", "", "mediaType"},
		{"with another media type", `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","trustedRoot":{}}`, "", "", "mediaType"},
		{"a name twice", `{` + mediaType + `,"trustedRoot":{},"trustedRoot":{}}`, "", "", "duplicate"},
		{"a name in both spellings", `{` + mediaType + `,"trustedRoot":{},"trusted_root":{}}`, "", "", "twice"},
		{"an unknown name", `{` + mediaType + `,"trustedRoot":{},"untrustedRoot":{}}`, "", "", "unknown field"},
		{"a list", `[]`, "", "", "read trust config"},
		{"nothing", ``, "", "", "read trust config"},
	} {
		root, config, err := keyless.SplitTrustConfig([]byte(tt.text))
		if string(root) != tt.root || string(config) != tt.config {
			t.Errorf("%s: SplitTrustConfig = %s and %s, want %s and %s", tt.name, root, config, tt.root, tt.config)
		}
		checkWhy(t, tt.name+": SplitTrustConfig", err, tt.want)
	}
}
