// Package seal keeps verified weights in memory that nothing can change.
//
// The one rule: a [*Weights] exists only if every byte it names was hashed while
// it was copied into a memory file (memfd), matched the approved manifest, and
// that memory file is sealed by the kernel against writing, growing and shrinking.
package seal
