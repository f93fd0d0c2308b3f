package lanes

// WithoutInstructions makes New do as on a processor without the SHA instructions, until the returned function is called.
func WithoutInstructions() (restore func()) {
	was := accelerated
	accelerated = false
	return func() { accelerated = was }
}
