package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/pflag"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/weighbridge/weighbridge/gateway/client"
	"github.com/weighbridge/weighbridge/gateway/identity"
)

// callerIdentityWait is short: somebody sits there.
const callerIdentityWait = 10 * time.Second

// callerOptions are the flags by which a command that calls a gateway says who it is, and whom it expects.
type callerOptions struct {
	serverID, svid, key, bundle, id string
}

func (o *callerOptions) add(f *pflag.FlagSet) {
	f.StringVar(&o.serverID, "server-id", "", "SPIFFE ID that the server must have (default: any of our trust domain)")
	f.StringVar(&o.svid, "svid", "", "PEM file of our certificate chain, in place of the Workload API")
	f.StringVar(&o.key, "svid-key", "", "PEM file of its key")
	f.StringVar(&o.bundle, "bundle", "", "PEM file of the authorities of our trust domain")
	f.StringVar(&o.id, "id", "", "which of our SPIFFE IDs to use, if the Workload API offers several")
}

// check refuses what can't work before anything is read or dialed.
func (o *callerOptions) check() error {
	files := 0
	for _, f := range []string{o.svid, o.key, o.bundle} {
		if f != "" {
			files++
		}
	}
	if files != 0 && files != 3 {
		return errors.New("--svid, --svid-key and --bundle go together")
	}
	return nil
}

// options are what the flags say.
func (o *callerOptions) options() (out client.Options, err error) {
	out.Identity.Wait = callerIdentityWait
	if o.id != "" {
		if out.Identity.ID, err = spiffeid.FromString(o.id); err != nil {
			return out, fmt.Errorf("--id: %w", err)
		}
	}
	if o.serverID != "" {
		if out.ServerID, err = spiffeid.FromString(o.serverID); err != nil {
			return out, fmt.Errorf("--server-id: %w", err)
		}
	}
	if o.svid != "" {
		out.Identity.Files = &identity.Files{SVID: o.svid, Key: o.key, Bundle: o.bundle}
	} else if os.Getenv("SPIFFE_ENDPOINT_SOCKET") == "" {
		return out, withHint(errors.New("no identity"), "set SPIFFE_ENDPOINT_SOCKET, or give --svid, --svid-key and --bundle")
	}
	return out, nil
}
