package lanes

import "github.com/klauspost/cpuid/v2"

// accelerated reports whether this processor has the instructions that the assembly uses. Tests set it to see both ways.
var accelerated = cpuid.CPU.Supports(cpuid.SHA, cpuid.SSE4, cpuid.SSSE3)
