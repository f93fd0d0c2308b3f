package tinygguf

// Pieces exposes how a sentence is cut.
func Pieces(sentence string) []string { return pieces(sentence) }
