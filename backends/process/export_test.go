package process

import "github.com/weighbridge/weighbridge/backends"

// Level exposes the pure part of the sandbox's report.
func Level(landlock int, seccomp bool) backends.Sandbox {
	return sandboxReport{Landlock: landlock, Seccomp: seccomp}.level()
}

// The bounds on output that tests provoke.
const (
	MaxLine  = maxLine
	MaxLines = maxLines
	TailSize = tailSize
)
