// Package inferencev1 is the callers' contract: ask a channel, and learn which release answered.
//
// The one rule: every other file here is generated from inference.proto; change that file and generate again.
package inferencev1
