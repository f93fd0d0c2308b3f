package gateway

// Visits returns how many requests are in flight.
func (g *Gateway) Visits() int {
	g.visits.mu.Lock()
	defer g.visits.mu.Unlock()
	return len(g.visits.all)
}
