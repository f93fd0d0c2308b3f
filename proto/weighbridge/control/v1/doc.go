// Package controlv1 is the operators' contract: see what is served and why.
//
// The one rule: every other file here is generated from control.proto; change that file and generate again.
package controlv1
