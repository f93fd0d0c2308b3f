package keylesstest

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/digitorus/timestamp"
	rekortiles "github.com/sigstore/rekor-tiles/v2/pkg/generated/protobuf"
	"github.com/sigstore/sigstore-go/pkg/root"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// Token returns an identity token for an account, which any client takes for one. Its signature is none: the instance
// believes everyone.
func Token(a statement.Account) string {
	claims, err := json.Marshal(map[string]any{"iss": a.Issuer, "email": a.Subject, "email_verified": true, "aud": "sigstore"})
	if err != nil {
		panic("keylesstest: internal error: " + err.Error())
	}
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256"}`))
	return header + "." + base64.RawURLEncoding.EncodeToString(claims) + ".AAAA"
}

// Serve serves the instance over HTTP until the test ends, and returns the signing config by which it is found. It has a
// log of version 2. by changes what it signs; only Without, CA, CT and Change are looked at.
func (i *Instance) Serve(by Signing) (signingConfig []byte) {
	i.t.Helper()
	mux := http.NewServeMux()
	handle := func(path string, status int, answer func(*http.Request, []byte) ([]byte, error)) {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err == nil {
				body, err = answer(r, body)
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			w.WriteHeader(status)
			_, _ = w.Write(body)
		})
	}
	handle("/api/v2/signingCert", http.StatusOK, func(r *http.Request, body []byte) ([]byte, error) { return i.answerCertificate(r, body, by) })
	handle("/api/v2/log/entries", http.StatusCreated, func(_ *http.Request, body []byte) ([]byte, error) {
		var request rekortiles.CreateEntryRequest
		if err := protojson.Unmarshal(body, &request); err != nil {
			return nil, err
		}
		entry := request.GetHashedRekordRequestV002()
		return protojson.Marshal(i.log2(entry.GetDigest(), entry.GetSignature()))
	})
	handle("/api/v1/timestamp", http.StatusCreated, func(_ *http.Request, body []byte) ([]byte, error) {
		request, err := timestamp.ParseRequest(body)
		if err != nil {
			return nil, err
		}
		return i.stampOf(request.HashAlgorithm, request.HashedMessage, request.Nonce, time.Now())
	})
	server := httptest.NewServer(mux)
	i.t.Cleanup(server.Close)
	service := func(path string, version uint32) []root.Service {
		return []root.Service{{URL: server.URL + path, MajorAPIVersion: version, ValidityPeriodStart: start, ValidityPeriodEnd: end, Operator: "example"}}
	}
	anyOf := root.ServiceConfiguration{Selector: 2} // ANY
	config, err := root.NewSigningConfig(root.SigningConfigMediaType02, service("", 1), nil, service("", 2), anyOf, service("/api/v1/timestamp", 1), anyOf)
	i.check(err)
	data, err := config.MarshalJSON()
	i.check(err)
	return data
}

// answerCertificate answers as Fulcio does, for whomever the token names.
func (i *Instance) answerCertificate(r *http.Request, body []byte, by Signing) ([]byte, error) {
	parts := strings.Split(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), ".")
	if len(parts) != 3 {
		return nil, errors.New("no token")
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, err
	}
	var claims struct{ Iss, Email string }
	var request struct {
		PublicKeyRequest struct{ PublicKey struct{ Content string } }
	}
	if err := errors.Join(json.Unmarshal(text, &claims), json.Unmarshal(body, &request)); err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(request.PublicKeyRequest.PublicKey.Content))
	if block == nil {
		return nil, fmt.Errorf("no key in %s", body)
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	by.Account, by.At = statement.Account{Issuer: claims.Iss, Subject: claims.Email}, time.Now()
	leaf := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Issue(pub, by).Raw}))
	return json.Marshal(map[string]any{"signedCertificateEmbeddedSct": map[string]any{"chain": map[string]any{"certificates": []string{leaf}}}})
}
