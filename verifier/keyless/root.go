package keyless

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// trustConfigType is the media type of a ClientTrustConfig (sigstore protobuf-specs, sigstore_trustroot.proto).
const trustConfigType = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"

// SplitTrustConfig returns the two files that a Sigstore client's trust configuration holds in one: trusted_root.json and
// signing_config.json. Whether they are any good is for [New] and [NewSigner] to say: who verifies needs no signing config.
func SplitTrustConfig(data []byte) (trustedRoot, signingConfig []byte, err error) {
	var members map[string]jsontext.Value
	if err := statement.Unmarshal(data, &members); err != nil {
		return nil, nil, fmt.Errorf("read trust config: %w", err)
	}
	var mediaType jsontext.Value
	for name, value := range members {
		// Protocol buffers have two spellings of each name in JSON, and files with both are about.
		known, there := map[string]*jsontext.Value{
			"mediaType": &mediaType, "media_type": &mediaType,
			"trustedRoot": (*jsontext.Value)(&trustedRoot), "trusted_root": (*jsontext.Value)(&trustedRoot),
			"signingConfig": (*jsontext.Value)(&signingConfig), "signing_config": (*jsontext.Value)(&signingConfig),
		}[name]
		switch {
		case !there:
			return nil, nil, fmt.Errorf("read trust config: unknown field %.200q", name)
		case *known != nil:
			return nil, nil, fmt.Errorf("read trust config: %.200q is there twice", name)
		}
		*known = value
	}
	if got := string(mediaType); got != `"`+trustConfigType+`"` {
		return nil, nil, fmt.Errorf("read trust config: mediaType is %.200s, want %q", got, trustConfigType)
	}
	if trustedRoot == nil {
		return nil, nil, errors.New("read trust config: it holds no trustedRoot")
	}
	return trustedRoot, signingConfig, nil
}

// readRoot reads a trusted root in each of its versions.
func readRoot(data []byte) (*root.TrustedRoot, error) {
	raw := &prototrustroot.TrustedRoot{}
	if err := protojson.Unmarshal(data, raw); err != nil {
		return nil, err
	}
	switch raw.GetMediaType() {
	case "application/vnd.dev.sigstore.trustedroot.v0.1+json", "application/vnd.dev.sigstore.trustedroot.v0.2+json":
		// The library knows the oldest spelling alone. What v0.2 adds is about logs that are counted, and one is enough here.
		raw.MediaType = root.TrustedRootMediaType01
	}
	return root.NewTrustedRootFromProtobuf(raw)
}

// checkTimes checks what the library leaves out. Of several stamps by one authority it looks at the first that it finds,
// but every time that the bundle proves must lie within the certificate's validity: one that does not says that the key
// signed later. And a log's key counts only while it was the log's, also where the log itself promised no time.
func (v *Verifier) checkTimes(s *statement.Signed, entries []*protorekor.TransparencyLogEntry, signed time.Time) error {
	leaf := s.Certificates()[0]
	valid := statement.Validity{NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}
	for _, response := range s.Timestamps() {
		for _, authority := range v.root.TimestampingAuthorities() {
			if stamp, err := authority.Verify(response, s.Signature()); err == nil && !valid.Contains(stamp.Time) {
				return fmt.Errorf("it was stamped at %s too, outside the certificate's validity", stamp.Time.UTC().Format(time.RFC3339))
			}
		}
	}
	for _, entry := range entries {
		log, known := v.root.RekorLogs()[hex.EncodeToString(entry.GetLogId().GetKeyId())]
		if !known {
			continue
		}
		if signed.Before(log.ValidityPeriodStart) || !log.ValidityPeriodEnd.IsZero() && signed.After(log.ValidityPeriodEnd) {
			return fmt.Errorf("it was signed at %s, when the key was not that of the transparency log %.200q", signed.Format(time.RFC3339), log.BaseURL)
		}
	}
	return nil
}
