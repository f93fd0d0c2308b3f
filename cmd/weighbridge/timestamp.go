package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"time"

	"github.com/digitorus/timestamp"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

const (
	stampTimeout = 30 * time.Second // for a whole request: an authority answers at once or not at all
	maxStamp     = 64 << 10         // bytes of a response, which holds a signature and at most a few certificates
)

// stampFrom asks an RFC 3161 authority for the time of each signature (section 3.4: over HTTP). What it answers is
// checked for being about this signature and this request; who vouches for the authority is the verifiers' matter.
func stampFrom(url string) statement.Stamp {
	return func(signature []byte) ([]byte, error) {
		response, err := requestStamp(url, signature)
		if err != nil {
			return nil, withHint(fmt.Errorf("timestamp by %s: %w", url, err), "nothing was signed; sign without --timestamp-url where no trusted time is needed")
		}
		return response, nil
	}
}

func requestStamp(url string, signature []byte) ([]byte, error) {
	nonce, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(signature)
	query, err := (&timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: sum[:], Certificates: true, Nonce: nonce}).Marshal()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), stampTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(query))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/timestamp-query")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusCreated {
		return nil, fmt.Errorf("it answers %s", res.Status)
	}
	response, err := io.ReadAll(io.LimitReader(res.Body, maxStamp+1))
	if err != nil {
		return nil, err
	}
	if len(response) > maxStamp {
		return nil, fmt.Errorf("it answers with more than %d bytes", maxStamp)
	}
	stamp, err := timestamp.ParseResponse(response)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read its answer: %w", err)
	case !bytes.Equal(stamp.HashedMessage, sum[:]):
		return nil, errors.New("its answer is about something else")
	case stamp.Nonce == nil || stamp.Nonce.Cmp(nonce) != 0:
		return nil, errors.New("its answer is to another request")
	}
	return response, nil
}
