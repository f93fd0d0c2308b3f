package main

import (
	"cmp"
	"fmt"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"

	landlock "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier/digest/lanes"
	"github.com/weighbridge/weighbridge/verifier/hostmem"
	"github.com/weighbridge/weighbridge/verifier/seal"
)

// version and revision can be set by the linker; the Makefile sets revision.
var version, revision = "devel", ""

func newVersionCmd(s streams) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Name the version, the commit and the Go that built it",
		Example: "  weighbridge version --json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version  string `json:"version"`
				Commit   string `json:"commit"`
				Go       string `json:"go"`
				Platform string `json:"platform"`
				// Features are what the kernel here grants to loading and to runtimes.
				Features map[string]string `json:"features"`
			}{version, commit(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, features()}
			if asJSON {
				return printJSON(s.out, v)
			}
			fmt.Fprintf(s.out, "weighbridge %s (commit %s, %s, %s)\n", v.Version, v.Commit, v.Go, v.Platform)
			for _, name := range slices.Sorted(maps.Keys(v.Features)) {
				fmt.Fprintf(s.out, "%s: %s\n", name, v.Features[name])
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

// features are found out by trying them.
func features() map[string]string {
	found := map[string]string{"sealed memory": "yes", "landlock": "none", "kernel": "unknown"}
	if f, err := seal.Bytes("probe", nil); err != nil {
		found["sealed memory"] = "no: " + err.Error()
	} else {
		f.Close()
	}
	found["huge pages for weights"] = "yes"
	hint := hostmem.Here.HugePages().Hint()
	switch {
	case !seal.HugePages():
		found["huge pages for weights"] = "no: " + cmp.Or(hint, "this kernel does not collapse shared memory (Linux 6.1 does)")
	case hint != "":
		found["huge pages for weights"] += ": but " + hint
	}
	if lanes.Width() > 1 {
		found["sha256"] = fmt.Sprintf("%d lanes a core", lanes.Width())
	} else {
		found["sha256"] = "standard library"
	}
	if abi, err := landlock.LandlockGetABIVersion(); err == nil {
		found["landlock"] = fmt.Sprintf("ABI %d", abi)
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		found["kernel"] = unix.ByteSliceToString(name.Release[:])
	}
	return found
}

// commit is the revision the binary was built from, as the linker was told or the Go toolchain recorded it.
func commit() string {
	if revision != "" {
		return revision
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return "unknown"
}
