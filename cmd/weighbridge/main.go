// Command weighbridge is a signed-weight inference gateway: it signs and verifies model weights, decides which release
// each channel may serve, and serves nothing else.
//
// The one rule: a command reports through its error alone. Exit status 0 is done or verified, 1 is refused
// (verification, policy or access said no), 2 is could not run; see [refused].
package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/weighbridge/weighbridge/backends/process"
	"github.com/weighbridge/weighbridge/gateway/scrub"
)

func main() {
	process.Hook() // becomes the sandboxed child, if that is what this process was started for
	scrub.Hook()   // or the process that reads stored weights
	os.Exit(run(os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}))
}

// streams are a command's standard input, output and error.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// run executes one command line and returns the exit status.
func run(args []string, s streams) int {
	root := newRootCmd(s)
	root.SetArgs(args)
	return report(s.err, root.Execute())
}

func newRootCmd(s streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "weighbridge",
		Short: "Serve only model weights that a signed release approved",
		Long: `Weighbridge authenticates callers with SPIFFE mTLS, loads only weights whose signatures
and digests match the approved release, and forwards requests to local runtimes.

Exit status: 0 done or verified, 1 refused, 2 could not run.`,
		Example: `  weighbridge model verify ./model --signature ./model.sig --public-key trainer.pub
  weighbridge serve --config gateway.yaml`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	quiet := root.PersistentFlags().Bool("quiet", false, "print results and errors, no notes")
	notes := streams{s.in, s.out, &muted{s.err, quiet}}
	root.AddCommand(
		newChatCmd(s),
		newProxyCmd(s),
		newIdentityCmd(s),
		newModelCmd(s),
		newServeCmd(s),
		newStatusCmd(notes),
		newSubmitCmd(notes),
		newBundleCmd(notes),
		newStateCmd(notes),
		newAuditCmd(notes),
		newReceiptCmd(notes),
		newWatchCmd(notes),
		newConfigCmd(notes),
		newAccessCmd(notes),
		newKeyCmd(notes),
		newTrustCmd(notes),
		newReleaseCmd(notes),
		newDecideCmd(notes),
		newExplainCmd(notes),
		newWhoCanCmd(notes),
		newImpactCmd(notes),
		newVersionCmd(s),
	)
	return root
}

// muted drops what is written to it once quiet is set. Errors are not written through it: [run] reports them.
type muted struct {
	io.Writer
	quiet *bool
}

// Write implements io.Writer.
func (m *muted) Write(p []byte) (int, error) {
	if *m.quiet {
		return len(p), nil
	}
	return m.Writer.Write(p)
}
