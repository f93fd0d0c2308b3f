package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weighbridge/weighbridge/verifier/store"
)

func newStateCmd(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "state",
		Short:   "Back up and restore what a gateway must never forget",
		Example: "  weighbridge state backup --state state --out state.json",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newStateBackupCmd(s), newStateRestoreCmd(s))
	return cmd
}

func newStateBackupCmd(s streams) *cobra.Command {
	var dir, out string
	cmd := &cobra.Command{
		Use:   "backup --state DIR --out FILE",
		Short: "Write a state directory into one file; the gateway may run meanwhile",
		Long: `Write what a state directory remembers into one file: accepted epochs, withdrawals, the policy in force. The
gateway may run meanwhile. It holds no secret, but who can replace it can make a restored gateway forget.`,
		Example: "  weighbridge state backup --state state --out state.json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if dir == "" || out == "" {
				return errors.New("state backup: --state and --out are required")
			}
			if err := store.Backup(dir, out); err != nil {
				return err
			}
			fmt.Fprintf(s.err, "weighbridge: state of %s is in %s\n", dir, out)
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "state", "", "state directory, trust.state of the configuration (required)")
	cmd.Flags().StringVar(&out, "out", "", "file to write (required)")
	return cmd
}

func newStateRestoreCmd(s streams) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "restore FILE --state DIR",
		Short: "Make a state directory from a backup, never an older one than is there",
		Long: `Make a state directory from a backup. A state that is there is replaced only by one that remembers no less: no
epoch, withdrawal, policy or time goes back. The gateway must not run on it.`,
		Example: "  weighbridge state restore state.json --state state",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if dir == "" {
				return errors.New("state restore: --state is required")
			}
			err := store.Restore(args[0], dir)
			if errors.Is(err, store.ErrOlder) || errors.Is(err, store.ErrLaterFormat) {
				return refused("state restore", err)
			}
			if err == nil {
				fmt.Fprintf(s.err, "weighbridge: state of %s is in %s\n", args[0], dir)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "state", "", "state directory to make (required)")
	return cmd
}
