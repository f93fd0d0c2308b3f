package control_test

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/gateway/control"
	controlv1 "github.com/weighbridge/weighbridge/proto/weighbridge/control/v1"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// at is a catalog whose snapshot is known.
type at struct {
	fixed
	snapshot catalog.Snapshot
}

func (a at) Snapshot() (catalog.Snapshot, error) { return a.snapshot, nil }

// inputs serves a catalog and asks it for all that it decides by.
func inputs(t *testing.T, c control.Catalog) (all []*controlv1.InputsResponse, err error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "control.sock")
	l, err := control.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	go control.Serve(t.Context(), l, c, nobody{})
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := controlv1.NewControlClient(conn).Inputs(t.Context(), &controlv1.InputsRequest{}, grpc.MaxCallRecvMsgSize(control.MaxAnswer))
	if err != nil {
		t.Fatal(err)
	}
	for {
		one, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return all, err
		}
		all = append(all, one)
	}
}

func TestInputs(t *testing.T) {
	w := trusttest.New(t)
	// As large as the policy file and the floor file may be: they travel in one message.
	policy := bytes.Repeat([]byte(" "), statement.MaxBundle)
	digest := "sha256:" + strings.Repeat("0", 64)
	floor := trust.Floor{PolicyVersion: 3, PolicyDigest: statement.ID(digest), Withdrawn: slices.Repeat([]trust.Withdrawn{{Weights: digest}}, 170_000)}
	// Larger than what gRPC takes by itself.
	large, err := statement.New("urn:test", "", strings.Repeat("0", 64), map[string]string{"shards": strings.Repeat("s", 6<<20)})
	if err != nil {
		t.Fatal(err)
	}
	set := []*statement.Signed{w.Sign(trusttest.Trainer, large), w.Sign(trusttest.Alice, approvalPayload(t))}
	now := time.Unix(1_700_000_000, 123456789)
	all, err := inputs(t, at{snapshot: catalog.Snapshot{Policy: policy, Floor: floor, Statements: set, Time: now}})
	if err != nil || len(all) != 3 {
		t.Fatalf("Inputs = %d messages, %v, want the basis and two statements", len(all), err)
	}
	basis := all[0].GetBasis()
	if !bytes.Equal(basis.GetPolicy(), policy) || !basis.GetTime().AsTime().Equal(now) {
		t.Errorf("basis has a policy of %d bytes and time %s, want %d and %s", len(basis.GetPolicy()), basis.GetTime().AsTime(), len(policy), now)
	}
	if got, err := store.ParseFloor(basis.GetFloor()); err != nil || got.PolicyDigest != floor.PolicyDigest || !slices.Equal(got.Withdrawn, floor.Withdrawn) {
		t.Errorf("floor = version %d, %v, want what the snapshot holds", got.PolicyVersion, err)
	}
	for i, want := range set {
		if !bytes.Equal(all[i+1].GetStatement(), want.Bundle()) {
			t.Errorf("statement %d is not the bundle that lies there", i+1)
		}
	}

	if all, err := inputs(t, fixed{}); status.Code(err) != codes.Unavailable || len(all) != 0 {
		t.Errorf("Inputs before the catalog runs = %d messages, %v, want UNAVAILABLE", len(all), err)
	}
}
