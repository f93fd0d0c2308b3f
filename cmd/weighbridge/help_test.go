package main

import (
	"testing"

	"github.com/spf13/cobra"
)

// TestHelp: whoever asks how a command is used is shown how.
func TestHelp(t *testing.T) {
	var check func(*cobra.Command)
	check = func(cmd *cobra.Command) {
		if cmd.Short == "" || cmd.Example == "" {
			t.Errorf("%s: Short = %q, Example = %q, want both", cmd.CommandPath(), cmd.Short, cmd.Example)
		}
		for _, kid := range cmd.Commands() {
			check(kid)
		}
	}
	check(newRootCmd(streams{}))
}
