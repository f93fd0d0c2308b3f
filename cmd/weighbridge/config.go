package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weighbridge/weighbridge/configs"
)

func newConfigCmd(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "config",
		Short:   "Check a gateway's configuration",
		Example: "  weighbridge config check gateway.yaml",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var asJSON bool
	check := &cobra.Command{
		Use:     "check FILE",
		Short:   "Report every problem of a configuration, each with its key",
		Example: "  weighbridge config check gateway.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			_, err := configs.Load(args[0])
			if unread := new(fs.PathError); errors.As(err, &unread) {
				return fmt.Errorf("config check: %w", err)
			}
			if asJSON {
				problems := []string{}
				if err != nil {
					problems = strings.Split(err.Error(), "\n")
				}
				if err := printJSON(s.out, map[string]any{"valid": err == nil, "problems": problems}); err != nil {
					return err
				}
			}
			if err != nil {
				return refused("config check", err)
			}
			if !asJSON {
				fmt.Fprintf(s.out, "%s: valid\n", args[0])
			}
			return nil
		},
	}
	check.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	cmd.AddCommand(check)
	return cmd
}
