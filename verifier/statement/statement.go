// Package statement signs and verifies statements.
//
// The one rule: every statement, weights or release or policy, is an in-toto Statement v1
// in a DSSE envelope in a Sigstore bundle with exactly one signature, and there is one
// way to verify it. No I/O, no clock, no network.
package statement
