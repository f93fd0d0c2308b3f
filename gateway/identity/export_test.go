package identity

// LastElement is open to the fuzz test.
func LastElement(header string) (map[string][]string, error) { return lastElement(header) }
