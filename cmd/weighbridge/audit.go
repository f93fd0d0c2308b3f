package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
)

func newAuditCmd(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "audit",
		Short:   "Read and verify a gateway's audit log",
		Example: "  weighbridge audit verify state/audit --key audit.pub",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newAuditShowCmd(s), newAuditVerifyCmd(s))
	return cmd
}

// An auditEntry is a record, or why this version can't read it.
type auditEntry struct {
	Index        int64 `json:"index"`
	audit.Record `json:",inline"`
	Error        string `json:"error,omitzero"`
}

// String returns the entry on one line: what is empty is left out.
func (e auditEntry) String() string {
	if e.Error != "" {
		return fmt.Sprintf("%d %s", e.Index, e.Error)
	}
	line := fmt.Sprintf("%d %s %s", e.Index, e.Time.Format("2006-01-02T15:04:05.000Z"), e.Kind)
	for _, field := range []struct{ name, text string }{
		{"channel", e.Channel}, {"release", string(e.Release)}, {"statement", string(e.Statement)}, {"identity", e.Identity},
		{"caller", e.Caller}, {"level", e.Level}, {"rule", e.Rule},
	} {
		if field.text != "" {
			line += " " + field.name + " " + field.text
		}
	}
	if e.Count > 0 {
		line += fmt.Sprintf(" count %d", e.Count)
	}
	if e.Why != "" {
		line += ": " + e.Why
	}
	return line
}

func newAuditShowCmd(s streams) *cobra.Command {
	var asJSON bool
	var from int64
	var only string
	cmd := &cobra.Command{
		Use:   "show DIR",
		Short: "Print the records of an audit log, without verifying them",
		Long: `Print the records of an audit log, one a line. The gateway may run meanwhile. Nothing is verified: that is for
weighbridge audit verify.`,
		Example: `  weighbridge audit show state/audit --from 1000
  weighbridge audit show state/audit --kind withdrawal --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			kind := audit.Kind(only)
			if only != "" && !slices.Contains(audit.Kinds(), kind) {
				return withHint(fmt.Errorf("audit show: --kind %q is not a kind of record", only), "kinds are "+kindList())
			}
			if from < 0 {
				return fmt.Errorf("audit show: --from %d: the first record is 0", from)
			}
			entries := []auditEntry{}
			origin, size, err := audit.Read(args[0], from, func(index int64, entry []byte) error {
				e := auditEntry{Index: index}
				var err error
				if e.Record, err = audit.ParseRecord(entry); err != nil {
					e.Error = fmt.Sprintf("can't be read by this version: %v", err)
				}
				switch {
				case only != "" && e.Kind != kind:
				case asJSON:
					entries = append(entries, e)
				default:
					_, err := fmt.Fprintln(s.out, e)
					return err
				}
				return nil
			})
			if err != nil || !asJSON {
				return err
			}
			return printJSON(s.out, map[string]any{"origin": origin, "size": size, "records": entries})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	cmd.Flags().Int64Var(&from, "from", 0, "index of the first record to print")
	cmd.Flags().StringVar(&only, "kind", "", "print only records of this kind: "+kindList())
	return cmd
}

func kindList() string {
	var names []string
	for _, k := range audit.Kinds() {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

// auditVerifyFlags say whom a log is believed.
type auditVerifyFlags struct {
	key, origin, older string
	json               bool
}

func newAuditVerifyCmd(s streams) *cobra.Command {
	var f auditVerifyFlags
	cmd := &cobra.Command{
		Use:   "verify DIR --key PUB [--checkpoint OLD]",
		Short: "Verify every record of an audit log, offline",
		Long: `Read a whole audit log again and verify that every byte is what its key signed: no record was changed, dropped,
inserted or moved. What is wrong first is named with its file and the index of its record. The gateway may run meanwhile.

The key alone can't show that the end of a log was cut off, or that the log was written anew by who has the key. So keep
a copy of the checkpoint file of each verified log, away from the gateway, and give it as --checkpoint the next time: the
log must then hold all that it held, and more.`,
		Example: `  weighbridge audit verify state/audit --key audit.pub
  weighbridge audit verify state/audit --key audit.pub --checkpoint checkpoint-of-last-week --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return f.run(s, args[0]) },
	}
	cmd.Flags().StringVar(&f.key, "key", "", "the log's public key, Ed25519 (PEM; required)")
	cmd.Flags().StringVar(&f.origin, "origin", "", `the log's origin, "weighbridge/" and a name (default: the one that it claims)`)
	cmd.Flags().StringVar(&f.older, "checkpoint", "", "an older checkpoint of this log, kept somewhere else")
	cmd.Flags().BoolVar(&f.json, "json", false, "print one JSON document, refusals included")
	return cmd
}

func (f *auditVerifyFlags) run(s streams, dir string) error {
	report, err := f.verify(dir)
	if wrong := new(audit.Problem); errors.As(err, &wrong) {
		if f.json {
			if err := printJSON(s.out, map[string]any{
				"verified": false, "size": nil, "root": nil, "problem": wrong.Why, "file": wrong.File, "index": wrong.Index,
			}); err != nil {
				return err
			}
		}
		return refused("audit verify "+dir, err)
	}
	if err != nil {
		return fmt.Errorf("audit verify %s: %w", dir, err)
	}
	if f.json {
		return printJSON(s.out, map[string]any{
			"verified": true, "size": report.Size, "root": report.Root.String(), "problem": nil, "origin": report.Origin,
		})
	}
	_, err = fmt.Fprintf(s.out, "verified %d records of %s, root %s\n", report.Size, report.Origin, report.Root)
	return err
}

func (f *auditVerifyFlags) verify(dir string) (audit.Report, error) {
	if f.key == "" {
		return audit.Report{}, errors.New("--key is required")
	}
	data, err := readFlagFile(f.key, statement.MaxKeyFile)
	if err != nil {
		return audit.Report{}, fmt.Errorf("read public key: %w", err)
	}
	key, err := statement.ParsePublicKey(data)
	if err != nil {
		return audit.Report{}, fmt.Errorf("%s: %w", f.key, err)
	}
	var older []byte
	if f.older != "" {
		if older, err = store.ReadFile(f.older, statement.MaxKeyFile); err != nil {
			return audit.Report{}, fmt.Errorf("read older checkpoint: %w", err)
		}
	}
	origin := f.origin
	if origin == "" {
		if origin, err = audit.Origin(dir); err != nil {
			return audit.Report{}, err
		}
	}
	who, err := audit.NewVerifier(key, origin)
	if err != nil {
		return audit.Report{}, err
	}
	return audit.Verify(dir, who, older)
}
