// Package inference is the Open Inference Protocol v2, as its public specification has it.
//
// The one rule: every other file here is generated from inference.proto; change that file and generate again.
package inference
