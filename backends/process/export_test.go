package process

import "github.com/weighbridge/weighbridge/backends"

// Level exposes the pure part of the sandbox's report.
func Level(landlock int, seccomp bool) backends.Sandbox {
	return sandboxReport{Landlock: landlock, Seccomp: seccomp}.level()
}

// NetworkLevel is the same of a runtime that has a network: its own, by a user namespace or not, or none for a reason.
func NetworkLevel(userNamespace bool, why string) backends.Sandbox {
	return sandboxReport{Landlock: 7, Seccomp: true, Namespaces: why == "", UserNamespace: userNamespace, NoNamespaces: why}.level()
}

// The bounds on output that tests provoke.
const (
	MaxLine  = maxLine
	MaxLines = maxLines
	TailSize = tailSize
)

// YieldBy and MayRaise are what a child's priority depends on that yields.
const YieldBy = yieldBy

func MayRaise(now int) bool { return mayRaise(now, false) }
