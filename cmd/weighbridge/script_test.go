package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/weighbridge/weighbridge/backends/process"
	"github.com/weighbridge/weighbridge/gateway/scrub"
)

func TestMain(m *testing.M) {
	process.Hook()
	scrub.Hook()
	testscript.Main(m, map[string]func(){"weighbridge": main})
}

// TestScripts runs every command as its users meet it.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("WEIGHBRIDGE_LLAMA_SERVER", os.Getenv("WEIGHBRIDGE_LLAMA_SERVER"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"auditlog": auditLog},
	})
}
